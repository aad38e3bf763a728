"""A pool behind its limiter and its breaker: real processes, real parts, under one supervisor."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from actors.integrations.python import RateLimit
from actors.resilience.limiter import DECISIONS
from actors.resilience.policy import BreakerPolicy
from config.schema import PositiveDuration
from regrow.protocol.errors import ActorDown, Cancelled, CircuitOpen, DeadlineExceeded, ExecutionError, RateLimited
from runtime import clock
from runtime.messages import Call
from runtime.names import whereis
from runtime.promise import ClientPromise
from tests.actors.workers.conftest import PATIENCE_S, EventLog, RunningPool

StartPool = Callable[..., RunningPool]
HOUR = PositiveDuration("1h")


def kill_part(name: str) -> None:
    part = whereis(name)
    assert part is not None
    part.kill()


def breaker(failures: int = 2, reset_after: str = "1h") -> BreakerPolicy:
    return BreakerPolicy(failures=failures, reset_after=PositiveDuration(reset_after))


def test_the_parts_start_before_the_workers_and_the_front(pool: StartPool) -> None:
    running = pool(rate_limit=RateLimit(requests=1, window=HOUR), breaker=breaker())
    names = [spec.name for spec in running.plan.children]
    assert names == ["ml/limiter", "ml/breaker", "ml/worker-1", "ml"]


def test_a_call_over_the_rate_is_refused_at_once_and_never_starts(pool: StartPool) -> None:
    running = pool(rate_limit=RateLimit(requests=2, window=HOUR))
    assert [running.call("faulty:add", 1, number) for number in (1, 2)] == [2, 3]
    began = clock.now()
    with pytest.raises(RateLimited) as caught:
        running.call("faulty:add", 1, 1)
    assert clock.now() - began < 2.0
    assert caught.value.started == "no"
    assert caught.value.retry_after_s == pytest.approx(3600, abs=60)


def test_a_call_waits_for_its_turn_when_it_comes_before_the_deadline(pool: StartPool) -> None:
    running = pool(rate_limit=RateLimit(requests=1, window=PositiveDuration("300ms")))
    began = clock.now()
    assert [running.call("faulty:add", 1, number) for number in (1, 2)] == [2, 3]
    assert clock.now() - began >= 0.3


@pytest.mark.parametrize("method", ["call", "stream"])
def test_clients_wait_for_the_limiter_in_turns(pool: StartPool, method: str) -> None:
    running = pool(rate_limit=RateLimit(requests=1, window=PositiveDuration("100ms")))
    order: list[str] = []
    promises = []
    for asked in ("greedy 1", "greedy 2", "greedy 3", "greedy 4", "modest 1"):
        promise = ClientPromise(asked.split()[0], deadline=clock.now() + PATIENCE_S)
        promise.callback = lambda _, asked=asked: order.append(asked)
        running.front.request(Call(method, running.body("faulty:add", 1, 1)), promise)
        promises.append(promise)
    for promise in promises:
        promise.wait(PATIENCE_S)
    assert order.index("modest 1") < order.index("greedy 3")


def test_who_gives_up_while_waiting_for_the_limiter_never_starts(pool: StartPool) -> None:
    running = pool(rate_limit=RateLimit(requests=1, window=PositiveDuration("10s")))
    running.call("faulty:add", 1, 1)
    expired = DECISIONS.value("ml", "expired")
    promise = running.request("faulty:add", 1, 1)
    running.front.call("release", {"function": "faulty:add"})
    promise.cancel()
    with pytest.raises(Cancelled) as caught:
        promise.wait(PATIENCE_S)
    assert caught.value.started == "no"
    with pytest.raises(RateLimited):
        running.call("faulty:add", 1, 1, timeout=1.0)
    assert DECISIONS.value("ml", "expired") == expired + 1


def test_a_limiter_that_crashed_fails_no_call(pool: StartPool) -> None:
    running = pool(rate_limit=RateLimit(requests=1000, window=HOUR))
    running.call("faulty:add", 1, 1)
    kill_part("ml/limiter")
    assert running.call("faulty:add", 1, 1) == 2


def test_workers_that_keep_dying_open_the_circuit(pool: StartPool) -> None:
    running = pool(breaker=breaker(failures=2))
    for function in ("faulty:leave_at_once", "faulty:fork_a_sleeper_and_die"):
        with pytest.raises(ActorDown):
            running.call(function, *((1,) if "leave" in function else ()))
    with pytest.raises(CircuitOpen) as caught:
        running.call("faulty:add", 1, 1)
    assert caught.value.started == "no"
    assert caught.value.retry_after_s is not None


def test_a_probe_that_succeeds_closes_the_circuit(pool: StartPool, happened: EventLog) -> None:
    running = pool(breaker=breaker(failures=1, reset_after="200ms"))
    with pytest.raises(ActorDown):
        running.call("faulty:leave_at_once", 1)
    happened.wait("breaker.opened")
    with pytest.raises(CircuitOpen):
        running.call("faulty:add", 1, 1)
    clock.sleep(0.25)
    assert running.call("faulty:add", 1, 1) == 2
    happened.wait("breaker.closed")
    assert running.call("faulty:add", 1, 1) == 2


def test_errors_that_functions_raise_do_not_open_the_circuit(pool: StartPool) -> None:
    running = pool(breaker=breaker(failures=1))
    for _ in range(3):
        with pytest.raises(ExecutionError):
            running.call("faulty:raise_error")
    assert running.call("faulty:add", 1, 1) == 2


def test_a_caller_with_a_tiny_deadline_does_not_open_the_circuit(pool: StartPool) -> None:
    running = pool(breaker=breaker(failures=1))
    running.call("faulty:add", 1, 1)
    with pytest.raises(DeadlineExceeded):
        running.call("faulty:spin", timeout=0.2)
    assert running.call("faulty:add", 1, 1) == 2


def test_a_breaker_that_crashed_keeps_its_circuit_and_fails_no_call(pool: StartPool, happened: EventLog) -> None:
    running = pool(breaker=breaker(failures=1))
    kill_part("ml/breaker")
    assert running.call("faulty:add", 1, 1) == 2
    with pytest.raises(ActorDown):
        running.call("faulty:leave_at_once", 1)
    happened.wait("breaker.opened")
    kill_part("ml/breaker")
    with pytest.raises(CircuitOpen):
        running.call("faulty:add", 1, 1)
