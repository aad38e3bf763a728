"""A bounded number of lanes and a bounded queue before them that is fair between clients: bookkeeping, no waiting."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from actors.resilience.fair import FairQueue

Item = TypeVar("Item", bound=Hashable)


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
        self._queue: FairQueue[Item] = FairQueue(queue)

    def __repr__(self) -> str:
        return f"<Bulkhead {len(self.busy)}/{self.lanes} busy, {len(self._queue)}/{self.bound} waiting>"

    def __len__(self) -> int:
        return len(self._queue)

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

    def wait(self, client: str, item: Item) -> Item | None:
        """Queue an item; return the one that finds no place instead, as `FairQueue.put` chooses. Never switches."""
        return self._queue.put(client, item)

    def leave(self, client: str, item: Item) -> bool:
        """Take an item out of the queue that waits no longer; False when it is not there. Never switches."""
        return self._queue.discard(client, item)

    def overtakes(self, client: str, other: str, item: Item) -> bool:
        """Tell whether one more item of a client would have its turn before that item of another. Never switches."""
        place = None if client == other else self._queue.place(other, item)
        return place is not None and self._queue.ahead(client) < place

    def release(self, lane: int) -> None:
        """Free a lane; freeing a free one changes nothing. Never switches."""
        if lane in self.busy:
            self.busy.remove(lane)
            self._free.append(lane)

    def next(self) -> Item | None:
        """Take the item whose turn it is out of the queue, None when nothing waits. Never switches."""
        return self._queue.take()

    def remove(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        """Take all items out of the queue that `unwanted` says yes to. Never switches."""
        return self._queue.remove(unwanted)
