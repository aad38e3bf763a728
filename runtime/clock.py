"""Time: one monotonic clock, one coarse timer wheel, and the seam by which tests drive both.

Decisions. Every timer, deadline and back-off of the runtime goes through this module, so a manual clock
(regrow.testing) moves all of them. The wheel has slots of 10 ms: a timer fires at the end of its slot, never early and
at most one slot late; starting and cancelling are O(1), because nearly every deadline is cancelled. Callers write
`clock.now()` through the module, never `from clock import now`, since installing a manual clock replaces the
functions.
"""

from __future__ import annotations

import heapq
import math
import sys
import time
from collections.abc import Callable
from typing import Any

from gevent import get_hub
from greenlet import getcurrent

SLOTS_PER_S = 100


class Timer:
    """A pending call; `cancel` is O(1) and idempotent. Never switches."""

    __slots__ = ("args", "callback", "slot")

    def __init__(self, slot: dict[Timer, None], callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.slot: dict[Timer, None] | None = slot
        self.callback = callback
        self.args = args

    def cancel(self) -> None:
        slot = self.slot
        if slot is not None:
            self.slot = None
            slot.pop(self, None)

    @property
    def pending(self) -> bool:
        return self.slot is not None

    def __repr__(self) -> str:
        name = getattr(self.callback, "__qualname__", self.callback)
        return f"<Timer {name} {'over' if self.slot is None else 'pending'}>"


class Wheel:
    """Timers in slots of time; knows nothing of who moves the time."""

    def __init__(self, read: Callable[[], float], slots_per_s: int, arm: Callable[[float], None]) -> None:
        self._read = read
        self._per_s = slots_per_s
        self._arm = arm  # called with the seconds until the earliest slot is due, when that became earlier
        self._slots: dict[int, dict[Timer, None]] = {}
        self._heap: list[int] = []

    def after(self, delay_s: float, callback: Callable[..., object], *args: Any) -> Timer:
        if delay_s == math.inf:  # a timer that never fires, and is in nobody's way
            never: dict[Timer, None] = {}
            return Timer(never, callback, args)
        now_s = self._read()
        tick = math.ceil((now_s + delay_s) * self._per_s - 1e-6)
        slot = self._slots.get(tick)
        if slot is None:
            slot = self._slots[tick] = {}
            heapq.heappush(self._heap, tick)
            if self._heap[0] == tick:
                self._arm(tick / self._per_s - now_s)
        timer = Timer(slot, callback, args)
        slot[timer] = None
        return timer

    def fire(self) -> int:
        """Run every due timer in order of time and return how many; the callbacks must not block."""
        fired = 0
        due = math.floor(self._read() * self._per_s + 1e-6)
        slots = []  # all before any runs: a timer that sets another one for now must not keep the others waiting
        while self._heap and self._heap[0] <= due:
            slots.append(self._slots.pop(heapq.heappop(self._heap)))
        for slot in slots:
            for timer in list(slot):
                if timer.slot is slot:  # else an earlier timer of this slot cancelled it
                    timer.slot = None
                    fired += 1
                    try:
                        timer.callback(*timer.args)
                    except Exception:  # noqa: BLE001 - an edge: one broken timer must not stop the others
                        get_hub().handle_error(timer.callback, *sys.exc_info())
        if self._heap:
            self._arm(self._heap[0] / self._per_s - self._read())
        return fired

    def next_due(self) -> float | None:
        """Return when the earliest pending timer is due, on this clock's scale; None when there is none."""
        while self._heap:
            if self._slots[self._heap[0]]:
                return self._heap[0] / self._per_s
            del self._slots[heapq.heappop(self._heap)]
        return None

    def pending(self) -> list[Timer]:
        return [timer for slot in self._slots.values() for timer in slot]


class _HubAlarm:
    """One libev timer that wakes the wheel of the real clock."""

    def __init__(self) -> None:
        self._watcher: Any = None

    def arm(self, delay_s: float) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
        self._watcher = get_hub().loop.timer(max(0.0, delay_s))
        # its own wheel, whichever is installed now: else the real one would stop for good under a manual clock
        self._watcher.start(_real_wheel.fire, update=True)


_wheel = Wheel(time.monotonic, SLOTS_PER_S, _HubAlarm().arm)
_real_wheel = _wheel

now: Callable[[], float] = time.monotonic
"""Seconds on the monotonic clock (or on the manual one). Never switches."""
wall: Callable[[], float] = time.time
"""Seconds of unix time, for people and peers, never for deadlines. Never switches."""
after: Callable[..., Timer] = _wheel.after
"""`after(delay_s, callback, *args)`: run the callback in the hub, where it must not block. Never switches."""


def sleep(delay_s: float) -> None:
    """Pause the calling greenlet for `delay_s` seconds of this clock. Switches greenlets."""
    waiter: list[Any] = [getcurrent()]

    def wake() -> None:
        if waiter:
            waiter.pop().switch()

    timer = after(delay_s, wake)
    try:
        while waiter:
            get_hub().switch()
    finally:
        waiter.clear()
        timer.cancel()


def pending_timers() -> list[Timer]:
    """Return the timers that have neither fired nor been cancelled. Never switches."""
    return _wheel.pending()


def install(wheel: Wheel | None, read_now: Callable[[], float], read_wall: Callable[[], float]) -> None:
    """Replace the clock by a manual one, or with None bring the real one back; only for tests, between two tests."""
    global _wheel, now, wall, after
    _wheel = _real_wheel if wheel is None else wheel
    now = time.monotonic if wheel is None else read_now
    wall = time.time if wheel is None else read_wall
    after = _wheel.after
