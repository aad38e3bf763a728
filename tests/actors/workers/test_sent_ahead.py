"""Calls that are sent to a process before it has answered the last one: nobody loses, nothing runs twice."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import psutil
import pytest
from gevent.monkey import get_original

from actors.workers import desk, line
from actors.workers.job import KILLS, QUEUED
from config.schema import PositiveDuration, Size
from regrow.protocol.errors import (
    ActorDown,
    Cancelled,
    DeadlineExceeded,
    ExecutionError,
    Overloaded,
    RegrowError,
    Unavailable,
)
from runtime import clock, sys, telemetry
from runtime.messages import Call
from runtime.names import whereis
from runtime.promise import Promise
from tests.actors.workers.conftest import PATIENCE_S, EventLog, RunningPool

StartPool = Callable[..., RunningPool]


@pytest.fixture
def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent ahead stays there, however long the call before it takes."""
    monkeypatch.setattr(line, "LOOK_S", 3600.0)


class Tried:
    """A pool whose functions are known to be short, though some calls of them will not be; and what has run in it."""

    def __init__(self, running: RunningPool, folder: Path) -> None:
        self.running = running
        self.gate = folder / "gate"
        self._marks = folder / "marks"
        self._marks.touch()
        there = folder / "there"
        there.touch()
        known = running.front.actor._line
        with gevent.Timeout(PATIENCE_S):
            # On a busy machine even such calls are long now and then.
            while max(map(known.expected_s, ("faulty:wait_for_file", "faulty:mark"))) > line.SHORT_S / 5:
                running.call("faulty:wait_for_file", str(there))
                running.call("faulty:mark", str(self._marks), -1)

    def wait(self, timeout: float = PATIENCE_S) -> Promise:
        """Ask for a call that ends when the gate is there."""
        return self.running.request("faulty:wait_for_file", str(self.gate), timeout=timeout)

    def mark(self, number: int, pause_s: float = 0.0, timeout: float = PATIENCE_S) -> Promise:
        return self.running.request("faulty:mark", str(self._marks), number, pause_s, timeout=timeout)

    def marks(self) -> list[int]:
        """What has run, in order; a number for each time."""
        return [number for number in map(int, self._marks.read_text().split()) if number >= 0]

    def jobs(self, index: int = 1) -> int:
        """How many calls the process of a worker has been given."""
        return len(self.running.worker(index).actor._desk.jobs)


@pytest.fixture
def tried(pool: StartPool, tmp_path: Path) -> Callable[..., Tried]:
    return lambda **config: Tried(pool(**config), tmp_path)


def handled(running: RunningPool) -> None:
    """Wait until the front has handled all that it was sent."""
    running.front.call("release", {"function": "faulty:mark"})


def begun(running: RunningPool, index: int = 1) -> None:
    """Wait until the process has begun the call in hand."""
    desk = running.worker(index).actor._desk
    with gevent.Timeout(PATIENCE_S):
        while desk.at_work() is None:
            gevent.sleep(0.001)


# -- who is sent ahead ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nobody_looks")
def test_short_calls_are_sent_ahead_and_still_count_as_waiting(tried: Callable[..., Tried]) -> None:
    pool = tried(queue=3)
    first, ahead = pool.wait(), [pool.mark(number) for number in range(3)]
    handled(pool.running)
    assert pool.jobs() == 4
    assert (pool.running.status()["queued"], QUEUED.value("ml")) == (3, 3)
    with pytest.raises(Overloaded, match="3 calls of .* wait for the 1 workers of ml"):
        pool.mark(3).wait(PATIENCE_S)
    pool.gate.touch()
    assert first.wait(PATIENCE_S) is True
    assert [promise.wait(PATIENCE_S) for promise in ahead] == [0, 1, 2]
    assert pool.marks() == [0, 1, 2]
    assert (pool.running.status()["queued"], pool.running.status()["queued_bytes"]) == (0, 0)


def test_nothing_is_sent_behind_a_call_that_is_not_known_to_be_short(tried: Callable[..., Tried]) -> None:
    pool = tried()
    first = pool.running.request("faulty:shout_and_wait_for_file", str(pool.gate))
    second = pool.mark(1)
    handled(pool.running)
    assert pool.jobs() == 1
    pool.gate.touch()
    assert (first.wait(PATIENCE_S), second.wait(PATIENCE_S)) == (True, 1)


def test_a_call_that_is_not_known_to_be_short_is_not_sent_ahead(tried: Callable[..., Tried]) -> None:
    pool = tried()
    first, second = pool.wait(), pool.running.request("faulty:echo", 1)
    handled(pool.running)
    assert pool.jobs() == 1
    pool.gate.touch()
    assert (first.wait(PATIENCE_S), second.wait(PATIENCE_S)) == (True, 1)


def test_an_idle_worker_gets_a_call_before_it_is_sent_ahead_to_another(tried: Callable[..., Tried]) -> None:
    pool = tried(workers=2)
    first = pool.wait()
    assert pool.mark(1).wait(PATIENCE_S) == 1
    assert not first.done
    pool.gate.touch()
    assert first.wait(PATIENCE_S) is True


@pytest.mark.usefixtures("nobody_looks")
def test_a_suspended_worker_is_given_nothing(tried: Callable[..., Tried]) -> None:
    pool = tried()
    sys.suspend(pool.running.worker())
    waiting = pool.mark(1)
    handled(pool.running)
    assert pool.jobs() == 0
    sys.resume(pool.running.worker())
    assert waiting.wait(PATIENCE_S) == 1


def test_without_a_page_nothing_is_sent_ahead_and_all_else_works(
    pool: StartPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    running = pool()
    (tmp_path / "marks").touch()
    for _ in range(50):
        running.call("faulty:mark", str(tmp_path / "marks"), 0)
    calls = [running.request("faulty:wait_for_file", str(tmp_path / "gate"))]
    calls += [running.request("faulty:mark", str(tmp_path / "marks"), number) for number in range(1, 4)]
    handled(running)
    assert len(running.worker().actor._desk.jobs) == 1
    calls[2].cancel()
    with pytest.raises(Cancelled) as caught:
        calls[2].wait(PATIENCE_S)
    assert caught.value.started == "no"
    (tmp_path / "gate").touch()
    assert [calls[number].wait(PATIENCE_S) for number in (0, 1, 3)] == [True, 1, 3]


# -- the one before it turns out to be long ---------------------------------------------------------------------------


def test_a_call_behind_a_long_one_goes_to_a_worker_that_is_free(tried: Callable[..., Tried], tmp_path: Path) -> None:
    pool = tried(workers=2)
    other_gate = tmp_path / "other"
    stuck = [pool.wait(), pool.running.request("faulty:wait_for_file", str(other_gate))]
    behind = [pool.mark(number) for number in range(6)]
    handled(pool.running)
    other_gate.touch()
    assert [promise.wait(PATIENCE_S) for promise in behind] == [0, 1, 2, 3, 4, 5]
    assert not stuck[0].done
    pool.gate.touch()
    assert stuck[0].wait(PATIENCE_S) is True
    assert sorted(pool.marks()) == [0, 1, 2, 3, 4, 5]


def test_calls_that_come_back_stand_before_those_that_came_later(tried: Callable[..., Tried]) -> None:
    pool = tried()
    stuck = pool.wait()
    early = [pool.mark(number) for number in range(30)]
    with gevent.Timeout(PATIENCE_S):
        while pool.jobs() > 1:
            gevent.sleep(0.005)
    late = [pool.mark(number) for number in range(30, 40)]
    pool.gate.touch()
    assert stuck.wait(PATIENCE_S) is True
    assert [promise.wait(PATIENCE_S) for promise in early + late] == list(range(40))
    assert pool.marks() == list(range(40))


# -- the one before it is ended ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nobody_looks")
@pytest.mark.parametrize("how", ["deadline", "cancel", "process", "actor", "stop"])
def test_the_end_of_the_call_in_hand_harms_nobody_behind_it(
    tried: Callable[..., Tried], how: str, happened: EventLog
) -> None:
    pool = tried()
    first = pool.wait(timeout=0.3 if how == "deadline" else PATIENCE_S)
    behind = [pool.mark(number) for number in range(5)]
    handled(pool.running)
    begun(pool.running)
    assert pool.jobs() == 6
    if how == "cancel":
        first.cancel()
    elif how == "process":
        pool.running.process().kill()
    elif how == "actor":
        pool.running.worker().kill()
    elif how == "stop":
        pool.running.worker().stop(block=False)
    error = {"deadline": DeadlineExceeded, "cancel": Cancelled}.get(how, ActorDown)
    with pytest.raises(error) as caught:
        first.wait(PATIENCE_S)
    assert caught.value.started == "yes"
    if how == "stop":  # an orderly stop is no crash, and its supervisor brings it back
        happened.wait("worker.started", count=2)
    assert [promise.wait(PATIENCE_S) for promise in behind] == [0, 1, 2, 3, 4]
    assert pool.marks() == [0, 1, 2, 3, 4]
    assert pool.running.status()["queued"] == 0


@pytest.mark.usefixtures("nobody_looks")
def test_who_gives_up_behind_another_never_runs_and_costs_no_process(tried: Callable[..., Tried]) -> None:
    pool = tried()
    process, killed = pool.running.process(), KILLS.value("ml", "cancelled")
    first = pool.wait()
    begun(pool.running)
    behind = [pool.mark(number) for number in range(5)]
    handled(pool.running)
    behind[2].cancel()
    with pytest.raises(Cancelled) as caught:
        behind[2].wait(PATIENCE_S)
    assert caught.value.started == "no"
    pool.gate.touch()
    assert first.wait(PATIENCE_S) is True
    assert [behind[number].wait(PATIENCE_S) for number in (0, 1, 3, 4)] == [0, 1, 3, 4]
    assert pool.marks() == [0, 1, 3, 4]
    assert pool.running.process() == process
    assert KILLS.value("ml", "cancelled") == killed


@pytest.mark.usefixtures("nobody_looks")
def test_a_call_that_expires_behind_another_never_runs(tried: Callable[..., Tried]) -> None:
    pool = tried()
    first = pool.wait()
    begun(pool.running)
    late = pool.mark(1, timeout=0.1)
    with pytest.raises(DeadlineExceeded) as caught:
        late.wait(PATIENCE_S)
    assert caught.value.started == "no"
    pool.gate.touch()
    assert first.wait(PATIENCE_S) is True
    assert pool.mark(2).wait(PATIENCE_S) == 2
    assert pool.marks() == [2]


@pytest.mark.usefixtures("nobody_looks")
def test_a_process_that_stands_still_is_not_filled_with_calls_that_come_back(tried: Callable[..., Tried]) -> None:
    pool = tried()
    process, desk = pool.running.process(), pool.running.worker().actor._desk
    before = desk._sent
    process.suspend()
    try:
        for number in range(50):
            waiting = [pool.mark(100 + number), pool.mark(200 + number)]
            handled(pool.running)
            waiting[1].cancel()
            gevent.sleep(0)
        sent = desk._sent - before
    finally:
        process.resume()
    assert sent < 5
    assert pool.mark(1).wait(PATIENCE_S) == 1
    assert pool.marks() == [*range(100, 150), 1]


@pytest.mark.usefixtures("nobody_looks")
def test_the_end_of_the_front_ends_those_behind_as_well(tried: Callable[..., Tried], happened: EventLog) -> None:
    pool = tried()
    promises = [pool.wait(), *(pool.mark(number) for number in range(5))]
    handled(pool.running)
    begun(pool.running)
    pool.running.front.kill()
    with pytest.raises(ActorDown) as caught:
        promises[0].wait(PATIENCE_S)
    assert caught.value.started == "yes"
    for promise in promises[1:]:
        with pytest.raises(Unavailable) as refused:
            promise.wait(PATIENCE_S)
        assert refused.value.started == "no"
    happened.wait("child.started", actor="ml", count=2)
    assert pool.mark(9).wait(PATIENCE_S) == 9
    assert pool.marks() == [9]
    assert pool.running.status()["queued"] == 0
    assert QUEUED.value("ml") == 0


@pytest.mark.usefixtures("nobody_looks")
def test_only_the_function_in_hand_is_blamed_for_the_end_of_its_process(tried: Callable[..., Tried]) -> None:
    pool = tried(quarantine_deaths=1)
    pool.running.request("faulty:wait_for_file", str(pool.gate))
    begun(pool.running)
    behind = pool.mark(1)
    handled(pool.running)
    pool.running.process().kill()
    assert behind.wait(PATIENCE_S) == 1
    assert list(pool.running.status()["quarantined"]) == ["faulty:wait_for_file"]


@pytest.mark.usefixtures("nobody_looks")
def test_a_quarantine_turns_away_what_was_sent_ahead_too(tried: Callable[..., Tried]) -> None:
    pool = tried(quarantine_deaths=1)
    promises = [pool.wait(), pool.wait(), pool.mark(1)]
    handled(pool.running)
    begun(pool.running)
    pool.running.process().kill()
    with pytest.raises(ActorDown):
        promises[0].wait(PATIENCE_S)
    with pytest.raises(RegrowError, match="quarantined"):
        promises[1].wait(PATIENCE_S)
    assert promises[2].wait(PATIENCE_S) == 1


def test_what_stands_behind_a_call_that_ran_out_of_memory_runs_in_the_next_process(
    pool: StartPool, tmp_path: Path
) -> None:
    running = pool(max_memory=Size("256MiB"))
    for _ in range(20):
        running.call("faulty:hog", 0)
    pid = running.call("faulty:pid")
    full = running.request("faulty:hog", 1024)
    behind = [running.request("faulty:pid") for _ in range(5)]
    with pytest.raises(ExecutionError, match="raised MemoryError"):
        full.wait(PATIENCE_S)
    after = {promise.wait(PATIENCE_S) for promise in behind}
    assert len(after) == 1
    assert pid not in after


# -- the process has not begun it, though it was given it --------------------------------------------------------------


@pytest.fixture
def standing_still(tried: Callable[..., Tried]) -> Iterator[Tried]:
    """A pool whose one process takes nothing that it is sent, until it is resumed."""
    pool = tried()
    process = pool.running.process()
    process.suspend()
    yield pool
    if process.is_running():
        process.resume()


def test_who_gives_up_before_the_process_has_begun_is_told_so_and_costs_no_process(standing_still: Tried) -> None:
    pool = standing_still
    process, killed = pool.running.process(), KILLS.value("ml", "cancelled")
    given_up = [pool.mark(1)]
    handled(pool.running)
    assert pool.jobs() == 1
    for number in range(2, 30):
        given_up[-1].cancel()
        given_up.append(pool.mark(number))
        handled(pool.running)
    given_up[-1].cancel()
    for promise in given_up:
        with pytest.raises(Cancelled) as caught:
            promise.wait(PATIENCE_S)
        assert caught.value.started == "no"
    process.resume()
    assert pool.mark(100).wait(PATIENCE_S) == 100
    assert pool.marks() == [100]
    assert pool.running.process() == process
    assert KILLS.value("ml", "cancelled") == killed


def test_the_first_of_several_that_is_given_up_unbegun_is_not_sent_again(standing_still: Tried) -> None:
    pool = standing_still
    promises = [pool.mark(number) for number in range(4)]
    handled(pool.running)
    promises[0].cancel()
    process = pool.running.process()
    process.resume()
    assert [promise.wait(PATIENCE_S) for promise in promises[1:]] == [1, 2, 3]
    assert pool.marks() == [1, 2, 3]
    assert pool.running.process() == process


def test_who_gives_up_a_stream_before_the_process_has_begun_it_is_told_so(standing_still: Tried) -> None:
    pool = standing_still
    promise = Promise(deadline=clock.now() + PATIENCE_S)
    pool.running.front.request(Call("stream", pool.running.body("faulty:report", str(pool.gate))), promise)
    handled(pool.running)
    assert pool.jobs() == 1
    promise.cancel()
    with pytest.raises(Cancelled) as caught:
        promise.wait(PATIENCE_S)
    assert caught.value.started == "no"
    pool.running.process().resume()
    assert pool.mark(1).wait(PATIENCE_S) == 1


def test_a_process_that_takes_nothing_for_long_is_ended(
    standing_still: Tried, happened: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "STILL_S", 0.05)
    pool = standing_still
    late = pool.mark(1, timeout=0.1)
    with pytest.raises(DeadlineExceeded) as caught:
        late.wait(PATIENCE_S)
    assert caught.value.started == "no"
    happened.wait("worker.killed", reason="stands_still")
    assert pool.mark(2).wait(PATIENCE_S) == 2
    assert pool.marks() == [2]


@pytest.mark.parametrize("how", ["cancel", "worker", "front"])
def test_whoever_listens_to_calls_hears_the_end_of_each_that_it_heard_begin(
    standing_still: Tried, happened: EventLog, how: str
) -> None:
    pool = standing_still
    heard: list[str] = []
    telemetry.attach("test", lambda event: heard.append(event.kind))
    try:
        given = pool.mark(1)
        handled(pool.running)
        assert heard == ["start"]
        if how == "cancel":
            given.cancel()
            gevent.sleep(0)
        elif how == "front":
            pool.running.front.kill()
            happened.wait("child.started", actor="ml")
        else:
            pool.running.worker().kill()
            given.cancel()
            happened.wait("worker.started")
    finally:
        telemetry.detach("test")
    assert given.done
    assert heard == ["start", "exception"]


# -- what is done in the moment of an answer --------------------------------------------------------------------------


def first_failure_cancels(promises: list[Promise], other: Promise) -> None:
    promises[0].callback = lambda _: other.cancel()


def test_a_caller_may_give_up_another_call_the_moment_it_hears_that_the_front_stops(
    tried: Callable[..., Tried], happened: EventLog
) -> None:
    pool = tried()
    long = pool.running.request("faulty:shout_and_wait_for_file", str(pool.gate))
    waiting = [pool.running.request("faulty:echo", number) for number in range(4)]
    handled(pool.running)
    begun(pool.running)
    first_failure_cancels(waiting, waiting[2])
    pool.running.front.stop()
    for promise, error in zip(waiting, [Unavailable, Unavailable, Cancelled, Unavailable], strict=True):
        with pytest.raises(error) as caught:
            promise.wait(PATIENCE_S)
        assert caught.value.started == "no"
    with pytest.raises(ActorDown):
        long.wait(PATIENCE_S)
    assert not happened.of("actor.crashed")


@pytest.mark.usefixtures("nobody_looks")
def test_a_caller_may_give_up_another_call_the_moment_it_hears_of_a_quarantine(tried: Callable[..., Tried]) -> None:
    pool = tried(quarantine_deaths=1)
    in_hand, *behind = [pool.wait() for _ in range(4)]
    short = pool.mark(1)
    handled(pool.running)
    begun(pool.running)
    first_failure_cancels(behind, behind[1])
    pool.running.process().kill()
    with pytest.raises(ActorDown):
        in_hand.wait(PATIENCE_S)
    for promise, error in zip(behind, ["quarantined", "cancelled", "quarantined"], strict=True):
        with pytest.raises(RegrowError, match=error) as caught:
            promise.wait(PATIENCE_S)
        assert caught.value.started == "no"
    assert short.wait(PATIENCE_S) == 1


def test_nobody_pays_for_the_memory_of_a_call_that_has_ended(
    tried: Callable[..., Tried], happened: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.workers.worker.CHECK_S", 3600.0)
    pool = tried(max_memory=Size("100MiB"), limit_address_space=False)
    fat, innocent = pool.running.request("faulty:leak", 150), pool.mark(1)
    handled(pool.running)
    worker = pool.running.worker().actor
    # The answer is there, and the hub, which is busy elsewhere, has not read it.
    assert get_original("select", "select")([worker._desk.process._fd], [], [], PATIENCE_S)[0]
    worker._check()
    assert fat.wait(PATIENCE_S) == 1
    assert innocent.wait(PATIENCE_S) == 1
    assert pool.marks() == [1]
    happened.wait("worker.recycled", reason="memory")
    assert not happened.of("worker.killed")


def keep_asking(running: RunningPool, function: str, *args: Any, until: str, happened: EventLog, **fields: Any) -> None:
    """Have four callers ask without a pause until this has happened; each call must succeed."""
    over = gevent.event.Event()

    def ask() -> None:
        while not over.is_set():
            running.call(function, *args)

    callers = [gevent.spawn(ask) for _ in range(4)]
    happened.wait(until, **fields)
    over.set()
    gevent.joinall(callers, raise_error=True)


def test_a_process_that_short_calls_have_filled_is_replaced_and_none_of_them_is_ended(
    pool: StartPool, happened: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.workers.worker.CHECK_S", 0.05)
    running = pool(max_memory=Size("100MiB"), limit_address_space=False)
    keep_asking(running, "faulty:leak_a_little", until="worker.recycled", happened=happened, reason="memory")
    assert not happened.of("worker.killed")


def test_a_process_that_is_never_idle_is_replaced_at_its_age_all_the_same(
    pool: StartPool, happened: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.workers.worker.CHECK_S", 0.05)
    running = pool(max_age=PositiveDuration("200ms"))
    keep_asking(running, "faulty:add", 1, 1, until="worker.recycled", happened=happened, count=2, reason="max_age")
    assert not happened.of("worker.killed")


# -- all of it at random ----------------------------------------------------------------------------------------------


def kill_at_random(chance: random.Random, over: gevent.event.Event) -> None:
    while not over.wait(chance.uniform(0.0, 0.3)):
        if chance.random() < 0.1:
            front = whereis("ml")
            if front is not None:
                front.kill()
            continue
        worker = whereis(f"ml/worker-{chance.choice((1, 2))}")
        if worker is None:
            continue
        pid = worker.actor.status()["pid"]
        if chance.random() < 0.3:
            worker.kill()
        elif pid is not None and psutil.pid_exists(pid):
            psutil.Process(pid).kill()


def ask_at_random(pool: Tried, chance: random.Random, number: int) -> list[Promise]:
    """Make one call, of which the caller may give up soon; return what it was answered, each time."""
    while whereis("ml") is None:  # it was killed, and is being started again
        gevent.sleep(0.005)
    timeout = chance.choice((0.02, 0.05, PATIENCE_S, PATIENCE_S, PATIENCE_S, PATIENCE_S))
    pause_s = 0.05 if chance.random() < 0.01 else 0.0  # more of them, and the function would not count as short
    promise = pool.mark(number, pause_s, timeout=timeout)
    given: list[Promise] = []
    done, cancel = gevent.event.Event(), None

    def note(answered: Promise) -> None:
        given.append(answered)
        done.set()

    promise.callback = note
    if promise.done:
        note(promise)
    elif chance.random() < 0.1:
        cancel = clock.after(chance.choice((0.0, 0.001, 0.02)), promise.cancel)
    assert done.wait(PATIENCE_S), f"call {number} was never answered"
    if cancel is not None:
        cancel.cancel()
    return given


def walk(pool: Tried, calls: int, seed: int) -> None:
    """Make calls while processes, actors and callers give up at random; check what each was told against what ran."""
    chance, over = random.Random(seed), gevent.event.Event()
    answers: dict[int, list[Promise]] = {}

    def caller(first: int) -> None:
        for number in range(first, calls, 30):
            answers[number] = ask_at_random(pool, chance, number)

    killer = gevent.spawn(kill_at_random, chance, over)
    gevent.joinall([gevent.spawn(caller, first) for first in range(30)], raise_error=True)
    over.set()
    killer.join()
    ran = Counter(pool.marks())
    assert max(ran.values()) == 1, "something ran twice"
    for number, given in answers.items():
        assert len(given) == 1, f"call {number} was answered {len(given)} times"
        error: Any = given[0].error
        if error is None:
            assert (given[0].value, ran[number]) == (number, 1)
        elif error.started == "no":
            assert not ran[number], f"call {number} ran, and its caller was told that it did not: {error}"
    status = pool.running.status()
    assert (status["queued"], status["queued_bytes"], QUEUED.value("ml")) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_gives_up_at_random_each_call_is_answered_once_and_runs_at_most_once(
    tried: Callable[..., Tried], seed: int
) -> None:
    walk(tried(workers=2, quarantine_deaths=1000, max_calls=50), 1200, seed)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_thirty_thousand_calls_are_answered_once_and_run_at_most_once(tried: Callable[..., Tried]) -> None:
    walk(tried(workers=2, quarantine_deaths=1000, max_calls=50), 30_000, 4)
