"""A manual clock: time that moves only when a test moves it, for every timer, back-off and deadline of the runtime.

Decisions. Nothing is simulated: actors, runners and the gevent hub are the real ones, only the clock of `runtime.clock`
is replaced. Timers fire in the hub, as they do on the real clock, one instant after the other, and between two instants
the machine runs until nothing is ready, so that what a timer sets off has happened before the next one fires.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

from gevent import get_hub
from gevent.hub import Waiter

from runtime import clock, scheduler

SLOTS_PER_S = 1_000_000  # a timer of a test fires at its instant, not at the end of a coarse slot
ROUNDING_S = 1e-7  # sums of floats that mean the same instant
MAX_TURNS = 100_000


class NeverSettles(Exception):
    """The machine found something to do again and again without time passing: actors that keep each other busy."""


class ManualClock:
    """A clock that stands still until `advance`; a context manager that installs itself and brings the real one back.

    Waiting for sockets, processes and native threads is not time: `settle` does not wait for those.
    """

    def __init__(self, *, start_s: float = 1000.0, wall_s: float = 1_700_000_000.0) -> None:
        self._now_s = start_s
        self._wall_offset_s = wall_s - start_s
        self._wheel = clock.Wheel(self.now, SLOTS_PER_S, _nobody_waits)

    def install(self) -> None:
        """Make this the clock of the runtime; timers that run stay on the clock they were set on. Never switches."""
        clock.install(self._wheel, self.now, self.wall)
        scheduler.renew_sweep()

    def uninstall(self) -> None:
        """Bring the real clock back; pending timers of this one never fire. Never switches."""
        clock.install(None, self.now, self.wall)
        scheduler.renew_sweep()

    def __enter__(self) -> ManualClock:
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.uninstall()

    def now(self) -> float:
        """Return the seconds of this monotonic clock. Never switches."""
        return self._now_s

    def wall(self) -> float:
        """Return the unix time that goes with `now`. Never switches."""
        return self._now_s + self._wall_offset_s

    def next_due(self) -> float | None:
        """Return when the earliest pending timer is due, None when there is none. Never switches."""
        return self._wheel.next_due()

    def pending(self) -> list[clock.Timer]:
        """Return the timers that have neither fired nor been cancelled, but for the machine's own. Never switches."""
        return [timer for timer in self._wheel.pending() if timer is not scheduler.S.sweep_timer]

    def settle(self) -> None:
        """Return when nothing is ready to run: no actor with messages, no woken greenlet, no due timer.

        Raises `NeverSettles` instead of running for ever. Switches greenlets.
        """
        loop: Any = get_hub().loop  # gevent names no other way to see what is scheduled than `_callbacks`
        for _ in range(MAX_TURNS):
            get_hub().wait(loop.timer(0.0))  # a whole turn of the loop: callbacks, the scheduler's watcher, the poll
            due = self._wheel.next_due()
            if due is not None and due <= self._now_s + ROUNDING_S:
                _run_in_hub(self._fire)
            elif not (scheduler.S.ready or scheduler.S.scheduled or loop._callbacks):
                return
        raise NeverSettles(f"the machine was still busy after {MAX_TURNS} turns of the hub without time passing")

    def advance(self, seconds: float) -> None:
        """Let time pass: fire the timers that become due, in order, and settle around each. Switches greenlets."""
        if seconds < 0:
            raise ValueError(f"time cannot go back by {-seconds:g} s")
        target_s = self._now_s + seconds
        self.settle()
        while True:
            due = self._wheel.next_due()
            if due is None or due > target_s + ROUNDING_S:
                break
            self._now_s = max(self._now_s, due)
            self.settle()
        self._now_s = max(self._now_s, target_s)
        self.settle()

    def advance_to_next(self) -> bool:
        """Let time pass until the next timer has fired; False when no timer is pending. Switches greenlets."""
        due = self._wheel.next_due()
        if due is None:
            return False
        self.advance(max(0.0, due - self._now_s))
        return True

    def _fire(self) -> None:
        self._wheel.fire()

    def __repr__(self) -> str:
        return f"<ManualClock at {self._now_s:g} s, {len(self.pending())} timers pending>"


def _nobody_waits(_delay_s: float) -> None:
    """Stand in for the alarm of the real wheel: nobody has to be woken, the test moves the time."""


def _run_in_hub(function: Callable[[], None]) -> None:
    """Run a function in the hub, behind everything that is ready there now, and return after it. Switches greenlets."""
    waiter: Waiter[None] = Waiter()

    def run() -> None:
        try:
            function()
        except BaseException:  # noqa: BLE001 - carried over to the greenlet that asked for it
            waiter.throw(*sys.exc_info())
        else:
            waiter.switch(None)

    get_hub().loop.run_callback(run)
    waiter.get()
