"""A call on its way through a pool, what front and workers tell each other, and what they count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gevent import get_hub

from actors.workers.process import Command
from runtime.measure import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from actors.resilience.circuit import Granted
    from actors.workers.child import Setup
    from actors.workers.desk import Desk
    from actors.workers.line import Line
    from actors.workers.streaming import CallStream
    from runtime.promise import Promise

_FOR_EVER = float("inf")
_run_callback = get_hub().loop.run_callback

State = Literal["off", "starting", "idle", "busy", "ending"]
#: off: not needed now, there is no process
STATES: tuple[State, ...] = ("off", "starting", "idle", "busy", "ending")
KILL_REASONS = ("deadline", "cancelled", "memory", "start_timeout", "stands_still")
RECYCLE_REASONS = ("max_calls", "max_age", "memory", "not_needed", "unhealthy")

WORKERS = Gauge("pool_workers", "child processes by state", ("actor", "state"))
RESIDENT = Gauge("pool_resident_bytes", "resident memory of the child processes and what they started", ("actor",))
KILLS = Counter("pool_kills_total", "child processes that were killed on purpose, by reason", ("actor", "reason"))
RECYCLES = Counter("pool_recycles_total", "child processes replaced between calls, by reason", ("actor", "reason"))
HEALTHY = Gauge("pool_healthy", "1 while a pool has a process that is ready and well, or none has failed", ("actor",))
QUEUED = Gauge("pool_queue_calls", "calls that wait for a worker", ("actor",))
WAITED = Histogram("pool_wait_seconds", "how long calls waited until a worker had none before them", ("actor",))
RAN = Histogram("pool_call_seconds", "how long calls ran in a worker, by its own clock", ("actor",))


@dataclass(frozen=True)
class Settings:
    """What a pool and its workers go by; times in seconds, sizes in bytes, None where there is no limit."""

    pool: str
    command: Command
    setup: Setup
    workers: int  # so many always run
    max_workers: int  # so many run when calls wait
    scale_up_after_s: float
    scale_down_after_s: float
    timeout_s: float
    queue_calls: int
    queue_bytes: int
    max_message: int
    max_memory: int | None
    max_calls: int | None
    max_age_s: float | None
    start_timeout_s: float
    kill_grace_s: float
    quarantine_deaths: int
    quarantine_within_s: float
    quarantine_for_s: float
    limiter: str | None = None
    breaker: str | None = None
    patience_s: float = 5.0
    check_interval_s: float = 30.0  # for a pool whose setup names a health check
    check_timeout_s: float = 5.0

    def worker_name(self, index: int) -> str:
        return f"{self.pool}/worker-{index}"

    def declare(self) -> None:
        """Make every series of this pool exist. Never switches."""
        for state in STATES:
            WORKERS.declare(self.pool, state)
        for reason in KILL_REASONS:
            KILLS.declare(self.pool, reason)
        for reason in RECYCLE_REASONS:
            RECYCLES.declare(self.pool, reason)
        for instrument in (RESIDENT, HEALTHY, QUEUED, WAITED, RAN):
            instrument.declare(self.pool)


class Job:
    """One call: its frame, ready to be sent, and the promise of whoever asked for it.

    It waits in a `line`, which counts it, or has been sent to the process of a `desk`, as its message of this `number`.
    Called, as what its promise does when the caller gives up, it leaves wherever it is.
    """

    __slots__ = (
        "asked",
        "desk",
        "expected_s",
        "frame",
        "function",
        "id",
        "is_counted",
        "is_told",
        "line",
        "number",
        "part_missing_since",
        "permit",
        "promise",
        "queued_at",
        "size",
        "stream",
        "turn",
    )

    def __init__(self, id: int, function: str, frame: bytearray, promise: Promise) -> None:
        self.id = id
        self.function = function
        self.frame = frame
        self.size = len(frame)
        self.promise = promise
        self.queued_at = 0.0
        self.turn = 0  # its place among all that ever stood in its line
        self.number = 0
        self.expected_s = _FOR_EVER
        self.line: Line | None = None
        self.desk: Desk | None = None
        self.is_counted = False
        self.is_told = False  # the listeners of telemetry have heard that it began
        self.permit: Granted | None = None
        self.asked: Promise | None = None  # the question to limiter or breaker that is open
        self.part_missing_since: float | None = None
        self.stream: CallStream | None = None

    @property
    def is_unwanted(self) -> bool:
        """Whether nobody waits for it any more. Never switches."""
        return self.promise.done or (self.stream is not None and self.stream.is_unwanted)

    def is_back(self) -> None:
        """Hear that no process has it any more, and none has begun it. Never switches."""
        self.desk = None
        self.promise.started = False
        if self.stream is not None:
            self.stream.opened.started = False

    def withdraw(self) -> bool:
        """Take the call back from a process that has not begun it; True when one has. Never switches."""
        return self.promise.started if self.desk is None else self.desk.withdraw(self)

    def __call__(self) -> None:
        # At once, for in a moment it may have begun. The rest waits for its turn: the caller may have given up because
        # of another answer, and who gave that, or answers many, is not done yet.
        self.withdraw()
        _run_callback(self._leave)

    def _leave(self) -> None:
        if self.asked is not None:
            self.asked.cancel()
        if self.desk is not None:
            self.desk.leave(self)
        elif self.line is not None:
            self.line.leave(self)

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.function} {self.size} bytes>"


@dataclass(frozen=True, slots=True)
class Announce:
    """The front, new itself, asks a worker for its state."""


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker shows its front its desk; `problem` is why it could not start, `by_signal` that it was shot.

    `ailment` is why its process was found unhealthy, as long as the next one is not ready.
    """

    worker: str
    desk: Desk
    problem: str | None = None
    by_signal: bool = False
    ailment: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """The reader of a job's stream wants 1 to `most` further items."""

    job: Job
    most: int


@dataclass(frozen=True, slots=True)
class Unread:
    """The reader of a job's stream wants no more of it."""

    job: Job


@dataclass(frozen=True, slots=True)
class Wake:
    """The front needs a worker that is off."""
