"""What the peer says about keeping an answer counts before the configuration's time (RFC 9111)."""

from __future__ import annotations

from collections.abc import Iterator
from email.utils import formatdate

import pytest

from regrow.protocol.errors import ConnectionFailed
from regrow.testing.clock import ManualClock
from tests.actors.rest.conftest import Start, outcome
from tests.support.http_peer import HttpPeer, Reply
from tests.support.http_peer import Request as Arrived

CACHED = {
    "get_user": {"request": "GET /users/{username}", "cache": "5m"},
    "localized": {"request": "GET /users/{username}", "cache": "5m", "headers": {"language": "Accept-Language"}},
    "own": {"request": "GET /users/{username}", "cache": "5m", "headers": {"token": "Authorization"}},
    "change": {"request": "PATCH /users/{username}"},
}


@pytest.fixture
def manual() -> Iterator[ManualClock]:
    with ManualClock() as clock:
        yield clock


def says(clock: ManualClock, control: str | None = None, **headers: str) -> dict[str, str]:
    said = {"Date": formatdate(clock.wall(), usegmt=True), **headers}
    return said if control is None else {**said, "Cache-Control": control}


@pytest.mark.parametrize(("control", "fresh_s"), [(None, 300), ("max-age=60", 60), ("private, max-age=900", 900)])
def test_the_peers_word_counts_before_the_configured_time(
    manual: ManualClock, api: Start, http_peer: HttpPeer, control: str | None, fresh_s: float
) -> None:
    http_peer.reply("*", json={}, headers=says(manual, control))
    made = api(operations=CACHED)
    made.call("get_user", username="ada")
    manual.advance(fresh_s - 2)
    made.call("get_user", username="ada")
    assert http_peer.count() == 1
    manual.advance(3)
    made.call("get_user", username="ada")
    assert http_peer.count() == 2


@pytest.mark.parametrize("headers", [{"Cache-Control": "no-store"}, {"Vary": "*"}])
def test_what_may_not_be_kept_is_not_even_there_to_stand_in(
    manual: ManualClock, api: Start, http_peer: HttpPeer, headers: dict[str, str]
) -> None:
    http_peer.reply("*", json={}, headers=says(manual, **headers))
    made = api(operations=CACHED, fallback="cache")
    made.call("get_user", username="ada")
    http_peer.stop()
    with pytest.raises(ConnectionFailed):
        made.call("get_user", username="ada")


def test_a_stale_answer_is_asked_about_and_a_304_makes_it_fresh_again(
    manual: ManualClock, api: Start, http_peer: HttpPeer
) -> None:
    http_peer.reply("*", json={"login": "ada"}, headers=says(manual, "max-age=60", ETag='"v1"'))
    made = api(operations=CACHED)
    made.call("get_user", username="ada")
    manual.advance(61)
    http_peer.reply("*", status=304, headers=says(manual, "max-age=60", ETag='"v1"'))
    answer = made.full("get_user", username="ada")
    assert answer.value == {"login": "ada"}
    assert (answer.header["cache"], answer.header["status"], answer.header["headers"]["etag"]) == (
        "revalidated", 200, '"v1"',
    )  # fmt: skip
    assert http_peer.requests[1].headers["if-none-match"] == '"v1"'
    manual.advance(30)
    assert made.full("get_user", username="ada").header["cache"] == "fresh"
    assert http_peer.count() == 2


def test_a_304_about_another_answer_than_the_kept_one_is_not_believed(
    manual: ManualClock, api: Start, http_peer: HttpPeer
) -> None:
    def answer(request: Arrived) -> Reply:
        if "if-none-match" in request.headers:
            return Reply(status=304, headers=says(manual, ETag='"v2"'))
        return Reply(json={"asked": len(http_peer.requests)}, headers=says(manual, "max-age=60", ETag='"v1"'))

    http_peer.reply("*", handler=answer)
    made = api(operations=CACHED)
    made.call("get_user", username="ada")
    manual.advance(61)
    assert made.call("get_user", username="ada") == {"asked": 3}


def test_what_was_changed_is_asked_for_again(manual: ManualClock, api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={}, headers=says(manual))
    made = api(operations=CACHED)
    for name in ("ada", "bob"):
        made.call("get_user", username=name)
    made.call("change", username="ada", bio="x")
    made.call("get_user", username="ada")
    made.call("get_user", username="bob")
    assert http_peer.count("GET /users/ada") == 2
    assert http_peer.count("GET /users/bob") == 1


def test_an_answer_from_before_a_change_that_comes_after_it_is_not_kept(
    manual: ManualClock, api: Start, http_peer: HttpPeer
) -> None:
    http_peer.reply("*", json="new", headers=says(manual))
    http_peer.reply("GET /users/ada", json="old", headers=says(manual), hold=True, times=1)
    made = api(operations=CACHED)
    slow = made.begin("get_user", username="ada", timeout=60.0)
    http_peer.wait_for_requests(1)
    manual.advance(1)
    made.call("change", username="ada", bio="x")
    http_peer.release()
    assert outcome(slow) == "old"
    assert [made.call("get_user", username="ada") for _ in range(2)] == ["new"] * 2
    assert http_peer.count("GET /users/ada") == 2


def test_answers_that_differ_by_a_callers_header_are_kept_apart(
    manual: ManualClock, api: Start, http_peer: HttpPeer
) -> None:
    http_peer.reply("*", handler=lambda r: Reply(json=r.headers["accept-language"], headers=says(manual, Vary="X")))
    made = api(operations=CACHED)
    assert [made.call("localized", username="ada", language=each) for each in ("de", "en", "de")] == ["de", "en", "de"]
    assert http_peer.count() == 2


def test_answers_that_differ_by_the_order_of_one_arguments_values_are_kept_apart(
    api: Start, http_peer: HttpPeer
) -> None:
    http_peer.reply("*", handler=lambda request: Reply(json=request.query_string))
    made = api(operations=CACHED)
    orders = [["name", "age"], ["age", "name"]]
    for _ in range(2):
        answers = [made.call("get_user", username="ada", sort=order) for order in orders]
        assert answers == ["sort=name&sort=age", "sort=age&sort=name"]
    made.call("get_user", username="ada", page=1, sort="age")
    made.call("get_user", username="ada", sort="age", page=1)
    assert http_peer.count() == 3


@pytest.mark.parametrize(
    ("control", "asked"), [(None, 2), ("max-age=60", 2), ("private, max-age=60", 2), ("public", 1)]
)
def test_an_answer_to_a_callers_own_credentials_is_kept_only_when_the_peer_says_it_is_for_everybody(
    manual: ManualClock, api: Start, http_peer: HttpPeer, control: str | None, asked: int
) -> None:
    http_peer.reply("*", json={}, headers=says(manual, control))
    made = api(operations=CACHED)
    for _ in range(2):
        made.call("own", username="ada", token="Bearer of-a-caller")
    assert http_peer.count() == asked


@pytest.mark.parametrize(
    ("control", "after_s", "stands_in"),
    [
        ("max-age=60", 3600, True),
        ("max-age=60, stale-if-error=120", 100, True),
        ("max-age=60, stale-if-error=120", 300, False),
        ("max-age=60, must-revalidate", 61, False),
        ("no-cache", 1, False),
    ],
)
def test_how_long_an_answer_stands_in_is_the_peers_to_say(
    manual: ManualClock, api: Start, http_peer: HttpPeer, control: str, after_s: float, stands_in: bool
) -> None:
    http_peer.reply("*", json={}, headers=says(manual, control))
    made = api(operations=CACHED, fallback="cache")
    made.call("get_user", username="ada")
    manual.advance(after_s)
    http_peer.stop()
    if stands_in:
        assert made.full("get_user", username="ada").header["cache"] == "stale"
    else:
        with pytest.raises(ConnectionFailed):
            made.call("get_user", username="ada")


def test_with_peer_alone_an_answer_that_says_nothing_is_not_used_again(
    manual: ManualClock, api: Start, http_peer: HttpPeer
) -> None:
    http_peer.reply("*", json={}, headers=says(manual))
    made = api(operations={"get": {"request": "GET /x", "cache": "peer"}})
    for _ in range(2):
        made.call("get")
    assert http_peer.count() == 2
