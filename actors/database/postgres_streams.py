"""The two streams of PostgreSQL, as steps of libpq: a server-side cursor, and COPY TO STDOUT.

Between two pulls a result is left half read in the socket, so an answer of any size takes a few rows of memory here
and makes the server wait, not this process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Any, Protocol, TypeAlias, TypeVar

import psycopg
from psycopg import capabilities, errors, generators, pq
from psycopg.adapt import PyFormat, Transformer

from actors.database.engine import BATCH_BYTES, Items
from actors.database.operation import Operation, Values
from actors.database.values import base64_of

T = TypeVar("T")
#: libpq's way to a result: yields what it waits for, is sent what is ready
Steps: TypeAlias = Generator[Any, Any, T]

CHUNKED = capabilities.has_stream_chunked()
CURSOR = "regrow_stream"
#: the first FETCH asks for few rows, since nobody knows yet how large they are
FIRST_ROWS = 16
FETCHED_ROWS = 512
CHUNK_ROWS = 64
COPY_PART_BYTES = 64 << 10

_WITH_ROWS = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.TUPLES_CHUNK, pq.ExecStatus.SINGLE_TUPLE)


class PostgresStream(Protocol):
    """One stream of one connection, inside its transaction."""

    def begin(self, values: Values) -> Steps[None]: ...

    def read(self, most: int) -> Steps[tuple[list[Any], bool]]: ...


class CursorStream:
    """The rows of a SELECT, fetched from a cursor in the server."""

    def __init__(self, connection: psycopg.Connection[Any], operation: Operation) -> None:
        self._pgconn = connection.pgconn
        self._operation = operation
        self._transformer = Transformer(connection)
        self._items: Items | None = None
        self._ready: deque[tuple[Any, int]] = deque()
        self._asked = 0
        self._came = 0
        self._fetching = False
        self._over = False

    def begin(self, values: Values) -> Steps[None]:
        """Declare the cursor."""
        transformer = Transformer(self._transformer.connection)
        buffers = transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
        text = f"DECLARE {CURSOR} NO SCROLL CURSOR FOR {self._operation.text}".encode()
        types = tuple(transformer.types or ())
        self._pgconn.send_query_params(text, buffers, param_types=types, param_formats=transformer.formats)
        for result in (yield from generators.execute(self._pgconn)):
            if result.status == pq.ExecStatus.FATAL_ERROR:
                raise errors.error_from_result(result)

    def read(self, most: int) -> Steps[tuple[list[Any], bool]]:
        """Return the next rows and whether they are the last."""
        if not self._ready and not self._over and not self._fetching:
            yield from self._ask()
        taken: list[Any] = []
        total = 0
        while True:
            while self._ready and len(taken) < most and total < BATCH_BYTES:
                item, size = self._ready.popleft()
                taken.append(item)
                total += size
            if len(taken) >= most or total >= BATCH_BYTES or not self._fetching:
                return taken, self._over and not self._ready
            yield from self._take()

    def _ask(self) -> Steps[None]:
        pgconn = self._pgconn
        largest = 0 if self._items is None else self._items.largest_bytes
        self._asked = FETCHED_ROWS if self._items is not None else FIRST_ROWS
        self._came = 0
        pgconn.send_query_params(f"FETCH FORWARD {self._asked} FROM {CURSOR}".encode(), None)
        chunk = max(1, min(CHUNK_ROWS, BATCH_BYTES // largest)) if largest else 1
        if CHUNKED and chunk > 1:
            pgconn.set_chunked_rows_mode(chunk)
        else:
            pgconn.set_single_row_mode()
        self._fetching = True
        yield from generators.send(pgconn)

    def _take(self) -> Steps[None]:
        """Take the next chunk of the FETCH under way."""
        result = yield from generators.fetch(self._pgconn)
        if result is None:
            self._fetching = False
            self._over = self._came < self._asked
            return
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise errors.error_from_result(result)
        if result.status not in _WITH_ROWS:
            return
        self._transformer.set_pgresult(result, set_loaders=self._items is None)
        if self._items is None:
            names = [(result.fname(index) or b"").decode() for index in range(result.nfields)]
            self._items = Items(self._operation, names)
        rows = self._transformer.load_rows(0, result.ntuples, tuple)
        self._came += len(rows)
        for row in rows:
            made, size = self._items.make([row])
            self._ready.append((made[0], size))


class CopyStream:
    """What COPY TO STDOUT gives: parts of whole lines of text, or base64 of the binary format."""

    def __init__(self, connection: psycopg.Connection[Any], operation: Operation) -> None:
        self._pgconn = connection.pgconn
        self._operation = operation
        self._is_binary = False
        self._over = False

    def begin(self, _values: Values) -> Steps[None]:
        """Start the copy."""
        self._pgconn.send_query_params(self._operation.text.encode(), None)
        yield from generators.send(self._pgconn)
        result = yield from generators.fetch(self._pgconn)
        if result is not None and result.status == pq.ExecStatus.COPY_OUT:
            self._is_binary = result.binary_tuples == pq.Format.BINARY
            return
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            raise errors.error_from_result(result)
        raise psycopg.ProgrammingError("the statement did not begin a COPY to this client")

    def read(self, most: int) -> Steps[tuple[list[Any], bool]]:
        """Return the next parts and whether they are the last."""
        parts: list[Any] = []
        total = 0
        while not self._over and len(parts) < most and total < BATCH_BYTES:
            lines: list[bytes] = []
            size = 0
            while size < COPY_PART_BYTES:
                found = yield from generators.copy_from(self._pgconn)
                if not isinstance(found, memoryview):
                    self._over = True
                    break
                lines.append(bytes(found))
                size += len(found)
            if lines:
                part = b"".join(lines)
                parts.append(base64_of(part) if self._is_binary else part.decode())
                total += size
        return parts, self._over


def drained(pgconn: pq.abc.PGconn) -> Steps[None]:
    """Read and drop what is left of a statement that was cut off."""
    while (result := (yield from generators.fetch(pgconn))) is not None:
        if result.status == pq.ExecStatus.COPY_OUT:
            try:
                while isinstance((yield from generators.copy_from(pgconn)), memoryview):
                    pass
            except psycopg.Error:
                return  # the cancel itself
            return
