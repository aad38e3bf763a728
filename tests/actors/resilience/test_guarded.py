"""Any function, tried again and guarded by a circuit: the loop of tries from code, without any integration."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import requests

from actors.resilience.breaker import Breaker, CircuitTable
from actors.resilience.guarded import GIVE_UPS, Guarded
from actors.resilience.policy import BreakerPolicy, RetryPolicy
from config.schema import PositiveDuration
from regrow.protocol.errors import (
    CircuitOpen,
    ConnectionFailed,
    RateLimited,
    RegrowError,
    Started,
    TimedOut,
    UpstreamError,
)
from regrow.resilience import normalise
from regrow.testing.clock import ManualClock
from runtime import clock
from tests.actors.resilience.conftest import Supervised
from tests.support.http_peer import HttpPeer


class Peer:
    """A function that fails as it is told to, and counts its calls."""

    def __init__(self, *failures: RegrowError) -> None:
        self.failures = list(failures)
        self.calls = 0

    def __call__(self, _current: object) -> str:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return "done"


def limited(times: int) -> list[RegrowError]:
    return [RateLimited(started="yes") for _ in range(times)]


def policy(tries: int, base: str = "1ms") -> RetryPolicy:
    return RetryPolicy(retries=tries - 1, base=PositiveDuration(base), max=PositiveDuration("10s"), jitter=0.0)


def run(retry: RetryPolicy, perform: Callable[[Any], str], *, breaker: str | None = None) -> str:
    guarded = Guarded("svc", retry=retry, limiter=None, breaker=breaker, patience_s=5.0)
    ends = clock.now() + 60.0
    return guarded.run(perform, deadline=ends, ends=ends, repeatable=lambda _: True)


def test_what_goes_well_at_once_is_called_once() -> None:
    peer = Peer()
    assert (run(policy(3), peer), peer.calls) == ("done", 1)


def test_what_is_limited_until_the_third_try_is_called_three_times() -> None:
    peer = Peer(*limited(2))
    assert (run(policy(5), peer), peer.calls) == ("done", 3)


def test_what_times_out_once_is_called_twice() -> None:
    peer = Peer(TimedOut("too slow"))
    assert (run(policy(3), peer), peer.calls) == ("done", 2)


def test_what_is_always_limited_is_given_up_after_its_tries_with_its_own_failure() -> None:
    spent = GIVE_UPS.value("svc", "spent")
    peer = Peer(*limited(10))
    with pytest.raises(RateLimited):
        run(policy(3), peer)
    assert peer.calls == 3
    assert GIVE_UPS.value("svc", "spent") == spent + 1


@pytest.mark.parametrize("heard", ["unknown", "yes"])
def test_a_last_try_that_reached_nobody_does_not_undo_what_an_earlier_one_may_have_done(heard: Started) -> None:
    peer = Peer(ConnectionFailed(started="no"), TimedOut(started=heard), ConnectionFailed(started="no"))
    with pytest.raises(ConnectionFailed) as caught:
        run(policy(3), peer)
    assert (peer.calls, caught.value.started) == (3, heard)


def test_of_tries_that_all_reached_nobody_nothing_was_started() -> None:
    peer = Peer(*[ConnectionFailed(started="no") for _ in range(3)])
    with pytest.raises(ConnectionFailed) as caught:
        run(policy(3), peer)
    assert (peer.calls, caught.value.started) == (3, "no")


def test_what_cannot_get_better_is_not_called_again() -> None:
    peer = Peer(UpstreamError(status=404, retryable=False))
    with pytest.raises(UpstreamError):
        run(policy(3), peer)
    assert peer.calls == 1


def test_three_tries_from_a_hundred_milliseconds_on_take_three_hundred_and_none_after_the_last() -> None:
    began = time.monotonic()
    with pytest.raises(RateLimited):
        run(policy(3, "100ms"), Peer(*limited(3)))
    assert 0.3 <= time.monotonic() - began < 0.6


RULES = BreakerPolicy(failures=5, window=PositiveDuration("1m"), reset_after=PositiveDuration("50ms"))


@pytest.fixture
def circuit(manual: ManualClock, supervised: Supervised) -> str:
    supervised("svc/breaker", Breaker, "svc", RULES, CircuitTable())
    return "svc/breaker"


def fail(circuit: str, times: int) -> Peer:
    peer = Peer(*[UpstreamError(status=500) for _ in range(times)])
    for _ in range(times):
        with pytest.raises(UpstreamError):
            run(policy(1), peer, breaker=circuit)
    return peer


def test_a_closed_circuit_lets_calls_pass(circuit: str) -> None:
    assert run(policy(1), Peer(), breaker=circuit) == "done"


def test_five_failures_open_the_circuit_and_the_next_call_does_not_happen(circuit: str) -> None:
    fail(circuit, 5)
    peer = Peer()
    with pytest.raises(CircuitOpen) as refused:
        run(policy(5), peer, breaker=circuit)
    assert (peer.calls, refused.value.started, refused.value.retryable) == (0, "no", True)


def test_after_its_time_a_call_that_goes_well_closes_the_circuit(circuit: str, manual: ManualClock) -> None:
    fail(circuit, 5)
    manual.advance(0.1)
    for _ in range(3):
        assert run(policy(1), Peer(), breaker=circuit) == "done"
    fail(circuit, 4)
    assert run(policy(1), Peer(), breaker=circuit) == "done"


def test_failures_that_are_apart_by_more_than_the_window_leave_it_closed(circuit: str, manual: ManualClock) -> None:
    fail(circuit, 3)
    assert run(policy(1), Peer(), breaker=circuit) == "done"
    manual.advance(61)
    fail(circuit, 4)
    assert run(policy(1), Peer(), breaker=circuit) == "done"


def test_no_try_follows_once_the_circuit_has_opened_and_the_failure_is_that_of_the_last_try(
    supervised: Supervised,
) -> None:
    rules = BreakerPolicy(failures=2, reset_after=PositiveDuration("30s"))
    supervised("svc/breaker", Breaker, "svc", rules, CircuitTable())
    peer = Peer(*[UpstreamError(status=503) for _ in range(20)])
    with pytest.raises(UpstreamError) as caught:
        run(policy(10), peer, breaker="svc/breaker")
    assert peer.calls == 2
    assert caught.value.retry_after_s == pytest.approx(30, abs=1)


def test_a_call_of_some_library_is_tried_again_once_its_failure_is_a_typed_error(http_peer: HttpPeer) -> None:
    http_peer.reply("GET /", body=b"well")
    http_peer.reply("GET /", status=503, times=2)

    def fetch(_current: object) -> str:
        try:
            answer = requests.get(http_peer.url, timeout=5)
            answer.raise_for_status()
        except requests.RequestException as error:
            raise normalise(error, "svc.fetch") from error
        return answer.text

    assert run(policy(3), fetch) == "well"
    assert http_peer.count() == 3
