"""The contract between a connection actor and an engine, and what the engines share: results and their limits, errors.

An engine owns one connection. It is used by one actor, one call at a time, except for `interrupt`, which another
greenlet calls while `run` is under way. It raises typed errors for what the caller must hear, and three exceptions of
this module for what the connection actor decides about.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gevent.lock import Semaphore

from actors.database.operation import Operation, Values
from actors.database.values import size_of
from config.secret import redact
from regrow.protocol.errors import DatabaseError, TooLarge

MAX_TEXT_CHARS = 400
#: how much one pull of a stream brings
BATCH_BYTES = 1 << 20

#: SQLSTATE classes and codes after which the same operation may succeed: the database rolled all of it back
REPEATABLE = frozenset({"40001", "40P01"})
#: what the operator or time may cure, so that a later try by the caller makes sense
_PASSING = ("40", "53", "55P03", "57", "58")
_IN_QUOTES = re.compile(r'"[^"]*"|\'[^\']*\'')


@dataclass(slots=True)
class Setup:
    """Statements that run in one transaction before a pool's first connection is used; its connections share this."""

    statements: tuple[str, ...] = ()
    done: bool = False
    #: held by the connection that runs them, on the hub; the others wait and find them done
    lock: Semaphore = field(default_factory=Semaphore)


class Lost(Exception):
    """The connection is gone or was never made; `sent` tells whether a statement may have reached the database."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent


class Interrupted(Exception):
    """The statement was cut off and rolled back, by `interrupt` or by somebody at the server."""


class Stale(Exception):
    """What was prepared earlier no longer fits the tables; nothing was run, and the next try prepares anew."""


class Engine(Protocol):
    """One connection to one database."""

    #: for people: "PostgreSQL 15.18"
    version: str

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known. Never switches."""

    def open(self, timeout_s: float) -> None:
        """Connect; raise `Lost` (nothing sent) or `DatabaseError` of a setup statement. Switches greenlets."""

    def is_alive(self) -> bool:
        """Look, without sending anything, whether the other side has hung up. Never switches."""

    def ping(self, timeout_s: float) -> None:
        """Ask the other side for a sign of life; raise `Lost`. Switches greenlets."""

    def run(self, operation: Operation, rows: Sequence[Values], timeout_s: float) -> Any:
        """Run it as one transaction and return the answer; within `timeout_s` as far as the database obeys.

        Raises `Lost`, `Interrupted`, `Stale`, `DatabaseError`, `TooLarge`. Unless it returns, nothing is kept; after
        `Lost` nobody knows. Switches greenlets.
        """

    def open_stream(self, operation: Operation, values: Values, timeout_s: float) -> None:
        """Begin what `read_stream` reads or `write_stream` writes, in a transaction that lasts at most `timeout_s`.

        Raises what `run` raises. Switches greenlets.
        """

    def read_stream(self, most: int) -> tuple[list[Any], bool]:
        """Return the next items, at most `most` and about BATCH_BYTES, and whether they are the last.

        Raises what `run` raises; the stream is to be closed then as well. Switches greenlets.
        """

    def close_stream(self) -> None:
        """End the stream wherever it is, and its transaction; the connection is usable then, or not open.

        Switches greenlets.
        """

    def interrupt(self, timeout_s: float) -> None:
        """Cut off what the engine is doing, from another greenlet; return when that was taken note of.

        Switches greenlets.
        """

    def close(self) -> None:
        """End the connection in the orderly way; nothing happens when there is none. Switches greenlets."""

    def discard(self) -> None:
        """Drop the connection in whatever state it is, without waiting for anybody. Never switches."""


class CopyEngine(Engine, Protocol):
    """One that takes rows in several goes."""

    def write_stream(self, rows: Sequence[Values], *, last: bool) -> Any:
        """Take the next rows of a `copy_in`; after the last ones all of it is kept and the answer returned.

        Raises what `run` raises; nothing is kept then. Switches greenlets.
        """


class Rows:
    """Collects the rows of one answer within the operation's limits, and gives the answer its kind's form.

    `spent_bytes` is what earlier statements of the same transaction have taken of the limit.
    """

    def __init__(self, operation: Operation, columns: Sequence[str], spent_bytes: int = 0) -> None:
        if len(set(columns)) != len(columns):
            twice = next(name for name in columns if columns.count(name) > 1)
            raise DatabaseError(
                f"operation {operation.name} returns column {twice} twice: give each column a name of its own with AS",
                retryable=False,
                details={"sqlstate": "42701"},
            )
        self.operation = operation
        self.columns = tuple(columns)
        self.overhead_bytes = 2 + sum(len(name) + 4 for name in columns)
        self.found: list[dict[str, Any]] = []
        self.bytes = spent_bytes

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Take some rows; raise `TooLarge`, or `DatabaseError` where one row is promised, once there are too many."""
        operation, columns, found = self.operation, self.columns, self.found
        for row in rows:
            found.append(dict(zip(columns, row, strict=True)))
            self.bytes += self.overhead_bytes + sum(map(size_of, row))
            if self.bytes > operation.max_bytes:
                raise too_many_bytes(operation)
            if operation.kind == "query":
                if len(found) > operation.max_rows:
                    raise TooLarge(
                        f"operation {operation.name} returns more than its max_rows of {operation.max_rows} rows: "
                        "add a LIMIT or raise the limit",
                        started="yes",
                        details={"limit_rows": operation.max_rows},
                    )
            elif len(found) > 1:
                raise DatabaseError(
                    f"operation {operation.name} promises at most one row and found more: add a condition or use query",
                    retryable=False,
                    details={"sqlstate": "21000"},
                )

    def answer(self) -> Any:
        """Return the list, the object or null, or the first column's value. Never switches."""
        kind = self.operation.kind
        if kind == "query":
            return self.found
        first = self.found[0] if self.found else None
        if kind == "one":
            return first
        return None if first is None else first[self.columns[0]]


def too_many_bytes(operation: Operation) -> TooLarge:
    """Return the error for an answer, or a part of a stream, above the operation's limit. Never switches."""
    what = "a row of operation {} has" if operation.streams else "operation {} returns"
    return TooLarge(
        f"{what.format(operation.name)} more than its max_bytes of {operation.max_bytes} bytes: select less or raise "
        "the limit",
        started="yes",
        details={"limit_bytes": operation.max_bytes},
    )


def statement_error(
    operation: Operation,
    text: str,
    *,
    sqlstate: str | None,
    values: Values = (),
    at: tuple[int, int] | None = None,
    details: dict[str, Any] | None = None,
) -> DatabaseError:
    """Translate a foreign error: its SQLSTATE and names stay, whatever could be a value goes. Never switches.

    `at` is (index from 0, how many) of the rows of a `many` or the statements of a transaction.
    """
    facts: dict[str, Any] = {"operation": operation.name}
    where = ""
    if sqlstate is not None:
        facts["sqlstate"] = sqlstate
    if at is not None:
        what = "statement" if operation.kind == "transaction" else "row"
        where = f" in {what} {at[0] + 1} of {at[1]}, nothing was kept"
        facts |= {"index": at[0], f"{what}s": at[1]}
    facts |= {key: value for key, value in (details or {}).items() if value is not None}
    return DatabaseError(
        f"operation {operation.name} failed{where}: {without_values(text, sqlstate, values)}",
        retryable=sqlstate is not None and sqlstate.startswith(_PASSING),
        details=facts,
    )


class Items:
    """Gives the rows of a stream their form, one part for each, and knows how large the last ones were."""

    def __init__(self, operation: Operation, columns: Sequence[str]) -> None:
        rows = Rows(operation, columns)
        self.operation = operation
        self.columns = rows.columns
        self.overhead_bytes = rows.overhead_bytes
        self.largest_bytes = 1

    def make(self, rows: Iterable[Sequence[Any]]) -> tuple[list[dict[str, Any]], int]:
        """Return the parts and their bytes together; raise `TooLarge` for one above the limit. Never switches."""
        items: list[dict[str, Any]] = []
        total = 0
        for row in rows:
            bytes_ = self.overhead_bytes + sum(map(size_of, row))
            if bytes_ > self.operation.max_bytes:
                raise too_many_bytes(self.operation)
            self.largest_bytes = max(self.largest_bytes, bytes_)
            total += bytes_
            items.append(dict(zip(self.columns, row, strict=True)))
        return items, total


def without_values(text: str, sqlstate: str | None, values: Iterable[object]) -> str:
    """Return a foreign error's first line without bound values and secrets. Never switches."""
    line = text.strip().split("\n", 1)[0]
    if sqlstate is not None and sqlstate.startswith("22"):
        line = _IN_QUOTES.sub("...", line)  # data exceptions quote the datum
    for value in sorted({str(value) for value in _scalars(values)}, key=len, reverse=True):
        if len(value) >= 3 and not value.isspace():
            line = line.replace(value, "...")
    return redact(line)[:MAX_TEXT_CHARS]


def _scalars(values: Iterable[object]) -> Iterable[object]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _scalars(value)
        elif value is not None and not isinstance(value, bool):
            yield value
