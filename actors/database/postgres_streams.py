"""The streams of PostgreSQL, as steps of libpq: a server-side cursor, COPY TO STDOUT and COPY FROM STDIN.

Between two pulls a result is left half read in the socket, so an answer of any size takes a few rows of memory here
and makes the server wait, not this process. What is copied in waits for the server the same way.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
import sys
import termios
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import psycopg
from gevent.monkey import get_original
from psycopg import capabilities, errors, generators, pq
from psycopg.adapt import PyFormat, Transformer

from actors.database.engine import BATCH_BYTES, Items, too_many_bytes
from actors.database.operation import CopyData, Operation, Values
from actors.database.values import base64_of

T = TypeVar("T")
#: libpq's way to a result: yields what it waits for, is sent what is ready
Steps: TypeAlias = Generator[Any, Any, T]

CHUNKED = capabilities.has_stream_chunked()
CURSOR = "regrow_stream"
#: the first FETCH asks for few rows, since nobody knows yet how large they are
FIRST_ROWS = 16
FETCHED_ROWS = 512
#: rows of a cursor that libpq hands over together; a few cost as little for each as many do, and hold less memory
CHUNK_ROWS = 4
COPY_PART_BYTES = 64 << 10
COPIED_BYTES = 64 << 10
#: so often a result is waited for before what comes is counted
UNCOUNTED_WAITS = 4
#: what a result may take on the wire beyond its values, and how many bytes for one of its form in JSON (a bytea is
#: hexadecimal there and base64 here)
WIRE_EXTRA_BYTES = 1 << 20
WIRE_FACTOR = 2

_WITH_ROWS = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.TUPLES_CHUNK, pq.ExecStatus.SINGLE_TUPLE)


#: tcpi_bytes_received stands at byte 128 of the kernel's struct tcp_info
_RECEIVED = struct.Struct("Q")
_ESCAPED = re.compile(rb"[\b\t\n\v\f\r\\]")
_ESCAPES = {b"\b": rb"\b", b"\t": rb"\t", b"\n": rb"\n", b"\v": rb"\v", b"\f": rb"\f", b"\r": rb"\r", b"\\": rb"\\"}


class Flooded(Exception):
    """What the server sends is more than its operation's limit allows, and the result is not even complete."""


class Intake:
    """Counts what libpq reads before a result can be taken, since it would hold one of any size in memory.

    Linux tells it of TCP connections; over a Unix socket only complete results are measured. libpq reads until the
    socket is empty, so what a limit is exceeded by is what the network brings meanwhile: little, unless the server is
    on the same machine and fills the socket as fast as it is emptied.
    """

    __slots__ = ("_from", "_most", "_socket", "counts", "waits")

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._from = self._most = 0
        self.counts = False
        #: how often the next result has been waited for: asking the kernel each time would cost a short statement 5 %
        self.waits = 0

    def open(self, descriptor: int) -> None:
        """Watch this socket from now on. Never switches."""
        self.close()
        own = get_original("socket", "socket")(fileno=os.dup(descriptor))
        if sys.platform == "linux" and own.family in (socket.AF_INET, socket.AF_INET6):
            self._socket = own
        else:
            own.close()

    def close(self) -> None:
        """Let go of the socket. Never switches."""
        self.counts = False
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def expect(self, json_bytes: int) -> None:
        """Count from here on, for a result of at most so many bytes in JSON. Never switches."""
        if self._socket is not None:
            self.counts, self.waits = True, 0
            self._most = WIRE_FACTOR * json_bytes + WIRE_EXTRA_BYTES

    def stop(self) -> None:
        """Count no more. Never switches."""
        self.counts = False

    def check(self) -> None:
        """Raise `Flooded` when more has been read than was expected. Never switches."""
        if self.waits == UNCOUNTED_WAITS:
            self._from = self._read_bytes()
        elif self._read_bytes() - self._from > self._most:
            raise Flooded

    def _read_bytes(self) -> int:
        assert self._socket is not None
        received: int = _RECEIVED.unpack(self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136)[128:])[0]
        return received - int.from_bytes(fcntl.ioctl(self._socket, termios.FIONREAD, bytes(4)), sys.byteorder)


class PostgresStream(Protocol):
    """One stream of one connection, inside its transaction."""

    def begin(self, values: Values) -> Steps[None]: ...

    def read(self, most: int) -> Steps[tuple[list[Any], bool]]: ...


class CursorStream:
    """The rows of a SELECT, fetched from a cursor in the server."""

    def __init__(self, connection: psycopg.Connection[Any], operation: Operation, intake: Intake) -> None:
        self._pgconn = connection.pgconn
        self._operation = operation
        self._intake = intake
        self._chunk = 1
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
                while self._fetching and not self._ready and not self._pgconn.is_busy():
                    yield from self._take()  # the end has come already, so its reader need not ask for it
                return taken, self._over and not self._ready
            yield from self._take()

    def _ask(self) -> Steps[None]:
        pgconn = self._pgconn
        largest = 0 if self._items is None else self._items.largest_bytes
        self._asked = FETCHED_ROWS if self._items is not None else FIRST_ROWS
        self._came = 0
        pgconn.send_query_params(f"FETCH FORWARD {self._asked} FROM {CURSOR}".encode(), None)
        self._chunk = max(1, min(CHUNK_ROWS, BATCH_BYTES // largest)) if CHUNKED and largest else 1
        if self._chunk > 1:
            pgconn.set_chunked_rows_mode(self._chunk)
        else:
            pgconn.set_single_row_mode()
        self._fetching = True
        yield from generators.send(pgconn)

    def _take(self) -> Steps[None]:
        """Take the next chunk of the FETCH under way."""
        self._intake.expect(self._chunk * self._operation.max_bytes)
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

    def __init__(self, connection: psycopg.Connection[Any], operation: Operation, intake: Intake) -> None:
        self._pgconn = connection.pgconn
        self._operation = operation
        self._intake = intake
        self._is_binary = False
        self._over = False
        # the most bytes of a part, and a line that was read and found no place in the last one
        self._most_bytes = operation.max_bytes
        self._left: bytes | None = None

    def begin(self, _values: Values) -> Steps[None]:
        """Start the copy."""
        result = yield from _begun(self._pgconn, self._operation, pq.ExecStatus.COPY_OUT)
        self._is_binary = result.binary_tuples == pq.Format.BINARY
        if self._is_binary:
            self._most_bytes = self._operation.max_bytes // 4 * 3

    def read(self, most: int) -> Steps[tuple[list[Any], bool]]:
        """Return the next parts and whether they are the last."""
        parts: list[Any] = []
        total = 0
        while len(parts) < most and total < BATCH_BYTES:
            part = yield from self._part()
            if not part:
                break
            parts.append(base64_of(part) if self._is_binary else part.decode())
            total += len(part)
        return parts, self._over and self._left is None

    def _part(self) -> Steps[bytes]:
        """Return whole lines of about COPY_PART_BYTES together, or nothing at the end."""
        lines: list[bytes] = []
        size = 0
        while size < COPY_PART_BYTES:
            line, self._left = self._left, None
            if line is None:
                line = yield from self._line()
            if line is None:
                break
            if lines and size + len(line) > self._most_bytes:
                self._left = line
                break
            lines.append(line)
            size += len(line)
        return b"".join(lines)

    def _line(self) -> Steps[bytes | None]:
        if self._over:
            return None
        self._intake.expect(self._operation.max_bytes)
        found = yield from generators.copy_from(self._pgconn)
        if not isinstance(found, memoryview):
            self._over = True
            return None
        if len(found) > self._most_bytes:
            raise too_many_bytes(self._operation)
        return bytes(found)


class CopyIn:
    """COPY FROM STDIN: takes rows, or data in the statement's format, and nothing of it counts before its end."""

    def __init__(self, connection: psycopg.Connection[Any], operation: Operation) -> None:
        self._pgconn = connection.pgconn
        self._operation = operation
        self._transformer = Transformer(connection)
        self._begun = False

    def begin(self) -> Steps[None]:
        """Start the copy."""
        yield from _begun(self._pgconn, self._operation, pq.ExecStatus.COPY_IN)
        self._begun = True

    def write(self, rows: Sequence[Values]) -> Steps[None]:
        """Hand rows to the server, no faster than it takes them; what is wrong with them is told at the end."""
        pending = bytearray()
        for row in rows:
            if row and isinstance(row[0], CopyData):
                pending += row[0]
            else:
                self._add(pending, row)
            if len(pending) >= COPIED_BYTES:
                yield from self._send(pending)
                pending.clear()
        yield from self._send(pending)

    def end(self) -> Steps[int]:
        """Make it happen and return how many rows there were."""
        self._begun = False
        result = yield from generators.copy_end(self._pgconn, None)
        return result.command_tuples or 0

    def abort(self) -> Steps[None]:
        """Undo it all."""
        if self._begun:
            self._begun = False
            try:
                yield from generators.copy_end(self._pgconn, b"the copy was given up")
            except psycopg.Error:
                return  # what the server says to an end like this

    def _add(self, pending: bytearray, row: Values) -> None:
        for value in self._transformer.dump_sequence(row, [PyFormat.TEXT] * len(row)):
            pending += rb"\N" if value is None else _ESCAPED.sub(lambda found: _ESCAPES[found[0]], value)
            pending += b"\t"
        pending[-1 if row else 0 :] = b"\n"

    def _send(self, data: bytearray) -> Steps[None]:
        for start in range(0, len(data), COPIED_BYTES):
            yield from generators.copy_to(self._pgconn, bytes(data[start : start + COPIED_BYTES]))


def _begun(pgconn: pq.abc.PGconn, operation: Operation, wanted: pq.ExecStatus) -> Steps[pq.abc.PGresult]:
    pgconn.send_query_params(operation.text.encode(), None)
    yield from generators.send(pgconn)
    result: pq.abc.PGresult | None = yield from generators.fetch(pgconn)
    if result is not None and result.status == wanted:
        return result
    if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
        yield from drained(pgconn)
        raise errors.error_from_result(result)
    raise psycopg.ProgrammingError("the statement did not begin the COPY that its kind promises")


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
