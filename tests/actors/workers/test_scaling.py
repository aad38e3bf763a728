"""More workers when calls wait, fewer when they are not needed; real processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from actors.integrations import python
from actors.workers.worker import Check
from config.schema import PositiveDuration
from tests.actors.workers.conftest import PATIENCE_S, EventLog, RunningPool

StartPool = Callable[..., RunningPool]
SOON = PositiveDuration("50ms")


def test_only_the_fixed_workers_have_a_process_at_first(pool: StartPool) -> None:
    running = pool(workers=1, max_workers=3)
    running.call("faulty:add", 1, 1)
    status = running.status()
    assert (status["idle"], status["off"]) == (1, 2)


def test_calls_that_wait_too_long_get_another_worker_and_no_more_than_allowed(
    pool: StartPool, happened: EventLog, tmp_path: Path
) -> None:
    running = pool(workers=1, max_workers=2, scale_up_after=SOON)
    gate = tmp_path / "gate"
    waiting = [running.request("faulty:wait_for_file", str(gate)) for _ in range(3)]
    happened.wait("pool.scaled_up")
    happened.wait("worker.started", actor="ml/worker-2")
    gate.touch()
    assert [promise.wait(PATIENCE_S) for promise in waiting] == [True] * 3
    assert len(happened.of("pool.scaled_up")) == 1
    assert running.status()["off"] == 0


def test_calls_that_do_not_wait_for_long_start_nobody(pool: StartPool, happened: EventLog) -> None:
    running = pool(workers=1, max_workers=4, scale_up_after=PositiveDuration("1h"))
    promises = [running.request("faulty:sleep", 0.01) for _ in range(20)]
    assert [promise.wait(PATIENCE_S) for promise in promises] == [0.01] * 20
    assert not happened.of("pool.scaled_up")


def test_an_extra_worker_without_work_ends_and_costs_no_restart(
    pool: StartPool, happened: EventLog, tmp_path: Path
) -> None:
    running = pool(workers=1, max_workers=2, scale_up_after=SOON, scale_down_after=PositiveDuration("1ms"))
    gate = tmp_path / "gate"
    waiting = [running.request("faulty:wait_for_file", str(gate)) for _ in range(2)]
    happened.wait("worker.started", actor="ml/worker-2")
    gate.touch()
    for promise in waiting:
        promise.wait(PATIENCE_S)
    running.worker(2).tell(Check())
    happened.wait("worker.recycled", actor="ml/worker-2", reason="not_needed")
    running.worker(2).actor._process.wait(PATIENCE_S)
    running.worker(2).ask(Check())
    status = running.worker(2).actor.status()
    assert (status["state"], status["pid"]) == ("off", None)
    assert running.supervisor.actor.status()["intensity"] == 0
    assert running.call("faulty:add", 1, 1) == 2


def test_an_extra_worker_that_died_comes_back_when_it_is_needed(
    pool: StartPool, happened: EventLog, tmp_path: Path
) -> None:
    running = pool(workers=1, max_workers=2, scale_up_after=SOON)
    gate = tmp_path / "gate"
    waiting = [running.request("faulty:wait_for_file", str(gate)) for _ in range(3)]
    happened.wait("worker.started", actor="ml/worker-2")
    running.process(2).kill()
    happened.wait("worker.started", count=2, actor="ml/worker-2")
    gate.touch()
    assert [promise.wait(PATIENCE_S) for promise in waiting] == [True] * 3


def test_fewer_workers_at_most_than_always_is_blamed() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        python.PythonConfig(functions=["statistics:mean"], workers=4, max_workers=2)
    assert "max_workers (2) is less than workers (4)" in str(caught.value.exceptions[0])


def test_a_pool_that_grows_survives_as_many_deaths_as_one_function_can_cause() -> None:
    config = python.PythonConfig(functions=["statistics:mean"], workers=1, max_workers=8)
    assert config.max_restarts == 10
