"""A stream of rows that a connection holds: what its reader has of it, and what the connection knows.

The reader's side is a `Source` of `runtime.streams`; each pull is a message to the connection actor, which is held by
the stream until it ends, is closed, is not read for too long, or has lasted too long.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from actors.database.operation import Operation
from runtime import clock
from runtime.promise import Promise
from runtime.ref import Ref
from runtime.streams import MAX_ITEMS_PER_PULL, iterate

#: a stream whose operation has no timeout lasts so long at most
MAX_STREAM_S = 3600.0

_keys = itertools.count(1)


@dataclass(frozen=True, slots=True)
class PullRows:
    """Give the next items of the stream, answered with a `Batch`."""

    key: int
    most: int


@dataclass(frozen=True, slots=True)
class CloseRows:
    """End the stream; `why` is None when its reader let go of it."""

    key: int
    why: str | None = None


class RowStream:
    """The answer of a streaming operation: a `Source`, and in the same process an iterable."""

    __slots__ = ("_held", "ref")

    def __init__(self, ref: Ref, held: Held) -> None:
        self.ref = ref
        self._held = held

    def pull(self, most: int, promise: Promise) -> None:
        """Ask for the next items; `promise` is settled with a `Batch` or an error. Never switches."""
        self.ref.request(PullRows(self._held.key, max(1, min(most, MAX_ITEMS_PER_PULL))), promise)

    def close(self) -> None:
        """Let go of the stream, also while a pull is under way; the connection is free soon after. Never switches."""
        held = self._held
        if not held.closed and self.ref.is_alive():
            held.closed = True
            if held.cut is not None:
                held.cut()
            self.ref.post(CloseRows(held.key))

    def __iter__(self) -> Iterator[Any]:
        return iterate(self)

    def __repr__(self) -> str:
        return f"<RowStream {self._held.operation.name} of {self.ref.path}>"


class Held:
    """The connection's side of its stream."""

    __slots__ = ("closed", "cut", "idle_s", "items", "key", "operation", "timer", "until")

    def __init__(self, operation: Operation, idle_s: float) -> None:
        self.key = next(_keys)
        self.operation = operation
        self.until = clock.now() + (operation.timeout_s or MAX_STREAM_S)
        self.idle_s = idle_s
        self.items = 0
        #: nobody reads any more, or the connection has ended it
        self.closed = False
        #: set while a pull is under way: cuts it off, called in the hub
        self.cut: Callable[[], object] | None = None
        self.timer: clock.Timer | None = None

    def watch(self, ref: Ref) -> None:
        """Have the connection told when nobody pulls in time. Never switches."""
        self.unwatch()
        left_s = self.until - clock.now()
        name = self.operation.name
        if left_s <= self.idle_s:
            why = f"the stream of operation {name} lasted longer than its timeout and was ended"
        else:
            why = f"the stream of operation {name} was not read for {self.idle_s:g} s and was ended"
        self.timer = clock.after(max(0.0, min(left_s, self.idle_s)), ref.post, CloseRows(self.key, why))

    def unwatch(self) -> None:
        """Let no timer outlive the wait. Never switches."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
