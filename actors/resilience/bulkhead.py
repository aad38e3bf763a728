"""A bounded number of lanes and a bounded first-in, first-out queue before them: pure bookkeeping, no waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Bulkhead(Generic[Item]):
    """Which lane is free, and what waits when none is."""

    def __init__(self, lanes: int, queue: int) -> None:
        if lanes < 1 or queue < 0:
            raise ValueError(f"a bulkhead has at least 1 lane and no negative queue, found {lanes} and {queue}")
        self.lanes = lanes
        self.bound = queue
        self.busy: set[int] = set()
        # The lane freed last is taken first: its connection is the warmest.
        self._free = list(range(lanes - 1, -1, -1))
        self._queue: deque[Item] = deque()

    def __repr__(self) -> str:
        return f"<Bulkhead {len(self.busy)}/{self.lanes} busy, {len(self._queue)}/{self.bound} waiting>"

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def full(self) -> bool:
        """True when neither a lane nor a place in the queue is left."""
        return not self._free and len(self._queue) >= self.bound

    def take(self) -> int | None:
        """Return a free lane and mark it busy, None when all are. Never switches."""
        if not self._free:
            return None
        lane = self._free.pop()
        self.busy.add(lane)
        return lane

    def occupy(self, lane: int) -> None:
        """Mark a lane busy that works already. Never switches."""
        if lane not in self.busy:
            self.busy.add(lane)
            self._free.remove(lane)

    def wait(self, item: Item) -> bool:
        """Queue an item; False when the queue is full. Never switches."""
        if len(self._queue) >= self.bound:
            return False
        self._queue.append(item)
        return True

    def release(self, lane: int) -> None:
        """Free a lane; freeing a free one changes nothing. Never switches."""
        if lane in self.busy:
            self.busy.remove(lane)
            self._free.append(lane)

    def next(self) -> Item | None:
        """Take the item that waited longest out of the queue, None when nothing waits. Never switches."""
        return self._queue.popleft() if self._queue else None

    def remove(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        """Take all items out of the queue that `unwanted` says yes to. Never switches."""
        gone = [item for item in self._queue if unwanted(item)]
        if gone:
            self._queue = deque(item for item in self._queue if not unwanted(item))
        return gone
