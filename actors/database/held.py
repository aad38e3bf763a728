"""A stream of rows that a connection holds: what its reader or writer has of it, and what the connection knows.

The reader's side is a `Source` of `runtime.streams`; each pull is a message to the connection actor, which is held by
the stream until it ends, is closed, is not read for too long, or has lasted too long. A writer's side is a key, with
which it sends the next rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from actors.database.operation import Operation, Values
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
class WriteRows:
    """Take the next rows of a copy until `deadline`; answered with None, or after the last ones with the answer."""

    key: int
    rows: Sequence[Values]
    last: bool
    deadline: float


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
        _close(self.ref, self._held)

    def __iter__(self) -> Iterator[Any]:
        return iterate(self)

    def __repr__(self) -> str:
        return f"<RowStream {self._held.operation.name} of {self.ref.path}>"


class RowSink:
    """The writer's side of a copy that takes its rows in several goes."""

    __slots__ = ("_held", "ref")

    def __init__(self, ref: Ref, held: Held) -> None:
        self.ref = ref
        self._held = held

    @property
    def operation(self) -> Operation:
        """What is under way. Never switches."""
        return self._held.operation

    @property
    def is_open(self) -> bool:
        """Whether rows are still taken. Never switches."""
        return not self._held.closed and self.ref.is_alive()

    def write(self, rows: Sequence[Values], last: bool, deadline: float, promise: Promise) -> None:
        """Send the next rows; `promise` is settled when the server has taken them. Never switches."""
        self.ref.request(WriteRows(self._held.key, rows, last, deadline), promise)

    def cut(self) -> None:
        """Give up a write that is under way, and with it all of the copy. Never switches."""
        if self._held.cut is not None:
            self._held.cut()

    def close(self) -> None:
        """Undo it all. Never switches."""
        _close(self.ref, self._held)

    def __repr__(self) -> str:
        return f"<RowSink {self._held.operation.name} of {self.ref.path}>"


def _close(ref: Ref, held: Held) -> None:
    if not held.closed and ref.is_alive():
        held.closed = True
        if held.cut is not None:
            held.cut()
        ref.post(CloseRows(held.key))


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
        """Have the connection told when nobody goes on in time. Never switches."""
        self.unwatch()
        left_s = self.until - clock.now()
        name = self.operation.name
        if left_s <= self.idle_s:
            why = f"the stream of operation {name} lasted longer than its timeout and was ended"
        else:
            idle = "read" if self.operation.streams else "written to"
            why = f"the stream of operation {name} was not {idle} for {self.idle_s:g} s and was ended"
        self.timer = clock.after(max(0.0, min(left_s, self.idle_s)), ref.post, CloseRows(self.key, why))

    def unwatch(self) -> None:
        """Let no timer outlive the wait. Never switches."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
