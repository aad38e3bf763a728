"""What one worker's process has been given and what it says to it: the part of a worker that works without messages.

The line gives a call, which goes straight to the process; the answer comes from the process in the hub and goes
straight to the caller. In between, calls that were sent ahead stand behind the one in hand. Everything here runs to its
end without a switch, so the line, the worker and the process's messages never meet it half done. Decisions about the
process itself (start, kill, replace) belong to the worker.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from actors.workers import child
from actors.workers.admission import settle
from actors.workers.child import Declined, Items, LeftAlone, Progress, Raised, Returned, Streaming
from actors.workers.job import RAN, STATES, WAITED, WORKERS, Job, Settings, State
from actors.workers.line import AHEAD_BYTES, AHEAD_CALLS, AHEAD_S, SHORT_S, ended_before, let_go
from actors.workers.process import WorkerProcess
from actors.workers.streaming import shown
from config.secret import redact
from regrow.protocol.errors import (
    ExecutionError,
    Forbidden,
    InvalidArguments,
    NotFound,
    RegrowError,
    TooLarge,
)
from runtime import clock, telemetry
from runtime.scheduler import ALIVE, hub

if TYPE_CHECKING:
    from actors.workers.line import Line
    from actors.workers.page import Page
    from runtime.ref import Ref

#: a process that has been given a call and does not take it within this time stands still, and is ended
STILL_S = 5.0
_EMPTY = bytearray()
_ANSWERS = (Returned, Raised, Declined)
_DECLINED: dict[str, type[RegrowError]] = {
    "not_found": NotFound,
    "forbidden": Forbidden,
    "invalid_arguments": InvalidArguments,
    "too_large": TooLarge,
}


class Owner(Protocol):
    """What a desk asks of its worker; none of it switches."""

    @property
    def ref(self) -> Ref: ...

    def process_said(self, said: child.AboutItself) -> None: ...

    def call_given_up(self, job: Job) -> None: ...

    def replace(self, reason: str) -> None: ...

    def wake(self) -> None: ...

    def stands_still(self) -> None: ...

    def failed(self, error: BaseException) -> None: ...


class Desk:
    """The desk of one incarnation of a worker; it outlives its processes. Nothing in it switches greenlets."""

    def __init__(self, settings: Settings, owner: Owner, *, is_extra: bool) -> None:
        self.settings = settings
        self.is_extra = is_extra
        self.line: Line | None = None
        self.is_waiting = self.is_roomy = False  # the line's own notes
        self.state: State | None = None
        self.process: WorkerProcess | None = None
        self.jobs: deque[Job] = deque()  # given to the process and not answered, in order; the first is in hand
        self.began_at = 0.0
        self.calls = 0
        self.calls_in_all = 0
        self.idle_since = 0.0
        self.is_checking = False  # the process is at its health check, and is given no call
        self.progress: dict[str, Any] | None = None
        self.leaving: str | None = None  # why the process is replaced as soon as it has nothing to do
        self._owner = owner
        self._page: Page | None = None
        self._sent = 0  # messages to this process
        self._outbox: list[bytearray] = []
        self._takes_ahead = False
        self._holds = False
        self._is_closing = False
        self._withdrawn: list[Job] = []  # taken back from the process, not yet returned to the line
        self._awaited = 0  # the message that the process, which has no call now, must have taken before the next call
        self._still: clock.Timer | None = None
        self._ahead_s = 0.0
        self._ahead_bytes = 0
        self._max_calls = float("inf") if settings.max_calls is None else settings.max_calls
        self._busy_ns = 0
        self._ran_s: float | None = None  # of each call that is answered in the same read
        self._waited = WAITED.cell(settings.pool)
        self._ran = RAN.cell(settings.pool)
        self._by_state = {state: WORKERS.cell(settings.pool, state) for state in STATES}

    def wake(self) -> None:
        """Have a process started where there is none."""
        self._owner.wake()

    def become(self, state: State | None) -> None:
        """Be in another state, and counted there."""
        if self.state is not None:
            self._by_state[self.state].value -= 1
        if state is not None:
            self._by_state[state].value += 1
        self.state = state

    # -- the process

    def begin_with(self, process: WorkerProcess, setup: bytearray) -> None:
        """Serve with a fresh process, and send it its setup."""
        self.process = process
        self._page = process.page
        self._sent = self.calls = self._busy_ns = 0
        self._await(0)
        self._takes_ahead = False
        self.leaving = None
        self.is_checking = False
        self.send(setup)

    def send(self, frame: bytearray) -> None:
        """Send a message to the process."""
        if self.process is not None:
            self._sent += 1
            self.process.send(frame)

    def be_idle(self, now: float) -> None:
        """Be ready for calls."""
        self.become("idle")
        self.idle_since = now
        if self.line is not None:
            self.line.is_free(self)

    def check(self, question: bytearray) -> None:
        """Send a health check to the process, which has nothing to do."""
        self.is_checking = True
        self.send(question)

    def was_checked(self) -> None:
        """Be ready for calls again."""
        self.is_checking = False
        if self.state == "idle" and self.line is not None:
            self.line.is_free(self)

    def stop_taking(self, reason: str) -> None:
        """Have the process replaced once the call in hand is over; those behind it go back."""
        self.leaving = reason
        self._return(self.take_back())

    # -- calls

    def can_begin(self) -> bool:
        """Tell whether a call would begin at once."""
        process = self.process
        return (
            self.state == "idle"
            and not self.is_checking
            and process is not None
            and process.is_alive
            and self._owner.ref.state == ALIVE
        )

    def has_room(self, job: Job) -> bool:
        """Tell whether this short call may be sent ahead."""
        return (
            self._takes_ahead
            and 0 < len(self.jobs) <= AHEAD_CALLS
            and self._ahead_s + job.expected_s <= AHEAD_S
            and self._ahead_bytes + job.size <= AHEAD_BYTES
            and self.calls + len(self.jobs) < self._max_calls
        )

    def give(self, job: Job, now: float) -> None:
        """Take a call, to be sent by `flush`."""
        self._sent += 1
        job.number = self._sent
        job.desk = self
        # Of one that was sent ahead nobody knows for a moment whether it has begun.
        job.promise.started = True
        self._outbox.append(job.frame)
        self.jobs.append(job)
        self._ahead_s += job.expected_s
        self._ahead_bytes += job.size
        if len(self.jobs) == 1:
            self.become("busy")
            self._begin(job, now)
        elif self.line is not None:
            self.line.look_soon()

    def flush(self) -> None:
        """Send what was given."""
        outbox = self._outbox
        if outbox and self.process is not None:
            self.process.send(outbox[0] if len(outbox) == 1 else b"".join(outbox))
        outbox.clear()

    def _begin_next(self, job: Job, now: float) -> None:
        self.began_at = now
        if job.is_counted and job.line is not None:
            job.line.begun(job)
        if not job.is_told:
            job.is_told = True
            self._waited.observe(now - job.queued_at)
            telemetry.began(self.settings.pool, job.function)
        if job.promise.done:  # given up while it stood behind another one
            hub.loop.run_callback(self.leave, job)

    def _begin(self, job: Job, now: float) -> None:
        self._begin_next(job, now)
        stream = job.stream
        if stream is not None:
            stream.begun(self._owner.ref)
        if job.size > AHEAD_BYTES:
            job.frame = _EMPTY  # it may be megabytes, and is never sent again
        self._takes_ahead = (
            job.expected_s <= SHORT_S
            and stream is None
            and job.size <= AHEAD_BYTES
            and self._page is not None
            and self.leaving is None
            and not self._holds
            and self._owner.ref.state == ALIVE
        )
        if self._takes_ahead and not self.is_roomy and self.line is not None:
            self.line.has_room(self)

    def in_hand(self) -> Job | None:
        """Return the call that the process was given first of those that it has not answered."""
        return self.jobs[0] if self.jobs and self.state == "busy" else None

    def at_work(self) -> Job | None:
        """Return the call that the process is at work on, by its own word where it can give it."""
        job = self.in_hand()
        return job if job is None or self._page is None or job.number <= self._page.begun() else None

    # -- what the process says

    def hear(self, said: child.FromChild) -> None:
        """Take a message of the process; what goes wrong here ends the worker, as in any handler."""
        try:
            kind = said.__class__
            if kind in _ANSWERS:
                self._answered(said)  # type: ignore[arg-type]
            elif isinstance(said, child.AboutItself):
                self._owner.process_said(said)
            else:
                self._hear_on(said)
        except BaseException as error:  # noqa: BLE001 - this runs in the hub for its worker, which it must end
            self._owner.failed(error)
        # What is given next goes out together, when all that came together has been heard.
        if self._ran_s is not None and self.process is not None and not self.process.unheard:
            self._ran_s = None
            self._after_answers(clock.now())

    def _hear_on(self, said: Any) -> None:
        job = self.in_hand()
        if isinstance(said, Progress):
            # Any thread of the process may report, so a report may come late.
            if job is not None and said.id == job.id:
                self._note_progress(job, said)
        elif isinstance(said, LeftAlone):
            if said.number >= self._awaited > 0:
                self._await(0)
                self._after_answers(clock.now())
        elif job is None or said.id != job.id:
            self._disown()
        elif job.stream is None:
            self._break_off("streams though it was not asked to, something in it writes to its socket")
        elif isinstance(said, Streaming):
            job.stream.streaming()
        elif isinstance(said, Items):
            job.stream.add(said.values, done=said.done)
            if said.done:
                self._answered(Returned(job.id, None))

    def _disown(self) -> None:
        if self.state == "busy":
            self._break_off("answered a call that it was not given, something in it writes to its socket")

    def _break_off(self, violation: str) -> None:
        if self.process is not None:
            self.process.break_off(violation)

    def _note_progress(self, job: Job, report: Progress) -> None:
        self.progress = shown(report)
        if report.note:
            self.progress["note"] = redact(report.note)
        if job.stream is not None:
            job.stream.reported(report)

    def _answered(self, said: child.Answer) -> None:
        jobs, process, settings = self.jobs, self.process, self.settings
        if self.state != "busy" or not jobs or said.id != jobs[0].id or process is None:
            self._disown()
            return
        now = clock.now()
        job = jobs.popleft()
        ran_s = self._ran_s
        if ran_s is None:
            ran_s = self._ran_s = self._time_of(process, now)
            if job.line is not None:
                job.line.note_pace(job.function, ran_s)
        self._ran.observe(ran_s)
        if job.permit is not None:
            # The circuit is about processes: a function that raises, or refuses its arguments, has run as it should.
            settle(settings.breaker, job, "ok")
        self.calls += 1
        self.calls_in_all += 1
        self.progress = None
        self._ahead_s -= job.expected_s
        self._ahead_bytes -= job.size
        job.line = None
        if jobs:
            self._begin_next(jobs[0], now)
        else:
            self._takes_ahead = False
            self._ahead_s = 0.0  # sums of fractions drift
        try:
            if said.__class__ is Returned:
                job.promise.resolve(said.value)
            else:
                self._reject(job, said)
        except BaseException:
            jobs.appendleft(job)  # it is answered with the end of the worker
            raise
        telemetry.ended(settings.pool, job.function, ran_s, job.promise.error)

    def _time_of(self, process: WorkerProcess, now: float) -> float:
        """Return how long each call ran whose answer came with this read.

        By the process, which counts, or where it does not, by our clock.
        """
        together = process.together
        answers = 1 if len(together) < 2 else max(1, sum(said.__class__ in _ANSWERS for said in together))
        if self._page is None:
            return (now - self.began_at) / answers
        before, self._busy_ns = self._busy_ns, self._page.busy_ns()
        return (self._busy_ns - before) / answers / 1e9

    def _after_answers(self, now: float) -> None:
        if self.state != "busy" or self._is_closing:
            return
        if self.jobs:
            if self._takes_ahead and self.line is not None:
                self.line.has_room(self)
                self.line.hand_out()
            return
        if self.leaving is None and self.calls >= self._max_calls:
            self.leaving = "max_calls"
        if self.leaving is not None:
            self._await(0)
            self.become("idle")
            self._owner.replace(self.leaving)
        elif not self._awaited:
            self.be_idle(now)

    def _reject(self, job: Job, said: Any) -> None:
        if isinstance(said, Raised):
            job.promise.reject(self.execution_error(job, said.error, said.message, said.traceback))
            if said.error == "MemoryError":
                # What filled its address space may stay for ever; each later call would fail for a fault of this one,
                # so the process takes none.
                self.leaving = "memory"
                self._return(self.take_back())
        else:
            job.promise.reject(
                _DECLINED[said.code](
                    redact(said.message), started="yes" if said.started else "no", actor=self.settings.pool
                )
            )

    def execution_error(self, job: Job, kind: str, message: str, traceback: str) -> ExecutionError:
        """Return the error of a function that raised."""
        details = {"function": job.function, "type": kind, "message": redact(message), "traceback": redact(traceback)}
        text = f"{job.function} raised {kind}: {message}" if message else f"{job.function} raised {kind}"
        return ExecutionError(redact(text), actor=self.settings.pool, details=details)

    # -- calls that come back

    def take_back(self) -> list[Job]:
        """Take back what the process has certainly not begun, and return it.

        One that has begun nothing gets its next call when it has left alone what it was sent: so however often this is
        done to a process that stands still, what waits in its socket stays little.
        """
        self._withdraw()
        self._takes_ahead = False
        back, self._withdrawn = self._withdrawn, []
        return back

    def withdraw(self, job: Job) -> bool:
        """Take back all that has not begun, for one whose caller gives up; tell whether that one had begun.

        Whatever is going on: what is taken back goes to the line later, when the call leaves.
        """
        self._withdraw()
        return job not in self._withdrawn

    def _withdraw(self) -> None:
        page, jobs = self._page, self.jobs
        if page is None or not jobs or self.state != "busy":
            return
        first = jobs[0]
        if not first.frame and not first.is_unwanted and not self._is_closing:
            return  # it is alone, and too large to be kept: it cannot go to another process
        begun = page.take_back(self._sent)
        while jobs and jobs[-1].number > begun:
            job = jobs.pop()
            self._ahead_s -= job.expected_s
            self._ahead_bytes -= job.size
            self._withdrawn.append(job)
        if not jobs:
            self._ahead_s = 0.0  # sums of fractions drift
            self._await(self._sent)

    def _await(self, number: int) -> None:
        """Wait until the process has taken this message, or, with 0, for nothing."""
        self._awaited = number
        if self._still is not None:
            self._still.cancel()
            self._still = None
        if number:
            self._still = clock.after(max(0.0, self.began_at + STILL_S - clock.now()), self._owner.stands_still)

    def _return(self, jobs: list[Job]) -> None:
        if self.line is not None:
            self.line.put_back(jobs)
            return
        for job in jobs:
            job.is_back()
        for job in jobs:
            let_go(self.settings, job, ended_before(self.settings.pool))

    def settle_down(self) -> Job | None:
        """Keep only the call that the process is at work on now, and return it; what stood behind it goes back."""
        self._holds = True
        try:
            self._return(self.take_back())
            # All that it has answered before it took its last message is in the socket by now.
            if self.process is not None:
                self.process.read_now()
        finally:
            self._holds = False
        return self.in_hand()

    def leave(self, job: Job) -> None:
        """Let a call go whose caller gave up: the process is ended, but only when it is at work on this very call."""
        if job.desk is self and self.state == "busy" and job in self.jobs:
            if self.settle_down() is job:
                self._owner.call_given_up(job)
        else:
            back, self._withdrawn = self._withdrawn, []
            self._return(back)
        self.hand_on()

    def hand_on(self) -> None:
        """Have others take what this desk has returned."""
        if self.line is not None:
            self.line.hand_out()

    def drop(self) -> Job | None:
        """Give up the call in hand, which is being ended with its process, and return it."""
        self._return(self.take_back())
        job = self.in_hand()
        self._forget_calls()
        return job

    def _forget_calls(self) -> None:
        self.jobs.clear()
        self._ahead_s, self._ahead_bytes = 0.0, 0
        self._takes_ahead = False
        self.progress = None
        self._await(0)

    def close(self) -> tuple[list[Job], list[Job]]:
        """Be done for good; return the calls that the process has begun, and those that it has not and never will."""
        self._is_closing = True
        if self.process is not None and self.state == "busy" and self._page is not None:
            self._withdraw()
            self.process.read_now()
        begun = list(self.jobs) if self.state == "busy" else []
        back, self._withdrawn = self._withdrawn, []
        self._forget_calls()
        self.become(None)
        return begun, back

    def __repr__(self) -> str:
        return f"<Desk of {self._owner.ref.name}, {self.state}, {len(self.jobs)} calls>"
