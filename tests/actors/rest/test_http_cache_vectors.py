"""The suite of the HTTP working group's cache tests, over a real socket, with time in the test's hands.

All its required tests run, but for those of `NOT_OURS`, each with its reason. Interim answers are for the connection
and have no place in a reply, so of these only that they change nothing is checked. The cache is the shared kind,
because callers of this operation may bring credentials of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from email.utils import formatdate
from typing import Any

import pytest

from regrow.protocol.errors import RegrowError
from regrow.testing.clock import ManualClock
from runtime.messages import WithHeader
from tests.actors.rest.conftest import Api, Start
from tests.support.http_peer import HttpPeer, Reply
from tests.support.http_peer import Request as Arrived
from tests.support.vectors import needs_vectors, vectors

CASES = vectors("http-cache/cases.jsonl")
REQUIRED = [case for case in CASES if case.get("kind", "required") == "required"]

_CDN = "CDN-Cache-Control speaks to content delivery networks"
_CONDITIONS = "a caller's own conditional request is passed on and not answered here"
_PARTS = "parts of an answer (Range) are passed on and not cut out of a kept answer"
NOT_OURS = {
    "cdn-max-age-0-expires": _CDN,
    "cdn-max-age-long-cc-max-age": _CDN,
    "cdn-private": _CDN,
    "cdn-no-cache": _CDN,
    "cdn-fresh-cc-nostore": _CDN,
    "cdn-cc-invalid-sh-type-wrong": _CDN,
    "conditional-304-etag": _CONDITIONS,
    "conditional-etag-precedence": _CONDITIONS,
    "partial-use-headers": _PARTS,
    "partial-use-stored-headers": _PARTS,
}
PAUSE_S = 3.0
DATES = {"date", "expires", "last-modified", "if-modified-since"}


def argument(header: str) -> str:
    return "h_" + header.lower().replace("-", "_")


def header_names() -> list[str]:
    said = {name for case in CASES for request in case["requests"] for name, *_ in request.get("request_headers", ())}
    return sorted({name.lower() for name in said} | {"authorization"})


class Script:
    """Answers the requests of one case as its server would."""

    def __init__(self, clock: ManualClock, case: dict[str, Any]) -> None:
        self.clock = clock
        self.case = case
        self.at = 0
        self.arrived: list[Arrived] = []
        self.last: dict[str, str] = {}

    def lines(self, fields: list[list[Any]]) -> list[tuple[str, str]]:
        found = []
        for name, value, *_ in fields:
            if isinstance(value, int) and name.lower() in DATES:
                value = formatdate(self.clock.wall() + value, usegmt=True)  # noqa: PLW2901
            found.append((name, str(value)))
        return found

    def answer(self, request: Arrived) -> Reply:
        self.arrived.append(request)
        said = self.case["requests"][self.at]
        if said.get("disconnect"):
            return Reply(reset=True)
        lines = self.lines(said.get("response_headers", []))
        status, phrase = said.get("response_status") or (200, "OK")
        if str(said.get("expected_type")).endswith("validated") and self.holds(request):
            status, phrase = 304, "Not Modified"
        self.last = {name.lower(): value for name, value in lines}
        body = (said.get("response_body") or f"answer {len(self.arrived)}").encode()
        names = {name.lower() for name, _ in lines}
        if "date" not in names:
            lines.append(("Date", formatdate(self.clock.wall(), usegmt=True)))
        if status == 304:
            body = b""
        elif "content-length" not in names:
            lines.append(("Content-Length", str(len(body))))
        else:
            body = body.ljust(int(self.last["content-length"]))[: int(self.last["content-length"])]
        head = "".join(f"{name}: {value}\r\n" for name, value in lines)
        before = b"".join(self.interim(*each) for each in said.get("interim_responses", ()))
        return Reply(raw=before + f"HTTP/1.1 {status} {phrase}\r\n{head}\r\n".encode() + body)

    def interim(self, status: int, fields: Sequence[list[Any]] = ()) -> bytes:
        head = "".join(f"{name}: {value}\r\n" for name, value in self.lines(list(fields)))
        return f"HTTP/1.1 {status} Interim\r\n{head}\r\n".encode()

    def holds(self, request: Arrived) -> bool:
        tag, since = request.headers.get("if-none-match"), request.headers.get("if-modified-since")
        return bool((tag and tag == self.last.get("etag")) or (since and since == self.last.get("last-modified")))


@pytest.fixture
def manual() -> Iterator[ManualClock]:
    with ManualClock() as clock:
        yield clock


@pytest.fixture
def keeping(api: Start) -> Api:
    carried = {argument(name): name for name in header_names()}
    shown = {name.lower() for case in CASES for request in case["requests"] for name in _expected(request)}
    operations = {
        method.lower(): {"request": f"{method} /{{id}}", "headers": carried, "format": "text"}
        | ({"cache": "peer", "fallback": "cache"} if method == "GET" else {})
        for method in ("GET", "PUT", "POST", "DELETE")
    }
    return api(
        operations=operations, reply_headers=sorted(shown | {"age"}), max_redirects=0, breaker={"failures": 1000}
    )


def _expected(request: dict[str, Any]) -> list[str]:
    wanted = [name for name, *_ in request.get("expected_response_headers", ()) if isinstance(name, str)]
    return wanted + [each[0] for each in request.get("expected_response_headers_missing", ()) if isinstance(each, list)]


def walk(made: Api, peer: HttpPeer, clock: ManualClock, case: dict[str, Any]) -> None:
    script = Script(clock, case)
    peer.reply("*", handler=script.answer)
    for script.at, request in enumerate(case["requests"]):
        before = len(script.arrived)
        args: dict[str, Any] = {
            argument(name): value for name, value in script.lines(request.get("request_headers", []))
        }
        answer: WithHeader | None = None
        try:
            answer = made.full(request.get("request_method", "GET").lower(), id=case["id"], **args)
        except RegrowError:
            assert "expected_status" in request or request.get("response_status", [200])[0] >= 300
        check(script, request, answer, script.arrived[before:])
        if request.get("pause_after"):
            clock.advance(PAUSE_S)


def check(script: Script, request: dict[str, Any], answer: WithHeader | None, sent: list[Arrived]) -> None:
    expected = request.get("expected_type")
    if request.get("expected_status", 200) is None:
        assert answer is None, "a stale answer was used where it must not be"
    if expected == "cached":
        assert sent == [], "the kept answer was not used"
    elif expected is not None:
        assert len(sent) == 1, "a kept answer was used"
        if expected.endswith("validated"):
            asked = "if-none-match" if expected == "etag_validated" else "if-modified-since"
            assert asked in sent[0].headers
            assert answer is not None and answer.header["cache"] == "revalidated"
    if answer is None:
        return
    told = answer.header["headers"]
    for name, *rest in request.get("expected_response_headers", ()):
        if rest[0] == ">":
            assert int(told[name.lower()]) > rest[1]
        else:
            ((_, value),) = script.lines([[name, rest[0]]])
            if isinstance(rest[0], int):
                assert name.lower() in told
            else:
                assert told[name.lower()] == value
    for missing in request.get("expected_response_headers_missing", ()):
        if isinstance(missing, list):
            assert missing[0].lower() not in told


@needs_vectors
@pytest.mark.parametrize("case", [each for each in REQUIRED if each["id"] not in NOT_OURS], ids=lambda case: case["id"])
def test_what_the_suite_requires(manual: ManualClock, keeping: Api, http_peer: HttpPeer, case: dict[str, Any]) -> None:
    walk(keeping, http_peer, manual, case)


@needs_vectors
def test_the_coverage_is_as_stated() -> None:
    assert {case["id"] for case in REQUIRED} >= NOT_OURS.keys()
    assert (len(REQUIRED), len(NOT_OURS)) == (105, 10)
