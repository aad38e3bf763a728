"""The actor that owns one child process: it starts it, watches it, and ends it when it must be ended.

Decisions. The actor never waits: the end of the process, the checks of its memory and what readers of a stream want are
messages. So it can always be stopped, and its state is always readable. Calls and answers are no messages: they pass
over the actor's desk, in the hub, as long as nothing about the process has to be decided.

A process that ends by itself is a crash of its actor, which the supervisor heals. A process that the actor ends (a
deadline, a cancel, recycling) is a routine event: the actor replaces it in place. That costs no restart intensity,
keeps the actor's name and counters, and cannot race with a supervisor that is itself restarting or stopping the pool,
as terminate_child would.

A process that its health check finds unhealthy is replaced in the same way; when fresh ones are unhealthy too, with
growing pauses between them.

Whatever ends the actor, the monitor's callback kills the process, answers the call in hand, and gives those that were
sent ahead and have not begun back to the line.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from actors.resilience.circuit import Outcome
from actors.workers import child
from actors.workers.admission import settle
from actors.workers.desk import Desk
from actors.workers.job import (
    KILLS,
    RECYCLES,
    RESIDENT,
    Announce,
    Job,
    Settings,
    State,
    Unread,
    Wake,
    Wanted,
    WorkerState,
)
from actors.workers.line import SHORT_S, ended_before, let_go
from actors.workers.process import Exit, WorkerProcess, encode
from config.secret import redact
from regrow.protocol.errors import ActorDown, Cancelled
from runtime import clock, events, telemetry
from runtime.actor import Actor
from runtime.names import whereis
from runtime.reasons import Crashed
from runtime.signals import Down, monitor
from supervisors import Backoff

CHECK_S = 0.5
#: a short call of a process that is over its memory may end first
SHORT_CHECK_S = 0.05
AGE_VARIANCE = 0.1
CHECK_VARIANCE = 0.1
#: after SIGKILL a process is gone within milliseconds, unless it hangs in the kernel
REAP_S = 2.0
#: before the next start, when processes in a row were unhealthy as soon as they were ready
UNHEALTHY_PAUSE = Backoff(base_s=0.5, max_s=30.0)
_CHECK_HEALTH = encode(child.CheckHealth())


class WorkerDied(Exception):
    """The process ended though nobody ended it."""


class WorkerCannotStart(Exception):
    """The process ended before it was ready for calls."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The process of this generation ended."""

    generation: int
    exit: Exit


@dataclass(frozen=True, slots=True)
class Failed:
    """What the desk did for the actor raised an exception."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class StartOverdue:
    """The process of this generation should have been ready by now."""

    generation: int


@dataclass(frozen=True, slots=True)
class KillNow:
    """The process of this generation should have ended by now."""

    generation: int


@dataclass(frozen=True, slots=True)
class HealthDue:
    """It is time for the health check of the process of this generation."""

    generation: int


@dataclass(frozen=True, slots=True)
class HealthOverdue:
    """The health check of the process of this generation should have been over by now."""

    generation: int


@dataclass(frozen=True, slots=True)
class StartAgain:
    """The pause after the unhealthy process of this generation is over."""

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
        self._is_extra = index > settings.workers
        self._desk = Desk(settings, self, is_extra=self._is_extra)
        self._generation = 0
        self._process: WorkerProcess | None = None
        self._exit: Exit | None = None
        self._problem: str | None = None
        self._shot = False  # the problem is a signal that we did not send
        self._ailment: str | None = None  # why the last process was unhealthy, until one is ready
        self._unhealthy_starts = 0  # in a row
        self._is_set_up = self._has_torn_down = False
        self._ends_in_order = False  # it was asked to end in its own time, and tears down
        self._was_late = False
        self._rss = 0
        self._goes_off = False  # the process is being ended because it is not needed
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
        self._tell_front()

    def on_receive(self, message: object) -> None:
        match message:
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
            case HealthDue() | HealthOverdue() | StartAgain() if message.generation == self._generation:
                self._look_after_health(message)
            case Announce():
                self._meet_front()
            case Wake():
                if self._state == "off":
                    self._spawn()
            case Failed(error):
                raise error
            case Ended() | KillNow() | StartOverdue() | HealthDue() | HealthOverdue() | StartAgain():
                pass  # of a process that is no longer ours
            case _:
                super().on_receive(message)

    @property
    def _state(self) -> State | None:
        return self._desk.state

    def _serve_reader(self, message: Wanted | Unread | CloseOverdue) -> None:
        job, desk = message.job, self._desk
        if job is not desk.in_hand():
            return  # its stream is over
        if isinstance(message, Wanted):
            desk.send(encode(child.Pull(job.id, message.most)))
        elif isinstance(message, Unread):
            desk.send(encode(child.Close(job.id)))
            self._set_timer("close", self.settings.kill_grace_s, CloseOverdue(job))
        else:
            job.promise.reject(Cancelled("the stream was closed by its reader", started="yes"))
            self._kill_call("cancelled")

    # -- what the desk asks for ---------------------------------------------------------------------------------------

    def process_said(self, said: child.AboutItself) -> None:
        """Hear how start, health check or teardown went. Never switches."""
        if isinstance(said, child.SetupFailed):
            self._problem = redact(f"{said.doing} raised {said.error}: {said.message}")
        elif isinstance(said, child.TornDown):
            self._has_torn_down = True
            if said.problem is not None:
                self._tell_of_teardown(said.problem)
        elif isinstance(said, child.Checked):
            self._checked(said.problem)
        else:
            self._is_set_up = True
            if self._state == "starting" and not self._stopping:
                self._cancel_timer("start")
                self._shot = False
                if self.settings.setup.health_check is None:
                    self._be_ready()
                else:
                    self._check_health()

    def _be_ready(self) -> None:
        self._ailment, self._unhealthy_starts = None, 0
        self._tell_front()
        self._desk.be_idle(clock.now())

    def call_given_up(self, job: Job) -> None:
        """End the process, which is at work on a call whose caller gave up. Never switches."""
        self._kill_call("cancelled" if isinstance(job.promise.error, Cancelled) else "deadline")

    def replace(self, reason: str) -> None:
        """Replace the process, which has nothing to do. Never switches."""
        self._recycle(reason)

    def stands_still(self) -> None:
        """End the process, which has been sent something and does not take it. Never switches."""
        if self._state == "busy":
            self._kill_call("stands_still")

    def wake(self) -> None:
        """Start a process where there is none. Never switches."""
        self.ref.post(Wake())

    def failed(self, error: BaseException) -> None:
        """Crash with an error of the desk. Never switches."""
        self._post(Failed(error))

    # -- the process --------------------------------------------------------------------------------------------------

    def _spawn(self) -> None:
        settings = self.settings
        self._generation += 1
        generation, post = self._generation, self._post
        self._process = self._exit = self._problem = None
        process = self._process = WorkerProcess(
            settings.command,
            max_message=settings.max_message,
            on_message=self._desk.hear,
            on_exit=lambda exit: post(Ended(generation, exit)),
            on_line=self._print,
        )
        self._desk.begin_with(process, encode(settings.setup))
        self._goes_off = self._is_set_up = self._has_torn_down = self._ends_in_order = self._was_late = False
        if settings.max_age_s is not None:
            # Workers that were started together must not all be replaced at once.
            self._lifetime_s = settings.max_age_s * random.uniform(1 - AGE_VARIANCE, 1 + AGE_VARIANCE)
        self._set_timer("start", settings.start_timeout_s, StartOverdue(generation))
        self._become("starting")
        events.publish("worker.started", actor=self._name, pid=process.pid)

    def _process_ended(self, exit: Exit) -> None:
        self._exit = exit
        self._cancel_timer("start")
        self._cancel_timer("kill")
        if self._state == "ending":
            self._expect_torn_down(f"its process {exit}")
            if not self._goes_off and not self._unhealthy_starts:
                self._spawn()
                return
            self._process = self._desk.process = None
            self._measure(0)
            if self._goes_off:
                self._become("off")
                self._tell_front()
            else:
                pause_s = UNHEALTHY_PAUSE.delay_s(self._unhealthy_starts)
                self._set_timer("again", pause_s, StartAgain(self._generation))
            return
        if self._state == "starting":
            self._shot = self._problem is None and exit.code < 0 and exit.violation is None
            problem = self._problem or f"its process {exit}{_last_words(exit)}"
            self._problem = problem
            self._tell_front()
            raise WorkerCannotStart(f"{self._name} cannot start: {problem}")
        job = self._desk.at_work()
        doing = "" if job is None else f" while it worked on {job.function}"
        raise WorkerDied(f"process {exit.pid} of {self._name} {exit}{doing}{_last_words(exit)}")

    def _kill_now(self) -> None:
        self._was_late = True
        if self._process is not None:
            self._process.kill()

    def _give_up_start(self) -> None:
        if self._state == "starting":
            self._problem = f"it was not ready within {self.settings.start_timeout_s:g} s"
            KILLS.inc(self.settings.pool, "start_timeout")
            self._kill_now()

    def _end_process(self, *, at_once: bool = False, in_order: bool | None = None) -> None:
        process = self._process
        if process is None:
            return
        self._ends_in_order = not at_once and (self._state == "idle" if in_order is None else in_order)
        self._cancel_timer("health")
        self._become("ending")
        if at_once:
            process.kill()
            return
        if self._ends_in_order:
            process.close()
        else:
            process.terminate()
        self._set_timer("kill", self.settings.kill_grace_s, KillNow(self._generation))

    def _kill_call(self, reason: str) -> None:
        ran_s = clock.now() - self._desk.began_at
        job = self._desk.drop()
        if job is not None:
            settle(self.settings.breaker, job, self._outcome_of_kill(reason, ran_s))
            self._tell_end(job, ran_s)
        self._cancel_timer("close")
        KILLS.inc(self.settings.pool, reason)
        events.publish("worker.killed", actor=self._name, reason=reason)
        self._end_process(at_once=reason == "memory")
        self._desk.hand_on()

    def _outcome_of_kill(self, reason: str, ran_s: float) -> Outcome:
        if reason == "deadline" and ran_s < self.settings.patience_s:
            return "unknown"  # a caller with a tiny deadline must not open the circuit for everybody
        return "unknown" if reason == "cancelled" else "failed"

    def _recycle(self, reason: str, *, in_order: bool | None = None) -> None:
        RECYCLES.inc(self.settings.pool, reason)
        events.publish("worker.recycled", actor=self._name, reason=reason, calls=self._desk.calls)
        self._end_process(in_order=in_order)

    def _tell_end(self, job: Job, ran_s: float) -> None:
        telemetry.ended(self.settings.pool, job.function, ran_s, job.promise.error)

    # -- health and teardown ------------------------------------------------------------------------------------------

    def _look_after_health(self, message: HealthDue | HealthOverdue | StartAgain) -> None:
        desk, settings = self._desk, self.settings
        if isinstance(message, StartAgain):
            self._spawn()
        elif isinstance(message, HealthOverdue):
            if desk.is_checking and self._state in ("starting", "idle"):
                self._is_unhealthy(f"it took longer than {settings.check_timeout_s:g} s", in_order=False)
        elif self._state == "idle" and (desk.line is None or not desk.line.waiting):
            self._check_health()
        else:
            self._set_timer("health", min(CHECK_S, settings.check_interval_s), message)

    def _check_health(self) -> None:
        self._desk.check(_CHECK_HEALTH)
        self._set_timer("health", self.settings.check_timeout_s, HealthOverdue(self._generation))

    def _checked(self, problem: str | None) -> None:
        if self._stopping or self._state not in ("starting", "idle"):
            return
        if not self._desk.is_checking:
            if self._process is not None:
                self._process.break_off("told its health without being asked, something in it writes to its socket")
            return
        self._cancel_timer("health")
        if problem is not None:
            self._is_unhealthy(problem, in_order=True)
            return
        # Processes that were started together need not all be asked at once.
        delay_s = self.settings.check_interval_s * random.uniform(1 - CHECK_VARIANCE, 1 + CHECK_VARIANCE)
        self._set_timer("health", delay_s, HealthDue(self._generation))
        self._desk.was_checked()
        if self._state == "starting":
            self._be_ready()

    def _is_unhealthy(self, problem: str, *, in_order: bool) -> None:
        self._ailment = redact(f"health check {self.settings.setup.health_check}: {problem}")
        if self._state == "starting":
            self._unhealthy_starts += 1
        events.publish("worker.unhealthy", actor=self._name, error=self._ailment)
        self._tell_front()
        self._recycle("unhealthy", in_order=in_order)

    def _expect_torn_down(self, how: str) -> None:
        """Tell it when a process that had to tear down has not done so to the end."""
        if self._ends_in_order and self._is_set_up and not self._has_torn_down:
            late = f"it was not over within {self.settings.kill_grace_s:g} s, and was killed"
            self._tell_of_teardown(late if self._was_late else how)

    def _tell_of_teardown(self, problem: str) -> None:
        named = self.settings.setup.teardown
        if named is not None:
            events.publish("worker.teardown_failed", actor=self._name, error=redact(f"teardown {named}: {problem}"))

    # -- watching -----------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        self._set_timer("check", CHECK_S, Check())
        process, desk, settings = self._process, self._desk, self.settings
        if process is None or self._state == "ending":
            return
        self._measure(process.rss_bytes() or 0)
        now = clock.now()
        if settings.max_memory is not None and self._rss > settings.max_memory:
            self._end_for_memory(settings.max_memory)
        elif now - process.started_at > self._lifetime_s:
            self._leave("max_age")
        elif self._is_extra and self._state == "idle" and now - desk.idle_since > settings.scale_down_after_s:
            self._goes_off = True
            self._recycle("not_needed")
        elif self._state == "idle" and not desk.is_waiting and desk.line is not None:
            desk.line.is_free(desk)  # it was suspended when its turn came

    def _leave(self, reason: str) -> None:
        if self._state == "idle":
            self._recycle(reason)
        elif self._state == "busy" and self._desk.leaving is None:
            self._desk.stop_taking(reason)
            self._desk.hand_on()

    def _end_for_memory(self, limit: int) -> None:
        desk = self._desk
        job = desk.in_hand()
        if job is None or (desk.leaving is None and job.expected_s <= SHORT_S):
            # Many calls have come and gone since it was measured last: most likely it is none of those at work now.
            self._leave("memory")
            if self._state == "busy":
                self._set_timer("check", SHORT_CHECK_S, Check())
            return
        desk.leaving = "memory"  # with the answer that may be there already it is replaced, and not given another call
        if desk.settle_down() is job:
            message = f"the process used {self._rss} bytes, the limit is {limit} bytes"
            job.promise.reject(desk.execution_error(job, "MemoryError", message, ""))
            self._kill_call("memory")
        else:
            desk.hand_on()
            self._set_timer("check", SHORT_CHECK_S, Check())

    def _measure(self, rss: int) -> None:
        RESIDENT.add(rss - self._rss, self.settings.pool)
        self._rss = rss

    def _print(self, stream: str, line: str) -> None:
        events.publish("worker.output", actor=self._name, stream=stream, line=line)

    def status(self) -> dict[str, Any]:
        """Return what operators see. Never switches."""
        process, desk = self._process, self._desk
        job = desk.in_hand()
        return {
            "state": self._state,
            "pid": process.pid if process is not None else None,
            "calls": desk.calls_in_all,
            "rss_bytes": self._rss,
            "age_s": round(clock.now() - process.started_at, 1) if process is not None else None,
            "function": job.function if job is not None else None,
            "progress": desk.progress,
            "problem": self._problem or self._ailment,
        }

    # -- telling ------------------------------------------------------------------------------------------------------

    def _become(self, state: State) -> None:
        self._desk.become(state)

    def _meet_front(self) -> None:
        # The end of the last front answered its callers; nobody waits for what they had asked for.
        desk = self._desk
        if desk.line is None and self._state == "busy":
            job = desk.settle_down()
            if job is not None and job.is_unwanted:
                self._kill_call("cancelled")
        self._tell_front()

    def _tell_front(self) -> None:
        front = whereis(self.settings.pool)
        if front is not None:
            problem = self._problem or (self._ailment if self._unhealthy_starts else None)
            front.post(WorkerState(self._name, self._desk, problem, self._shot, self._ailment))

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
            self._ends_in_order = self._ends_in_order or self._state != "ending"
            process.close()
        if not process.wait(self.settings.kill_grace_s):
            self._was_late = True
            process.kill()
            process.wait(REAP_S)
        self._expect_torn_down("its process ended before it was over")

    def _after_end(self, down: Down) -> None:
        """Leave nothing behind, whatever ended the actor; runs in the hub."""
        self._cancel_timers()
        self._measure(0)
        desk = self._desk
        line, ran_s = desk.line, clock.now() - desk.began_at
        if line is not None:
            line.lose(self._name, desk)
        if self._process is not None:
            self._process.kill()
        begun, back = desk.close()
        outcome: Outcome = "failed" if isinstance(down.reason, Crashed) else "unknown"
        for job in begun:
            settle(self.settings.breaker, job, outcome)
            job.line = None
        if line is not None:
            line.put_back(back)
        for job in begun:
            job.promise.reject(self._actor_down(job, down))
            if job.is_told:
                self._tell_end(job, ran_s)
        if line is None:
            for job in back:
                job.is_back()
                let_go(self.settings, job, ended_before(self.settings.pool))
            return
        if begun and isinstance(down.reason, Crashed) and isinstance(down.reason.exception, WorkerDied):
            line.blame(begun[0].function)
        line.hand_out()

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
