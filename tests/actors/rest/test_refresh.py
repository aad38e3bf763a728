"""Stale answers that are used at once while a newer one is asked for (RFC 5861), and those a peer lets stand in."""

from __future__ import annotations

from collections.abc import Iterator
from email.utils import formatdate

import gevent
import pytest

from actors.http.front import REFRESHES
from regrow.protocol.errors import UpstreamError
from regrow.testing.clock import ManualClock
from tests.actors.rest.conftest import Api, Start
from tests.support.http_peer import HttpPeer, Reply
from tests.support.http_peer import Request as Arrived

TTL = {"get_user": {"request": "GET /users/{username}", "cache": "1m", "stale_while_revalidate": "10m"}}
PEER = {"get_user": {"request": "GET /users/{username}", "cache": "peer"}}


@pytest.fixture
def manual() -> Iterator[ManualClock]:
    with ManualClock() as clock:
        yield clock


@pytest.fixture
def counting(manual: ManualClock, http_peer: HttpPeer) -> HttpPeer:
    """A peer whose answers are numbered, and which says nothing about keeping them."""
    return numbered(http_peer, manual)


def numbered(peer: HttpPeer, clock: ManualClock, control: str | None = None) -> HttpPeer:
    def answer(_: Arrived) -> Reply:
        headers = {"Date": formatdate(clock.wall(), usegmt=True)} | ({"Cache-Control": control} if control else {})
        return Reply(json=len(peer.requests), headers=headers)

    peer.reply("*", handler=answer)
    return peer


def idle(made: Api) -> None:
    """Return when nothing is under way any more."""
    for _ in range(2000):
        if made.front.actor.status()["running"] == 0:
            return
        gevent.sleep(0.001)
    raise AssertionError("calls still run")


def asked(made: Api) -> tuple[object, str]:
    answer = made.full("get_user", username="ada")
    return answer.value, answer.header.get("cache", "")


def test_a_stale_answer_is_given_at_once_and_renewed_behind_it(
    manual: ManualClock, api: Start, counting: HttpPeer
) -> None:
    made = api("renewed", operations=TTL)
    assert asked(made) == (1, "")
    manual.advance(61)
    assert asked(made) == (1, "stale")
    idle(made)
    assert asked(made) == (2, "fresh")
    assert counting.count() == 2
    assert REFRESHES.value("renewed", "done") == 1


def test_a_thousand_callers_of_a_stale_answer_send_one_request(
    manual: ManualClock, api: Start, counting: HttpPeer
) -> None:
    made = api(operations=TTL)
    asked(made)
    manual.advance(61)
    counting.reply("*", json=2, hold=True, headers={"Date": formatdate(manual.wall(), usegmt=True)})
    calls = [made.begin("get_user", username="ada") for _ in range(1000)]
    assert {call.wait(5.0).value for call in calls} == {1}
    counting.wait_for_requests(2)
    counting.release()
    idle(made)
    assert counting.count() == 2


def test_after_that_time_the_caller_waits_for_a_new_answer(manual: ManualClock, api: Start, counting: HttpPeer) -> None:
    made = api(operations=TTL)
    asked(made)
    manual.advance(661)
    assert asked(made) == (2, "")


def test_a_renewal_that_fails_leaves_the_stale_answer_and_another_follows_only_after_a_pause(
    manual: ManualClock, api: Start, counting: HttpPeer
) -> None:
    made = api("unrenewed", operations=TTL)
    asked(made)
    manual.advance(61)
    counting.reply("*", status=500)
    for _ in range(3):
        assert asked(made) == (1, "stale")
        idle(made)
    assert counting.count() == 2
    manual.advance(1.5)
    assert asked(made) == (1, "stale")
    idle(made)
    assert counting.count() == 3
    assert REFRESHES.value("unrenewed", "failed") == 2


def test_renewals_count_in_the_breaker_and_an_open_circuit_lets_none_go(
    manual: ManualClock, api: Start, counting: HttpPeer
) -> None:
    made = api(operations=TTL, breaker={"failures": 1, "reset_after": "5m"})
    asked(made)
    manual.advance(61)
    counting.reply("*", status=500)
    asked(made)
    idle(made)
    assert made.front.actor.status()["circuit"] == "open"
    manual.advance(5)
    assert asked(made) == (1, "stale")
    idle(made)
    assert counting.count() == 2


def test_a_renewal_ends_with_the_time_limit_of_its_operation(api: Start, http_peer: HttpPeer) -> None:
    table = {
        "get_user": {
            "request": "GET /users/{username}", "cache": "20ms", "stale_while_revalidate": "10m", "timeout": "100ms",
        }
    }  # fmt: skip
    http_peer.reply("*", json=1)
    made = api("limited", operations=table)
    asked(made)
    gevent.sleep(0.03)
    http_peer.reply("*", hold=True)
    assert asked(made) == (1, "stale")
    idle(made)
    assert REFRESHES.value("limited", "failed") == 1


def test_no_renewal_takes_the_place_of_a_caller_who_waits(manual: ManualClock, api: Start, counting: HttpPeer) -> None:
    made = api(operations={**TTL, "slow": {"request": "GET /slow"}}, concurrency=1)
    asked(made)
    manual.advance(61)
    counting.reply("GET /slow", json={}, hold=True)
    slow = made.begin("slow")
    counting.wait_for_requests(2)
    assert asked(made) == (1, "stale")
    counting.release()
    slow.wait(5.0)
    idle(made)
    assert counting.count("GET /users/ada") == 1


def test_a_renewal_asks_whether_the_kept_answer_still_holds(
    manual: ManualClock, api: Start, http_peer: HttpPeer
) -> None:
    headers = {"ETag": '"v1"', "Date": formatdate(manual.wall(), usegmt=True)}
    http_peer.reply("*", json="kept", headers=headers)
    made = api(operations=TTL)
    asked(made)
    manual.advance(61)
    http_peer.reply("*", status=304, headers={"ETag": '"v1"'})
    assert asked(made) == ("kept", "stale")
    idle(made)
    assert http_peer.requests[1].headers["if-none-match"] == '"v1"'
    assert asked(made) == ("kept", "fresh")


@pytest.mark.parametrize(
    ("control", "after_s", "cached"),
    [
        ("max-age=60, stale-while-revalidate=120", 100, "stale"),
        ("max-age=60, stale-while-revalidate=120", 181, ""),
        ("max-age=60", 61, ""),
        ("max-age=60, stale-while-revalidate=120, must-revalidate", 61, ""),
        ("no-cache, stale-while-revalidate=120", 1, ""),
    ],
)
def test_what_the_peer_says_about_it_counts(
    manual: ManualClock, api: Start, http_peer: HttpPeer, control: str, after_s: float, cached: str
) -> None:
    numbered(http_peer, manual, control)
    made = api(operations=PEER)
    asked(made)
    manual.advance(after_s)
    assert asked(made)[1] == cached
    idle(made)


def test_the_configured_time_counts_only_where_the_peer_does_not_say_how_long_an_answer_is_fresh(
    manual: ManualClock, api: Start, http_peer: HttpPeer
) -> None:
    numbered(http_peer, manual, "max-age=60")
    made = api(operations=TTL)
    asked(made)
    manual.advance(61)
    assert asked(made) == (2, "")


def test_an_answer_whose_peer_says_so_stands_in_without_any_configured_fallback(
    manual: ManualClock, api: Start, http_peer: HttpPeer
) -> None:
    numbered(http_peer, manual, "max-age=60, stale-if-error=300")
    made = api(operations=PEER)
    asked(made)
    manual.advance(100)
    http_peer.reply("*", status=503)
    answer = made.full("get_user", username="ada")
    assert (answer.value, answer.header["cache"], answer.header["error"]) == (1, "stale", "upstream_error")
    manual.advance(300)
    with pytest.raises(UpstreamError):
        made.call("get_user", username="ada")


def test_an_answer_whose_peer_says_nothing_stands_in_only_where_the_configuration_says_so(
    manual: ManualClock, api: Start, http_peer: HttpPeer
) -> None:
    numbered(http_peer, manual, "max-age=60")
    made = api(operations=PEER)
    asked(made)
    manual.advance(61)
    http_peer.reply("*", status=503)
    with pytest.raises(UpstreamError):
        made.call("get_user", username="ada")
