"""The actor that owns one child process: it hands it one job at a time and ends it when it must be ended.

Decisions. The actor never waits: what the process says, its end, the caller's giving up and the checks of its memory
are messages. So it can always be stopped, and its state is always readable.

A process that ends by itself is a crash of its actor, which the supervisor heals. A process that the actor ends (a
deadline, a cancel, recycling) is a routine event: the actor replaces it in place. That costs no restart intensity,
keeps the actor's name and counters, and cannot race with a supervisor that is itself restarting or stopping the pool,
as terminate_child would.

Whatever ends the actor, the monitor's callback kills the process and answers the job in hand.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from typing import Any

from actors.resilience.circuit import Outcome
from actors.workers import child
from actors.workers.admission import settle
from actors.workers.job import (
    KILLS,
    RAN,
    RECYCLES,
    RESIDENT,
    WORKERS,
    Abandoned,
    Announce,
    Job,
    Run,
    Settings,
    State,
    Unread,
    Wake,
    Wanted,
    WorkerState,
)
from actors.workers.process import Exit, WorkerProcess, encode
from actors.workers.streaming import shown
from config.secret import redact
from regrow.protocol.errors import (
    ActorDown,
    Cancelled,
    ExecutionError,
    Forbidden,
    InvalidArguments,
    NotFound,
    RegrowError,
    TooLarge,
)
from runtime import clock, events, telemetry
from runtime.actor import Actor
from runtime.names import whereis
from runtime.reasons import Crashed
from runtime.signals import Down, monitor

CHECK_S = 0.5
AGE_VARIANCE = 0.1
#: after SIGKILL a process is gone within milliseconds, unless it hangs in the kernel
REAP_S = 2.0

_DECLINED: dict[str, type[RegrowError]] = {
    "not_found": NotFound,
    "forbidden": Forbidden,
    "invalid_arguments": InvalidArguments,
    "too_large": TooLarge,
}


class WorkerDied(Exception):
    """The process ended though nobody ended it."""


class WorkerCannotStart(Exception):
    """The process ended before it was ready for calls."""


@dataclass(frozen=True, slots=True)
class Said:
    """The process of this generation sent a message."""

    generation: int
    message: child.FromChild


@dataclass(frozen=True, slots=True)
class Ended:
    """The process of this generation ended."""

    generation: int
    exit: Exit


@dataclass(frozen=True, slots=True)
class StartOverdue:
    """The process of this generation should have been ready by now."""

    generation: int


@dataclass(frozen=True, slots=True)
class KillNow:
    """The process of this generation should have ended by now."""

    generation: int


@dataclass(frozen=True, slots=True)
class CloseOverdue:
    """The generator of this job should have been closed by now."""

    job: Job


@dataclass(frozen=True, slots=True)
class Check:
    """Time to look at memory and age."""


class Worker(Actor):
    """Owns one child process and answers the callers of the jobs that its front gives it."""

    inspectable = ("settings",)

    def __init__(self, settings: Settings, index: int) -> None:
        super().__init__()
        self.settings = settings
        self._name = settings.worker_name(index)
        self._generation = 0
        self._process: WorkerProcess | None = None
        self._exit: Exit | None = None
        self._state: State | None = None
        self._job: Job | None = None  # what the process works on
        self._next: deque[Job] = deque()  # given by a front that did not know yet that the process is being replaced
        self._received = 0
        self._job_began_at = 0.0
        self._problem: str | None = None
        self._shot = False  # the problem is a signal that we did not send
        self._calls = 0
        self._calls_in_all = 0
        self._rss = 0
        self._is_extra = index > settings.workers
        self._idle_since = 0.0
        self._goes_off = False  # the process is being ended because it is not needed
        self._progress: dict[str, Any] | None = None
        self._lifetime_s = float("inf")
        self._stopping = False
        self._timers: dict[str, clock.Timer] = {}

    def on_start(self) -> None:
        # Before anything that may fail: from here on no process can outlive this actor.
        monitor(self.ref, self._after_end)
        if self._is_extra:
            self._become("off")
        else:
            self._spawn()
        self._set_timer("check", CHECK_S, Check())

    def on_receive(self, message: object) -> None:
        match message:
            case Said(generation, said) if generation == self._generation:
                self._hear(said)
            case Run(job):
                self._received += 1
                self._next.append(job)
                if self._state == "idle":
                    self._be_idle()
                elif self._state == "off":
                    self._spawn()
            case Abandoned(job) if job is self._job:
                self._kill_call("cancelled" if isinstance(job.promise.error, Cancelled) else "deadline")
            case Wanted() | Unread() | CloseOverdue():
                self._serve_reader(message)
            case Check():
                self._check()
            case Ended(generation, exit) if generation == self._generation:
                self._process_ended(exit)
            case KillNow(generation) if generation == self._generation:
                self._kill_now()
            case StartOverdue(generation) if generation == self._generation:
                self._give_up_start()
            case Announce() | Wake():
                self._meet_front(is_needed=isinstance(message, Wake))
            case Said() | Abandoned() | Ended() | KillNow() | StartOverdue():
                pass  # of a process or a job that is no longer ours
            case _:
                super().on_receive(message)

    def _serve_reader(self, message: Wanted | Unread | CloseOverdue) -> None:
        job, process = message.job, self._process
        if job is not self._job or process is None:
            return  # its stream is over
        if isinstance(message, Wanted):
            process.send(encode(child.Pull(job.id, message.most)))
        elif isinstance(message, Unread):
            process.send(encode(child.Close(job.id)))
            self._set_timer("close", self.settings.kill_grace_s, CloseOverdue(job))
        else:
            job.promise.reject(Cancelled("the stream was closed by its reader", started="yes"))
            self._kill_call("cancelled")

    # -- the process --------------------------------------------------------------------------------------------------

    def _spawn(self) -> None:
        settings = self.settings
        self._generation += 1
        generation, post = self._generation, self._post
        self._process = self._exit = self._problem = None
        self._process = WorkerProcess(
            settings.command,
            max_message=settings.max_message,
            on_message=lambda message: post(Said(generation, message)),
            on_exit=lambda exit: post(Ended(generation, exit)),
            on_line=self._print,
        )
        self._process.send(encode(settings.setup))
        self._calls = 0
        self._goes_off = False
        if settings.max_age_s is not None:
            # Workers that were started together must not all be replaced at once.
            self._lifetime_s = settings.max_age_s * random.uniform(1 - AGE_VARIANCE, 1 + AGE_VARIANCE)
        self._set_timer("start", settings.start_timeout_s, StartOverdue(generation))
        self._become("starting")
        events.publish("worker.started", actor=self._name, pid=self._process.pid)

    def _hear(self, said: child.FromChild) -> None:
        if isinstance(said, child.Ready):
            if self._state == "starting":
                self._cancel_timer("start")
                self._be_idle()
        elif isinstance(said, child.SetupFailed):
            self._problem = redact(f"{said.doing} raised {said.error}: {said.message}")
        elif isinstance(said, child.Progress):
            # Any thread of the process may report, so a report may come late.
            if self._job is not None and said.id == self._job.id:
                self._note_progress(self._job, said)
        elif self._state == "busy" and self._job is not None and said.id == self._job.id:
            if isinstance(said, child.Streaming | child.Items):
                self._go_on(self._job, said)
            else:
                self._finish(self._job, said)
        elif self._state == "busy" and self._process is not None:
            self._process.break_off("answered a call that it was not given, something in it writes to its socket")

    def _process_ended(self, exit: Exit) -> None:
        self._exit = exit
        self._cancel_timer("start")
        self._cancel_timer("kill")
        if self._state == "ending":
            # Whoever was given to it meanwhile is served by a new process.
            if self._goes_off and not self._next:
                self._process = None
                self._measure(0)
                self._become("off")
            else:
                self._spawn()
            return
        if self._state == "starting":
            self._shot = self._problem is None and exit.code < 0 and exit.violation is None
            problem = self._problem or f"its process {exit}{_last_words(exit)}"
            self._problem = problem
            self._tell_front()
            raise WorkerCannotStart(f"{self._name} cannot start: {problem}")
        doing = f" while it worked on {self._job.function}" if self._state == "busy" and self._job is not None else ""
        raise WorkerDied(f"process {exit.pid} of {self._name} {exit}{doing}{_last_words(exit)}")

    def _kill_now(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _give_up_start(self) -> None:
        if self._state == "starting":
            self._problem = f"it was not ready within {self.settings.start_timeout_s:g} s"
            KILLS.inc(self.settings.pool, "start_timeout")
            self._kill_now()

    def _end_process(self, *, at_once: bool = False) -> None:
        process = self._process
        if process is None:
            return
        grace_s = 0.0 if at_once else self.settings.kill_grace_s
        was_idle = self._state == "idle"
        self._become("ending")
        if at_once:
            process.kill()
        elif was_idle:
            process.close()
            self._set_timer("kill", grace_s, KillNow(self._generation))
        else:
            process.terminate()
            self._set_timer("kill", grace_s, KillNow(self._generation))

    def _kill_call(self, reason: str) -> None:
        if self._job is not None:
            settle(self.settings.breaker, self._job, self._outcome_of_kill(reason))
            self._tell_end(self._job)
        self._job = None
        self._progress = None
        self._cancel_timer("close")
        KILLS.inc(self.settings.pool, reason)
        events.publish("worker.killed", actor=self._name, reason=reason)
        self._end_process(at_once=reason == "memory")

    def _outcome_of_kill(self, reason: str) -> Outcome:
        if reason == "deadline" and clock.now() - self._job_began_at < self.settings.patience_s:
            return "unknown"  # a caller with a tiny deadline must not open the circuit for everybody
        return "unknown" if reason == "cancelled" else "failed"

    def _recycle(self, reason: str) -> None:
        RECYCLES.inc(self.settings.pool, reason)
        events.publish("worker.recycled", actor=self._name, reason=reason, calls=self._calls)
        self._end_process()

    # -- the job ------------------------------------------------------------------------------------------------------

    def _begin(self, job: Job) -> None:
        process = self._process
        assert process is not None
        self._job = job
        job.started = job.promise.started = True
        job.promise.on_abandon = lambda: self.ref.post(Abandoned(job))
        if job.stream is not None:
            job.stream.begun(self.ref)
        self._progress = None
        self._job_began_at = clock.now()
        telemetry.began(self.settings.pool, job.function)
        self._become("busy")
        process.send(job.frame)
        job.frame = bytearray()  # it may be megabytes, and a call that has begun is never sent again

    def _note_progress(self, job: Job, report: child.Progress) -> None:
        self._progress = shown(report)
        if report.note:
            self._progress["note"] = redact(report.note)
        if job.stream is not None:
            job.stream.reported(report)

    def _go_on(self, job: Job, said: child.Streaming | child.Items) -> None:
        stream = job.stream
        if stream is None:
            if self._process is not None:
                self._process.break_off("streams though it was not asked to, something in it writes to its socket")
        elif isinstance(said, child.Streaming):
            stream.streaming()
        else:
            stream.add(said.values, done=said.done)
            if said.done:
                self._finish(job, child.Returned(job.id, None))

    def _finish(self, job: Job, said: child.Answer) -> None:
        settings = self.settings
        self._cancel_timer("close")
        self._progress = None
        RAN.observe(clock.now() - self._job_began_at, settings.pool)
        # The circuit is about processes: a function that raises, or refuses its arguments, has run as it should.
        settle(settings.breaker, job, "ok")
        self._job = None
        self._calls += 1
        self._calls_in_all += 1
        out_of_memory = False
        if isinstance(said, child.Returned):
            job.promise.resolve(said.value)
        elif isinstance(said, child.Raised):
            job.promise.reject(self._execution_error(job, said.error, said.message, said.traceback))
            out_of_memory = said.error == "MemoryError"
        else:
            job.promise.reject(
                _DECLINED[said.code](redact(said.message), started="yes" if said.started else "no", actor=settings.pool)
            )
        self._tell_end(job)
        self._state_after_call(out_of_memory)

    def _tell_end(self, job: Job) -> None:
        telemetry.ended(self.settings.pool, job.function, clock.now() - self._job_began_at, job.promise.error)

    def _state_after_call(self, out_of_memory: bool) -> None:
        settings = self.settings
        self._become("idle")
        if out_of_memory:
            # What filled its address space may stay for ever; each later call would fail for a fault of this one.
            self._recycle("memory")
        elif settings.max_calls is not None and self._calls >= settings.max_calls:
            self._recycle("max_calls")
        else:
            self._be_idle()

    def _execution_error(self, job: Job, kind: str, message: str, traceback: str) -> ExecutionError:
        details = {"function": job.function, "type": kind, "message": redact(message), "traceback": redact(traceback)}
        text = f"{job.function} raised {kind}: {message}" if message else f"{job.function} raised {kind}"
        return ExecutionError(redact(text), actor=self.settings.pool, details=details)

    # -- watching -----------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        self._set_timer("check", CHECK_S, Check())
        process, settings = self._process, self.settings
        if process is None or self._state == "ending":
            return
        self._measure(process.rss_bytes() or 0)
        if settings.max_memory is not None and self._rss > settings.max_memory:
            if self._state == "busy" and self._job is not None:
                message = f"the process used {self._rss} bytes, the limit is {settings.max_memory} bytes"
                self._job.promise.reject(self._execution_error(self._job, "MemoryError", message, ""))
                self._kill_call("memory")
            elif self._state == "idle":
                self._recycle("memory")
        elif self._state == "idle" and clock.now() - process.started_at > self._lifetime_s:
            self._recycle("max_age")
        elif self._is_extra and self._state == "idle" and clock.now() - self._idle_since > settings.scale_down_after_s:
            self._goes_off = True
            self._recycle("not_needed")

    def _measure(self, rss: int) -> None:
        RESIDENT.add(rss - self._rss, self.settings.pool)
        self._rss = rss

    def _print(self, stream: str, line: str) -> None:
        events.publish("worker.output", actor=self._name, stream=stream, line=line)

    def status(self) -> dict[str, Any]:
        """Return what operators see. Never switches."""
        process, job = self._process, self._job
        return {
            "state": self._state,
            "pid": process.pid if process is not None else None,
            "calls": self._calls_in_all,
            "rss_bytes": self._rss,
            "age_s": round(clock.now() - process.started_at, 1) if process is not None else None,
            "function": job.function if job is not None else None,
            "progress": self._progress,
            "problem": self._problem,
        }

    # -- telling ------------------------------------------------------------------------------------------------------

    def _be_idle(self) -> None:
        self._become("idle")
        while self._next:
            job = self._next.popleft()
            if not job.promise.done:
                self._begin(job)
                return
            settle(self.settings.breaker, job, "unknown")
        self._idle_since = clock.now()
        self._tell_front()

    def _become(self, state: State) -> None:
        pool = self.settings.pool
        if self._state is not None:
            WORKERS.add(-1, pool, self._state)
        WORKERS.add(1, pool, state)
        self._state = state
        if state in ("off", "starting", "ending"):
            self._tell_front()

    def _meet_front(self, *, is_needed: bool) -> None:
        if is_needed and self._state == "off":
            self._spawn()
            return
        # The end of the last front answered its callers; nobody waits for what they had asked for.
        if self._job is not None and self._job.is_unwanted and self._state == "busy":
            self._kill_call("cancelled")
        self._tell_front()

    def _tell_front(self) -> None:
        front = whereis(self.settings.pool)
        if front is not None and self._state is not None:
            front.post(WorkerState(self._name, self.ref, self._state, self._received, self._problem, self._shot))

    def _set_timer(self, name: str, delay_s: float, message: object) -> None:
        self._cancel_timer(name)
        self._timers[name] = self.send_after(delay_s, message)

    def _cancel_timers(self) -> None:
        for name in list(self._timers):
            self._cancel_timer(name)

    def _cancel_timer(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    # -- the end ------------------------------------------------------------------------------------------------------

    def _post(self, message: object) -> None:
        # What comes while the actor stops would only be counted as lost.
        if not self._stopping:
            self.ref.post(message)

    def on_stop(self) -> None:
        self._stopping = True
        self._cancel_timers()
        process = self._process
        if process is None:
            return
        if self._state == "busy":
            process.terminate()
        else:
            process.close()
        if not process.wait(self.settings.kill_grace_s):
            process.kill()
            process.wait(REAP_S)

    def _after_end(self, down: Down) -> None:
        """Leave nothing behind, whatever ended the actor; runs in the hub."""
        self._cancel_timers()
        if self._state is not None:
            WORKERS.add(-1, self.settings.pool, self._state)
            self._state = None
        self._measure(0)
        process, job = self._process, self._job
        if process is not None:
            process.kill()
        if job is not None and job.started:
            settle(self.settings.breaker, job, "failed" if isinstance(down.reason, Crashed) else "unknown")
        if job is not None and job.started and not job.promise.done:
            job.promise.reject(self._actor_down(job, down))
            self._tell_end(job)

    def _actor_down(self, job: Job, down: Down) -> ActorDown:
        reason = down.reason
        details: dict[str, Any] = {"function": job.function, "worker": self._name}
        how = f"was stopped ({reason.kind})"
        if self._exit is not None:
            how = str(self._exit)
            details |= self._exit.details()
        return ActorDown(
            f"the process of {self._name} {how} while it worked on {job.function}",
            started="yes",
            actor=self.settings.pool,
            crash_id=reason.crash_id if isinstance(reason, Crashed) else None,
            details=details,
        )


def _last_words(exit: Exit) -> str:
    lines = [line for line in exit.stderr if line]
    fatal = next((index for index, line in enumerate(lines) if line.startswith("Fatal Python error")), None)
    told = lines[-3:] if fatal is None else lines[fatal : fatal + 3]
    return f"; last on stderr: {' | '.join(told)}" if told else ""
