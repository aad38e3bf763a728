"""Answers of a peer that explain themselves by RFC 9457 (application/problem+json), over real sockets."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from regrow.protocol.errors import RateLimited, RegrowError, UpstreamError
from tests.actors.rest.conftest import QUICKLY, Start
from tests.support.http_peer import HttpPeer

PROBLEM = {"Content-Type": "application/problem+json; charset=utf-8"}
NO_CREDIT = {
    "type": "https://example.com/probs/out-of-credit",
    "title": "You do not have enough credit.",
    "status": 403,
    "detail": "Your current balance is 30, but that costs 50.",
    "instance": "/account/12345/msgs/abc",
    "balance": 30,
    "accounts": ["/account/12345", "/account/67890"],
}


def failed(api: Start, **keys: Any) -> RegrowError:
    with pytest.raises(RegrowError) as caught:
        api(auth={"bearer": "${TOKEN}"}, **keys).call("get_user", timeout=5.0, username="ada")
    return caught.value


def test_a_problem_is_told_member_by_member_and_in_its_own_words(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=403, body=json.dumps(NO_CREDIT).encode(), headers=PROBLEM)
    error = failed(api)
    assert isinstance(error, UpstreamError)
    assert (error.status, error.retryable, error.started) == (403, False, "yes")
    assert error.details["problem"] == NO_CREDIT
    assert str(error).endswith(
        "answered 403: You do not have enough credit: Your current balance is 30, but that costs 50"
    )
    msgspec.json.encode(error.to_wire())


def test_the_status_of_the_answer_counts_and_not_that_of_the_document(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=200, json={"login": "ada"})
    http_peer.reply("*", status=503, body=b'{"title": "Busy", "status": 400}', headers=PROBLEM, times=2)
    assert api(retry=QUICKLY).call("get_user", username="ada") == {"login": "ada"}
    assert http_peer.count() == 3


def test_a_spent_limit_explains_itself_too(api: Start, http_peer: HttpPeer) -> None:
    said = {"type": "https://iana.org/assignments/http-problem-types#quota-exceeded", "title": "Quota exceeded"}
    http_peer.reply("*", status=429, body=json.dumps(said).encode(), headers={**PROBLEM, "Retry-After": "60"})
    error = failed(api)
    assert isinstance(error, RateLimited)
    assert (error.details["problem"], error.retry_after_s) == (said, 60.0)
    assert str(error).endswith("come back in 60 s: Quota exceeded")


def test_a_document_without_members_is_about_nothing_but_its_status(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=500, body=b"{}", headers=PROBLEM)
    error = failed(api)
    assert error.details["problem"] == {"type": "about:blank"}
    assert str(error).endswith("answered 500")


def test_members_of_the_wrong_type_count_as_absent(api: Start, http_peer: HttpPeer) -> None:
    said = {"type": 7, "title": ["x"], "status": "403", "detail": None, "instance": {"a": 1}, "kept": True}
    http_peer.reply("*", status=400, body=json.dumps(said).encode(), headers=PROBLEM)
    assert failed(api).details["problem"] == {"type": "about:blank", "kept": True}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[1, 2]",
        b'"a text"',
        b"null",
        b'{"title": ',
        b"\xff\xfe\x00",
        b"[" * 60_000,
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        b'{"title": "' + b"x" * 70_000 + b'"}',
    ],
    ids=["empty", "text", "list", "string", "null", "cut", "binary", "deep-list", "deep-object", "large"],
)
def test_a_document_that_is_none_leaves_an_error_that_its_status_explains(
    api: Start, http_peer: HttpPeer, body: bytes
) -> None:
    http_peer.reply("*", status=502, body=body, headers=PROBLEM)
    error = failed(api)
    assert isinstance(error, UpstreamError)
    assert (error.status, error.retryable) == (502, True)
    assert "problem" not in error.details
    assert len(msgspec.json.encode(error.to_wire())) < 10_000


def test_however_much_a_document_says_what_callers_get_is_bounded(api: Start, http_peer: HttpPeer) -> None:
    deep: Any = 1
    for _ in range(30):
        deep = {"deeper": deep}
    said = {
        "title": "t" * 5000,
        "detail": "d" * 5000,
        "long": "x" * 1000,
        "deep": deep,
        "a name with spaces": 1,
        "n" * 100: 1,
        **{f"more_{number}": number for number in range(100)},
    }
    http_peer.reply("*", status=409, body=json.dumps(said).encode(), headers=PROBLEM)
    error = failed(api)
    problem = error.details["problem"]
    assert len(problem["title"]) == len(problem["detail"]) == 500
    assert set(problem) == {"type", "title", "detail", *(f"more_{number}" for number in range(16))}
    assert len(str(error)) < 500


def test_no_secret_that_a_peer_echoes_is_in_the_error_however_it_is_written(api: Start, http_peer: HttpPeer) -> None:
    token = "tok-secret-0123456789"
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in token)
    given = '"given": ["ESCAPED", {"TOKEN": "TOKEN"}]'
    body = '{"title": "bad token TOKEN", "detail": "ESCAPED", "instance": "/x?key=TOKEN", ' + given + "}"
    http_peer.reply(
        "*",
        status=401,
        body=body.replace("TOKEN", token).replace("ESCAPED", escaped).encode(),
        headers={**PROBLEM, "WWW-Authenticate": f'Bearer error="{token}"', "Location": f"/login?{token}"},
    )
    error = failed(api)
    assert error.details["problem"]["title"] == "bad token ***"
    assert error.details["problem"]["given"] == ["***", {"***": "***"}]
    everything = msgspec.json.encode(error.to_wire()).decode() + repr(error.details) + repr(error)
    assert token not in everything


def test_what_only_looks_like_a_problem_is_a_body_like_any_other(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=403, json=NO_CREDIT)
    error = failed(api)
    assert "problem" not in error.details
    assert error.details["body"] == NO_CREDIT
