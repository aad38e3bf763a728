"""Tasks: a function run once in an actor of its own, awaited by its owner."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent.event import Event

from runtime.actor import Actor
from runtime.promise import AskTimeout
from runtime.ref import Ref
from runtime.signals import Exit
from supervisors import TaskSupervisor, async_, async_nolink, async_stream, count_children
from supervisors.errors import TooManyChildren
from supervisors.task import TaskFailed


@pytest.fixture
def tasks() -> Any:
    supervisor = TaskSupervisor.start()
    yield supervisor
    supervisor.stop()


def test_await_returns_what_the_function_returned(tasks: Ref) -> None:
    assert async_(tasks, lambda a, b: a + b, 2, 3).await_() == 5


def test_await_raises_the_reason_of_a_crashed_task_and_the_supervisor_lives(tasks: Ref) -> None:
    task = async_nolink(tasks, lambda: 1 // 0)
    with pytest.raises(TaskFailed, match="ZeroDivisionError"):
        task.await_()
    assert tasks.is_alive()
    assert count_children(tasks)["active"] == 0


def test_await_gives_up_after_its_timeout(tasks: Ref) -> None:
    never = Event()
    task = async_nolink(tasks, never.wait)
    with pytest.raises(AskTimeout):
        task.await_(0.01)
    assert task.shutdown("brutal_kill") is None


def test_yield_returns_nothing_while_the_task_works_and_the_result_later(tasks: Ref) -> None:
    go = Event()
    task = async_nolink(tasks, lambda: (go.wait(), "done")[1])
    assert task.yield_(0.01) is None
    go.set()
    result = task.yield_()
    assert result is not None
    assert (result.ok, result.value) == (True, "done")


def test_shutdown_returns_a_result_that_came_in_time(tasks: Ref) -> None:
    task = async_nolink(tasks, lambda: 7)
    assert task.await_() == 7
    result = task.shutdown()
    assert result is not None
    assert result.value == 7


def test_shutdown_ends_a_task_that_works_on(tasks: Ref) -> None:
    task = async_nolink(tasks, Event().wait)
    assert task.shutdown(0.05) is None
    assert not task.ref.is_alive()


class Owner(Actor):
    def __init__(self, tasks: Ref) -> None:
        super().__init__()
        self.tasks = tasks
        self.task: Any = None

    def on_receive(self, message: Any) -> Any:
        if message == "start":
            self.task = async_(self.tasks, Event().wait)
            return self.task.ref
        if message == "crash":
            raise RuntimeError("told to crash")
        if message == "start one that crashes":
            return async_(self.tasks, lambda: 1 // 0).ref
        return None


class TrappingOwner(Owner):
    trap_exit = True

    def __init__(self, tasks: Ref) -> None:
        super().__init__(tasks)
        self.heard: list[Exit] = []

    def on_exit(self, signal: Exit) -> None:
        self.heard.append(signal)


def test_a_linked_task_dies_with_its_owner(tasks: Ref) -> None:
    owner = Owner.start(tasks)
    task: Ref = owner.ask("start")
    with pytest.raises(RuntimeError):
        owner.ask("crash")
    assert not task.is_alive()


def test_a_crashing_linked_task_takes_its_owner_with_it(tasks: Ref) -> None:
    owner = Owner.start(tasks)
    owner.ask("start one that crashes")
    gevent.sleep(0)
    gevent.sleep(0)
    assert not owner.is_alive()


def test_an_owner_that_traps_exits_hears_of_the_crash_of_its_task(tasks: Ref) -> None:
    owner = TrappingOwner.start(tasks)
    ref = owner.ask("start one that crashes")
    actor = owner.actor
    gevent.sleep(0)
    gevent.sleep(0)
    assert [signal.sender for signal in actor.heard] == [ref]
    owner.stop()


def test_a_stream_keeps_the_order_of_its_items(tasks: Ref) -> None:
    def slow_first(n: int) -> int:
        gevent.sleep(0.02 if n == 0 else 0)
        return n * n

    assert [r.value for r in async_stream(tasks, slow_first, range(5), max_concurrency=2)] == [0, 1, 4, 9, 16]


def test_an_unordered_stream_yields_what_ends_first(tasks: Ref) -> None:
    held = Event()

    def work(n: int) -> int:
        if n == 0:
            held.wait()
        elif n == 2:
            held.set()
        return n

    found = [r.value for r in async_stream(tasks, work, range(3), max_concurrency=3, ordered=False)]
    assert found[-1] == 0
    assert sorted(found) == [0, 1, 2]


def test_a_stream_never_runs_more_than_its_concurrency(tasks: Ref) -> None:
    running = most = 0

    def work(_n: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        gevent.sleep(0)
        running -= 1

    assert all(r.ok for r in async_stream(tasks, work, range(20), max_concurrency=3))
    assert most == 3


def test_a_stream_can_kill_what_takes_too_long_and_go_on(tasks: Ref) -> None:
    never = Event()
    results = list(
        async_stream(tasks, lambda n: never.wait() if n == 1 else n, range(3), timeout_s=0.05, on_timeout="kill_task")
    )
    assert [r.ok for r in results] == [True, False, True]
    assert count_children(tasks)["active"] == 0


def test_closing_a_stream_kills_what_still_runs(tasks: Ref) -> None:
    never = Event()
    stream = async_stream(tasks, lambda n: never.wait() if n else n, range(3), max_concurrency=3)
    assert next(stream).value == 0
    stream.close()  # type: ignore[attr-defined]
    gevent.sleep(0)
    assert count_children(tasks)["active"] == 0


def test_a_task_supervisor_refuses_more_than_its_limit() -> None:
    supervisor = TaskSupervisor.start(max_children=1)
    async_nolink(supervisor, Event().wait)
    with pytest.raises(TooManyChildren):
        async_nolink(supervisor, Event().wait)
    supervisor.stop()
