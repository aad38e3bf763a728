"""The actor that owns one connection, runs one operation at a time and knows how its connection fares.

What may go wrong is decided here, in one ladder (`_perform`): a connection that broke before the statement left is
made anew and the statement sent; one that broke later is repeated for read-only operations and otherwise answered
with connection_error; what the database rolled back for reasons of concurrency is tried again; the rest is the
caller's.

A lost connection is a state, not a crash: the actor reports `waiting` to its pool and, when it is one of those that
are kept open, connects again with growing pauses. A request that reaches a waiting connection tries at once.

A stream holds its connection: until it is over the pool hears "busy", and each pull is a job of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import gevent
from gevent import Greenlet
from greenlet import getcurrent, greenlet

from actors.database import metrics
from actors.database.engine import REPEATABLE, CopyEngine, Engine, Interrupted, Lost, Stale
from actors.database.held import MAX_STREAM_S, CloseRows, Held, PullRows, RowSink, RowStream, WriteRows
from actors.database.operation import Operation, Values
from actors.resilience.breaker import CircuitTable, Permit, Settled, changes_nothing, count_settled
from actors.resilience.circuit import Granted, Outcome
from actors.resilience.policy import BreakerPolicy
from regrow.protocol.errors import Cancelled, ConnectionFailed, DatabaseError, NotFound, RegrowError, TimedOut
from runtime import clock, events, scheduler
from runtime.actor import Actor
from runtime.names import whereis
from runtime.promise import AskTimeout, Promise
from runtime.ref import Ref
from runtime.streams import Batch

T = TypeVar("T")

#: how long after the deadline a cut off statement may take to end before its connection is dropped
GRACE_S = 2.0
#: what follows a cut off statement: the server's word that it is ready again
SETTLE_S = 2.0
#: a supervisor gives an actor 5 s to stop
TEARDOWN_S = 3.0
#: what an idle connection has for a sign of life when another one of its pool was lost, and how long that one counts
CHECK_S = 2.0
CHECKED_FOR_S = 1.0
#: classes of SQLSTATE that speak of the server's state and not of the statement
_SERVER_IS_SICK = ("08", "53", "57", "58", "F0", "XX")
READ_ONLY = "25006"
REPEAT_BASE_S = 0.01
REPEAT_MAX_S = 0.2


@dataclass(slots=True, eq=False)
class Job:
    """One operation on its way: from the pool's queue to a connection and back."""

    operation: Operation
    rows: list[Values]
    #: the caller's, settled exactly once by whoever comes first
    promise: Promise
    #: when the statement is cut off: the caller's deadline or the operation's own timeout
    deadline: float
    queued_at: float
    #: makes the caller's answer of what the operation answered; may raise a typed error
    finish: Callable[[Any], Any] | None = None
    #: who asks; callers that wait are served in turns of these
    client: str = ""
    #: a copy whose other rows come with later calls
    more: bool = False
    #: set by the connection while the statement runs; called in the hub when the caller gives up
    cut: Callable[[], object] | None = None
    #: set by the pool while it waits there: takes it out of the line
    leave: Callable[[], object] | None = None
    #: how often it came back to the pool because a connection could not be made
    returns: int = 0
    #: set by the connection: its answer says too that the connection is free again, and as it was reported last
    frees: bool = False

    def abandoned(self) -> None:
        """Leave the line, or have the connection told that works on it: nobody waits any more. Never switches."""
        if self.leave is not None:
            self.leave()
        if self.cut is not None:
            self.cut()


@dataclass(frozen=True, slots=True)
class Run:
    """Run this job; answered with its result."""

    job: Job


@dataclass(frozen=True, slots=True)
class Open:
    """Connect, unless connected."""


@dataclass(frozen=True, slots=True)
class Check:
    """Look whether the connection still lives: another one of the pool was lost."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """To the pool: a connection beside it was lost, so those of the pool are to be looked at."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """The server answers again: an attempt that would be made later is made now."""


@dataclass(frozen=True, slots=True)
class Announce:
    """Report to the pool."""


@dataclass(frozen=True, slots=True)
class Rested:
    """The pause after a failed attempt is over: the next job may try again."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Look after the idle connection: age, health, surplus."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a connection tells its pool, whenever it is free again."""

    index: int
    ref: Ref
    #: how many jobs it has taken: a report that crossed a job on its way says nothing about the state after it
    taken: int
    state: str
    connected: bool
    lost: bool
    error: str | None
    version: str | None


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """What all connections of one pool have in common."""

    pool: str
    engine: Callable[[], Engine]
    #: connections up to this number are opened at the start and kept open
    min_size: int
    connect_timeout_s: float
    max_lifetime_s: float
    max_idle_s: float
    check_interval_s: float
    retries: int
    #: a stream that nobody reads for so long is ended
    stream_idle_s: float = 60.0
    #: statements without parameters that run when the pool stops in the orderly way, on the first connection
    teardown: tuple[Operation, ...] = ()
    #: the url asks for a server that takes writes, so one that stops taking them is left
    writes: bool = False
    #: asked of an idle connection in place of an empty statement
    health_check: Operation | None = None
    #: the breaker's own record, for a look that costs no message
    circuit: CircuitTable | None = None
    #: when it opens; None: there is no breaker
    breaker: BreakerPolicy | None = None
    backoff_base_s: float = 0.1
    backoff_max_s: float = 30.0
    #: the engine of each connection, so that a successor finds what a killed predecessor left open
    engines: dict[int, Engine] = field(default_factory=dict)


class _Disobeyed(BaseException):
    """The server did not end what was cut off; thrown into the greenlet that waits for it."""


class Connection(Actor):
    """One connection of a pool, `index` from 1; parts find it as `<pool>/connection-<index>`."""

    timeout = 120.0

    def __init__(self, settings: ConnectionSettings, index: int) -> None:
        super().__init__()
        self.settings = settings
        self.index = index
        self.engine = settings.engine()
        self.state = "closed"
        self.statements = 0
        self.last_error: str | None = None
        self._kept = index <= settings.min_size
        self._taken = 0
        self._told: tuple[str | None, str | None] | None = None  # last error and version, when told as idle
        self._working = False
        self._connected = False
        self._failures = 0
        self._retry: clock.Timer | None = None
        self._tick: clock.Timer | None = None
        self._opened_at = self._used_at = clock.now()
        self._checked_at = float("-inf")
        # pool members that were opened together shall not all be replaced together
        self._lifetime_s = settings.max_lifetime_s * random.uniform(0.9, 1.0)
        self._cutting: Greenlet[..., None] | None = None
        self._cut_by: str | None = None
        self._granted: Granted | None = None
        self._stream: Held | None = None
        # the greenlet whose work is cut off at its deadline, and how long it then waits for the server to obey
        self._worker: greenlet | None = None
        self._patience: clock.Timer | None = None

    # -- hooks

    def on_start(self) -> None:
        """Clear away what a predecessor left, and begin; the start never waits for the database."""
        left = self.settings.engines.pop(self.index, None)
        if left is not None:
            left.discard()
        self.settings.engines[self.index] = self.engine
        if self._kept:
            self.state = "waiting"
            self.ref.post(Open())
        self._announce()
        self._tick = self.send_after(self.settings.check_interval_s, Tick())

    def on_stop(self) -> None:
        self._end_timers()
        if self.index == 1 and self.settings.teardown:
            self._tear_down()
        self.settings.engines.pop(self.index, None)
        self.engine.close()

    def on_failure(self, *_error: object) -> None:
        self._end_timers()
        self.settings.engines.pop(self.index, None)
        self.engine.discard()

    def status(self) -> dict[str, Any]:
        """Return the connection's state; `error` is the last loss. Never switches."""
        detail: dict[str, Any] = {"state": self.state, "statements": self.statements}
        if self.state in ("idle", "busy"):
            detail["server"] = self.engine.version
            detail["open_s"] = round(clock.now() - self._opened_at, 1)
        if self._stream is not None:
            detail["stream"] = self._stream.operation.name
            detail["stream_items"] = self._stream.items
        if self.last_error is not None:
            detail["error"] = self.last_error
        return detail

    def on_receive(self, message: object) -> Any:
        """Take the pool's messages; jobs are answered, the rest ends in a report. Switches greenlets."""
        if isinstance(message, Run):
            return self._run(message.job)
        if isinstance(message, PullRows):
            return self._pull(message)
        if isinstance(message, WriteRows):
            return self._write(message)
        if isinstance(message, CloseRows):
            self._close_rows(message)
        elif isinstance(message, Open):
            if not self.engine.is_open:
                self._try_open()
        elif isinstance(message, Check):
            self._check()
        elif isinstance(message, Recovered):
            self._recover()
        elif isinstance(message, Rested):
            if self.state == "waiting":
                self.state = "closed"
        elif isinstance(message, Tick):
            self._look_after()
            self._tick = self.send_after(self.settings.check_interval_s, Tick())
        elif not isinstance(message, Announce):
            return super().on_receive(message)
        self._announce()
        return None

    def _end_timers(self) -> None:
        for timer in (self._tick, self._retry, self._patience):
            if timer is not None:
                timer.cancel()
        if self._stream is not None:
            self._stream.unwatch()
            self._stream.closed = True

    # -- one job

    def _run(self, job: Job) -> Any:
        self._taken += 1
        if job.promise.done:
            self._announce()
            return None
        self.state = "busy"
        self._working = True
        try:
            answer = self._guarded(job)
            if job.operation.streams or job.more:
                return self._held(job)
            job.frees = self._is_as_told() and self._is_waited_for()
            return answer
        except RegrowError:
            raise
        except BaseException:
            # killed, or a fault of ours: the statement may still run, so nobody may use this connection again
            self.engine.discard()
            raise
        finally:
            self._done(announce=not job.frees)

    def _is_as_told(self) -> bool:
        """Whether the pool would learn nothing but that this connection is idle."""
        return self.engine.is_open and self._told == (self.last_error, self.engine.version)

    def _is_waited_for(self) -> bool:
        """Whether the pool will hear the answer to the job in hand."""
        promise = scheduler.current_promise()
        return promise is not None and not promise.done

    def _done(self, *, announce: bool = True) -> None:
        """Be free again, unless a stream holds the connection, and say so."""
        self._working = False
        self._used_at = clock.now()
        if self._stream is not None:
            self.state = "busy"
        elif self.engine.is_open:
            self.state = "idle"
        elif self.state == "busy":
            self.state = "closed"
            if self._kept:
                self.ref.post(Open())
        if announce:
            self._announce()

    # -- a stream

    def _held(self, job: Job) -> RowStream | RowSink | None:
        if job.promise.done:
            self._end_stream_of_engine()
            return None
        held = self._stream = Held(job.operation, self.settings.stream_idle_s)
        held.watch(self.ref)
        if job.more:
            held.items = len(job.rows)
            return RowSink(self.ref, held)
        return RowStream(self.ref, held)

    def _pull(self, message: PullRows) -> Batch:
        held = self._going_on(message.key)

        def read() -> tuple[Batch, bool]:
            items, over = self.engine.read_stream(message.most)
            held.items += len(items)
            return Batch(items, over), over

        return self._serve(held, read, self.deadline)

    def _write(self, message: WriteRows) -> Any:
        held = self._going_on(message.key)
        engine = cast(CopyEngine, self.engine)

        def write() -> tuple[Any, bool]:
            answer = engine.write_stream(message.rows, last=message.last)
            held.items += len(message.rows)
            return answer, message.last

        return self._serve(held, write, message.deadline)

    def _going_on(self, key: int) -> Held:
        held = self._stream
        if held is None or held.key != key or held.closed:
            raise NotFound("this stream is over: it ended, was closed, or nobody went on with it", started="yes")
        return held

    def _serve(self, held: Held, work: Callable[[], tuple[T, bool]], deadline: float | None) -> T:
        """Do one pull or write of a stream, of which the work tells whether it was the last; any error ends it."""
        held.unwatch()
        until = held.until if deadline is None else min(deadline, held.until)
        self.state, self._working, self._cut_by = "busy", True, None
        held.cut = self._cut_by_caller
        self.on_abandon(self._cut_by_caller)
        over = True
        try:
            answer, over = self._bounded(until - clock.now(), work)
            return answer
        except Lost as lost:
            self._lose(lost.reason)
            raise self._connection_error(lost) from lost
        except Interrupted as error:
            name = held.operation.name
            if clock.now() >= held.until:
                raise TimedOut(f"the stream of operation {name} lasted longer than its timeout") from error
            if self._cut_by == "caller":
                raise Cancelled(f"the stream of operation {name} was closed", started="yes") from error
            if self._cut_by == "deadline":
                raise AskTimeout(
                    f"the deadline passed while the stream of operation {name} went on, it was ended", started="yes"
                ) from error
            raise TimedOut(f"the stream of operation {name} was cut off by the database") from error
        except RegrowError:
            raise
        except BaseException:
            self.engine.discard()
            raise
        finally:
            held.cut = None
            if over or held.closed:
                self._end_stream(held)
            else:
                held.watch(self.ref)
            self._done()

    def _close_rows(self, message: CloseRows) -> None:
        held = self._stream
        if held is None or held.key != message.key:
            return
        if message.why is not None:
            events.publish("stream.idled", actor=self.settings.pool, operation=held.operation.name, why=message.why)
        self._end_stream(held)
        self.state = "idle" if self.engine.is_open else "closed" if self.state == "busy" else self.state

    def _end_stream(self, held: Held) -> None:
        held.closed = True
        held.unwatch()
        self._stream = None
        self._end_stream_of_engine()

    def _end_stream_of_engine(self) -> None:
        if not self.engine.is_open:
            return
        late = gevent.Timeout(GRACE_S)
        late.start()
        try:
            self.engine.close_stream()
        except gevent.Timeout as timeout:
            if timeout is not late:
                raise
            self._lose(f"no answer {GRACE_S:g} s after a stream was ended")
        finally:
            late.close()

    def _guarded(self, job: Job) -> Any:
        """Run the job with the permit of the breaker, if there is one, and tell it what the outcome says."""
        breaker = whereis(f"{self.settings.pool}/breaker")
        if breaker is None:
            return self._perform(job)
        granted = self._permit(breaker, job)
        outcome: Outcome = "unknown"
        try:
            answer = self._perform(job)
            outcome = "ok"
            return answer
        except RegrowError as error:
            outcome = self._outcome(error)
            raise
        finally:
            self._tell_outcome(breaker, granted, outcome)

    def _tell_outcome(self, breaker: Ref, granted: Granted, outcome: Outcome) -> None:
        """Tell the breaker what the outcome was; one that changes nothing is not worth a message."""
        circuit, policy = self.settings.circuit, self.settings.breaker
        if circuit is not None and policy is not None and changes_nothing(policy, granted, outcome):
            count_settled(self.settings.pool, circuit.record, granted, outcome)
        elif breaker.is_alive():
            breaker.post(Settled(granted, outcome))

    def _permit(self, breaker: Ref, job: Job) -> Granted:
        """Ask for a permit, or use the last one again: while the circuit stays closed they are all the same."""
        circuit, last = self.settings.circuit, self._granted
        if last is not None and last.probe is None and circuit is not None:
            record = circuit.record
            if record.state == "closed" and record.generation == last.generation:
                return last
        granted: Granted = breaker.ask(Permit(), timeout=max(0.0, job.deadline - clock.now()))
        self._granted = granted
        return granted

    def _outcome(self, error: RegrowError) -> Outcome:
        if isinstance(error, DatabaseError):
            sick = str(error.details.get("sqlstate") or "").startswith(_SERVER_IS_SICK)
            return "failed" if sick else "ok"
        if isinstance(error, ConnectionFailed):
            # a server that serves others of the pool is not down, it allows us no more connections
            others = any(engine.is_open for index, engine in self.settings.engines.items() if index != self.index)
            return "unknown" if error.started == "no" and others else "failed"
        if isinstance(error, AskTimeout | TimedOut | Cancelled):
            # a slow statement is its own fault as long as the server obeyed and cut it off
            return "unknown" if self.engine.is_open else "failed"
        return "ok" if error.started == "yes" else "unknown"

    def _perform(self, job: Job) -> Any:
        repeats, repeated_after_loss, stale, moved = 0, False, False, False
        while True:
            self._ensure_open(job)
            try:
                return self._cut_off_in_time(job)
            except Lost as lost:
                self._lose(lost.reason)
                if repeated_after_loss or (lost.sent and not job.operation.read_only):
                    raise self._connection_error(lost) from lost
                repeated_after_loss = True
            except Stale as error:
                if stale:
                    raise DatabaseError(
                        f"operation {job.operation.name} failed: its prepared plan no longer fits, again",
                        retryable=True,
                    ) from error
                stale = True
            except DatabaseError as error:
                if self._takes_no_writes_any_more(job, error) and not moved:
                    # a failover that hung up on nobody; nothing was kept, and another host takes it
                    self._lose("the server takes no writes any more")
                    moved = True
                    continue
                if error.details.get("sqlstate") not in REPEATABLE or repeats >= self.settings.retries:
                    raise
                pause_s = min(REPEAT_MAX_S, REPEAT_BASE_S * 2**repeats) * random.uniform(0.5, 1.5)
                if clock.now() + pause_s >= job.deadline or job.promise.done:
                    raise
                repeats += 1
                metrics.REPEATS.inc(self.settings.pool)
                clock.sleep(pause_s)

    def _takes_no_writes_any_more(self, job: Job, error: DatabaseError) -> bool:
        return self.settings.writes and not job.operation.read_only and error.details.get("sqlstate") == READ_ONLY

    def _ensure_open(self, job: Job) -> None:
        if self.engine.is_open:
            if self.engine.is_alive():
                return
            self._lose("the server ended the connection")
        if clock.now() >= job.deadline or job.promise.done:
            raise _expired()
        try:
            # not cut at the job's deadline: a caller with little time must not make a slow server look dead
            self._open()
        except Lost as lost:
            self._lose(lost.reason)
            raise self._connection_error(lost) from lost

    def _cut_off_in_time(self, job: Job) -> Any:
        left_s = job.deadline - clock.now()
        if left_s <= 0 or job.promise.done:
            raise _expired()
        self._cut_by = None
        self.statements += 1
        job.cut = self._cut_by_caller
        engine, operation, rows = self.engine, job.operation, job.rows
        try:
            lasts_s = operation.timeout_s or MAX_STREAM_S
            if operation.streams:
                return self._bounded(left_s, lambda: engine.open_stream(operation, rows[0], lasts_s))
            if job.more:
                return self._bounded(left_s, lambda: _begin_copy(cast(CopyEngine, engine), operation, rows, lasts_s))
            return self._bounded(left_s, lambda: engine.run(operation, rows, left_s))
        except Interrupted as error:
            raise self._cut_error(job) from error
        finally:
            job.cut = None

    def _bounded(self, left_s: float, work: Callable[[], T]) -> T:
        """Do it and have it cut off in time; a server that does not even obey that is given up."""
        timer = clock.after(max(0.0, left_s), self._cut, "deadline")
        self._worker = getcurrent()
        try:
            return work()
        except _Disobeyed:
            self._lose(f"no answer {GRACE_S:g} s after a statement was cut off")
            raise Interrupted from None
        finally:
            self._worker = None
            timer.cancel()
            if self._cutting is not None:
                self._settle()

    def _cut_error(self, job: Job) -> RegrowError:
        name = job.operation.name
        if self._cut_by is None and clock.now() < job.deadline:
            return TimedOut(f"operation {name} was cut off by the database: its own limit, or its administrator")
        if job.promise.deadline is None or job.deadline < job.promise.deadline:
            limit_s = job.operation.timeout_s or job.deadline - job.queued_at
            return TimedOut(f"operation {name} took longer than its timeout of {limit_s:g} s and was cut off")
        return AskTimeout(f"the deadline passed while operation {name} ran, it was cut off", started="yes")

    def _cut_by_caller(self) -> None:
        self._cut("caller")

    def _cut(self, why: str) -> None:
        """In the hub: have the running statement cut off."""
        if self._cutting is None:
            self._cut_by = why
            self._cutting = gevent.spawn(self.engine.interrupt, GRACE_S)
            self._patience = clock.after(GRACE_S, self._disobeyed)

    def _disobeyed(self) -> None:
        """In the hub: end the wait for a server that does not even obey a cancel."""
        self._patience = None
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.throw(_Disobeyed)

    def _settle(self) -> None:
        """After a cut: a cancel on its way must not hit the next statement, so await it and ask for a sign of life."""
        cutting, self._cutting = self._cutting, None
        patience, self._patience = self._patience, None
        if patience is not None:
            patience.cancel()
        if cutting is None:
            return
        cutting.join(GRACE_S)
        cutting.kill(block=False)
        if self.engine.is_open:
            try:
                self.engine.ping(SETTLE_S)
            except Lost as lost:
                self._lose(lost.reason)

    # -- the connection's life

    def _open(self) -> None:
        self.engine.open(self.settings.connect_timeout_s)
        self.state = "busy" if self._working else "idle"
        self.last_error = None
        self._connected = True
        self._failures = 0
        self._opened_at = self._used_at = clock.now()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._announce()
        events.publish(
            "database.connected", actor=self.settings.pool, connection=self.index, server=self.engine.version
        )

    def _try_open(self) -> None:
        try:
            self._open()
        except Lost as lost:
            self._lose(lost.reason)
        except DatabaseError as error:
            self._lose(str(error))

    def _lose(self, reason: str) -> None:
        """Drop the connection and wait; the pool is told, and a kept connection tries again by itself."""
        was_open, self._connected = self._connected, False
        self.engine.discard()
        self.last_error = reason
        # one that nobody keeps open is closed again; only an attempt that failed makes it wait for better times
        self.state = "waiting" if self._kept or not was_open else "closed"
        if was_open:
            metrics.LOST.inc(self.settings.pool)
            events.publish("database.connection_lost", actor=self.settings.pool, connection=self.index, error=reason)
            self._announce(lost=True)
        if self.state == "waiting":
            self._try_again_later()

    def _try_again_later(self) -> None:
        settings = self.settings
        pause_s = min(settings.backoff_max_s, settings.backoff_base_s * 2 ** min(self._failures, 16))
        self._failures += 1
        if self._retry is not None:
            self._retry.cancel()
        self._retry = self.send_after(pause_s * random.uniform(0.75, 1.25), Open() if self._kept else Rested())

    def _check(self) -> None:
        """Ask for a sign of life: a server that fell silent, or a network that swallows all, hangs up on nobody."""
        if self._stream is not None or not self.engine.is_open:
            return
        if not self.engine.is_alive():
            self._lose("the server ended the connection")
            return
        if clock.now() - self._checked_at < CHECKED_FOR_S:
            return
        try:
            self.engine.ping(min(CHECK_S, self.settings.connect_timeout_s))
            self._checked_at = clock.now()
        except Lost as lost:
            self._lose(lost.reason)

    def _recover(self) -> None:
        if self.state != "waiting":
            return
        self._failures = 0
        if self._kept:
            self._try_open()
        else:
            self.state = "closed"

    def _look_after(self) -> None:
        if not self.engine.is_open or self._stream is not None:
            return
        now = clock.now()
        is_old = now - self._opened_at >= self._lifetime_s
        if is_old or (not self._kept and now - self._used_at >= self.settings.max_idle_s):
            self.engine.close()
            self.state, self._connected = "closed", False
            events.publish(
                "database.connection_closed",
                actor=self.settings.pool,
                connection=self.index,
                reason="age" if is_old else "idle",
            )
            if self._kept:
                self._try_open()
            return
        try:
            self._ask_for_health()
        except Lost as lost:
            self._lose(lost.reason)

    def _ask_for_health(self) -> None:
        """Raise `Lost` unless the connection is fit for work."""
        check, limit_s = self.settings.health_check, self.settings.connect_timeout_s
        if check is None:
            self.engine.ping(limit_s)
            return
        self._cut_by = None
        try:
            self._bounded(limit_s, lambda: self.engine.run(check, [()], limit_s))
        except (Interrupted, Stale, RegrowError) as error:
            why = str(error) if isinstance(error, RegrowError) else f"no answer within {limit_s:g} s"
            raise Lost(f"the health check failed: {why}", sent=False) from error

    def _tear_down(self) -> None:
        """Run the teardown statements as far as they go within their time; the pool ends whatever they do."""
        settings = self.settings
        late = gevent.Timeout(TEARDOWN_S)
        late.start()
        number = 0
        try:
            if self._stream is not None:
                self._end_stream(self._stream)
            if not self.engine.is_open:
                self.engine.open(settings.connect_timeout_s)
            for number, statement in enumerate(settings.teardown, 1):  # noqa: B007 - named below
                self.engine.run(statement, [()], TEARDOWN_S)
        except (gevent.Timeout, Lost, Interrupted, Stale, RegrowError) as error:
            if isinstance(error, gevent.Timeout) and error is not late:
                raise
            why = str(error) if error is not late else f"it took longer than {TEARDOWN_S:g} s"
            events.publish("database.teardown_failed", actor=settings.pool, statement=number, error=why)
        finally:
            late.close()

    def _connection_error(self, lost: Lost) -> ConnectionFailed:
        pool = self.settings.pool
        if lost.sent:
            return ConnectionFailed(
                f"database {pool} lost the connection while the operation ran: {lost.reason}",
                started="unknown",
                retryable="unknown",
            )
        return ConnectionFailed(f"database {pool} is not connected: {lost.reason}", started="no", retry_after_s=1.0)

    def _announce(self, *, lost: bool = False) -> None:
        pool = whereis(self.settings.pool)
        self._told = None
        if pool is not None:
            connected = self.engine.is_open
            state = "busy" if self._working or self._stream is not None else self.state
            version = self.engine.version if connected else None
            if state == "idle" and connected and not lost:
                self._told = (self.last_error, version)
            pool.post(Report(self.index, self.ref, self._taken, state, connected, lost, self.last_error, version))


def _begin_copy(engine: CopyEngine, operation: Operation, rows: list[Values], lasts_s: float) -> None:
    engine.open_stream(operation, (), lasts_s)
    engine.write_stream(rows, last=False)


def _expired() -> AskTimeout:
    return AskTimeout("the deadline passed before the statement was sent", started="no", retryable=True)
