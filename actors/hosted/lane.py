"""A native thread of one actor: calls are run on it one after the other, and the hub hears of their results.

Nothing can stop a thread from outside. A lane that is given up is told to end after the call in hand; when that does
not come back, the thread stays, and is reported by the name of its actor and the line where it hangs. An actor that has
left MAX_LEFT_BEHIND threads behind gets no further one until one of them comes back, so its restarts fail at once.
"""

from __future__ import annotations

import linecache
import sys
from _queue import SimpleQueue
from collections.abc import Callable
from typing import Any

from gevent.event import AsyncResult
from gevent.monkey import get_original

from runtime import clock, events
from runtime.promise import Promise
from runtime.scheduler import run_callback_threadsafe

#: so long after it was given up a thread that still works is reported
STUCK_S = 5.0
#: so many threads of one actor, given up while they worked, may be there at the same time
MAX_LEFT_BEHIND = 4

_left_behind: dict[str, set[Lane]] = {}

start_new_thread: Callable[..., int] = get_original("_thread", "start_new_thread")


class TooManyStuck(Exception):
    """An actor's threads hang, and it would start one more."""


class Lane:
    """One native thread; `promise` is the request for which it works now. Raises `TooManyStuck`."""

    def __init__(self, name: str) -> None:
        stuck = _left_behind.get(name, ())
        if len(stuck) >= MAX_LEFT_BEHIND:
            where = next((found for one in stuck if (found := one.where()[0])), "an unknown place")
            raise TooManyStuck(
                f"{name} has {len(stuck)} threads that hang, one of them at {where}, and gets no further one until one "
                'comes back; a process can be ended instead: run_in = "process"'
            )
        self.name = name
        self.promise: Promise | None = None
        self.is_busy = False
        self._report: clock.Timer | None = None
        self._calls: SimpleQueue[tuple[AsyncResult[Any], Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()
        self._ident = start_new_thread(self._work, ())

    def run(self, promise: Promise | None, function: Callable[..., Any], *args: Any) -> Any:
        """Run a call on the thread and return its result or raise what it raised. Switches greenlets."""
        result: AsyncResult[Any] = AsyncResult()
        self.promise, self.is_busy = promise, True
        self._calls.put((result, function, args))
        return result.get()

    def end(self) -> None:
        """Let the thread end after the call in hand, and report it when that takes too long. Never switches."""
        self._calls.put(None)
        if self.is_busy:
            _left_behind.setdefault(self.name, set()).add(self)
            self._report = clock.after(STUCK_S, self._report_stuck)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            result, function, args = call
            try:
                value = function(*args)
            except BaseException as error:  # noqa: BLE001 - the thread's own loop: the actor gets whatever it was
                run_callback_threadsafe(self._settle, result, None, error)
                del error
            else:
                run_callback_threadsafe(self._settle, result, value, None)
                del value
            del call, result, function, args

    def _settle(self, result: AsyncResult[Any], value: Any, error: BaseException | None) -> None:
        self.is_busy = False
        self.promise = None
        if self._report is not None:
            self._report.cancel()
            self._come_back()
        if error is not None:
            result.set_exception(error)
        else:
            result.set(value)

    def _come_back(self) -> None:
        others = _left_behind[self.name]
        others.discard(self)
        events.publish("actor.thread_returned", actor=self.name, stuck=len(others))
        if not others:
            del _left_behind[self.name]

    def where(self) -> tuple[str, str]:
        """Return file and line where the thread is now, and that line's text; empty where unknown. Never switches."""
        frame = sys._current_frames().get(self._ident)
        if frame is None:
            return "", ""
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        return f"{frame.f_code.co_filename}:{frame.f_lineno}", line

    def _report_stuck(self) -> None:
        if self.is_busy:
            where, line = self.where()
            events.publish("actor.stuck", actor=self.name, path=self.name, where=where or "unknown", line=line)

    def __repr__(self) -> str:
        return f"<Lane of {self.name}, {'busy' if self.is_busy else 'idle'}>"
