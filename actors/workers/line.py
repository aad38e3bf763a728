"""The calls of one pool that no process has begun, in order, and the desks of the workers that take them.

First come, first served: whoever is idle gets the first. When nobody is, and the first is known to be a short one, a
desk whose calls in hand are short as well is given it ahead, so that its process finds it there the moment it is done:
a process that has to wait for each next call spends more time waiting than working on short ones. A call that was sent
ahead still waits; it counts as such, and comes back to its place when the one before it turns out to be long, or ends
its process.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from actors.workers.admission import settle
from actors.workers.job import QUEUED, Job, Settings
from regrow.protocol.errors import Refused, Unavailable
from runtime import clock, events, telemetry
from runtime.measure import NumberCell

if TYPE_CHECKING:
    from actors.workers.desk import Desk

#: a call is short when it is expected to end within this
SHORT_S = 0.001
UNKNOWN_S = 1.0
#: so much work at most is given to a process at once, the call in hand included
AHEAD_S = 0.002
AHEAD_CALLS = 16
AHEAD_BYTES = 1 << 16
#: how often it is looked whether calls stand behind one that turned out to be long, and when it is long
LOOK_S = 0.02
LONG_S = 0.01
#: how many functions have their time remembered; the one known longest is forgotten first
MAX_PACES = 1000
#: a longer time counts at once, a shorter one by this share
FASTER_SHARE = 0.2


RETRY_AFTER_S = 0.1


def ended_before(pool: str) -> Unavailable:
    """Return the error of a call whose worker ended before it began. Never switches."""
    return Unavailable(
        f"the worker of {pool} ended before it began the call, come back in {RETRY_AFTER_S:g} s",
        actor=pool,
        retry_after_s=RETRY_AFTER_S,
    )


def let_go(settings: Settings, job: Job, error: Unavailable | Refused | None = None) -> None:
    """End a call that no process has begun or will begin; `error` is for a caller who still waits. Never switches.

    Callers are free to give up other calls when they hear of it: whoever lets go of many has them out of his books.
    """
    if job.line is not None:
        job.line.begun(job)
        job.line = None
    settle(settings.breaker, job, "unknown")
    if error is not None:
        job.promise.reject(error)
    if job.is_told:  # it was given to a process that never came to it
        job.is_told = False
        telemetry.ended(settings.pool, job.function, 0.0, job.promise.error)


class Line:
    """The line of one incarnation of the front. Nothing in it switches greenlets."""

    def __init__(self, settings: Settings, blame: Callable[[str], object]) -> None:
        self.settings = settings
        self.blame = blame  # told the function whose call ended its process
        self.desks: dict[str, Desk] = {}
        self.waiting = 0  # those sent ahead included, as are their bytes
        self.bytes = 0
        self._jobs: OrderedDict[int, Job] = OrderedDict()
        self._idle: deque[Desk] = deque()
        self._roomy: deque[Desk] = deque()  # those that take calls ahead
        self._turns = 0
        self._paces: dict[str, float] = {}
        self._queued = QUEUED.cell(settings.pool)
        self._queued.value = 0
        self._all_alike = settings.max_workers == settings.workers
        self._growth: clock.Timer | None = None
        self._look: clock.Timer | None = None
        self._is_handing_out = False

    # -- calls

    def stand(self, job: Job) -> None:
        """Take a call into the line, and hand out."""
        self._turns += 1
        job.turn = self._turns
        job.line = self
        now = job.queued_at = clock.now()
        if self._idle and not self._jobs:
            desk = self._next_idle()
            if desk is not None:
                job.expected_s = self.expected_s(job.function)
                desk.give(job, now)
                desk.flush()
                return
        self._count(job)
        self._jobs[job.id] = job
        if len(self._jobs) == 1:  # else the first one found nobody with room, and this one would not either
            self.hand_out()

    def _count(self, job: Job) -> None:
        job.is_counted = True
        self.bytes += job.size
        self.waiting += 1
        self._queued.value = self.waiting

    def begun(self, job: Job) -> None:
        """Hear that a call waits no longer."""
        if job.is_counted:
            job.is_counted = False
            self.bytes -= job.size
            self.waiting -= 1
            self._queued.value = self.waiting

    def leave(self, job: Job) -> None:
        """Let a call go whose caller gave up."""
        if self._jobs.pop(job.id, None) is not None:
            let_go(self.settings, job)

    def put_back(self, jobs: list[Job]) -> None:
        """Take calls that came back from a process to where they stood, before all that came later."""
        returned, over = [], []
        for job in jobs:
            job.is_back()
            # It may have stood in the line of a front that is no more, or be too large to be kept once it is sent.
            if job.promise.done or job.line is not self or not job.frame:
                over.append(job)
            else:
                returned.append(job)
                if not job.is_counted:
                    self._count(job)
        if returned:
            self._insert(returned)
        for job in over:
            let_go(self.settings, job, ended_before(self.settings.pool))

    def _insert(self, returned: list[Job]) -> None:
        last = max(job.turn for job in returned)
        while self._jobs:
            first = next(iter(self._jobs.values()))
            if first.turn > last:
                break
            returned.append(self._jobs.pop(first.id))
        for job in sorted(returned, key=lambda job: job.turn, reverse=True):
            self._jobs[job.id] = job
            self._jobs.move_to_end(job.id, last=False)

    def refuse(self, refusal: Refused, function: str | None = None) -> None:
        """Refuse all calls that wait, or those of one function, the ones sent ahead included."""
        for desk in self.desks.values():
            self.put_back(desk.take_back())
        refused = [job for job in self._jobs.values() if function is None or job.function == function]
        for job in refused:
            del self._jobs[job.id]
        for job in refused:
            let_go(self.settings, job, refusal)

    def expected_s(self, function: str) -> float:
        """Return how long a call of this function is expected to take; a long time when nobody knows."""
        return self._paces.get(function, UNKNOWN_S)

    def note_pace(self, function: str, ran_s: float) -> None:
        """Learn how long a call of this function took."""
        paces = self._paces
        known = paces.get(function)
        if known is None:
            if len(paces) >= MAX_PACES:
                del paces[next(iter(paces))]
            paces[function] = ran_s
        else:
            paces[function] = ran_s if ran_s > known else known + FASTER_SHARE * (ran_s - known)

    # -- handing out

    def hand_out(self) -> None:
        """Give the calls at the head of the line to the desks that have room."""
        jobs = self._jobs
        if not jobs or self._is_handing_out:
            return
        self._is_handing_out = True
        given: list[Desk] = []
        now = clock.now()
        try:
            while jobs:
                job = next(iter(jobs.values()))
                job.expected_s = self.expected_s(job.function)
                desk = self._desk_for(job)
                if desk is None:
                    break
                del jobs[job.id]
                if job.promise.done:
                    let_go(self.settings, job)
                    continue
                desk.give(job, now)
                if desk not in given:
                    given.append(desk)
        finally:
            self._is_handing_out = False
            for desk in given:
                desk.flush()
        if jobs and not self._all_alike:
            self._grow_later()

    def _desk_for(self, job: Job) -> Desk | None:
        if self._idle:
            desk = self._next_idle()
            if desk is not None:
                return desk
        roomy = self._roomy
        if roomy and job.expected_s <= SHORT_S and job.stream is None:
            for _ in range(len(roomy)):
                desk = roomy[0]
                if desk.has_room(job):
                    roomy.rotate(-1)
                    return desk
                roomy.popleft()
                desk.is_roomy = False
        return None

    def _next_idle(self) -> Desk | None:
        """Take one whose process can begin at once: the one that became idle last, whose memory is still warm.

        Those that always run come before the extra ones, which can then become idle for good.
        """
        idle = self._idle
        while idle:
            if self._all_alike:
                desk = idle.pop()
            else:
                desk = next((desk for desk in reversed(idle) if not desk.is_extra), idle[-1])
                idle.remove(desk)
            desk.is_waiting = False
            if desk.can_begin():
                return desk
        return None

    def is_free(self, desk: Desk) -> None:
        """Hear that a desk is idle, and hand out."""
        if not desk.is_waiting:
            desk.is_waiting = True
            self._idle.append(desk)
        self.hand_out()

    def has_room(self, desk: Desk) -> None:
        """Hear that a desk takes calls ahead."""
        if not desk.is_roomy:
            desk.is_roomy = True
            self._roomy.append(desk)

    def _unlist(self, desk: Desk) -> None:
        if desk.is_waiting:
            self._idle.remove(desk)
        if desk.is_roomy:
            self._roomy.remove(desk)
        desk.is_waiting = desk.is_roomy = False

    # -- desks

    def meet(self, name: str, desk: Desk) -> None:
        """Take in the desk of a worker."""
        self.desks[name] = desk
        desk.line = self
        if desk.state == "idle":
            self.is_free(desk)
        elif desk.state == "off":
            self._grow_later()

    def lose(self, name: str, desk: Desk) -> None:
        """Forget the desk of a worker that ended."""
        if self.desks.get(name) is desk:
            del self.desks[name]
        self._unlist(desk)
        desk.line = None

    def states(self) -> Iterator[str]:
        """Return where each desk stands."""
        return (desk.state for desk in self.desks.values() if desk.state is not None)

    def look_soon(self) -> None:
        """See to it that calls which were sent ahead do not stand behind a long one."""
        if self._look is None:
            self._look = clock.after(LOOK_S, self._look_behind)

    def _look_behind(self) -> None:
        self._look = None
        long_ago = clock.now() - LONG_S
        for desk in list(self.desks.values()):
            if len(desk.jobs) > 1:
                if desk.began_at < long_ago:
                    self.put_back(desk.take_back())
                else:
                    self.look_soon()
        self.hand_out()

    def _grow_later(self) -> None:
        """Look again when the first of the line will have waited long enough for one more worker."""
        if self._jobs and self._growth is None and "off" in self.states():
            due_s = next(iter(self._jobs.values())).queued_at + self.settings.scale_up_after_s - clock.now()
            self._growth = clock.after(max(0.01, due_s), self._grow)

    def _grow(self) -> None:
        self._growth = None
        if self._jobs and "starting" not in self.states():
            waited_s = clock.now() - next(iter(self._jobs.values())).queued_at
            extra = next((desk for desk in self.desks.values() if desk.state == "off"), None)
            if extra is not None and waited_s >= self.settings.scale_up_after_s:
                events.publish("pool.scaled_up", actor=self.settings.pool, waited_s=round(waited_s, 3))
                extra.wake()
                return  # it is looked again when this one is ready
        self._grow_later()

    def close(self) -> None:
        """Stop everything; the end of the front has answered its callers."""
        for timer in (self._growth, self._look):
            if timer is not None:
                timer.cancel()
        self._growth = self._look = None
        self._queued.value = 0
        self._queued = NumberCell()  # the series belongs to the next line, whatever still leaves this one
        over = list(self._jobs.values())
        for desk in self.desks.values():
            self._unlist(desk)
            desk.line = None
            over += desk.take_back()
        self.desks.clear()
        self._idle.clear()
        self._roomy.clear()
        self._jobs.clear()
        for job in over:
            job.is_back()
            let_go(self.settings, job, ended_before(self.settings.pool))

    def __repr__(self) -> str:
        return f"<Line of {self.settings.pool}, {self.waiting} calls of {self.bytes} bytes, {len(self.desks)} desks>"
