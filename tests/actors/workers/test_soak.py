"""Many calls while workers are killed at random from outside: one answer each, and nothing is left behind."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import gevent
import psutil
import pytest

from regrow.protocol.errors import ActorDown, ExecutionError, Unavailable
from runtime.names import whereis
from runtime.promise import Promise
from tests.actors.workers.conftest import RunningPool

CALLERS = 20


def walk(pool: RunningPool, calls: int, seed: int, pause_s: float) -> Counter[str]:
    """Make the calls while a killer is about; return how often each kind of answer came."""
    answers: Counter[str] = Counter()
    chance = random.Random(seed)
    over = gevent.event.Event()

    def ask(number: int) -> None:
        given = 0
        done = gevent.event.Event()

        def count(_: Promise) -> None:
            nonlocal given
            given += 1
            done.set()

        function, argument = (("faulty:echo", number), ("faulty:raise_error", "no"), ("faulty:sleep", 0.01))[number % 3]
        promise = pool.request(function, argument)
        promise.callback = count
        assert done.wait(30.0), "a call was never answered"
        gevent.sleep(0)
        assert given == 1
        if promise.error is not None:
            # Both workers may be shot twice in a row while they start; then calls are refused, never lost.
            assert isinstance(promise.error, (ActorDown, ExecutionError, Unavailable)), promise.error
        answers["value" if promise.error is None else type(promise.error).__name__] += 1

    def kill_at_random() -> None:
        while not over.wait(chance.uniform(0.0, 2 * pause_s)):
            worker = whereis(f"ml/worker-{chance.choice((1, 2))}")
            actor = worker.actor if worker is not None else None
            if actor is not None and (pid := actor.status()["pid"]) is not None and psutil.pid_exists(pid):
                psutil.Process(pid).kill()

    def caller(first: int) -> None:
        for number in range(first, calls, CALLERS):
            ask(number)

    killer = gevent.spawn(kill_at_random)
    callers = [gevent.spawn(caller, first) for first in range(CALLERS)]
    gevent.joinall(callers, raise_error=True)
    over.set()
    killer.join()
    return answers


@pytest.mark.slow
def test_calls_under_random_kills_end_with_exactly_one_answer_each(pool: Callable[..., RunningPool]) -> None:
    running = pool(workers=2, quarantine_deaths=1000)
    answers = walk(running, 1000, seed=7, pause_s=0.3)
    assert answers.total() == 1000
    assert answers["ExecutionError"] > 300


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_ten_thousand_calls_under_random_kills_end_with_exactly_one_answer_each(
    pool: Callable[..., RunningPool],
) -> None:
    running = pool(workers=2, quarantine_deaths=1000)
    answers = walk(running, 10_000, seed=11, pause_s=0.3)
    assert answers.total() == 10_000
    assert answers["ActorDown"] > 10
    assert answers["Unavailable"] < 1000
