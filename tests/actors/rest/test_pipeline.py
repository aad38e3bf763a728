"""The order of a call: limiter, breaker, tries, outcome; with parts killed in the middle of it."""

from __future__ import annotations

import time
from typing import Any

import gevent
import pytest

from actors.resilience.guarded import GIVE_UPS, RETRIES
from regrow.protocol.errors import (
    ActorDown,
    Cancelled,
    CircuitOpen,
    DeadlineExceeded,
    Overloaded,
    RateLimited,
    RegrowError,
    TimedOut,
    Unavailable,
    UpstreamError,
)
from runtime import events, sys
from runtime.names import whereis
from runtime.promise import ActorUnavailable, AskTimeout
from tests.actors.rest.conftest import QUICKLY, Api, Start, outcome
from tests.support.http_peer import HttpPeer, Reply
from tests.support.servers.redis import RedisServer

BREAKER = {"failures": 3, "reset_after": "200ms"}


def fail(api: Api, times: int) -> None:
    for _ in range(times):
        with pytest.raises(RegrowError):
            api.call("get_user", username="ada")


# -- the retries


def test_a_failed_get_is_tried_again_until_it_succeeds(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={"ok": True})
    http_peer.reply("*", status=503, times=2)
    answer = api("tried", retry=QUICKLY).full("get_user", username="ada")
    assert (answer.value, answer.header["tries"]) == ({"ok": True}, 3)
    assert RETRIES.value("tried") == 2


def test_three_retries_are_four_tries_and_no_pause_follows_the_last(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=500)
    made = api("spent", retry={"retries": 3, "base": "50ms", "jitter": 0.0})
    began = time.monotonic()
    with pytest.raises(UpstreamError):
        made.call("get_user", username="ada")
    assert http_peer.count() == 4
    assert 0.35 <= time.monotonic() - began < 0.7
    assert GIVE_UPS.value("spent", "spent") == 1


def test_a_post_is_not_tried_again_once_it_may_have_been_heard(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=503)
    with pytest.raises(UpstreamError):
        api(retry=QUICKLY).call("make_issue", title="x")
    assert http_peer.count() == 1


def test_a_post_is_tried_again_when_it_certainly_never_reached_the_peer(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=201, json={})
    http_peer.stop()
    made = api(retry={"retries": 5, "base": "50ms", "jitter": 0.0})
    call = made.begin("make_issue", title="x")
    gevent.sleep(0.1)
    http_peer.start()
    assert outcome(call) == {}
    assert http_peer.count() == 1


def test_a_post_that_was_refused_for_its_rate_is_tried_again(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=201, json={})
    http_peer.reply("*", status=429, times=1)
    assert api(retry=QUICKLY).call("make_issue", title="x") == {}


def test_a_post_declared_repeatable_is_tried_again(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json=[])
    http_peer.reply("*", status=500, times=1)
    operations = {"search": {"request": "POST /search", "repeatable": True}}
    assert api(retry=QUICKLY, operations=operations).call("search", q="x") == []


def test_put_and_delete_are_tried_again(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    http_peer.reply("PUT /issues/1", status=500, times=1)
    http_peer.reply("DELETE /issues/1", status=500, times=1)
    made = api(retry=QUICKLY)
    assert [made.call("put_issue", number=1, title="x"), made.call("remove", number=1)] == [{}, {}]


def test_an_idempotency_key_is_made_before_the_first_try_and_kept_over_all(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=201, json={"id": 1})
    http_peer.reply("*", status=500, times=2)
    made = api(retry=QUICKLY, idempotency={})
    assert made.call("make_issue", amount=5) == {"id": 1}
    keys = [request.headers["idempotency-key"] for request in http_peer.requests]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    made.call("make_issue", amount=5)
    assert http_peer.requests[-1].headers["idempotency-key"] != keys[0]


def test_a_key_that_the_caller_brings_is_used_and_not_sent_as_an_argument(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    api(idempotency={}).call("make_issue", amount=5, idempotency_key="order-17")
    assert http_peer.requests[0].headers["idempotency-key"] == "order-17"
    assert http_peer.requests[0].json() == {"amount": 5}


def test_a_429_is_obeyed_within_the_deadline(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={"ok": True})
    http_peer.reply("*", status=429, headers={"Retry-After": "1"}, times=1)
    began = time.monotonic()
    assert api(retry=QUICKLY).call("get_user", username="ada") == {"ok": True}
    assert time.monotonic() - began >= 1.0


def test_a_429_that_ends_after_the_deadline_is_answered_at_once(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=429, headers={"Retry-After": "60"})
    began = time.monotonic()
    with pytest.raises(RateLimited) as caught:
        api(retry=QUICKLY).call("get_user", username="ada")
    assert caught.value.retry_after_s == 60.0
    assert time.monotonic() - began < 1.0


def test_a_429_that_no_waiting_clears_is_not_tried_again(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=429, json={"error": {"code": "credit_balance_exhausted"}})
    with pytest.raises(RateLimited) as caught:
        api(retry=QUICKLY).call("get_user", username="ada")
    assert (caught.value.retryable, http_peer.count()) == (False, 1)


def test_an_outage_is_not_multiplied_by_retries(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=500)
    made = api("thrifty", breaker={"failures": 10_000}, retry={"retries": 3, "base": "1ms", "max": "1ms"})
    fail(made, 100)
    assert 100 + 20 <= http_peer.count() <= 100 + 20 + 15
    assert GIVE_UPS.value("thrifty", "budget") > 50


def test_with_a_limit_for_each_try_a_hanging_one_leaves_time_for_the_next(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={"ok": True})
    http_peer.reply("*", hold=True, times=1)
    made = api(retry=QUICKLY, try_timeout="100ms", timeout="5s")
    assert made.call("get_user", username="ada") == {"ok": True}
    http_peer.release()


# -- the total time


def test_all_tries_and_pauses_of_a_call_together_end_at_its_total_time(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=503, delay_s=0.03)
    made = api(timeout="400ms", retry={"retries": 100, "base": "20ms", "max": "20ms", "budget": 100.0})
    began = time.monotonic()
    with pytest.raises((UpstreamError, TimedOut)):
        made.call("get_user", username="ada", timeout=5.0)
    assert 0.25 < time.monotonic() - began < 0.8
    assert http_peer.count() > 2


def test_the_time_that_a_call_waits_for_a_worker_counts_too(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    http_peer.reply("GET /users/slow", delay_s=0.3)
    made = api(timeout="450ms", concurrency=1, breaker={"failures": 100})
    first, second = (made.begin("get_user", username="slow", timeout=5.0) for _ in range(2))
    began = time.monotonic()
    assert isinstance(outcome(second), TimedOut)
    assert time.monotonic() - began < 0.8
    assert first.error is None


# -- the breaker


def test_failures_open_the_circuit_and_the_peer_is_left_alone(
    api: Start, http_peer: HttpPeer, heard: list[events.Event]
) -> None:
    http_peer.reply("*", status=500)
    made = api(breaker={"failures": 3})
    fail(made, 3)
    began = time.monotonic()
    with pytest.raises(CircuitOpen) as caught:
        made.call("get_user", username="ada")
    assert time.monotonic() - began < 0.2
    assert 25 < (caught.value.retry_after_s or 0) <= 30
    assert http_peer.count() == 3
    assert made.front.actor.status()["circuit"] == "open"
    assert "breaker.opened" in [event.topic for event in heard]


def test_calls_that_the_circuit_refuses_spend_nothing_of_the_rate_limit(
    api: Start, http_peer: HttpPeer, redis: RedisServer
) -> None:
    http_peer.reply("*", status=500)
    limit = {"requests": 5, "window": "1h"}
    for number, url in enumerate((None, redis.url)):
        made = api(f"frugal{number}", breaker={"failures": 2}, rate_limit=limit, redis_url=url)
        fail(made, 2)
        for _ in range(20):
            with pytest.raises(CircuitOpen):
                made.call("get_user", username="ada")
        made.part("breaker").call("reset")
        fail(made, 2)
    assert http_peer.count() == 8


def test_an_open_circuit_refuses_at_once_also_while_the_rate_limit_is_spent(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=500)
    made = api(breaker={"failures": 2}, rate_limit={"requests": 2, "window": "20s"})
    fail(made, 2)
    began = time.monotonic()
    with pytest.raises(CircuitOpen):
        made.call("get_user", username="ada")
    assert time.monotonic() - began < 0.2


def test_after_recovery_the_next_call_works_without_a_restart(api: Start, http_peer: HttpPeer) -> None:
    http_peer.stop()
    made = api(breaker=BREAKER)
    fail(made, 3)
    http_peer.start()
    http_peer.reply("*", json={"ok": True})
    gevent.sleep(0.25)
    assert made.call("get_user", username="ada") == {"ok": True}
    assert made.front.actor.status()["circuit"] == "closed"


def test_no_try_is_burnt_on_an_open_circuit_and_the_answer_is_what_really_happened(
    api: Start, http_peer: HttpPeer
) -> None:
    http_peer.reply("*", status=500)
    made = api("unburnt", breaker={"failures": 2}, retry={"retries": 9, "base": "1ms"})
    with pytest.raises(UpstreamError) as caught:
        made.call("get_user", username="ada")
    assert http_peer.count() == 2
    assert 25 < (caught.value.retry_after_s or 0) <= 30
    assert GIVE_UPS.value("unburnt", "refused") == 1


def test_wrong_requests_do_not_open_the_circuit(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=404)
    made = api(breaker={"failures": 1})
    fail(made, 5)
    assert http_peer.count() == 5


def test_callers_with_tiny_deadlines_do_not_open_the_circuit(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    http_peer.reply("GET /users/slow", delay_s=0.15)
    made = api(breaker={"failures": 1})
    for _ in range(3):
        with pytest.raises(DeadlineExceeded):
            made.call("get_user", username="slow", timeout=0.05)
    assert made.call("get_user", username="ada") == {}


def test_a_peer_that_hangs_beyond_patience_opens_it_whatever_the_deadlines(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", hold=True)
    made = api(breaker={"failures": 1, "patience": "50ms"})
    with pytest.raises(DeadlineExceeded):
        made.call("get_user", username="ada", timeout=0.15)
    gevent.sleep(0.05)
    with pytest.raises(CircuitOpen):
        made.call("get_user", username="ada")
    http_peer.release()


def test_the_circuits_opening_refuses_at_once_all_who_wait_for_a_worker(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /users/hang", hold=True)
    http_peer.reply("GET /users/bad", status=500)
    made = api(breaker={"failures": 1}, concurrency=2)
    hanging = made.begin("get_user", username="hang")
    http_peer.wait_for_requests(1)
    bad = made.begin("get_user", username="bad")
    waiting = [made.begin("get_user", username="ada") for _ in range(5)]
    assert isinstance(outcome(bad), UpstreamError)
    began = time.monotonic()
    assert [type(outcome(each)) for each in waiting] == [CircuitOpen] * 5
    assert time.monotonic() - began < 0.5
    assert not hanging.done
    hanging.cancel()
    http_peer.release()


def test_a_hundred_callers_at_a_half_open_circuit_send_one_request(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=500)
    made = api(breaker=BREAKER, concurrency=100)
    fail(made, 3)
    http_peer.forget()
    http_peer.reply("*", json={}, hold=True)
    gevent.sleep(0.25)
    calls = [made.begin("get_user", username="ada") for _ in range(100)]
    gevent.sleep(0.2)
    assert http_peer.count() == 1
    http_peer.release()
    outcomes = [outcome(call) for call in calls]
    assert outcomes.count({}) == 1
    assert sum(isinstance(each, CircuitOpen) for each in outcomes) == 99


# -- the limiter


def test_the_limit_holds_and_a_call_that_cannot_be_served_in_time_is_refused_at_once(
    api: Start, http_peer: HttpPeer
) -> None:
    http_peer.reply("*", json={})
    made = api(rate_limit={"requests": 3, "window": "1h"})
    for _ in range(3):
        made.call("get_user", username="ada")
    began = time.monotonic()
    with pytest.raises(RateLimited) as caught:
        made.call("get_user", username="ada")
    assert time.monotonic() - began < 0.2
    assert caught.value.started == "no"
    assert (caught.value.retry_after_s or 0) > 3000
    assert http_peer.count() == 3


def test_a_call_whose_token_comes_in_time_waits_for_it(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    made = api(rate_limit={"requests": 1, "window": "200ms"})
    began = time.monotonic()
    for _ in range(3):
        made.call("get_user", username="ada")
    assert time.monotonic() - began >= 0.4


def test_what_the_peer_says_is_left_is_obeyed(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={}, headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1800"})
    made = api(rate_limit={"requests": 5000, "window": "1h", "header": "X-RateLimit-Remaining"})
    made.call("get_user", username="ada")
    gevent.sleep(0.05)
    with pytest.raises(RateLimited) as caught:
        made.call("get_user", username="ada")
    assert caught.value.started == "no"
    assert (caught.value.retry_after_s or 0) == pytest.approx(1800, abs=5)
    assert http_peer.count() == 1


def test_a_retry_after_holds_for_every_caller(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    http_peer.reply("*", status=429, headers={"Retry-After": "120"}, times=1)
    made = api()
    for _ in range(2):
        with pytest.raises(RateLimited):
            made.call("get_user", username="ada")
        gevent.sleep(0.05)
    assert http_peer.count() == 1


# -- bulkhead, deadlines, cancelling


def test_calls_beyond_the_concurrency_wait_in_order_and_those_beyond_the_queue_are_refused(
    api: Start, http_peer: HttpPeer
) -> None:
    http_peer.reply("*", json={}, hold=True)
    made = api(concurrency=2, queue=3)
    calls = [made.begin("get_user", username=str(number)) for number in range(7)]
    http_peer.wait_for_requests(2)
    refused = [outcome(call) for call in calls[5:]]
    assert [type(error) for error in refused] == [Overloaded] * 2
    assert made.front.actor.status()["waiting"] == 3
    http_peer.release()
    assert [outcome(call) for call in calls[:5]] == [{}] * 5
    assert [request.path[-1] for request in http_peer.requests[2:]] == ["2", "3", "4"]


def test_callers_that_gave_up_leave_their_places_in_the_queue(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={}, hold=True)
    made = api(concurrency=1, queue=1)
    running = made.begin("get_user", username="a")
    http_peer.wait_for_requests(1)
    made.begin("get_user", username="b").cancel()
    patient = made.begin("get_user", username="c")
    http_peer.release()
    assert [outcome(running), outcome(patient)] == [{}, {}]
    assert [request.path for request in http_peer.requests] == ["/users/a", "/users/c"]


def test_the_front_answers_while_every_worker_is_busy(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={}, hold=True)
    made = api(concurrency=1)
    running = made.begin("get_user", username="a")
    http_peer.wait_for_requests(1)
    with pytest.raises(RegrowError):
        made.call("no_such_operation", timeout=0.5)
    http_peer.release()
    assert outcome(running) == {}


def test_at_its_deadline_the_caller_is_answered_and_the_worker_is_free_again(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /users/slow", hold=True)
    http_peer.reply("GET /users/ada", json={})
    made = api(concurrency=1)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        made.call("get_user", username="slow", timeout=0.1)
    assert made.call("get_user", username="ada", timeout=0.5) == {}
    assert time.monotonic() - began < 0.5
    http_peer.release()


def test_a_call_that_ends_before_it_is_sent_is_told_that_it_never_started(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", hold=True)
    made = api(concurrency=1)
    sent = made.begin("get_user", username="a")
    http_peer.wait_for_requests(1)
    late = made.begin("get_user", username="b", timeout=0.05)
    queued = made.begin("get_user", username="c")
    expired = outcome(late)
    assert (type(expired), expired.started) == (AskTimeout, "no")
    made.front.kill()
    lost, never_sent = outcome(sent), outcome(queued)
    assert (isinstance(lost, ActorDown), lost.started) == (True, "yes")
    assert (isinstance(never_sent, Unavailable), never_sent.started) == (True, "no")
    assert http_peer.count() == 1
    http_peer.release()


def test_a_cancelled_call_stops_its_request_and_frees_its_worker(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /users/slow", hold=True)
    http_peer.reply("GET /users/ada", json={})
    made = api(concurrency=1)
    slow = made.begin("get_user", username="slow")
    http_peer.wait_for_requests(1)
    slow.cancel()
    assert isinstance(outcome(slow), Cancelled)
    assert made.call("get_user", username="ada", timeout=1.0) == {}
    http_peer.release()


def test_a_cancelled_call_stops_waiting_between_two_tries(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /users/bad", status=500)
    http_peer.reply("GET /users/ada", json={})
    made = api(concurrency=1, retry={"retries": 3, "base": "5s"})
    bad = made.begin("get_user", username="bad")
    http_peer.wait_for_requests(1)
    gevent.sleep(0.05)
    bad.cancel()
    assert made.call("get_user", username="ada", timeout=1.0) == {}


def test_waiting_for_a_worker_counts_in_the_integrations_own_time_limit(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", hold=True)
    made = api(concurrency=1, timeout="200ms")
    calls = [made.begin("get_user", username=str(number)) for number in range(2)]
    began = time.monotonic()
    assert isinstance(outcome(calls[0]), TimedOut)
    assert isinstance(outcome(calls[1]), TimedOut | DeadlineExceeded)
    assert time.monotonic() - began < 0.6
    http_peer.release()


# -- parts that die


@pytest.mark.parametrize("part", ["limiter", "breaker", "cache"])
def test_a_part_killed_during_a_call_fails_no_call(api: Start, http_peer: HttpPeer, part: str) -> None:
    http_peer.reply("*", json={"ok": True}, hold=True)
    made = api(cache="1m")
    calls = [made.begin("get_user", username=str(number)) for number in range(5)]
    http_peer.wait_for_requests(5)
    made.part(part).kill()
    http_peer.release()
    assert [outcome(call) for call in calls] == [{"ok": True}] * 5
    assert made.call("get_user", username="again") == {"ok": True}


@pytest.mark.parametrize("part", ["limiter", "breaker", "cache"])
def test_parts_killed_again_and_again_fail_no_call(api: Start, http_peer: HttpPeer, part: str) -> None:
    http_peer.reply("*", json={"ok": True}, delay_s=0.01)
    made = api(concurrency=5)
    calls = [made.begin("get_user", username=str(number)) for number in range(60)]
    for _ in range(10):
        ref = whereis(f"api/{part}")
        if ref is not None:
            ref.kill()
        gevent.sleep(0.01)
    assert [outcome(call) for call in calls] == [{"ok": True}] * 60


def test_a_limiter_killed_while_calls_wait_for_it_fails_none_of_them(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    made = api(rate_limit={"requests": 2, "window": "300ms"})
    calls = [made.begin("get_user", username=str(number)) for number in range(4)]
    http_peer.wait_for_requests(2)
    made.part("limiter").kill()
    assert [outcome(call) for call in calls] == [{}] * 4
    first, *_, last = (request.at for request in http_peer.requests)
    assert last - first >= 0.29


def test_a_breaker_killed_while_open_is_open_when_it_is_back(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=500)
    made = api(breaker={"failures": 1})
    fail(made, 1)
    made.part("breaker").kill()
    with pytest.raises(CircuitOpen):
        made.call("get_user", username="ada")
    # The front remembers what it was told; a new one knows the circuit from the breaker alone.
    made.part("breaker").kill()
    made.part("").kill()
    with pytest.raises(CircuitOpen):
        made.call("get_user", username="ada")
    assert http_peer.count() == 1


def test_a_worker_killed_during_a_call_answers_it_actor_down_and_the_next_call_works(
    api: Start, http_peer: HttpPeer
) -> None:
    http_peer.reply("*", json={}, hold=True)
    made = api(concurrency=1)
    call = made.begin("get_user", username="a")
    waiting = made.begin("get_user", username="b")
    http_peer.wait_for_requests(1)
    made.part("worker-1").kill()
    error = outcome(call)
    assert isinstance(error, ActorDown)
    assert error.started == "yes"
    http_peer.release()
    assert outcome(waiting) == {}


def test_an_idle_worker_killed_is_replaced_before_it_is_needed(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    made = api(concurrency=1)
    made.part("worker-1").kill()
    assert made.call("get_user", username="a") == {}


def test_what_a_killed_front_said_was_never_started_is_not_sent_after_all(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    made = api(concurrency=1)
    limiter = made.part("limiter")
    sys.suspend(limiter)
    call = made.begin("make_issue", title="x")
    gevent.sleep(0.01)
    # A new front would stop the worker: what counts is the time until it is there.
    sys.suspend(made.supervisor)
    made.front.kill()
    error = outcome(call)
    assert (type(error), error.started) == (ActorUnavailable, "no")
    sys.resume(limiter)
    gevent.sleep(0.05)
    sys.resume(made.supervisor)
    assert http_peer.count() == 0
    assert made.call("get_user", username="ada") == {}


def test_a_front_killed_with_calls_under_way_answers_them_and_its_workers_stop(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /users/slow", hold=True)
    http_peer.reply("GET /users/ada", json={})
    made = api(concurrency=1)
    call = made.begin("get_user", username="slow")
    http_peer.wait_for_requests(1)
    made.front.kill()
    assert isinstance(outcome(call), ActorDown)
    assert made.call("get_user", username="ada", timeout=2.0) == {}
    http_peer.release()


def test_stopping_the_tree_with_calls_under_way_answers_every_one(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", hold=True)
    made = api(concurrency=2)
    calls = [made.begin("get_user", username=str(number)) for number in range(5)]
    http_peer.wait_for_requests(2)
    began = time.monotonic()
    made.supervisor.stop()
    assert time.monotonic() - began < 0.5
    assert [type(outcome(call)) for call in calls] == [Cancelled] * 2 + [Unavailable] * 3
    http_peer.release()


def test_a_call_whose_worker_is_killed_before_it_began_goes_to_another_one(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={"ok": True})
    made = api(concurrency=1)
    sys.suspend(made.part("worker-1"))
    call = made.begin("make_issue", title="x")
    gevent.sleep(0.02)
    made.part("worker-1").kill()
    assert outcome(call) == {"ok": True}
    assert http_peer.count() == 1


def test_a_thousand_calls_with_random_kills_each_get_one_answer(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", handler=lambda request: Reply(json={"path": request.path}, delay_s=0.002))
    made = api(concurrency=10, queue=1000, retry=QUICKLY)
    calls = [made.begin("get_user", username=str(number), timeout=20.0) for number in range(1000)]
    parts = ["limiter", "breaker", "cache", "worker-1", "worker-5", "worker-10"]
    for number in range(60):
        ref = whereis(f"api/{parts[number % len(parts)]}")
        if ref is not None:
            ref.kill()
        gevent.sleep(0.003)
    outcomes = [outcome(call) for call in calls]
    for number, each in enumerate(outcomes):
        assert each == {"path": f"/users/{number}"} or isinstance(each, ActorDown)
    assert sum(isinstance(each, ActorDown) for each in outcomes) <= 60
    assert made.call("get_user", username="after") == {"path": "/users/after"}
    assert made.front.actor.status()["running"] == 0


@pytest.mark.parametrize(
    ("breaker", "reply", "opens"),
    [
        ({}, {"status": 429}, False),
        ({"count": [429]}, {"status": 429}, True),
        ({"count": ["rate_limited"]}, {"status": 429}, True),
        ({"count": [401]}, {"status": 401}, True),
        ({}, {"status": 501}, True),
        ({"ignore": [501]}, {"status": 501}, False),
        ({"ignore": ["upstream_error"]}, {"status": 500}, False),
        ({"ignore": [501]}, {"status": 500}, True),
        ({"ignore": ["upstream_error"], "count": [500]}, {"status": 500}, True),
        ({"ignore": ["timeout"]}, {"hold": True}, False),
        ({}, {"hold": True}, True),
    ],
)
def test_the_configuration_says_which_errors_count(
    api: Start, http_peer: HttpPeer, breaker: dict[str, object], reply: dict[str, Any], opens: bool
) -> None:
    http_peer.reply("*", **reply)
    made = api(breaker={"failures": 2, **breaker}, try_timeout="50ms")
    fail(made, 2)
    gevent.sleep(0.02)
    assert (made.part("breaker").actor.status()["circuit"] == "open") == opens
    http_peer.release()


def test_a_limiter_killed_while_its_bucket_is_spent_costs_no_call_and_lets_none_more_go(
    api: Start, http_peer: HttpPeer
) -> None:
    http_peer.reply("*", json={})
    made = api(rate_limit={"requests": 1, "window": "1h", "algorithm": "token_bucket", "burst": 3})
    for _ in range(3):
        made.call("get_user", username="ada")
    made.part("limiter").kill()
    with pytest.raises(RateLimited):
        made.call("get_user", username="ada")
    assert http_peer.count() == 3


@pytest.mark.parametrize(
    "headers",
    [
        {"RateLimit": '"default";r=0;t=3600', "RateLimit-Policy": '"default";q=60;w=3600'},
        {"RateLimit-Limit": "60", "RateLimit-Remaining": "0", "RateLimit-Reset": "3600"},
    ],
    ids=["field", "triple"],
)
def test_what_the_standard_fields_say_is_left_holds_without_any_configuration(
    api: Start, http_peer: HttpPeer, headers: dict[str, str]
) -> None:
    http_peer.reply("*", json={}, headers=headers)
    made = api()
    made.call("get_user", username="ada")
    gevent.sleep(0.02)
    with pytest.raises(RateLimited) as caught:
        made.call("get_user", username="ada")
    assert caught.value.retry_after_s == pytest.approx(3600, abs=5)
    assert http_peer.count() == 1
