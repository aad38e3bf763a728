"""Tasks: one function run once in an actor of its own, awaited by whoever started it (Elixir `Task.Supervisor`).

`async_` links the task to the calling actor, so that either takes the other with it when it crashes; `async_nolink`
only lets the caller hear of it. Tasks are temporary: a crashed one is never run again.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from regrow.protocol.errors import Failed
from runtime import clock
from runtime.actor import Actor
from runtime.promise import AskTimeout, Promise
from runtime.reasons import KILLED, NORMAL, SHUTDOWN, ExitReason, Stop
from runtime.ref import Ref
from runtime.scheduler import current_ref
from runtime.signals import Down, join, monitor, part
from supervisors.dynamic import DynamicSupervisor, start_dynamic
from supervisors.spec import ChildSpec

DEFAULT_AWAIT_S = 5.0


class TaskFailed(Failed):
    """The task ended without a result; `reason` is its exit reason."""

    code = "actor_down"

    def __init__(self, reason: ExitReason) -> None:
        super().__init__(f"the task ended without a result: {reason}", started="yes")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TaskResult:
    """How a task ended: `ok` with its `value`, or not, with the exit `reason`."""

    ok: bool
    value: Any = None
    reason: ExitReason | None = None


class _Run:
    """The one message of a task."""

    __slots__ = ()


class _TaskActor(Actor):
    """Runs the function and ends."""

    timeout = None  # a task is bounded by whoever awaits it, and by its supervisor

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], promise: Promise, owner: Ref | None
    ) -> None:
        super().__init__()
        self._function = function
        self._args = args
        self._promise = promise
        self._owner = owner

    def on_start(self) -> None:
        if self._owner is not None and self._owner.is_alive():
            join(self._owner, self.ref)
        self.continue_with(_Run())

    def on_receive(self, message: Any) -> Any:
        if not isinstance(message, _Run):
            return super().on_receive(message)
        self._promise.resolve(TaskResult(True, self._function(*self._args)))
        raise Stop(NORMAL)


class TaskSupervisor(DynamicSupervisor):
    """The supervisor of tasks; nothing of it is restarted."""

    def __init__(self, *, max_children: int | None = None) -> None:
        super().__init__(max_children=max_children, max_restarts=0)


class Task:
    """A task under way: `ref` of its actor, and the calls that wait for it. One task is awaited once, by its owner."""

    def __init__(self, ref: Ref, promise: Promise, owner: Ref | None) -> None:
        self.ref = ref
        self._promise = promise
        self._owner = owner
        monitor(ref, self._ended)

    def await_(self, timeout_s: float = DEFAULT_AWAIT_S) -> Any:
        """Return the result; raises `TaskFailed`, or `AskTimeout` after `timeout_s` seconds. Switches greenlets."""
        result: TaskResult = self._promise.wait(timeout_s)
        if not result.ok:
            assert result.reason is not None
            raise TaskFailed(result.reason)
        return result.value

    def yield_(self, timeout_s: float = DEFAULT_AWAIT_S) -> TaskResult | None:
        """Return how the task ended, None when it has not within `timeout_s` seconds. Switches greenlets."""
        try:
            result: TaskResult = self._promise.wait(timeout_s)
        except AskTimeout:
            return None
        return result

    def shutdown(self, timeout_s: float | Literal["brutal_kill"] = DEFAULT_AWAIT_S) -> TaskResult | None:
        """End the task and return the result that came in time, None when none did. Switches greenlets."""
        if self._owner is not None:
            part(self._owner, self.ref)
        if self.ref.is_alive() and not self._promise.done:
            if timeout_s == "brutal_kill":
                self.ref.kill()
            else:
                self.ref.exit(SHUTDOWN)
        limit_s = 0.0 if timeout_s == "brutal_kill" else timeout_s
        result = self.yield_(limit_s)
        if result is None:
            self.ref.kill()
            return None
        return result if result.ok or result.reason not in (SHUTDOWN, KILLED) else None

    def _ended(self, down: Down) -> None:
        self._promise.resolve(TaskResult(False, reason=down.reason))

    def __repr__(self) -> str:
        return f"<Task {self.ref}>"


def async_(supervisor: Ref, function: Callable[..., Any], *args: Any) -> Task:
    """Start a task that is linked to the calling actor, if there is one. Switches greenlets."""
    return _start(supervisor, function, args, current_ref())


def async_nolink(supervisor: Ref, function: Callable[..., Any], *args: Any) -> Task:
    """Start a task whose crash harms nobody; its owner hears of it when it awaits. Switches greenlets."""
    return _start(supervisor, function, args, None)


def _start(supervisor: Ref, function: Callable[..., Any], args: tuple[Any, ...], owner: Ref | None) -> Task:
    promise = Promise()
    # A task has nothing to clean up and need not be waited for: brutal_kill ends it, as the exit signal does in Elixir.
    arguments = (function, args, promise, owner)
    spec = ChildSpec("task", _TaskActor, args=arguments, restart="temporary", shutdown="brutal_kill")
    ref: Ref = start_dynamic(supervisor, spec)
    return Task(ref, promise, owner)


def async_stream(
    supervisor: Ref,
    function: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    max_concurrency: int | None = None,
    ordered: bool = True,
    timeout_s: float = DEFAULT_AWAIT_S,
    on_timeout: Literal["exit", "kill_task"] = "exit",
) -> Iterator[TaskResult]:
    """Run a task for each item, at most `max_concurrency` (default: cores) at a time, and yield how each ended.

    In the order of the items, or as they end. A task that takes longer than `timeout_s` seconds raises `AskTimeout`
    ("exit") or is killed and yields its reason ("kill_task"). Tasks still running when the iterator is closed are
    killed. Switches greenlets.
    """
    if on_timeout not in ("exit", "kill_task"):
        raise ValueError(f"on_timeout is {on_timeout!r}, expected 'exit' or 'kill_task'")
    most = max_concurrency or os.cpu_count() or 1
    source = iter(items)
    running: deque[tuple[Task, float]] = deque()
    exhausted = False
    try:
        while True:
            while not exhausted and len(running) < most:
                try:
                    item = next(source)
                except StopIteration:
                    exhausted = True
                    break
                running.append((async_nolink(supervisor, function, item), clock.now() + timeout_s))
            if not running:
                return
            yield _next_result(running, ordered, timeout_s, on_timeout)
    finally:
        for task, _ in running:
            task.ref.kill()


def _next_result(running: deque[tuple[Task, float]], ordered: bool, timeout_s: float, on_timeout: str) -> TaskResult:
    """Wait for the next task whose turn it is, and take it out."""
    if not ordered and len(running) > 1:
        _wait_any([task._promise for task, _ in running], min(until for _, until in running))
        for index, (task, until) in enumerate(running):
            if task._promise.done or clock.now() >= until:
                del running[index]
                running.appendleft((task, until))
                break
    task, until = running[0]
    result = task.yield_(max(0.0, until - clock.now()))
    if result is None:
        if on_timeout == "exit":
            raise AskTimeout(f"a task of the stream took longer than {timeout_s:g} s", started="yes")
        task.ref.kill()
        result = TaskResult(False, reason=ExitReason("timeout"))
    running.popleft()
    return result


def _wait_any(promises: list[Promise], until: float) -> None:
    """Return when one of the promises is settled, or at `until`. Switches greenlets."""
    if any(promise.done for promise in promises):
        return
    first = Promise()
    for promise in promises:
        promise.callback = lambda _settled: first.resolve(None)
    try:
        first.wait(max(0.0, until - clock.now()))
    except AskTimeout:
        pass
    finally:
        for promise in promises:
            promise.callback = None
