"""The pool as a whole: real processes under a real supervisor, asked as the wire asks."""

from __future__ import annotations

import signal
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import msgspec
import psutil
import pytest

from actors.workers.job import KILLS, QUEUED, RAN, RECYCLES, RESIDENT, WAITED, WORKERS
from actors.workers.worker import Check
from config.schema import Duration, PositiveDuration, Size
from config.secret import Secret
from regrow.protocol.errors import (
    ActorDown,
    Cancelled,
    DeadlineExceeded,
    ExecutionError,
    Forbidden,
    InvalidArguments,
    NotFound,
    Overloaded,
    TooLarge,
    Unavailable,
)
from runtime import clock
from runtime.promise import Promise
from tests.actors.workers.conftest import PATIENCE_S, USER_CODE, EventLog, RunningPool
from tests.support.processes import await_end

StartPool = Callable[..., RunningPool]


def settled(promise: Promise) -> Any:
    """The value of a promise, or its error raised."""
    return promise.wait(PATIENCE_S)


# -- calls ------------------------------------------------------------------------------------------------------------


def test_a_call_answers_with_the_bare_result(pool: StartPool) -> None:
    assert pool().call("faulty:add", 2, 3) == 5


def test_arguments_go_by_position_and_by_name(pool: StartPool) -> None:
    assert pool().call("faulty:add", 2, b=3) == 5


def test_a_map_with_a_nested_list_passes_and_a_map_returns(pool: StartPool) -> None:
    value = {"rows": [{"a": 1, "b": [1, 2, [3]]}], "n": None}
    assert pool().call("faulty:echo", value) == value


def test_a_raising_function_is_an_execution_error_and_the_worker_lives(pool: StartPool) -> None:
    running = pool()
    pid = running.call("faulty:pid")
    with pytest.raises(ExecutionError, match="faulty:raise_error raised ValueError: oh") as caught:
        running.call("faulty:raise_error", "oh")
    assert caught.value.started == "yes"
    assert caught.value.details["type"] == "ValueError"
    assert caught.value.details["message"] == "oh"
    assert "in raise_error" in caught.value.details["traceback"]
    assert running.call("faulty:pid") == pid


def test_what_is_not_allowed_is_refused_without_a_worker(pool: StartPool) -> None:
    with pytest.raises(Forbidden, match=r"allowed: faulty:\*, statistics:mean"):
        pool().call("os:system", "true")


def test_a_function_that_does_not_exist_is_not_found(pool: StartPool) -> None:
    with pytest.raises(NotFound, match="defines no public function nothing; it defines: add") as caught:
        pool().call("faulty:nothing")
    assert caught.value.started == "no"


def test_arguments_that_do_not_fit_never_start_the_function(pool: StartPool) -> None:
    with pytest.raises(InvalidArguments, match="missing a required argument: 'b'") as caught:
        pool().call("faulty:add", 1)
    assert caught.value.started == "no"


@pytest.mark.parametrize("argument", [object(), 2**70, "\ud800"], ids=["object", "huge", "surrogate"])
def test_an_argument_that_cannot_be_sent_is_invalid(pool: StartPool, argument: object) -> None:
    with pytest.raises(InvalidArguments, match="an argument of faulty:echo cannot be sent"):
        pool().call("faulty:echo", argument)


def test_arguments_over_the_limit_are_too_large_and_never_start(pool: StartPool) -> None:
    with pytest.raises(TooLarge, match="the limit is 2048 bytes") as caught:
        pool(max_message=Size("2KiB")).call("faulty:echo", "x" * 3000)
    assert caught.value.started == "no"


def test_a_result_over_the_limit_is_too_large_and_has_started(pool: StartPool) -> None:
    running = pool()
    with pytest.raises(TooLarge, match="the result is 500000.. bytes, the limit is 8388608 bytes") as caught:
        running.call("faulty:big", 50_000_000)
    assert caught.value.started == "yes"
    assert running.call("faulty:add", 1, 1) == 2


def test_fifty_megabytes_pass_where_the_limit_allows_them(pool: StartPool) -> None:
    running = pool(max_message=Size("64MiB"))
    assert running.call("faulty:big", 50_000_000) == b"z" * 50_000_000


def test_a_result_that_cannot_be_sent_is_an_execution_error(pool: StartPool) -> None:
    running = pool()
    with pytest.raises(ExecutionError, match="the result cannot be sent: a value of type builtins.object"):
        running.call("faulty:unsendable")
    assert running.call("faulty:add", 1, 1) == 2


def test_what_a_function_prints_becomes_events_of_its_actor(pool: StartPool, happened: EventLog) -> None:
    assert pool().call("faulty:shout") == "done"
    lines = happened.wait("worker.output", count=4)
    assert {(line["actor"], line["stream"]) for line in lines} == {("ml/worker-1", "stdout"), ("ml/worker-1", "stderr")}


def test_a_secret_in_an_error_or_a_line_is_masked(pool: StartPool, happened: EventLog) -> None:
    Secret("hunter2-hunter2")
    running = pool()
    with pytest.raises(ExecutionError) as caught:
        running.call("faulty:raise_error", "password hunter2-hunter2")
    assert "hunter2" not in str(caught.value.to_wire())
    assert caught.value.details["message"] == "password ***"


# -- the line ---------------------------------------------------------------------------------------------------------


def test_the_front_stays_free_while_all_workers_work(pool: StartPool, tmp_path: Path) -> None:
    running = pool()
    gate = tmp_path / "gate"
    busy = running.request("faulty:wait_for_file", str(gate))
    assert running.front.call("release", {"function": "faulty:add"}, timeout=1.0) is False
    gate.touch()
    assert settled(busy) is True


def test_calls_are_begun_in_the_order_in_which_they_came(pool: StartPool) -> None:
    running = pool()
    order: list[int] = []
    promises = []
    for number in range(20):
        promise = running.request("faulty:echo", number)
        promise.callback = lambda answered: order.append(answered.value)
        promises.append(promise)
    running.call("faulty:add", 1, 1)
    assert order == list(range(20))


def test_two_workers_work_at_the_same_time(pool: StartPool, tmp_path: Path) -> None:
    running = pool(workers=2)
    gates = [tmp_path / "one", tmp_path / "two"]
    promises = [running.request("faulty:wait_for_file", str(gate)) for gate in gates]
    for promise, gate in reversed(list(zip(promises, gates, strict=True))):
        gate.touch()
        assert settled(promise) is True


def test_a_full_line_refuses_with_overloaded(pool: StartPool, tmp_path: Path) -> None:
    running = pool(queue=2)
    gate = tmp_path / "gate"
    running.call("faulty:add", 1, 1)
    promises = [running.request("faulty:wait_for_file", str(gate)) for _ in range(3)]
    with pytest.raises(Overloaded, match="2 calls of .* wait for the 1 workers of ml") as caught:
        running.call("faulty:add", 1, 1)
    assert caught.value.retry_after_s is not None
    gate.touch()
    assert [settled(promise) for promise in promises] == [True] * 3


def test_the_line_is_bounded_in_bytes_too(pool: StartPool, tmp_path: Path) -> None:
    running = pool(queue_size=Size("2KiB"), max_message=Size("2KiB"))
    gate = tmp_path / "gate"
    running.call("faulty:add", 1, 1)
    busy = running.request("faulty:wait_for_file", str(gate))
    waiting = running.request("faulty:echo", "x" * 1500)
    with pytest.raises(Overloaded):
        running.call("faulty:echo", "x" * 1500)
    gate.touch()
    assert settled(busy) is True
    assert settled(waiting) == "x" * 1500


def test_who_gives_up_in_the_line_makes_room_and_never_starts(pool: StartPool, tmp_path: Path) -> None:
    running = pool(queue=1)
    killed = KILLS.value("ml", "cancelled")
    gate = tmp_path / "gate"
    running.call("faulty:add", 1, 1)
    busy = running.request("faulty:wait_for_file", str(gate))
    tired = running.request("faulty:shout")
    tired.cancel()
    with pytest.raises(Cancelled) as caught:
        settled(tired)
    assert caught.value.started == "no"
    patient = running.request("faulty:add", 1, 2)
    gate.touch()
    assert settled(busy) is True
    assert settled(patient) == 3
    assert running.status()["queued"] == 0
    assert KILLS.value("ml", "cancelled") == killed


def test_a_call_that_expires_in_the_line_never_started(pool: StartPool, tmp_path: Path) -> None:
    running = pool()
    gate = tmp_path / "gate"
    busy = running.request("faulty:wait_for_file", str(gate))
    with pytest.raises(DeadlineExceeded) as caught:
        running.call("faulty:add", 1, 1, timeout=0.1)
    assert caught.value.started == "no"
    gate.touch()
    assert settled(busy) is True


# -- deadlines and cancels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["faulty:spin", "faulty:spin_in_c"])
def test_an_endless_loop_is_ended_at_its_deadline_and_the_next_call_works(pool: StartPool, function: str) -> None:
    running = pool()
    process, worker = running.process(), running.worker()
    killed = KILLS.value("ml", "deadline")
    running.call("faulty:add", 1, 1)
    began = clock.now()
    with pytest.raises(DeadlineExceeded) as caught:
        running.call(function, timeout=0.2)
    assert 0.2 <= clock.now() - began < 2.0
    assert caught.value.started == "yes"
    assert running.call("faulty:add", 1, 1) == 2
    assert not await_end([process], PATIENCE_S)
    assert running.worker() is worker, "killing a call at its deadline is no crash"
    assert KILLS.value("ml", "deadline") == killed + 1


def test_a_function_deaf_to_sigterm_is_killed_after_the_grace(pool: StartPool) -> None:
    running = pool()
    process = running.process()
    began = clock.now()
    with pytest.raises(DeadlineExceeded):
        running.call("faulty:sleep_deaf", 60, timeout=0.3)
    assert running.call("faulty:add", 1, 1) == 2
    assert clock.now() - began > 0.3 + 0.1, "it had its grace"
    assert not await_end([process], PATIENCE_S)


def test_a_cancelled_call_ends_its_process_and_spends_no_restart(pool: StartPool, happened: EventLog) -> None:
    running = pool()
    process, worker = running.process(), running.worker()
    promise = running.request("faulty:shout_and_spin")
    happened.wait("worker.output")
    promise.cancel()
    assert happened.wait("worker.killed") == [{"actor": "ml/worker-1", "reason": "cancelled"}]
    assert running.call("faulty:add", 1, 1) == 2
    assert not await_end([process], PATIENCE_S)
    assert running.worker() is worker


def test_a_call_without_a_deadline_gets_the_pools_timeout(pool: StartPool) -> None:
    running = pool(timeout=PositiveDuration("300ms"))
    with pytest.raises(DeadlineExceeded):
        running.front.call("call", running.body("faulty:spin"), timeout=None)
    assert running.plan.timeout_s == pytest.approx(0.3)


# -- deaths -----------------------------------------------------------------------------------------------------------


def test_sigkill_of_the_worker_during_a_call_is_told_at_once(pool: StartPool, happened: EventLog) -> None:
    running = pool()
    first = running.worker()
    promise = running.request("faulty:shout_and_spin")
    happened.wait("worker.output")
    began = clock.now()
    process = running.process()
    process.send_signal(signal.SIGKILL)
    with pytest.raises(ActorDown, match="was ended by SIGKILL while it worked on faulty:shout_and_spin") as caught:
        settled(promise)
    assert clock.now() - began < 2.0
    error = caught.value
    assert (error.started, error.actor, error.details["signal"]) == ("yes", "ml", "SIGKILL")
    assert error.crash_id is not None
    assert error.details["stderr"] == [f"spinning in {process.pid}"]
    assert running.call("faulty:add", 1, 1) == 2
    assert running.worker() is not first, "the supervisor restarted the actor"


@pytest.mark.parametrize(
    ("function", "args", "details"),
    [
        ("faulty:crash", (), {"signal": "SIGSEGV"}),
        ("faulty:leave_at_once", (7,), {"exit_code": 7}),
        ("faulty:fork_a_sleeper_and_die", (), {"exit_code": 3}),
        ("faulty:write_garbage", (), {"signal": "SIGKILL"}),
    ],
)
def test_every_death_is_one_answer_and_the_next_call_works(
    pool: StartPool, function: str, args: tuple[Any, ...], details: dict[str, Any]
) -> None:
    running = pool()
    with pytest.raises(ActorDown) as caught:
        running.call(function, *args)
    assert details.items() <= caught.value.details.items()
    assert caught.value.started == "yes"
    assert running.call("faulty:add", 1, 1) == 2


def test_an_idle_worker_that_dies_is_restarted(pool: StartPool, happened: EventLog) -> None:
    running = pool()
    running.call("faulty:add", 1, 1)
    running.process().kill()
    happened.wait("worker.started", count=2)
    assert running.call("faulty:add", 1, 1) == 2


def test_a_killed_worker_actor_takes_its_process_along_and_answers(pool: StartPool, happened: EventLog) -> None:
    running = pool()
    process = running.process()
    promise = running.request("faulty:shout_and_spin")
    happened.wait("worker.output")
    running.worker().kill()
    with pytest.raises(ActorDown, match=r"was stopped \(killed\) while it worked on"):
        settled(promise)
    assert not await_end([process], PATIENCE_S)
    assert running.call("faulty:add", 1, 1) == 2


def test_calls_in_the_line_outlive_the_death_of_a_worker(pool: StartPool) -> None:
    running = pool()
    doomed = running.request("faulty:leave_at_once", 1)
    waiting = [running.request("faulty:echo", number) for number in range(5)]
    with pytest.raises(ActorDown):
        settled(doomed)
    assert [settled(promise) for promise in waiting] == list(range(5))


def test_a_new_front_finds_the_workers_that_are_there(pool: StartPool, happened: EventLog) -> None:
    running = pool()
    pid = running.call("faulty:pid")
    running.front.kill()
    happened.wait("child.started", actor="ml", count=2)
    assert running.call("faulty:pid") == pid


def test_the_end_of_the_front_is_told_to_its_callers_and_stops_their_work(pool: StartPool, happened: EventLog) -> None:
    running = pool()
    begun, waiting = [running.request("faulty:shout_and_spin") for _ in range(2)]
    happened.wait("worker.output")
    running.front.kill()
    with pytest.raises(ActorDown) as lost:
        settled(begun)
    with pytest.raises(Unavailable) as never_begun:
        settled(waiting)
    assert (lost.value.started, never_begun.value.started) == ("yes", "no")
    happened.wait("child.started", actor="ml", count=2)
    assert running.call("faulty:add", 1, 1) == 2
    assert len(happened.of("worker.output")) == 1, "the second call never began"


def test_an_orderly_stop_turns_the_line_away_and_leaves_no_process(pool: StartPool, happened: EventLog) -> None:
    running = pool()
    running.call("faulty:add", 1, 1)
    process = running.process()
    busy = running.request("faulty:shout_and_spin")
    happened.wait("worker.output")
    waiting = running.request("faulty:add", 1, 1)
    running.stop()
    with pytest.raises(Unavailable) as refused:
        settled(waiting)
    assert refused.value.started == "no"
    with pytest.raises(ActorDown):
        settled(busy)
    assert not await_end([process], PATIENCE_S)


def test_many_calls_with_random_deaths_end_with_exactly_one_answer_each(pool: StartPool) -> None:
    running = pool(workers=2, quarantine_deaths=1000)
    answers: dict[int, list[object]] = {number: [] for number in range(400)}

    def note(number: int, promise: Promise) -> None:
        answers[number].append(promise.error or promise.value)

    promises = []
    for number in answers:
        if number % 20 == 7:
            promise = running.request("faulty:leave_at_once", 1)
        elif number % 50 == 13:
            promise = running.request("faulty:raise_error")
        else:
            promise = running.request("faulty:echo", number)
        promise.callback = lambda answered, number=number: note(number, answered)
        promises.append(promise)
    with gevent.Timeout(50):
        while not all(promise.done for promise in promises):
            gevent.sleep(0.02)
    assert all(len(given) == 1 for given in answers.values())
    assert [number for number, given in answers.items() if isinstance(given[0], ActorDown)] == list(range(7, 400, 20))
    assert all(given[0] == number for number, given in answers.items() if number % 20 != 7 and number % 50 != 13)


# -- quarantine -------------------------------------------------------------------------------------------------------


def test_a_function_that_keeps_killing_workers_is_quarantined_until_it_is_released(
    pool: StartPool, happened: EventLog
) -> None:
    running = pool(quarantine_deaths=2)
    for _ in range(2):
        with pytest.raises(ActorDown):
            running.call("faulty:leave_at_once", 1)
    happened.wait("worker.function_quarantined")
    with pytest.raises(Unavailable, match="faulty:leave_at_once is quarantined for 300 s more, it ended 2 workers"):
        running.call("faulty:leave_at_once", 1)
    assert running.status()["quarantined"] == {"faulty:leave_at_once": 300}
    assert running.call("faulty:add", 1, 1) == 2
    assert running.front.call("release", {"function": "faulty:leave_at_once"}) is True
    with pytest.raises(ActorDown):
        running.call("faulty:leave_at_once", 1)


def test_a_quarantine_turns_away_the_calls_of_that_function_that_wait(pool: StartPool) -> None:
    running = pool(quarantine_deaths=1)
    doomed = [running.request("faulty:leave_at_once", 1) for _ in range(3)]
    innocent = running.request("faulty:add", 1, 1)
    with pytest.raises(ActorDown):
        settled(doomed[0])
    for promise in doomed[1:]:
        with pytest.raises(Unavailable, match="quarantined"):
            settled(promise)
    assert settled(innocent) == 2


def test_a_function_that_kills_all_workers_at_once_does_not_stop_the_pool(pool: StartPool) -> None:
    running = pool(workers=4, max_restarts=0)
    promises = [running.request("faulty:leave_at_once", 1) for _ in range(20)]
    for promise in promises:
        with pytest.raises((ActorDown, Unavailable)):
            settled(promise)
    assert running.call("faulty:add", 1, 1) == 2


# -- memory and age ---------------------------------------------------------------------------------------------------


def test_a_call_that_asks_for_too_much_memory_gets_a_memory_error_and_a_fresh_process_follows(
    pool: StartPool, happened: EventLog
) -> None:
    running = pool(max_memory=Size("256MiB"))
    pid, recycled = running.call("faulty:pid"), RECYCLES.value("ml", "memory")
    with pytest.raises(ExecutionError, match="raised MemoryError"):
        running.call("faulty:hog", 1024)
    happened.wait("worker.recycled")
    assert running.call("faulty:pid") != pid
    assert RECYCLES.value("ml", "memory") == recycled + 1


def test_a_process_over_its_memory_is_killed_from_outside(pool: StartPool) -> None:
    running = pool(max_memory=Size("150MiB"), limit_address_space=False)
    with pytest.raises(ExecutionError, match="raised MemoryError: the process used .* the limit is 157286400 bytes"):
        running.call("faulty:hog_and_wait", 300)
    assert running.call("faulty:add", 1, 1) == 2


def test_the_memory_of_what_a_call_started_counts(pool: StartPool) -> None:
    running = pool(max_memory=Size("150MiB"), limit_address_space=False)
    with pytest.raises(ExecutionError, match="raised MemoryError"):
        running.call("faulty:hog_in_a_child", 300)
    assert running.call("faulty:add", 1, 1) == 2


def test_an_idle_process_over_its_memory_is_replaced(
    pool: StartPool, happened: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.workers.worker.CHECK_S", 3600.0)
    running = pool(max_memory=Size("150MiB"), limit_address_space=False)
    pid, worker = running.call("faulty:pid"), running.worker()
    running.call("faulty:leak", 200)
    worker.post(Check())
    happened.wait("worker.recycled")
    assert running.call("faulty:pid") != pid
    assert running.worker() is worker


def test_a_process_is_replaced_after_its_calls_without_losing_one(pool: StartPool) -> None:
    running = pool(max_calls=5)
    worker, recycled = running.worker(), RECYCLES.value("ml", "max_calls")
    promises = [running.request("faulty:pid") for _ in range(20)]
    pids = [settled(promise) for promise in promises]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [5, 5, 5, 5]
    assert running.worker() is worker, "recycling is no crash"
    assert RECYCLES.value("ml", "max_calls") >= recycled + 3


def test_an_idle_process_is_replaced_at_its_age(pool: StartPool, happened: EventLog) -> None:
    running = pool(max_age=PositiveDuration("100ms"))
    pid = running.call("faulty:pid")
    assert happened.wait("worker.recycled")[0]["reason"] == "max_age"
    assert running.call("faulty:pid") != pid


# -- starting ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """slow_module is imported once this file exists."""
    monkeypatch.setenv("SLOW_MODULE_GATE", str(tmp_path / "gate"))
    return tmp_path / "gate"


def test_calls_wait_in_line_until_a_slow_preload_is_over(pool: StartPool, gate: Path) -> None:
    running = pool(functions=["slow_module:*"], preload=["slow_module"], env=["SLOW_MODULE_GATE"])
    promise = running.request("slow_module:answer")
    running.front.call("release", {"function": "slow_module:answer"})
    assert (running.status()["starting"], running.status()["queued"]) == (1, 1)
    gate.touch()
    assert settled(promise) == 42


def test_a_slow_import_at_the_first_call_ends_at_the_deadline(pool: StartPool, gate: Path) -> None:
    running = pool(functions=["slow_module:*"], env=["SLOW_MODULE_GATE"])
    with pytest.raises(DeadlineExceeded):
        running.call("slow_module:answer", timeout=0.3)
    gate.touch()
    assert running.call("slow_module:answer") == 42


def test_a_pool_whose_workers_cannot_start_says_why_at_once(pool: StartPool, happened: EventLog) -> None:
    running = pool(workers=2, preload=["broken_module"])
    waiting = running.request("faulty:add", 1, 1)
    problem = "import broken_module raised RuntimeError: this module is broken"
    with pytest.raises(Unavailable, match=f"no worker of ml can start; ml/worker-[12]: {problem}") as caught:
        settled(waiting)
    assert caught.value.started == "no"
    began = clock.now()
    with pytest.raises(Unavailable, match="no worker of ml can start"):
        running.call("faulty:add", 1, 1)
    assert clock.now() - began < 2.0
    assert running.status()["problems"] == {"ml/worker-1": problem, "ml/worker-2": problem}


def test_one_signal_during_a_start_is_no_reason_to_turn_calls_away(
    pool: StartPool, happened: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KILLED_ONCE_MARK", str(tmp_path / "mark"))
    running = pool(preload=["killed_once"], path=[USER_CODE], env=["KILLED_ONCE_MARK"], functions=["faulty:*"])
    assert running.call("faulty:add", 1, 1) == 2
    assert happened.of("actor.crashed", actor="ml/worker-1", reason="WorkerCannotStart")


def test_a_start_that_dies_by_a_signal_each_time_is_told(pool: StartPool) -> None:
    running = pool(preload=["killed_always"])
    with pytest.raises(Unavailable, match="no worker of ml can start; ml/worker-1: its process was ended by SIGSEGV"):
        running.call("faulty:add", 1, 1)


def test_an_interpreter_of_its_own_without_msgspec_is_told(pool: StartPool, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", symlinks=True)
    running = pool(python=tmp_path / "venv" / "bin" / "python")
    with pytest.raises(
        Unavailable, match="exited with code 78; last on stderr: .* has no msgspec, which a worker needs"
    ):
        running.call("faulty:add", 1, 1)


def test_the_workers_run_in_the_virtual_environment_that_is_named(pool: StartPool, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", symlinks=True)
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    (site / "msgspec.pth").write_text(str(Path(msgspec.__file__).parents[1]))
    running = pool(python=tmp_path / "venv" / "bin" / "python")
    assert running.call("faulty:prefix") == str(tmp_path / "venv")


def test_a_pool_recovers_once_its_module_is_mended(pool: StartPool, tmp_path: Path) -> None:
    module = tmp_path / "mended_module.py"
    module.write_text("raise RuntimeError('not yet')\n")
    running = pool(path=[tmp_path], functions=["mended_module:*"], preload=["mended_module"])
    with pytest.raises(Unavailable):
        running.call("mended_module:f")
    module.write_text("def f():\n    return 'mended'\n")
    with gevent.Timeout(PATIENCE_S):
        while running.status()["problems"]:
            gevent.sleep(0.02)
    assert running.call("mended_module:f") == "mended"


def test_a_start_that_takes_too_long_is_ended_and_told(pool: StartPool, gate: Path) -> None:
    running = pool(
        functions=["slow_module:*"],
        preload=["slow_module"],
        env=["SLOW_MODULE_GATE"],
        start_timeout=PositiveDuration("300ms"),
    )
    with pytest.raises(Unavailable, match=r"it was not ready within 0.3 s"):
        running.call("slow_module:answer")
    assert KILLS.value("ml", "start_timeout") >= 1


# -- what operators see -----------------------------------------------------------------------------------------------


def test_status_tells_state_pid_calls_and_memory(pool: StartPool) -> None:
    running = pool()
    running.call("faulty:add", 1, 1)
    status = running.worker().actor.status()
    assert (status["state"], status["calls"], status["function"]) == ("idle", 1, None)
    assert psutil.pid_exists(status["pid"])
    assert running.status()["idle"] == 1


def test_metrics_follow_the_workers(pool: StartPool, tmp_path: Path, happened: EventLog) -> None:
    running = pool(workers=2)
    for _ in range(2):
        running.call("faulty:add", 1, 1)
    gate = tmp_path / "gate"
    ran, waited = RAN.count("ml"), WAITED.count("ml")
    promises = [running.request("faulty:shout_and_wait_for_file", str(gate)) for _ in range(3)]
    happened.wait("worker.output", count=2)
    assert WORKERS.value("ml", "busy") == 2
    assert QUEUED.value("ml") == 1
    gate.touch()
    for promise in promises:
        settled(promise)
    assert (RAN.count("ml"), WAITED.count("ml")) == (ran + 3, waited + 3)
    running.stop()
    assert [WORKERS.value("ml", state) for state in ("starting", "idle", "busy", "ending")] == [0, 0, 0, 0]
    assert RESIDENT.value("ml") == 0


def test_the_exports_name_what_is_allowed(pool: StartPool) -> None:
    running = pool()
    assert set(running.plan.exports) == set(running.front.actor.exports) == {"call", "stream", "release"}
    assert "Allowed: faulty:*, statistics:mean" in running.plan.exports["call"].doc
    with pytest.raises(InvalidArguments):
        running.plan.exports["call"].check({"function": 5})


def test_the_grace_of_zero_means_sigkill_soon(pool: StartPool) -> None:
    running = pool(kill_grace=Duration(0))
    with pytest.raises(DeadlineExceeded):
        running.call("faulty:sleep_deaf", 60, timeout=0.3)
    assert running.call("faulty:add", 1, 1) == 2
