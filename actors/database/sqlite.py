"""SQLite behind the engines' contract: one connection on one native thread of its own.

SQLite works and waits in C, so nothing of it runs on the hub: even a locked file would freeze every actor for as long
as its busy timeout. The hub hands work to the connection's thread and sleeps. Waiting for a lock is cut into short
pieces, between which the thread looks whether the request has ended meanwhile.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import gevent
from gevent.event import AsyncResult
from gevent.threadpool import ThreadPool

from actors.database.engine import BATCH_BYTES, Interrupted, Items, Lost, Rows, Setup, statement_error, without_values
from actors.database.operation import Operation, Values
from actors.database.values import base64_of, float_of
from regrow.protocol.errors import DatabaseError

T = TypeVar("T")

FETCHED_AT_ONCE = 64
#: of a stream, at the begin of each pull: nobody knows how large the rows are
FIRST_FETCHED = 16
LOCK_WAIT_PIECE_S = 0.05
#: a lock is waited for so much longer than the deadline, at which the request is cut off from outside
LATER_S = 0.5
INTERRUPT_AGAIN_AFTER_S = 0.01

#: SQLite's extended result codes as the SQLSTATE that PostgreSQL has for the same fact, so that callers need one table
_SQLSTATES = {
    "SQLITE_CONSTRAINT_UNIQUE": "23505",
    "SQLITE_CONSTRAINT_PRIMARYKEY": "23505",
    "SQLITE_CONSTRAINT_ROWID": "23505",
    "SQLITE_CONSTRAINT_NOTNULL": "23502",
    "SQLITE_CONSTRAINT_FOREIGNKEY": "23503",
    "SQLITE_CONSTRAINT_CHECK": "23514",
    "SQLITE_CONSTRAINT_DATATYPE": "42804",
    "SQLITE_MISMATCH": "42804",
    "SQLITE_TOOBIG": "54000",
    "SQLITE_NOMEM": "53200",
    "SQLITE_FULL": "53100",
    "SQLITE_READONLY": "25006",
    "SQLITE_BUSY": "55P03",
    "SQLITE_LOCKED": "55P03",
    "SQLITE_IOERR": "58030",
    "SQLITE_CORRUPT": "XX001",
    "SQLITE_NOTADB": "XX001",
    "SQLITE_CONSTRAINT": "23000",
    "SQLITE_ERROR": "42000",
}


@dataclass(frozen=True, slots=True)
class SqliteSettings:
    """What the connections of one pool have in common; `path` is absolute."""

    path: Path
    setup: Setup = field(default_factory=Setup)
    synchronous: Literal["full", "normal"] = "full"


class SqliteEngine:
    """One connection to one SQLite file."""

    version = f"SQLite {sqlite3.sqlite_version}"

    def __init__(self, settings: SqliteSettings) -> None:
        self.settings = settings
        self._thread: ThreadPool | None = None
        self._connection: sqlite3.Connection | None = None
        # written by the hub, read by the thread: end what you are doing
        self._cut = False
        self._busy = False
        # bytes that a transaction's statements have answered so far
        self._spent = 0
        self._cursor: sqlite3.Cursor | None = None
        self._items: Items | None = None

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    def open(self, timeout_s: float) -> None:
        """Open the file, made if need be, and run the setup statements. Switches greenlets."""
        self._cut = False
        if self._thread is None:
            self._thread = ThreadPool(1)
        try:
            with self.settings.setup.lock:
                self._connection = self._on_thread(self._open, time.monotonic() + timeout_s)
        except sqlite3.Error as error:
            self.close()
            text = without_values(str(error), None, ())
            raise Lost(f"{self.settings.path} cannot be opened: {text}", sent=False) from error
        except OSError as error:
            self.close()
            raise Lost(f"{self.settings.path} cannot be opened: {error.strerror}", sent=False) from error
        except BaseException:
            self.discard()
            raise

    def is_alive(self) -> bool:
        return self._connection is not None

    def ping(self, timeout_s: float) -> None:
        """Read the file's header. Switches greenlets."""
        connection = self._connected()
        self._cut = False
        try:
            self._on_thread(self._read_header, connection, time.monotonic() + timeout_s)
        except (sqlite3.Error, Interrupted) as error:
            raise Lost(
                f"{self.settings.path} cannot be read: {without_values(str(error), None, ())}", sent=False
            ) from error

    def run(self, operation: Operation, rows: Sequence[Values], timeout_s: float) -> Any:
        """Run the operation on the connection's thread. Switches greenlets."""
        connection = self._connected()
        self._cut = False
        until = time.monotonic() + timeout_s + LATER_S
        return self._on_thread(self._run, connection, operation, rows, until)

    def open_stream(self, operation: Operation, values: Values, timeout_s: float) -> None:
        """Begin to read, in a transaction that sees the file as it is now. Switches greenlets."""
        connection = self._connected()
        self._cut = False
        self._on_thread(self._begin_stream, connection, operation, values, time.monotonic() + timeout_s)

    def read_stream(self, most: int) -> tuple[list[Any], bool]:
        """Read the next rows on the connection's thread. Switches greenlets."""
        self._connected()
        self._cut = False
        return self._on_thread(self._read_stream, most)

    def close_stream(self) -> None:
        """End the reading and its transaction. Switches greenlets."""
        connection = self._connection
        if connection is not None:
            self._on_thread(self._end_stream, connection)

    def interrupt(self, timeout_s: float) -> None:
        """Interrupt until the thread has noticed: SQLite forgets an interrupt that comes between two statements."""
        self._cut = True
        until = time.monotonic() + timeout_s
        while self._busy and (connection := self._connection) is not None and time.monotonic() < until:
            connection.interrupt()
            gevent.sleep(INTERRUPT_AGAIN_AFTER_S)

    def close(self) -> None:
        """Close the file and end the thread. Switches greenlets."""
        connection, self._connection = self._connection, None
        thread, self._thread = self._thread, None
        if thread is not None:
            self._cut = True
            _end(thread, connection)

    def discard(self) -> None:
        """Interrupt, and let the thread end when it can. Never switches."""
        connection, self._connection = self._connection, None
        thread, self._thread = self._thread, None
        self._cut = True
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.interrupt()
        if thread is not None:
            gevent.spawn(_end, thread, connection)

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            raise Lost(f"{self.settings.path} is not open", sent=False)
        return self._connection

    def _on_thread(self, function: Callable[..., T], *args: Any) -> T:
        assert self._thread is not None
        self._busy = True
        result: AsyncResult[Any] = self._thread.spawn(_outcome, function, *args)
        try:
            outcome = result.get()
        finally:
            # a killed or timed out waiter leaves the thread busy until it notices; it is discarded by whoever waited
            self._busy = not result.ready()
        assert outcome is not None
        value, error = outcome
        if error is not None:
            raise error
        found: T = value
        return found

    # -- on the connection's thread; nothing below may touch gevent

    def _open(self, until: float) -> sqlite3.Connection:
        settings = self.settings
        settings.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(settings.path, timeout=LOCK_WAIT_PIECE_S, isolation_level=None)
        try:
            if connection.execute("PRAGMA journal_mode").fetchone() != (
                "wal",
            ):  # setting it again would wait for writers
                self._patiently(connection, "PRAGMA journal_mode = WAL", until)
            connection.execute(f"PRAGMA synchronous = {settings.synchronous}")
            connection.execute("PRAGMA foreign_keys = ON")
            if settings.setup.statements and not settings.setup.done:
                self._patiently(connection, "BEGIN IMMEDIATE", until)
                for number, statement in enumerate(settings.setup.statements, 1):
                    try:
                        connection.execute(statement)
                    except sqlite3.Error as error:
                        raise _setup_error(number, error) from error
                connection.execute("COMMIT")
                settings.setup.done = True
        except BaseException:
            connection.close()
            raise
        return connection

    def _read_header(self, connection: sqlite3.Connection, until: float) -> None:
        self._patiently(connection, "PRAGMA schema_version", until).fetchall()

    def _begin_stream(self, connection: sqlite3.Connection, operation: Operation, values: Values, until: float) -> None:
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("BEGIN")
            self._cursor = self._patiently(connection, operation.text, until, values)
            self._items = Items(operation, [column[0] for column in self._cursor.description or ()])
        except BaseException as error:
            self._end_stream(connection)
            if isinstance(error, sqlite3.Error):
                raise self._stream_error(operation, error) from error
            raise

    def _read_stream(self, most: int) -> tuple[list[Any], bool]:
        cursor, items = self._cursor, self._items
        assert cursor is not None and items is not None
        found: list[Any] = []
        total = 0
        try:
            while len(found) < most and total < BATCH_BYTES:
                if self._cut:
                    raise Interrupted
                wanted = min(most - len(found), max(1, min(FETCHED_AT_ONCE, BATCH_BYTES // items.largest_bytes)))
                if not found:
                    wanted = min(wanted, FIRST_FETCHED)
                rows = cursor.fetchmany(wanted)
                made, size = items.make(map(_json_safe, rows))
                found += made
                total += size
                if len(rows) < wanted:
                    return found, True
            return found, False
        except sqlite3.Error as error:
            raise self._stream_error(items.operation, error) from error

    def _stream_error(self, operation: Operation, error: sqlite3.Error) -> BaseException:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
            return Interrupted()
        return _statement_error(operation, error, (), None)

    def _end_stream(self, connection: sqlite3.Connection) -> None:
        cursor, self._cursor, self._items = self._cursor, None, None
        if cursor is not None:
            cursor.close()
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.execute("PRAGMA query_only = OFF")

    def _run(self, connection: sqlite3.Connection, operation: Operation, rows: Sequence[Values], until: float) -> Any:
        at = 0
        try:
            if not operation.transaction:
                return self._answer(self._patiently(connection, operation.text, until, rows[0]), operation)
            if operation.read_only:
                connection.execute("PRAGMA query_only = ON")
            self._patiently(connection, "BEGIN" if operation.read_only else "BEGIN IMMEDIATE", until)
            answer: Any
            if operation.kind == "transaction":
                answer, self._spent = [], 0
                for at, (step, values) in enumerate(zip(operation.steps, rows, strict=True)):  # noqa: B007 - named below
                    cursor = self._patiently(connection, step.text, until, values)
                    answer.append(self._answer(cursor, step, self._spent))
            elif operation.kind != "many":
                answer = self._answer(self._patiently(connection, operation.text, until, rows[0]), operation)
            else:
                changed = 0
                for at, values in enumerate(rows):  # noqa: B007 - named below
                    if self._cut:
                        raise Interrupted
                    changed += self._changes(connection.execute(operation.text, values), operation)
                answer = {"rowcount": changed}
            self._patiently(connection, "ROLLBACK" if operation.raw and operation.read_only else "COMMIT", until)
            return answer
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
                raise Interrupted from error
            where = (at, len(rows)) if operation.kind in ("many", "transaction") else None
            raise _statement_error(operation, error, rows[at] if rows else (), where) from error
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if operation.read_only:
                connection.execute("PRAGMA query_only = OFF")

    def _patiently(
        self, connection: sqlite3.Connection, text: str, until: float, values: Values = ()
    ) -> sqlite3.Cursor:
        """Execute, waiting for another connection's lock until the time is up or the request was cut off."""
        while True:
            if self._cut:
                raise Interrupted
            try:
                return connection.execute(text, values)
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorname", "") != "SQLITE_BUSY" or time.monotonic() >= until:
                    raise

    def _answer(self, cursor: sqlite3.Cursor, operation: Operation, spent_bytes: int = 0) -> Any:
        self._spent = spent_bytes
        try:
            if operation.kind == "execute":
                while cursor.fetchmany(FETCHED_AT_ONCE):  # a statement is over only when its last row was asked for
                    if self._cut:
                        raise Interrupted
                return {"rowcount": self._changes(cursor, operation)}
            answer = Rows(operation, [column[0] for column in cursor.description or ()], spent_bytes)
            while found := cursor.fetchmany(FETCHED_AT_ONCE):
                if self._cut:
                    raise Interrupted
                answer.add([_json_safe(row) for row in found])
            self._spent = answer.bytes
            return answer.answer()
        finally:
            cursor.close()

    def _changes(self, cursor: sqlite3.Cursor, operation: Operation) -> int:
        if cursor.rowcount >= 0:
            return cursor.rowcount
        # Python counts for statements that begin with INSERT, UPDATE, DELETE or REPLACE only
        if operation.first_word != "WITH":
            return 0
        changed: int = cursor.connection.execute("SELECT changes()").fetchone()[0]
        return changed


def _outcome(function: Callable[..., T], *args: Any) -> tuple[T | None, BaseException | None]:
    # gevent prints the traceback of everything that a pool's thread raises, so errors travel as values
    try:
        return function(*args), None
    except BaseException as error:  # noqa: BLE001 - carried over to the greenlet that waits, which raises it
        return None, error


def _end(thread: ThreadPool, connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        thread.spawn(_outcome, connection.close).get()
    thread.kill()


def _json_safe(row: Sequence[Any]) -> list[Any]:
    return [
        float_of(value) if type(value) is float else base64_of(value) if type(value) is bytes else value
        for value in row
    ]


def _sqlstate(name: str) -> str | None:
    while name:
        if name in _SQLSTATES:
            return _SQLSTATES[name]
        name = name.rpartition("_")[0]
    return None


def _setup_error(number: int, error: sqlite3.Error) -> DatabaseError:
    name = getattr(error, "sqlite_errorname", "")
    return DatabaseError(
        f"setup statement {number} failed: {without_values(str(error), None, ())}",
        started="no",
        retryable=False,
        details={"sqlstate": _sqlstate(name), "setup": number},
    )


def _statement_error(
    operation: Operation, error: sqlite3.Error, values: Values, at: tuple[int, int] | None
) -> DatabaseError:
    name = getattr(error, "sqlite_errorname", "")
    text = str(error)
    constraint = text.partition("constraint failed: ")[2] or None
    details = {"constraint": constraint, "engine_code": name or None}
    return statement_error(operation, text, sqlstate=_sqlstate(name), values=values, at=at, details=details)
