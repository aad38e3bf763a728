"""Kept answers, and what stands in while the peer is unavailable."""

from __future__ import annotations

import time

import gevent
import pytest

from actors.http.front import FALLBACKS, REFUSED
from actors.resilience.cache import LOOKUPS
from regrow.protocol.errors import (
    ActorDown,
    CircuitOpen,
    ConnectionFailed,
    InvalidArguments,
    Overloaded,
    UpstreamError,
)
from tests.actors.rest.conftest import Start, outcome
from tests.support.http_peer import HttpPeer

CACHED = {"get_user": {"request": "GET /users/{username}", "cache": "5m"}}


def test_an_answer_is_used_again_while_it_is_fresh(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={"login": "ada"}, headers={"ETag": "e"})
    made = api("kept", operations=CACHED)
    made.call("get_user", username="ada")
    again = made.full("get_user", username="ada")
    assert again.value == {"login": "ada"}
    assert (again.header["cache"], again.header["status"], again.header["headers"]["etag"]) == ("fresh", 200, "e")
    assert http_peer.count() == 1
    assert [LOOKUPS.value("kept", word) for word in ("miss", "fresh", "stale")] == [1, 1, 0]


def test_other_arguments_are_another_answer_whatever_their_order(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    made = api(operations=CACHED)
    made.call("get_user", username="ada", page=1, size=2)
    made.call("get_user", username="ada", size=2, page=1)
    made.call("get_user", username="ada", page=2, size=2)
    assert http_peer.count() == 2


def test_after_its_time_an_answer_is_asked_for_again(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    made = api(operations={"get_user": {"request": "GET /users/{username}", "cache": "50ms"}})
    made.call("get_user", username="ada")
    gevent.sleep(0.06)
    made.call("get_user", username="ada")
    assert http_peer.count() == 2


def test_the_integrations_own_time_holds_for_operations_that_name_none(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    operations = {"a": {"request": "GET /a"}, "limits": {"request": "GET /limits", "cache": "0s"}}
    made = api(cache="15m", operations=operations)
    for name in ("a", "a", "limits", "limits"):
        made.call(name)
    assert [http_peer.count("GET /a"), http_peer.count("GET /limits")] == [1, 2]


def test_a_thousand_callers_at_a_cold_cache_send_one_request(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={"login": "ada"}, hold=True)
    made = api(operations=CACHED)
    calls = [made.begin("get_user", username="ada") for _ in range(1000)]
    gevent.sleep(0.1)
    assert made.front.actor.status()["waiting"] == 999
    http_peer.release()
    assert [outcome(call) for call in calls] == [{"login": "ada"}] * 1000
    assert http_peer.count() == 1
    assert made.front.actor.status()["waiting"] == 0


def test_callers_who_wait_for_the_same_answer_are_bounded(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={}, hold=True)
    made = api("crowd", operations=CACHED, queue=3)
    calls = [made.begin("get_user", username="ada") for _ in range(6)]
    http_peer.wait_for_requests(1)
    http_peer.release()
    outcomes = [outcome(call) for call in calls]
    assert [type(each) for each in outcomes] == [dict] * 4 + [Overloaded] * 2
    assert REFUSED.value("crowd") == 2


def test_when_the_one_who_asks_fails_those_who_wait_for_the_answer_hear_the_same(
    api: Start, http_peer: HttpPeer
) -> None:
    http_peer.reply("*", status=500, hold=True)
    made = api(operations=CACHED)
    calls = [made.begin("get_user", username="ada") for _ in range(20)]
    http_peer.wait_for_requests(1)
    http_peer.release()
    assert [type(outcome(call)) for call in calls] == [UpstreamError] * 20
    assert http_peer.count() == 1


def test_when_the_one_who_asks_gives_up_another_asks_for_those_who_wait(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={"login": "ada"})
    http_peer.reply("*", hold=True, times=1)
    made = api(operations=CACHED)
    first = made.begin("get_user", username="ada")
    others = [made.begin("get_user", username="ada") for _ in range(3)]
    http_peer.wait_for_requests(1)
    first.cancel()
    assert [outcome(call) for call in others] == [{"login": "ada"}] * 3
    http_peer.release()


def test_the_death_of_the_worker_that_asks_loses_nobody_who_waits(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={"login": "ada"})
    http_peer.reply("*", hold=True, times=1)
    made = api(operations=CACHED, concurrency=1)
    first = made.begin("get_user", username="ada")
    others = [made.begin("get_user", username="ada") for _ in range(3)]
    http_peer.wait_for_requests(1)
    made.part("worker-1").kill()
    assert isinstance(outcome(first), ActorDown)
    assert [outcome(call) for call in others] == [{"login": "ada"}] * 3
    assert http_peer.count() == 2
    http_peer.release()


def test_one_who_gives_up_while_it_waits_for_a_worker_leaves_nobody_waiting(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={"login": "ada"})
    http_peer.reply("GET /users/slow", hold=True)
    made = api(operations=CACHED, concurrency=1)
    slow = made.begin("get_user", username="slow")
    http_peer.wait_for_requests(1)
    first = made.begin("get_user", username="ada")
    other = made.begin("get_user", username="ada")
    first.cancel()
    http_peer.release()
    assert outcome(other) == {"login": "ada"}
    outcome(slow)
    assert made.call("get_user", username="ada") == {"login": "ada"}


def test_errors_are_not_kept(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={"ok": True})
    http_peer.reply("*", status=404, times=1)
    made = api(operations=CACHED)
    with pytest.raises(UpstreamError):
        made.call("get_user", username="ada")
    assert made.call("get_user", username="ada") == {"ok": True}


def test_callers_cannot_change_what_is_kept(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={"list": [1]})
    made = api(operations=CACHED)
    made.call("get_user", username="ada")["list"].append(2)
    made.call("get_user", username="ada")["list"].append(3)
    assert made.call("get_user", username="ada") == {"list": [1]}


def test_kept_answers_survive_the_cache_actor(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    made = api(operations=CACHED)
    made.call("get_user", username="ada")
    made.part("cache").kill()
    made.part("cache")
    made.call("get_user", username="ada")
    assert http_peer.count() == 1


def test_kept_answers_are_bounded(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", body=b"x" * 1000)
    made = api(operations=CACHED, cache_size="10KiB")
    for number in range(50):
        made.call("get_user", username=str(number))
    status = made.part("cache").actor.status()
    assert status["bytes"] <= 10 * 1024
    assert status["evicted"] > 0


def test_an_operator_can_empty_the_cache(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    made = api(operations=CACHED)
    made.call("get_user", username="ada")
    assert made.part("cache").call("clear") == 1
    made.call("get_user", username="ada")
    assert http_peer.count() == 2


def test_an_older_answer_stands_in_while_the_peer_is_down(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={"temp": 20})
    made = api("standing", fallback="cache")
    made.call("get_user", username="ada")
    http_peer.stop()
    answer = made.full("get_user", username="ada")
    assert answer.value == {"temp": 20}
    assert answer.header["cache"] == "stale"
    assert (answer.header["fallback"], answer.header["error"]) == ("cache", "connection_error")
    assert answer.header["age_ms"] >= 0
    assert FALLBACKS.value("standing", "cache") == 1


def test_an_older_answer_stands_in_while_the_circuit_is_open(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={"temp": 20})
    made = api(fallback="cache", breaker={"failures": 1})
    made.call("get_user", username="ada")
    http_peer.stop()
    made.call("get_user", username="ada")
    assert made.full("get_user", username="ada").header["error"] == "circuit_open"
    with pytest.raises(CircuitOpen):
        made.call("get_user", username="never asked for before")


def test_a_caller_with_a_short_deadline_gets_what_stands_in_before_it_passes(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={"temp": 20})
    made = api(fallback="cache")
    made.call("get_user", username="ada")
    http_peer.reply("*", hold=True)
    began = time.monotonic()
    assert made.call("get_user", username="ada", timeout=0.4) == {"temp": 20}
    assert time.monotonic() - began < 0.4
    http_peer.release()


def test_an_answer_too_old_to_stand_in_does_not(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    made = api(fallback="cache", max_stale="50ms")
    made.call("get_user", username="ada")
    http_peer.stop()
    gevent.sleep(0.06)
    with pytest.raises(ConnectionFailed):
        made.call("get_user", username="ada")


def test_a_wrong_request_is_not_stood_in_for(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    made = api(fallback="cache")
    made.call("get_user", username="ada")
    http_peer.reply("*", status=404)
    with pytest.raises(UpstreamError):
        made.call("get_user", username="ada")
    with pytest.raises(InvalidArguments):
        made.call("get_user")


def test_a_fixed_answer_stands_in_for_reading_but_never_pretends_that_something_was_written(
    api: Start, http_peer: HttpPeer
) -> None:
    http_peer.stop()
    made = api("fixed", fallback={"default": {"status": "unavailable"}})
    answer = made.full("get_user", username="ada")
    assert answer.value == {"status": "unavailable"}
    assert answer.header == {"fallback": "default", "error": "connection_error"}
    with pytest.raises(ConnectionFailed):
        made.call("make_issue", title="x")
    assert FALLBACKS.value("fixed", "default") == 1


def test_a_writing_operation_may_say_itself_what_stands_in(api: Start, http_peer: HttpPeer) -> None:
    http_peer.stop()
    operation = {"request": "POST /queue", "fallback": {"default": {"queued": False}}}
    assert api(operations={"push": operation}).call("push", x=1) == {"queued": False}


def test_the_fixed_answer_cannot_be_changed_by_a_caller(api: Start, http_peer: HttpPeer) -> None:
    http_peer.stop()
    made = api(fallback={"default": {"items": []}})
    made.call("get_user", username="ada")["items"].append(1)
    assert made.call("get_user", username="ada") == {"items": []}
