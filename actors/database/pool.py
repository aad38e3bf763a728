"""The front of a database: takes calls under the integration's name and hands them to connections; never waits itself.

Calls that find no free connection wait in turns of their clients, first come, first served within each, bounded in
number and in time; when no more find a place, those of the client with most of them give way. Which connection gets a
job: an open idle one, the first of them, so that the last ones fall idle and close; else a closed one; else, when no
connection is open at all, one that waits for the server, which then tries at once. So a caller of a database that is
down gets the answer of a real attempt, and the first call after its return works.

What a crash of the front loses is the line and its callers' promises, which the runtime answers; connections go on,
and announce themselves to the next front.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.database import metrics
from actors.database.connection import GRACE_S, SETTLE_S, Announce, Check, Job, Recovered, Report, Run, Suspect
from actors.database.held import RowSink, RowStream
from actors.database.operation import COPY, DATA, MORE, ROWS, UNDO, Operation, StatementKind, Values
from actors.database.stored import arguments_of, finish_of
from actors.resilience.fair import FairQueue
from actors.storage.contract import METHODS
from regrow.protocol.errors import (
    Cancelled,
    ConnectionFailed,
    Invalid,
    NotFound,
    Overloaded,
    Refused,
    RegrowError,
    Unavailable,
)
from runtime import clock, telemetry
from runtime.actor import Actor
from runtime.exports import Exported
from runtime.messages import Call
from runtime.names import whereis
from runtime.origin import client_of
from runtime.promise import ActorDied, Promise
from runtime.ref import Ref
from runtime.signals import Down, monitor

#: the method that runs a statement which the caller sends, where the configuration allows it
RAW = "sql"
Raw = Callable[[str, StatementKind], Operation]


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """What the front goes by; times in seconds."""

    name: str
    operations: Mapping[str, Operation]
    exports: Mapping[str, Exported]
    size: int
    timeout_s: float
    queue: int
    queue_timeout_s: float
    #: whether clients may send statements of their own, and how they are compiled
    raw: Raw | None = None
    #: what the calls of the storage contract run, by method and asset
    storage: Mapping[tuple[str, str], Operation] = field(default_factory=dict)

    def connection_name(self, index: int) -> str:
        return f"{self.name}/connection-{index}"


@dataclass(frozen=True, slots=True)
class Returned:
    """A job whose connection could not be made, while other connections of the pool are open."""

    job: Job


@dataclass(frozen=True, slots=True)
class Untaken:
    """A job that ran out of time in a connection's mailbox."""

    slot: Slot
    ref: Ref


@dataclass(frozen=True, slots=True)
class Impatient:
    """Who has waited longest may have waited long enough."""


@dataclass(slots=True, eq=False)
class Slot:
    """What the front knows of one connection actor; `ref` is its present incarnation."""

    index: int
    ref: Ref | None = None
    given: int = 0
    state: str = "absent"
    connected: bool = False
    error: str | None = None


class Pool(Actor):
    """The front of one database."""

    def __init__(self, settings: PoolSettings) -> None:
        super().__init__()
        self.settings = settings
        self.exports = settings.exports
        self.version: str | None = None
        self.last_error: str | None = None
        self._slots = [Slot(index) for index in range(1, settings.size + 1)]
        self._line: FairQueue[Job] = FairQueue(settings.queue)
        # jobs whose connection could not be made are first, and those in the line stand here in order of their coming
        self._returned: deque[Job] = deque()
        self._came: deque[Job] = deque()
        self._running: set[Job] = set()
        # copies in several calls by the key that their callers have
        self._copies: dict[str, RowSink] = {}
        self._impatience: clock.Timer | None = None
        extra = [operation.name for operation in settings.storage.values()]
        if settings.raw is not None:
            extra.append(RAW)
        metrics.declare(settings.name, (*settings.operations, *extra))
        self._shown = {state: metrics.CONNECTIONS.cell(settings.name, state) for state in metrics.STATES}

    # -- hooks

    def on_start(self) -> None:
        """Look for connections that are there already; whoever works announces itself when it is done."""
        for state, cell in self._shown.items():
            cell.value = len(self._slots) if state == "absent" else 0
        metrics.HEALTHY.set(1.0, self.settings.name)
        for slot in self._slots:
            ref = whereis(self.settings.connection_name(slot.index))
            if ref is not None:
                ref.post(Announce())

    def on_stop(self) -> None:
        """Answer those in the line, whose statements never started, and cut off what runs."""
        if self._impatience is not None:
            self._impatience.cancel()
        name = self.settings.name
        for job in [*self._returned, *self._line.remove(lambda _job: True)]:
            stopping = f"database {name} is stopping, operation {job.operation.name} was not started"
            job.leave = None
            job.promise.reject(Unavailable(stopping, retry_after_s=1.0))
        self._returned.clear()
        self._came.clear()
        for job in list(self._running):
            job.promise.abandon(Cancelled(f"database {name} stopped while the operation ran", started="yes"))

    def on_failure(self, *_error: object) -> None:
        self.on_stop()

    def on_down(self, down: Down) -> None:
        """Forget a connection actor that ended; its successor will report."""
        for slot in self._slots:
            if slot.ref is down.ref:
                slot.ref, slot.connected = None, False
                self._turn(slot, "absent")
        self._hand_out()

    def status(self) -> dict[str, Any]:
        """Return how many connections are in which state, and who waits. Never switches."""
        states = [slot.state for slot in self._slots]
        is_up = any(slot.connected for slot in self._slots)
        detail: dict[str, Any] = {
            "state": "up" if is_up else "waiting" if "waiting" in states else "idle",
            "in_use": states.count("busy"),
            "idle": states.count("idle"),
            "size": self.settings.size,
            "waiting_callers": self._waiting(),
            "health": "healthy" if self._is_healthy() else "unhealthy",
        }
        if self.version is not None:
            detail["server"] = self.version
        if self.last_error is not None:
            detail["last_error"] = self.last_error
        return detail

    def on_call(self, call: Call) -> None:
        """Bind the arguments, then hand the job out or put it in the line; answered later. Never switches."""
        settings = self.settings
        operation = settings.operations.get(call.method)
        finish = None
        more = False
        args: Mapping[str, Any] = call.args
        try:
            if operation is None:
                operation, args, finish = self._special(call)
            if operation.kind == "copy_in":
                if COPY in args or UNDO in args:
                    self._go_on(operation, args)
                    return
                more = bool(args.get(MORE))
                args = {name: value for name, value in args.items() if name != MORE}
            rows = operation.bind(args)
        except RegrowError as error:
            if operation is not None:
                metrics.OPERATIONS.inc(settings.name, operation.name, _outcome(error))
            raise
        now = clock.now()
        promise = self.defer()
        deadline = now + settings.timeout_s if promise.deadline is None else promise.deadline
        if operation.timeout_s is not None:
            deadline = min(deadline, now + operation.timeout_s)
        finish = self._keep_copy if more else finish
        job = Job(operation, rows, promise, deadline, now, finish, client_of(promise), more)
        promise.on_abandon = job.abandoned
        slot = None if self._returned or self._line else self._free()
        if slot is None:
            self._stand_in_line(job)
        else:
            telemetry.began(settings.name, operation.name)
            self._give(slot, job, now)

    def _keep_copy(self, sink: RowSink | None) -> dict[str, str] | None:
        """Remember a copy that has begun; there are never more of them than connections."""
        if sink is None:
            return None  # its caller had given up
        self._copies = {key: each for key, each in self._copies.items() if each.is_open}
        key = secrets.token_urlsafe(12)
        self._copies[key] = sink
        return {COPY: key}

    def _go_on(self, operation: Operation, args: Mapping[str, Any]) -> None:
        """Take a call that goes on with a copy. Never switches."""
        settings, key, now = self.settings, args.get(COPY), clock.now()
        sink = self._copies.get(key) if isinstance(key, str) else None
        if sink is None or not sink.is_open or sink.operation is not operation:
            raise NotFound(
                f"operation {operation.name} has no copy under way with this key: it ended, was undone, or nobody went "
                "on with it in time"
            )
        assert isinstance(key, str)
        if args.get(UNDO):
            del self._copies[key]
            sink.close()
            self.defer().resolve({"rowcount": 0})
            return
        data = {name: args[name] for name in (ROWS, DATA) if args.get(name) is not None}
        last = not args.get(MORE)
        rows: list[Values] = operation.bind(data) if data or not last else []
        if last:
            del self._copies[key]
        promise = self.defer()
        deadline = now + settings.timeout_s if promise.deadline is None else promise.deadline
        promise.on_abandon = sink.cut
        telemetry.began(settings.name, operation.name)

        def answered(answer: Promise) -> None:
            error = self._error_of(operation, answer)
            self._count(operation, now, error)
            if error is not None:
                promise.reject(error)
            else:
                promise.resolve(answer.value if last else {COPY: key})

        sink.write(rows, last, deadline, Promise(deadline=deadline + GRACE_S + SETTLE_S + GRACE_S, callback=answered))

    def _special(self, call: Call) -> tuple[Operation, Mapping[str, Any], Callable[[Any], Any] | None]:
        """What a call of the storage contract or a client's own statement runs."""
        settings, method, args = self.settings, call.method, call.args
        if method == RAW and settings.raw is not None:
            operation = settings.raw(str(args.get("statement", "")), args.get("kind", "query"))
            return operation, args.get("params") or {}, None
        if method in METHODS and settings.storage:
            asset = str(args.get("asset", ""))
            stored = settings.storage.get((method, asset))
            if stored is None:
                raise NotFound(f"database {settings.name} has no asset {asset[:80]!r} with {method}")
            return stored, arguments_of(method, stored, args), finish_of(method, asset, args)
        raise NotFound(f"database {settings.name} has no operation {method!r}")

    def on_receive(self, message: object) -> Any:
        """Take the connections' reports. Never switches."""
        if isinstance(message, Report):
            self._reported(message)
        elif isinstance(message, Returned):
            self._returned.append(message.job)
        elif isinstance(message, Untaken):
            if message.slot.ref is message.ref:
                message.slot.given -= 1
                message.ref.post(Announce())
        elif isinstance(message, Suspect):
            self._have_others_look(None)
        elif isinstance(message, Impatient):
            self._impatience = None
        else:
            return super().on_receive(message)
        self._hand_out()
        return None

    # -- connections

    def _reported(self, report: Report) -> None:
        slot = self._slots[report.index - 1]
        if slot.ref is not report.ref:
            if not report.ref.is_alive():
                return
            slot.ref, slot.given = report.ref, report.taken
            monitor(report.ref)
        if report.lost:
            self._have_others_look(slot)
        if report.connected and not any(each.connected for each in self._slots):
            self._tell_others_of_its_return(slot)
        slot.connected = report.connected
        slot.error = report.error
        if report.error is not None and report.error != self.last_error:
            self.last_error = report.error
        if report.version is not None:
            self.version = report.version
        if report.taken == slot.given:
            self._turn(slot, report.state)

    def _have_others_look(self, slot: Slot | None) -> None:
        """The server may be gone for all: who is idle looks now and gets no job before, not when a caller needs it."""
        for other in self._slots:
            if other is not slot and other.ref is not None and other.state == "idle":
                self._turn(other, "busy")
                other.ref.post(Check())
        listener = None if slot is None else whereis(f"{self.settings.name}/listener")
        if listener is not None:
            listener.post(Check())

    def _tell_others_of_its_return(self, slot: Slot) -> None:
        for other in self._slots:
            if other is not slot and other.ref is not None and other.state == "waiting":
                other.ref.post(Recovered())
        listener = whereis(f"{self.settings.name}/listener")
        if listener is not None:
            listener.post(Recovered())

    def _free(self) -> Slot | None:
        shown = self._shown
        if not (shown["idle"].value or shown["closed"].value or shown["waiting"].value):
            return None
        closed: Slot | None = None
        waiting: Slot | None = None
        connected = opening = False
        for slot in self._slots:
            if slot.state == "idle":
                return slot
            if slot.state == "closed":
                closed = closed or slot
            elif slot.state == "waiting":
                waiting = waiting or slot
            elif slot.state == "busy" and not slot.connected:
                opening = True
            connected = connected or slot.connected
        if connected:
            return closed
        # while nobody knows whether the server answers, one attempt at a time is enough
        return None if opening else closed or waiting

    # -- the line

    def _stand_in_line(self, job: Job) -> None:
        settings = self.settings
        without_place = self._line.put(job.client, job)
        if without_place is not job:
            job.leave = lambda: self._leave(job)
            self._came.append(job)
            if len(self._came) > 2 * len(self._line) + 16:
                self._came = deque(each for each in self._came if each.leave is not None)
        if without_place is not None:
            without_place.leave = None
            metrics.OPERATIONS.inc(settings.name, without_place.operation.name, "refused")
            why = "no more are taken" if without_place is job else "those of the client with most of them give way"
            without_place.promise.reject(
                Overloaded(
                    f"database {settings.name} has {settings.queue} callers waiting for {settings.size} connections, "
                    f"{why}",
                    retry_after_s=settings.queue_timeout_s / 2,
                )
            )
        self._send_away(clock.now())

    def _leave(self, job: Job) -> None:
        """In the hub: a caller in the line gave up."""
        job.leave = None
        if self._line.discard(job.client, job):
            metrics.OPERATIONS.inc(self.settings.name, job.operation.name, "failed")

    def _waiting(self) -> int:
        return len(self._line) + len(self._returned)

    def _hand_out(self) -> None:
        now, returned, line = clock.now(), self._returned, self._line
        while (returned or line) and (slot := self._free()) is not None:
            job = returned.popleft() if returned else line.take()
            assert job is not None
            job.leave = None
            if job.promise.done:
                metrics.OPERATIONS.inc(self.settings.name, job.operation.name, "failed")
                self._end_if_begun(job, now, "cancelled")
                continue
            if not job.returns:
                telemetry.began(self.settings.name, job.operation.name)
            self._give(slot, job, now)
        self._send_away(now)

    def _send_away(self, now: float) -> None:
        """Refuse those who have waited too long, and look again when the next one will have."""
        patience_s, came = self.settings.queue_timeout_s, self._came
        if not came and not self._returned:
            return
        while self._returned and now - self._returned[0].queued_at >= patience_s:
            self._refuse(self._returned.popleft(), now)
        while came and (came[0].leave is None or now - came[0].queued_at >= patience_s):
            job = came.popleft()
            if job.leave is not None and self._line.discard(job.client, job):
                job.leave = None
                self._refuse(job, now)
        if self._impatience is not None:
            return
        oldest = [line[0].queued_at for line in (self._returned, came) if line]
        if oldest:
            self._impatience = self.send_after(max(0.0, min(oldest) + patience_s - now), Impatient())

    def _give(self, slot: Slot, job: Job, now: float) -> None:
        assert slot.ref is not None
        metrics.WAIT.observe(now - job.queued_at, self.settings.name)
        self._turn(slot, "busy")
        slot.given += 1
        self._running.add(job)
        # the connection's own deadline leaves room for cutting the statement off and waiting for the server's word
        limit = max(job.deadline, job.promise.deadline or 0.0) + GRACE_S + SETTLE_S + GRACE_S
        ref = slot.ref
        ref.request(Run(job), Promise(deadline=limit, callback=lambda answer: self._answered(job, slot, ref, answer)))

    def _answered(self, job: Job, slot: Slot, ref: Ref, answer: Promise) -> None:
        """In the connection's greenlet: pass its answer on to the caller, and the next job to it when it is free.

        The usual answer says that the connection is free again; a message for that is a tenth of a short statement.
        """
        self._running.discard(job)
        if job.frees and slot.ref is ref and slot.state == "busy" and self.ref.is_alive():
            self._turn(slot, "idle")
            self._hand_out()
        if not answer.started and (me := whereis(self.settings.name)) is not None:
            me.post(Untaken(slot, ref))
        error = answer.error
        if isinstance(error, ConnectionFailed) and error.started == "no" and self._comes_back(job):
            return
        error = self._error_of(job.operation, answer)
        value = answer.value
        if error is None and job.finish is not None:
            try:
                value = job.finish(value)
            except RegrowError as found:
                error = found
        self._count(job.operation, job.queued_at, error)
        if error is not None:
            job.promise.reject(error)
        elif not job.promise.resolve(value) and isinstance(answer.value, RowStream | RowSink):
            answer.value.close()

    def _error_of(self, operation: Operation, answer: Promise) -> RegrowError | None:
        error = answer.error
        if error is None or isinstance(error, RegrowError):
            return error
        died = ActorDied(
            f"a connection of database {self.settings.name} crashed while it ran operation {operation.name}",
            started="yes",
            actor=self.settings.name,
        )
        died.__cause__ = error
        return died

    def _count(self, operation: Operation, since: float, error: BaseException | None) -> None:
        pool, took_s = self.settings.name, clock.now() - since
        metrics.OPERATIONS.inc(pool, operation.name, _outcome(error))
        metrics.SECONDS.observe(took_s, pool, operation.name)
        telemetry.ended(pool, operation.name, took_s, error)

    def _comes_back(self, job: Job) -> bool:
        """Put an unsent job back into the line if others are connected: the server may allow us no more connections."""
        me = whereis(self.settings.name)
        if me is None or job.promise.done:
            return False
        if job.returns >= len(self._slots) or not any(slot.connected for slot in self._slots):
            return False
        job.returns += 1
        me.post(Returned(job))
        return True

    def _refuse(self, job: Job, now: float) -> None:
        settings = self.settings
        metrics.OPERATIONS.inc(settings.name, job.operation.name, "refused")
        waited_s = now - job.queued_at
        if not any(slot.connected for slot in self._slots) and self.last_error is not None:
            error: RegrowError = ConnectionFailed(
                f"database {settings.name} is not connected: {self.last_error}", started="no", retry_after_s=1.0
            )
        elif not any(slot.ref is not None for slot in self._slots):
            error = Unavailable(f"the connections of database {settings.name} are restarting", retry_after_s=1.0)
        else:
            states = [slot.state for slot in self._slots]
            away = states.count("waiting") + states.count("absent")
            cannot = f", {away} cannot connect ({self.last_error})" if away and self.last_error is not None else ""
            error = Overloaded(
                f"no connection of database {settings.name} was free within {waited_s:.3g} s: {states.count('busy')} "
                f"of {settings.size} are in use{cannot} and {self._waiting()} more callers wait: raise pool_size or "
                "send less",
                retry_after_s=settings.queue_timeout_s / 2,
            )
        self._end_if_begun(job, now, error.code)
        job.promise.reject(error)

    def _end_if_begun(self, job: Job, now: float, outcome: str) -> None:
        """Tell the end of a call that was told to begin, and came back into the line because nothing could be sent."""
        if job.returns:
            telemetry.ended(self.settings.name, job.operation.name, now - job.queued_at, outcome=outcome)

    def _turn(self, slot: Slot, state: str) -> None:
        self._shown[slot.state].value -= 1
        self._shown[state].value += 1
        before, slot.state = slot.state, state
        if state == "waiting" or before == "waiting":
            metrics.HEALTHY.set(float(self._is_healthy()), self.settings.name)

    def _is_healthy(self) -> bool:
        """Whether a connection works, or none was lost."""
        return any(slot.connected for slot in self._slots) or all(slot.state != "waiting" for slot in self._slots)


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "ok"
    if isinstance(error, Refused):
        return "refused"
    return "invalid" if isinstance(error, Invalid) else "failed"
