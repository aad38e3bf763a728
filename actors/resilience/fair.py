"""A bounded queue that is fair between clients: round robin by cost between them, first in first out within each.

Each client that waits has a mark: what has been served when its next item began to count, in units of cost. The lowest
mark goes first and moves on by the cost of what it got; whoever joins begins at the highest mark that was ever reached,
so every other client that waits is served once before it. A client with a thousand items costs another one a turn, not
a thousand.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)

# Clients that left keep their place in the heap until it holds so many more than wait.
STALE = 16


class _Line(Generic[Item]):
    """What one client has waiting."""

    __slots__ = ("backlog", "client", "items", "joined", "mark")

    def __init__(self, client: str, mark: int, joined: int) -> None:
        self.client = client
        self.mark = mark
        self.joined = joined
        self.backlog = 0
        self.items: OrderedDict[Item, int] = OrderedDict()


class FairQueue(Generic[Item]):
    """Items of clients, at most `bound` in all; items are told apart by identity or their own equality."""

    def __init__(self, bound: int) -> None:
        if bound < 0:
            raise ValueError(f"a queue has no negative bound, found {bound}")
        self.bound = bound
        self._lines: dict[str, _Line[Item]] = {}
        self._order: list[tuple[int, int, _Line[Item]]] = []
        self._count = 0
        self._reached = 0
        self._joined = 0

    def __repr__(self) -> str:
        return f"<FairQueue {self._count}/{self.bound} waiting, {len(self._lines)} clients>"

    def __len__(self) -> int:
        return self._count

    def put(self, client: str, item: Item, cost: int = 1) -> Item | None:
        """Queue an item; return the one that finds no place instead, None when all do. Never switches.

        When the queue is full that is the newest item of the client that has most in it, unless the newcomer's client
        would then have as much: then it is the newcomer.
        """
        displaced = None
        line = self._lines.get(client)
        if self._count >= self.bound:
            largest = max(self._lines.values(), key=_number, default=None)
            if largest is None or (0 if line is None else len(line.items)) + 1 >= len(largest.items):
                return item
            displaced = next(reversed(largest.items))
            self.discard(largest.client, displaced)
        if line is None:
            self._joined += 1
            line = self._lines[client] = _Line(client, self._reached, self._joined)
            self._tidy()
            heapq.heappush(self._order, (line.mark, line.joined, line))
        line.items[item] = cost
        line.backlog += cost
        self._count += 1
        return displaced

    def first(self) -> Item | None:
        """Return the item whose turn it is, None when nothing waits. Never switches."""
        line = self._first_line()
        return None if line is None else next(iter(line.items))

    def take(self) -> Item | None:
        """Take the item whose turn it is out of the queue, None when nothing waits. Never switches."""
        line = self._first_line()
        if line is None:
            return None
        item, cost = line.items.popitem(last=False)
        self._count -= 1
        line.backlog -= cost
        line.mark += cost
        self._reached = max(self._reached, line.mark)
        if line.items:
            heapq.heapreplace(self._order, (line.mark, line.joined, line))
        else:
            heapq.heappop(self._order)
            self._leave(line)
        return item

    def discard(self, client: str, item: Item) -> bool:
        """Take an item out of the queue without its turn; False when it is not there. Never switches."""
        line = self._lines.get(client)
        cost = None if line is None else line.items.pop(item, None)
        if line is None or cost is None:
            return False
        self._count -= 1
        line.backlog -= cost
        if not line.items:
            self._leave(line)
        return True

    def remove(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        """Take all items out of the queue that `unwanted` says yes to, client by client. Never switches."""
        gone = [(line.client, item) for line in self._lines.values() for item in line.items if unwanted(item)]
        for client, item in gone:
            self.discard(client, item)
        return [item for _, item in gone]

    def ahead(self, client: str) -> int:
        """Return the cost of what is served before one more item of this client, if nothing else comes; it may be more
        where items of others cost more than 1. Never switches.
        """
        own = self._lines.get(client)
        return self._before(own, 0 if own is None else own.backlog)

    def place(self, client: str, item: Item) -> int | None:
        """Return the cost of what is served before an item that waits, as `ahead` does; None when it does not wait.

        Never switches.
        """
        own = self._lines.get(client)
        if own is None or item not in own.items:
            return None
        within = 0
        for each, cost in own.items.items():
            if each == item:
                break
            within += cost
        return self._before(own, within)

    def _before(self, own: _Line[Item] | None, within: int) -> int:
        """Return the cost served before an item that has `within` before it in its own line."""
        start = self._reached if own is None else own.mark + within
        before = within
        for line in self._lines.values():
            if line is not own:
                reach = start - line.mark + (own is None or line.joined < own.joined)
                before += min(line.backlog, max(0, reach))
        return before

    def shares(self) -> dict[str, int]:
        """Return how many items each client has in the queue. Never switches."""
        return {client: len(line.items) for client, line in self._lines.items()}

    def _first_line(self) -> _Line[Item] | None:
        order = self._order
        while order and not order[0][2].items:
            heapq.heappop(order)
        return order[0][2] if order else None

    def _leave(self, line: _Line[Item]) -> None:
        del self._lines[line.client]
        if not self._lines:
            self._order.clear()
            self._reached = 0

    def _tidy(self) -> None:
        if len(self._order) > 2 * len(self._lines) + STALE:
            self._order = [entry for entry in self._order if entry[2].items]
            heapq.heapify(self._order)


def _number(line: _Line[Item]) -> int:
    return len(line.items)
