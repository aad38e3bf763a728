"""The front of a pool of Python workers: admits calls, keeps them in line, gives each to an idle worker. It stays free.

The line is first come, first served, bounded in calls and in bytes; who gave up leaves it. The line gives calls to the
workers' desks, which answer the caller themselves; the front hears from a worker only that it is there, or cannot
start. A function whose calls keep ending workers is quarantined, so that it cannot take the pool down with it.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from typing import Any

from actors.workers import child
from actors.workers.admission import Admission, Answered, settle
from actors.workers.functions import AllowList
from actors.workers.job import HEALTHY, STATES, Announce, Job, Settings, WorkerState
from actors.workers.line import Line
from actors.workers.process import encode
from actors.workers.streaming import CallStream
from config.secret import redact
from regrow.protocol.errors import InvalidArguments, NotFound, Overloaded, Refused, TooLarge, Unavailable
from runtime import clock, events
from runtime.actor import Actor
from runtime.exports import Exported, Param
from runtime.messages import Call
from runtime.names import whereis
from runtime.origin import client_of
from runtime.promise import ClientPromise
from runtime.signals import Down, monitor

RETRY_AFTER_S = 1.0
#: how many functions are watched for ending workers; the one watched longest is forgotten first
MAX_WATCHED_FUNCTIONS = 1000


def exports_of_pool(functions: AllowList) -> dict[str, Exported]:
    """Return what the wire may call on a pool's front. Never switches."""
    name = Param(str, doc='the function as "module:name"')
    call = {
        "function": name,
        "args": Param(list[Any], required=False, doc="positional arguments"),
        "kwargs": Param(dict[str, Any], required=False, doc="arguments by name"),
        "arrays": Param(
            str,
            required=False,
            doc='numpy arrays and frames of the result: "list" (default; rows as objects) or "ext": msgpack extension '
            f"type {child.ARRAY_EXT} (a .npy file) or {child.FRAME_EXT} (an Arrow stream)",
        ),
    }
    progress = Param(
        bool, required=False, doc='also what the function reports; each part is then {"item": ...} or {"progress": ...}'
    )
    return {
        "call": Exported.make(
            "call", f"Call a Python function in a worker process and return its result. Allowed: {functions}", call
        ),
        "stream": Exported.make(
            "stream",
            "Call a generator function in a worker process and stream its items; any other gives one, its result",
            {**call, "progress": progress},
            streams=True,
        ),
        "release": Exported.make(
            "release", "Let a quarantined function be called again; true when it was quarantined", {"function": name}
        ),
    }


class PythonPool(Actor):
    """The front; it is registered under the pool's own name."""

    inspectable = ("settings",)

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self._functions = AllowList(settings.setup.functions)
        self.exports = exports_of_pool(self._functions)
        self._line = Line(settings, self._count_death)
        self._has_parts = settings.limiter is not None or settings.breaker is not None
        self._last_id = 0
        self._problems: dict[str, str] = {}
        self._ailments: dict[str, str] = {}
        self._ready: set[str] = set()  # the workers of which the last news was good
        self._shot: set[str] = set()
        self._deaths: OrderedDict[str, deque[float]] = OrderedDict()
        self._quarantined: dict[str, float] = {}
        self._always_run = {settings.worker_name(index) for index in range(1, settings.workers + 1)}

    def on_start(self) -> None:
        self._admission = Admission(self.ref, self.settings.limiter, self.settings.breaker, self._stand_in_line)
        monitor(self.ref, self._after_end)
        self.settings.declare()
        self._show_health()
        for index in range(1, self.settings.max_workers + 1):
            worker = whereis(self.settings.worker_name(index))
            if worker is not None:
                worker.post(Announce())

    # -- calls --------------------------------------------------------------------------------------------------------

    def on_call(self, call: Call) -> object:
        if call.method == "call":
            self._call(**call.args)
            return None
        if call.method == "stream":
            self._call(**call.args, streams=True)
            return None
        if call.method == "release":
            return self._release(self._functions.check(call.args.get("function")))
        raise NotFound(f"{self.settings.pool} has no method {call.method}, it has: {', '.join(self.exports)}")

    def _call(
        self,
        function: object = None,
        args: list[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        arrays: str = "list",
        progress: bool = False,
        *,
        streams: bool = False,
    ) -> None:
        name = self._functions.check(function)
        if arrays not in ("list", "ext"):
            raise InvalidArguments(f'arrays must be "list" or "ext", found {arrays!r}')
        if self._quarantined or self._problems:
            self._refuse_what_cannot_run(name)
        self._last_id += 1
        frame = self._frame(child.Call(self._last_id, name, args or [], kwargs or {}, arrays, streams))  # type: ignore[arg-type]
        self._refuse_what_has_no_room(len(frame))
        promise = self.defer()
        if promise.deadline is None:
            promise.deadline = clock.now() + self.settings.timeout_s
            promise.expire_at_deadline()
        if promise.done:
            return
        # Taken out of the mailbox, but not begun: a call that expires or is cancelled in the line never started.
        promise.started = False
        job = Job(self._last_id, name, frame, promise)
        if streams:
            # The caller is answered with the stream; the promise of the job is settled when the stream is over.
            job.promise = ClientPromise(client_of(promise), deadline=promise.deadline)
            job.stream = CallStream(promise, with_progress=progress)
            job.stream.of(job)
        job.promise.on_abandon = job
        if self._has_parts:
            self._admission.begin(job)
        else:
            self._line.stand(job)

    def _stand_in_line(self, job: Job) -> None:
        try:
            # Time has passed in the parts.
            self._refuse_what_cannot_run(job.function)
            self._refuse_what_has_no_room(job.size)
        except Refused as refusal:
            self._refuse(job, refusal)
        else:
            self._line.stand(job)

    def _refuse(self, job: Job, refusal: Refused) -> None:
        settle(self.settings.breaker, job, "unknown")
        job.promise.reject(refusal)

    def _frame(self, call: child.Call) -> bytearray:
        try:
            frame = encode(call)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidArguments(f"an argument of {call.function} cannot be sent: {error}") from None
        if len(frame) > self.settings.max_message:
            raise TooLarge(
                f"the arguments of {call.function} are {len(frame)} bytes, the limit is {self.settings.max_message} "
                "bytes; send less, or raise max_message"
            )
        return frame

    def _refuse_what_cannot_run(self, function: str) -> None:
        pool = self.settings.pool
        until = self._quarantined.get(function)
        if until is not None:
            left_s = until - clock.now()
            if left_s > 0:
                raise Unavailable(
                    f"{function} is quarantined for {left_s:.0f} s more, it ended {self.settings.quarantine_deaths} "
                    f"workers; mend it, then call {pool}.release",
                    actor=pool,
                    retry_after_s=left_s,
                )
            self._release(function)
        if self._none_can_start():
            raise self._no_worker()

    def _refuse_what_has_no_room(self, size: int) -> None:
        settings = self.settings
        line = self._line
        if line.waiting >= settings.queue_calls or line.bytes + size > settings.queue_bytes:
            raise Overloaded(
                f"{line.waiting} calls of {line.bytes} bytes wait for the {settings.workers} workers of "
                f"{settings.pool}, the limit is {settings.queue_calls} calls of {settings.queue_bytes} bytes; "
                "come back later",
                actor=settings.pool,
                retry_after_s=RETRY_AFTER_S,
            )

    # -- workers ------------------------------------------------------------------------------------------------------

    def on_receive(self, message: object) -> None:
        if isinstance(message, WorkerState):
            self._hear(message)
        elif isinstance(message, Answered):
            self._admission.answered(message)
        else:
            super().on_receive(message)

    def _hear(self, news: WorkerState) -> None:
        if news.problem is not None:
            # One signal may have come from anybody; from the second in a row on it is the start itself.
            if news.by_signal and news.worker not in self._shot:
                self._shot.add(news.worker)
                return
            self._problems[news.worker] = news.problem
            self._ready.discard(news.worker)
            self._show_health()
            if self._none_can_start():
                self._line.refuse(self._no_worker())
            return
        if news.ailment is not None:
            self._ailments[news.worker] = news.ailment
            self._ready.discard(news.worker)
        elif news.desk.state in ("idle", "busy"):
            self._problems.pop(news.worker, None)
            self._ailments.pop(news.worker, None)
            self._shot.discard(news.worker)
            self._ready.add(news.worker)
        elif news.desk.state == "off":
            self._ailments.pop(news.worker, None)
            self._ready.discard(news.worker)
        self._show_health()
        if news.desk.state is not None and news.desk.line is not self._line:
            self._line.meet(news.worker, news.desk)

    def _is_healthy(self) -> bool:
        """Whether a process is ready and well, or none has failed."""
        return bool(self._ready) or not (self._problems or self._ailments)

    def _show_health(self) -> None:
        HEALTHY.set(float(self._is_healthy()), self.settings.pool)

    def _none_can_start(self) -> bool:
        return sum(name in self._always_run for name in self._problems) >= self.settings.workers

    def _no_worker(self) -> Unavailable:
        name, problem = next((name, why) for name, why in self._problems.items() if name in self._always_run)
        return Unavailable(
            f"no worker of {self.settings.pool} can start; {name}: {problem}",
            actor=self.settings.pool,
            retry_after_s=RETRY_AFTER_S,
        )

    # -- quarantine ---------------------------------------------------------------------------------------------------

    def _count_death(self, function: str) -> None:
        settings, now = self.settings, clock.now()
        deaths = self._deaths.setdefault(function, deque(maxlen=settings.quarantine_deaths))
        self._deaths.move_to_end(function)
        if len(self._deaths) > MAX_WATCHED_FUNCTIONS:
            self._deaths.popitem(last=False)
        deaths.append(now)
        if len(deaths) == settings.quarantine_deaths and now - deaths[0] <= settings.quarantine_within_s:
            self._quarantined[function] = now + settings.quarantine_for_s
            events.publish("worker.function_quarantined", actor=settings.pool, function=function)
            try:
                self._refuse_what_cannot_run(function)
            except Unavailable as refusal:
                self._line.refuse(refusal, function)

    def _release(self, function: str) -> bool:
        self._deaths.pop(function, None)
        was = self._quarantined.pop(function, None) is not None
        if was:
            events.publish("worker.function_released", actor=self.settings.pool, function=function)
        return was

    # -- the rest -----------------------------------------------------------------------------------------------------

    def on_stop(self) -> None:
        self._line.refuse(self._ending())

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        self._line.refuse(self._ending())

    def _ending(self) -> Unavailable:
        return Unavailable(
            f"{self.settings.pool} is stopping or restarting", actor=self.settings.pool, retry_after_s=RETRY_AFTER_S
        )

    def _after_end(self, _down: Down) -> None:
        self._line.close()

    def status(self) -> dict[str, Any]:
        """Return what operators see. Never switches."""
        states = list(self._line.states())
        now = clock.now()
        is_healthy = self._is_healthy()
        return {
            "health": "healthy" if is_healthy else "unhealthy",
            **({} if is_healthy else {"state": "waiting"}),
            "workers": self.settings.workers,
            **{state: states.count(state) for state in STATES},
            "queued": self._line.waiting,
            "queued_bytes": self._line.bytes,
            "functions": list(self._functions.patterns),
            "problems": {name: redact(problem) for name, problem in (self._ailments | self._problems).items()},
            "quarantined": {name: math.ceil(until - now) for name, until in self._quarantined.items() if until > now},
        }
