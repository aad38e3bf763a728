"""PostgreSQL behind the engines' contract, through psycopg 3, which is cooperative in a process that gevent patched.

Statements go out one by one with their values bound by the server. Results are taken in chunks from libpq, so that an
answer over its limit is cut off at the server and never held in memory; a `many` goes through the pipeline, so that a
thousand rows cost a few round trips. The driver's own cursor reads whole results, so single statements are sent
through the connection's libpq handle.

`statement_timeout` is the second line of defence, for the case that this process cannot cancel any more: it is set to
the time left, rounded up, and only when the rounded value changed, which spares most statements a round trip. A limit
that the server's administrator set for the role or the database is never widened.
"""

from __future__ import annotations

import itertools
import logging
import re
import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import gevent
import psycopg
from gevent.monkey import get_original
from psycopg import errors, generators, pq
from psycopg.adapt import AdaptersMap, Buffer, Loader, PyFormat, Transformer
from psycopg.waiting import Ready, Wait

from actors.database.engine import (
    REPEATABLE,
    Interrupted,
    Lost,
    Rows,
    Setup,
    Stale,
    statement_error,
    too_many_bytes,
    without_values,
)
from actors.database.operation import Operation, Values
from actors.database.postgres_login import PostgresLogin, connect_text
from actors.database.postgres_streams import (
    CHUNKED,
    UNCOUNTED_WAITS,
    CopyIn,
    CopyStream,
    CursorStream,
    Flooded,
    Intake,
    PostgresStream,
    Steps,
    drained,
)
from actors.database.values import Numeric, base64_of, float_of, iso_timestamp, number_of
from regrow.protocol.errors import DatabaseError, TooLarge

T = TypeVar("T")

#: eight cost as little for each row as 64 do
CHUNK_ROWS = 8
CUT_OFF_S = 2.0
#: by so much the server's own limit comes after the cancel that this process sends at the deadline
LATER_S = 0.5
PIPELINED_ROWS = 500
PREPARE_AFTER = 5
MAX_PREPARED = 200
#: any number will do, as long as all daemons that set up the same database agree
SETUP_LOCK = 0x72656772

_WITH_ROWS = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.TUPLES_CHUNK, pq.ExecStatus.SINGLE_TUPLE)
_hub = gevent.get_hub()
_EVENTS = {Wait.R: 1, Wait.W: 2, Wait.RW: 3}
_READY = {Wait.R: Ready.R, Wait.W: Ready.W, Wait.RW: Ready.RW}
_CANCELED = "57014"
_COPIED_LINE = re.compile(r"^COPY .*?, line (\d+)", re.MULTILINE)
_ENDING = ("57P01", "57P02", "57P03", "57P05", "08", "25P03")
_OPEN_STATEMENT = """
SELECT set_config('DateStyle', 'ISO, YMD', false), set_config('IntervalStyle', 'iso_8601', false),
       set_config('bytea_output', 'hex', false),
       (SELECT setting::bigint FROM pg_settings WHERE name = 'statement_timeout')
"""

# psycopg logs each failed statement of a pipeline a second time while it leaves the pipeline
logging.getLogger("psycopg").addFilter(lambda record: not record.getMessage().startswith("error ignored terminating"))


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """What the connections of one pool have in common."""

    login: PostgresLogin
    setup: Setup = field(default_factory=Setup)
    numeric: Numeric = "string"
    prepare: bool = True


class PostgresEngine:
    """One connection to one PostgreSQL server."""

    version = "PostgreSQL"

    def __init__(self, settings: PostgresSettings) -> None:
        self.settings = settings
        self._connection: psycopg.Connection[Any] | None = None
        self._watchers: dict[Wait, Any] = {}
        self._adapters = _adapters(settings.numeric)
        self._poll = get_original("select", "poll")()
        # milliseconds, 0 is none: what the administrator allows at most, and what this session has now
        self._timeout_allowed_ms = 0
        self._timeout_set_ms = 0
        self._uses: dict[tuple[str, tuple[int, ...]], int] = {}
        self._prepared: dict[tuple[str, tuple[int, ...]], bytes] = {}
        self._names = itertools.count(1)
        self._sent = False
        # of max_bytes, by the earlier statements of a transaction
        self._spent_bytes = 0
        self._stream: PostgresStream | CopyIn | None = None
        self._intake = Intake()
        # the server said that it ends this session
        self._dismissed = False

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    # -- the connection

    def open(self, timeout_s: float) -> None:
        """Connect, settle the session's formats and run the setup statements. Switches greenlets."""
        settings = self.settings
        connection = settings.login.connect(
            timeout_s, autocommit=True, context=self._adapters, cursor_factory=psycopg.RawCursor
        )
        late = gevent.Timeout(timeout_s)
        late.start()
        try:
            connection.add_notice_handler(self._on_notice)
            self._dismissed = False
            connection.prepare_threshold = PREPARE_AFTER if settings.prepare else None
            found = connection.execute(_OPEN_STATEMENT).fetchone()
            assert found is not None
            self._timeout_allowed_ms = self._timeout_set_ms = int(found[3])
            if settings.setup.statements and not settings.setup.done:
                with settings.setup.lock:
                    if not settings.setup.done:
                        self._set_up(connection)
                        settings.setup.done = True
        except gevent.Timeout as timeout:
            _drop(connection)
            if timeout is not late:
                raise
            raise Lost(f"no connection within {timeout_s:.3g} s, the server does not answer", sent=False) from None
        except DatabaseError:
            _drop(connection)
            raise
        except psycopg.Error as error:
            _drop(connection)
            raise Lost(connect_text(error), sent=False) from None
        except BaseException:
            _drop(connection)
            raise
        finally:
            late.close()
        self._connection = connection
        self._intake.open(connection.pgconn.socket)
        loop = _hub.loop
        self._watchers = {wait: loop.io(connection.pgconn.socket, events) for wait, events in _EVENTS.items()}
        self._uses.clear()
        self._prepared.clear()
        self._poll = get_original("select", "poll")()
        self._poll.register(connection.pgconn.socket, select.POLLIN)
        version = connection.info.server_version
        self.version = f"PostgreSQL {version // 10000}.{version % 10000}"

    def is_alive(self) -> bool:
        connection = self._connection
        if connection is None:
            return False
        pgconn = connection.pgconn
        try:
            for _ in range(3):  # a farewell may stand before the end of the stream
                if not self._poll.poll(0):
                    break
                pgconn.consume_input()
                pgconn.notifies()  # has libpq read what came, so that a farewell reaches _on_notice
        except psycopg.Error:
            return False
        return (
            not self._dismissed
            and pgconn.status == pq.ConnStatus.OK
            and pgconn.transaction_status == pq.TransactionStatus.IDLE
        )

    def _on_notice(self, notice: errors.Diagnostic) -> None:
        if notice.severity_nonlocalized in ("FATAL", "PANIC"):
            self._dismissed = True

    def ping(self, timeout_s: float) -> None:
        """Run an empty statement. Switches greenlets."""
        late = gevent.Timeout(timeout_s)
        late.start()
        try:
            self._command("")
        except gevent.Timeout as timeout:
            if timeout is not late:
                raise
            raise Lost(f"no sign of life within {timeout_s:.3g} s", sent=False) from None
        except psycopg.Error as error:
            if (error.sqlstate or "") == _CANCELED:
                return  # a cancel that came late; the server lives
            raise Lost(connect_text(error), sent=False) from None
        finally:
            late.close()

    def interrupt(self, timeout_s: float) -> None:
        """Have the server cancel the statement; returns when the server took note. Switches greenlets."""
        connection = self._connection
        if connection is not None:
            try:
                connection.cancel_safe(timeout=timeout_s)
            except psycopg.Error:
                return  # an unreachable server: the caller's backstop drops the connection

    def close(self) -> None:
        self.discard()

    def discard(self) -> None:
        connection, self._connection = self._connection, None
        self._stream = None
        self._intake.close()
        for watcher in self._watchers.values():
            watcher.close()
        self._watchers = {}
        _drop(connection)

    # -- notifications

    def listen(self, channels: Sequence[str], timeout_s: float) -> None:
        """Have the server send what these channels carry; raise `Lost`. Switches greenlets."""
        pgconn = self._open_connection().pgconn
        late = gevent.Timeout(timeout_s)
        late.start()
        try:
            for channel in channels:
                self._command("LISTEN " + pq.Escaping(pgconn).escape_identifier(channel.encode()).decode())
        except gevent.Timeout as timeout:
            if timeout is not late:
                raise
            raise Lost(f"no answer within {timeout_s:.3g} s", sent=False) from None
        except psycopg.Error as error:
            raise Lost(connect_text(error), sent=False) from None
        finally:
            late.close()

    def notifications(self, most: int) -> list[tuple[str, str]]:
        """Return the channels and payloads of what has come, at most so many; raise `Lost`. Never switches."""
        connection = self._connection
        if connection is None:
            raise Lost("the connection is not open", sent=False)
        found: list[tuple[str, str]] = []
        try:
            connection.pgconn.consume_input()
            while len(found) < most and (notify := connection.pgconn.notifies()) is not None:
                found.append((notify.relname.decode(), notify.extra.decode("utf-8", "replace")))
        except psycopg.Error as error:
            raise Lost(connect_text(error), sent=False) from None
        if self._dismissed or connection.pgconn.status != pq.ConnStatus.OK:
            raise Lost("the server ended the connection", sent=False)
        return found

    def when_readable(self, callback: Callable[[], object]) -> None:
        """Call back once, in the hub, when the server has sent something. Never switches."""
        watcher = self._watchers[Wait.R]

        def once() -> None:
            watcher.stop()
            callback()

        watcher.start(once)

    # -- statements

    def run(self, operation: Operation, rows: Sequence[Values], timeout_s: float) -> Any:
        """Run the operation. Switches greenlets."""
        if self._connection is None:
            raise Lost("the connection is not open", sent=False)
        self._sent = False
        self._spent_bytes = 0
        at = [0]
        try:
            self._limit(timeout_s)
            if not operation.transaction:
                return self._single(operation, rows[0])
            self._command(_begin(operation))
            answer = self._inside(operation, rows, at)
            self._sent = True
            # a client's statement that only reads leaves nothing behind, not even a setting of the session
            self._command("ROLLBACK" if operation.raw and operation.read_only else "COMMIT")
            return answer
        except psycopg.Error as error:
            raise self._translated(error, operation, rows, at[0]) from error
        except Flooded:
            self.discard()
            raise too_many_bytes(operation) from None
        finally:
            self._intake.stop()
            self._roll_back()

    def _inside(self, operation: Operation, rows: Sequence[Values], at: list[int]) -> Any:
        if operation.kind == "many":
            return self._many(operation, rows, at)
        if operation.kind == "copy_in":
            return self._copy_in(operation, rows)
        if operation.kind != "transaction":
            return self._single(operation, rows[0])
        answers = []
        for index, (step, values) in enumerate(zip(operation.steps, rows, strict=True)):
            at[0] = index
            answers.append(self._single(step, values))
        return answers

    def open_stream(self, operation: Operation, values: Values, timeout_s: float) -> None:
        """Begin a cursor or a copy. Switches greenlets."""
        connection = self._connection
        if connection is None:
            raise Lost("the connection is not open", sent=False)
        self._sent = False
        self._streamed = operation
        try:
            self._limit(timeout_s)
            self._command(_begin(operation))
            self._sent = True
            if operation.kind == "copy_in":
                self._stream = CopyIn(connection, operation)
                self._wait(self._stream.begin())
                return
            make = CursorStream if operation.kind == "stream" else CopyStream
            self._stream = make(connection, operation, self._intake)
            self._wait(self._stream.begin(values))
        except psycopg.Error as error:
            self._end_broken_stream()
            raise self._translated(error, operation, [values], 0) from error

    def read_stream(self, most: int) -> tuple[list[Any], bool]:
        """Read on where the last pull ended. Switches greenlets."""
        stream = self._stream
        if stream is None:
            raise Lost("the connection is not open", sent=True)
        assert not isinstance(stream, CopyIn)
        try:
            return self._wait(stream.read(most))
        except psycopg.Error as error:
            self._end_broken_stream()
            raise self._translated(error, self._streamed, [()], 0) from error
        except Flooded:
            self.discard()
            raise too_many_bytes(self._streamed) from None
        finally:
            self._intake.stop()

    def write_stream(self, rows: Sequence[Values], *, last: bool) -> Any:
        """Go on with a copy. Switches greenlets."""
        stream = self._stream
        if stream is None:
            raise Lost("the connection is not open", sent=True)
        assert isinstance(stream, CopyIn)
        try:
            self._wait(stream.write(rows))
            if not last:
                return None
            count = self._wait(stream.end())
            self._command("COMMIT")
            self._stream = None
            return {"rowcount": count}
        except psycopg.Error as error:
            self._end_broken_stream()
            raise self._translated(error, self._streamed, [()], 0) from error

    def close_stream(self) -> None:
        """End the cursor or the copy, with a cancel when the server is still at it. Switches greenlets."""
        stream, self._stream = self._stream, None
        connection = self._connection
        if connection is None:
            return
        try:
            if isinstance(stream, CopyIn):
                self._wait(stream.abort())
            elif connection.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
                connection.cancel_safe(timeout=CUT_OFF_S)
                self._wait(drained(connection.pgconn))
        except psycopg.Error:
            self.discard()
        self._roll_back()

    def _end_broken_stream(self) -> None:
        """After the server's error: read what follows it, so that the connection can be used again."""
        stream, self._stream = self._stream, None
        connection = self._connection
        if connection is None:
            return
        try:
            if isinstance(stream, CopyIn):
                self._wait(stream.abort())
            elif connection.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
                self._wait(drained(connection.pgconn))
        except psycopg.Error:
            return  # the connection is gone, which the first error tells
        if connection.pgconn.status == pq.ConnStatus.OK:
            self._roll_back()

    def _copy_in(self, operation: Operation, rows: Sequence[Values]) -> dict[str, int]:
        copy = CopyIn(self._open_connection(), operation)
        self._sent = True
        self._wait(copy.begin())
        try:
            self._wait(copy.write(rows))
            return {"rowcount": self._wait(copy.end())}
        except psycopg.Error:
            self._wait(copy.abort())
            raise

    def _single(self, operation: Operation, values: Values) -> Any:
        connection = self._open_connection()
        try:
            return self._wait(self._statement(connection, operation, values))
        except (TooLarge, DatabaseError):
            if connection.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
                connection.cancel_safe(timeout=CUT_OFF_S)
                self._wait(drained(connection.pgconn))
            raise

    def _statement(self, connection: psycopg.Connection[Any], operation: Operation, values: Values) -> Steps[Any]:
        pgconn = connection.pgconn
        transformer = Transformer(connection)
        buffers = transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
        types = tuple(transformer.types or ())
        name = yield from self._prepared_name(connection, operation, types)
        if name is not None:
            pgconn.send_query_prepared(name, buffers, param_formats=transformer.formats)
        else:
            text = operation.text.encode()
            pgconn.send_query_params(text, buffers, param_types=types, param_formats=transformer.formats)
        if CHUNKED:
            pgconn.set_chunked_rows_mode(CHUNK_ROWS)
        else:
            pgconn.set_single_row_mode()
        self._sent = True
        self._intake.expect(operation.max_bytes)
        yield from generators.send(pgconn)
        answer: Rows | None = None
        changed = 0
        failure: psycopg.Error | None = None
        while (result := (yield from generators.fetch(pgconn))) is not None:
            status = result.status
            if status == pq.ExecStatus.FATAL_ERROR:
                failure = errors.error_from_result(result)
            elif status in _WITH_ROWS:
                if operation.kind == "execute":
                    self._intake.expect(operation.max_bytes)
                else:
                    transformer.set_pgresult(result, set_loaders=answer is None)
                    if answer is None:
                        names = [(result.fname(index) or b"").decode() for index in range(result.nfields)]
                        answer = Rows(operation, names, self._spent_bytes)
                    answer.add(transformer.load_rows(0, result.ntuples, tuple))
                changed = result.command_tuples or 0
            elif status == pq.ExecStatus.COMMAND_OK:
                changed = result.command_tuples or 0
            elif status != pq.ExecStatus.EMPTY_QUERY:
                self.discard()
                raise statement_error(operation, "COPY is not possible here, use copy_out or copy_in", sqlstate="0A000")
        if answer is not None:
            self._spent_bytes = answer.bytes
        if failure is not None:
            raise failure
        if operation.kind == "execute":
            return {"rowcount": changed}
        return (answer or Rows(operation, ())).answer()

    def _prepared_name(
        self, connection: psycopg.Connection[Any], operation: Operation, types: tuple[int, ...]
    ) -> Steps[bytes | None]:
        """The name under which the server knows this statement, after some uses; a dictionary of bounded size."""
        if operation.raw:
            return None
        key = (operation.text, types)
        name = self._prepared.get(key)
        if name is not None or not self.settings.prepare or (len(self._uses) >= MAX_PREPARED and key not in self._uses):
            return name
        uses = self._uses[key] = self._uses.get(key, 0) + 1
        if uses <= PREPARE_AFTER:
            return None
        name = f"regrow_{next(self._names)}".encode()
        connection.pgconn.send_prepare(name, operation.text.encode(), param_types=types)
        for result in (yield from generators.execute(connection.pgconn)):
            if result.status == pq.ExecStatus.FATAL_ERROR:
                raise errors.error_from_result(result)
        self._prepared[key] = name
        return name

    def _many(self, operation: Operation, rows: Sequence[Values], at: list[int]) -> dict[str, int]:
        connection = self._open_connection()
        changed = 0
        self._sent = True
        for start in range(0, len(rows), PIPELINED_ROWS):
            cursors: list[psycopg.Cursor[Any]] = []
            try:
                with connection.pipeline():
                    for values in rows[start : start + PIPELINED_ROWS]:
                        cursor = connection.cursor()
                        cursors.append(cursor)
                        cursor.execute(operation.text, values)
            except psycopg.Error:
                done = sum(1 for cursor in cursors if cursor.pgresult is not None)
                at[0] = min(start + done, len(rows) - 1)
                raise
            changed += sum(max(0, cursor.rowcount) for cursor in cursors)
        return {"rowcount": changed}

    def _limit(self, timeout_s: float) -> None:
        needed_ms = (timeout_s + LATER_S) * 1000
        if self._timeout_set_ms * 0.4 < needed_ms <= self._timeout_set_ms:
            return  # the same step as the last one, or nearly
        wanted = _rounded_up_ms(timeout_s + LATER_S)
        allowed = self._timeout_allowed_ms
        if allowed:
            wanted = min(wanted, allowed)
        if wanted != self._timeout_set_ms:
            self._command(f"SET statement_timeout = {wanted}")
            self._timeout_set_ms = wanted

    def _command(self, text: str) -> None:
        self._wait(_command(self._open_connection().pgconn, text.encode()))

    def _wait(self, steps: Steps[T]) -> T:
        """Run libpq's steps, sleeping on the socket in between.

        The driver's own way makes a poll object for each sleep, which is a tenth of a short statement's cost.
        """
        watchers, intake = self._watchers, self._intake
        try:
            wanted = next(steps)
            while True:
                _hub.wait(watchers[wanted])
                wanted = steps.send(_READY[wanted])
                if intake.counts:
                    intake.waits += 1
                    if intake.waits >= UNCOUNTED_WAITS:
                        intake.check()
        except StopIteration as end:
            found: T = end.value
            return found

    def _roll_back(self) -> None:
        connection = self._connection
        if connection is None:
            return
        state = connection.pgconn.transaction_status
        if state in (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR):
            try:
                self._command("ROLLBACK")
            except psycopg.Error:
                self.discard()
        elif state != pq.TransactionStatus.IDLE:
            self.discard()

    def _translated(self, error: psycopg.Error, operation: Operation, rows: Sequence[Values], at: int) -> BaseException:
        sqlstate = error.sqlstate
        connection = self._connection
        gone = connection is None or connection.pgconn.status != pq.ConnStatus.OK
        if gone or (sqlstate or "").startswith(_ENDING):
            return Lost(connect_text(error), sent=self._sent)
        if sqlstate == _CANCELED:
            return Interrupted(str(error.diag.message_primary))
        if sqlstate == "26000" or (sqlstate == "0A000" and "cached plan" in str(error.diag.message_primary)):
            self._prepared.clear()
            self._uses.clear()
            return Stale()
        if sqlstate is None and isinstance(error, psycopg.DataError | psycopg.ProgrammingError):
            text = f"a value cannot be bound: {type(error).__name__}"
            return statement_error(operation, text, sqlstate=None)
        diag = error.diag
        details: dict[str, Any] = {
            "constraint": diag.constraint_name,
            "table": diag.table_name,
            "column": diag.column_name,
            "condition": type(error).__name__,
        }
        where = operation.kind in ("many", "transaction") and sqlstate not in REPEATABLE
        if operation.kind == "copy_in" and (line := _COPIED_LINE.search(diag.context or "")):
            details["line"] = int(line[1])
        return statement_error(
            operation,
            diag.message_primary or type(error).__name__,
            sqlstate=sqlstate,
            values=rows[at] if rows else (),
            at=(at, len(rows)) if where else None,
            details=details,
        )

    def _open_connection(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            raise psycopg.OperationalError("the connection is closed")
        return self._connection

    def _set_up(self, connection: psycopg.Connection[Any]) -> None:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock($1)", (SETUP_LOCK,))
            for number, statement in enumerate(self.settings.setup.statements, 1):
                try:
                    connection.execute(statement)
                except psycopg.Error as error:
                    if error.sqlstate is None or error.sqlstate.startswith(_ENDING):
                        raise
                    raise DatabaseError(
                        f"setup statement {number} failed: {without_values(str(error), error.sqlstate, ())}",
                        started="no",
                        retryable=False,
                        details={"sqlstate": error.sqlstate, "setup": number},
                    ) from error


def _command(pgconn: pq.abc.PGconn, text: bytes) -> Steps[None]:
    pgconn.send_query_params(text, None)
    for result in (yield from generators.execute(pgconn)):
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise errors.error_from_result(result)


def _begin(operation: Operation) -> str:
    parts = ["BEGIN"]
    if operation.isolation is not None:
        parts.append(f"ISOLATION LEVEL {operation.isolation.upper()}")
    if operation.read_only:
        parts.append("READ ONLY")
    return " ".join(parts)


def _rounded_up_ms(seconds: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50... milliseconds that is not below."""
    wanted, step = max(1.0, seconds * 1000), 1
    while True:
        for factor in (1, 2, 5):
            if factor * step >= wanted:
                return min(factor * step, 2_000_000_000)
        step *= 10


def _drop(connection: psycopg.Connection[Any] | None) -> None:
    if connection is not None:
        connection.close()


# -- what comes out, read from the server's text form straight into what JSON can carry


class _NumericText(Loader):
    def load(self, data: Buffer) -> str:
        return bytes(data).decode()


class _NumericNumber(Loader):
    def load(self, data: Buffer) -> int | float | str:
        return number_of(bytes(data).decode())


class _Float(Loader):
    def load(self, data: Buffer) -> float | str:
        return float_of(float(bytes(data)))


class _Timestamp(Loader):
    def load(self, data: Buffer) -> str:
        return iso_timestamp(bytes(data).decode())


class _TimeWithZone(Loader):
    def load(self, data: Buffer) -> str:
        text = bytes(data).decode()
        return f"{text}:00" if text[-3] in "+-" else text


class _Plain(Loader):
    def load(self, data: Buffer) -> str:
        return bytes(data).decode()


class _Bytea(Loader):
    def load(self, data: Buffer) -> str:
        return base64_of(bytes.fromhex(bytes(data[2:]).decode()))


_PLAIN_TYPES = (
    "record",
    "date", "time", "interval", "uuid", "inet", "cidr",
    "int4range", "int8range", "numrange", "daterange", "tsrange", "tstzrange",
    "int4multirange", "int8multirange", "nummultirange", "datemultirange", "tsmultirange", "tstzmultirange",
)  # fmt: skip


def _adapters(numeric: Numeric) -> AdaptersMap:
    adapters = AdaptersMap(psycopg.adapters)
    for name in _PLAIN_TYPES:
        adapters.register_loader(name, _Plain)
    adapters.register_loader("numeric", _NumericNumber if numeric == "number" else _NumericText)
    for name in ("float4", "float8"):
        adapters.register_loader(name, _Float)
    for name in ("timestamp", "timestamptz"):
        adapters.register_loader(name, _Timestamp)
    adapters.register_loader("timetz", _TimeWithZone)
    adapters.register_loader("bytea", _Bytea)
    return adapters
