"""Restart intensity: at most so many restarts within so many seconds (OTP's sliding window on whole seconds)."""

from __future__ import annotations

from collections import deque


class Intensity:
    """The restarts of one supervisor within its window; private to one incarnation, empty after a restart."""

    __slots__ = ("_restarts", "max_restarts", "max_seconds")

    def __init__(self, max_restarts: int, max_seconds: float) -> None:
        self.max_restarts = max_restarts
        self.max_seconds = max_seconds
        self._restarts: deque[int] = deque()

    def admit(self, now_s: float) -> bool:
        """Count one restart more, and tell whether it is still within the limit. Amortised O(1). Never switches."""
        second = int(now_s)  # OTP counts in whole seconds of a monotonic clock, boundary included
        restarts = self._restarts
        restarts.append(second)
        while restarts and second - restarts[0] > self.max_seconds:
            restarts.popleft()
        return len(restarts) <= self.max_restarts

    def ratio(self, now_s: float) -> float:
        """Return the restarts in the window as a share of the limit; 1.0 means that the next one gives up."""
        second = int(now_s)
        inside = sum(1 for r in self._restarts if second - r <= self.max_seconds)
        return inside / self.max_restarts if self.max_restarts else float(inside > 0)
