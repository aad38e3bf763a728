"""The hub's watchdog: how late the hub runs, and who keeps it from running.

One greenlet that computes, or blocks in C, stops every actor of the process. A timer on the hub beats; a native thread
sees the beat overdue and looks at what the hub's thread is doing. The actor is found on the stack: it is an argument of
the frame that its runner called. What holds the GIL throughout (a long regular expression) hides from the thread; then
only the length is known.

The figures go to `hub_stall_seconds`; a stall is the event `hub.stalled`, published once the hub runs again. While a
stall lasts, the thread itself writes `hub.stalling` to the log, since nobody else can.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter as Tally
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

from gevent import get_hub
from gevent.monkey import get_original

from runtime import events, log
from runtime.measure import Counter, Histogram
from runtime.ref import Ref
from runtime.scheduler import Runner

BEAT_S = 0.05
STALL_S = 0.1
FIRST_CRY_S = 2.0
MAX_SAMPLES = 200
MAX_STACK = 12

LAG = Histogram(
    "hub_stall_seconds",
    "how late the hub was each time it should have run",
    buckets=(0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0),
)
STALLS = Counter("hub_stalls_total", "times that the hub was kept from running for longer than the limit")

_start_thread = get_original("_thread", "start_new_thread")
_new_lock = get_original("_thread", "allocate_lock")
_RUN = Runner.run.__code__


@dataclass(frozen=True, slots=True)
class Culprit:
    """What the hub's thread was seen doing: the actor (its name or path) and message type, or "" outside of actors."""

    actor: str
    message: str
    where: str
    stack: tuple[str, ...]


class HubWatch:
    """Beats on the hub of the thread that starts it, and watches the beat from a native thread."""

    def __init__(self, *, beat_s: float = BEAT_S, stall_s: float = STALL_S) -> None:
        self.beat_s = beat_s
        self.stall_s = stall_s
        self._lag_s = 0.0
        self._beaten_at = 0.0
        self._timer: Any = None
        self._stop = _new_lock()
        self._thread_ident = 0
        self._samples: Tally[Culprit] = Tally()
        self._lag_cell = LAG.cell()

    def start(self) -> None:
        """Begin to beat and to watch. Never switches."""
        if self._timer is not None:
            return
        hub = get_hub()
        self._thread_ident = hub.thread_ident
        self._beaten_at = time.monotonic()
        self._timer = hub.loop.timer(self.beat_s, self.beat_s, ref=False)
        self._timer.start(self._beat)
        self._stop = _new_lock()
        self._stop.acquire()
        _start_thread(self._watch, (self._stop,))

    def stop(self) -> None:
        """Stop beating; the thread ends within one beat. Never switches."""
        if self._timer is None:
            return
        self._timer.stop()
        self._timer.close()
        self._timer = None
        self._stop.release()

    def lag_s(self) -> float:
        """Return how late the hub is, or was at its last beat, in seconds; for any thread. Never switches."""
        if self._timer is None:
            return 0.0
        return max(self._lag_s, time.monotonic() - self._beaten_at - self.beat_s)

    def _beat(self) -> None:
        now = time.monotonic()
        # libev aims at fixed points in time, so a beat may come a little early; that is no lag
        lag_s = max(0.0, now - self._beaten_at - self.beat_s)
        self._beaten_at = now
        self._lag_s = lag_s
        self._lag_cell.observe(lag_s)
        if lag_s >= self.stall_s:
            samples, self._samples = self._samples, Tally()
            self._tell(lag_s, samples)
        elif self._samples:
            self._samples = Tally()

    def _tell(self, lag_s: float, samples: Tally[Culprit]) -> None:
        culprit = _worst(samples)
        STALLS.inc()
        events.publish(
            "hub.stalled",
            seconds=round(lag_s, 4),
            actor=culprit.actor or None,
            message=culprit.message or None,
            where=culprit.where,
            stack=list(culprit.stack),
        )

    # ------- the native thread

    def _watch(self, stop: Any) -> None:
        cry_at = FIRST_CRY_S
        while not stop.acquire(True, self.stall_s / 2):
            late_s = time.monotonic() - self._beaten_at - self.beat_s
            if late_s < self.stall_s / 2:
                cry_at = FIRST_CRY_S
                continue
            culprit = self._look()
            if culprit is None:
                continue
            if self._samples.total() < MAX_SAMPLES:
                self._samples[culprit] += 1
            if late_s >= cry_at:
                cry_at *= 2
                log.line(
                    logging.ERROR,
                    "hub.stalling",
                    "the hub is blocked and nothing else runs",
                    seconds=round(late_s, 1),
                    actor=culprit.actor or None,
                    type=culprit.message or None,
                    where=culprit.where,
                    stack=list(culprit.stack),
                )

    def _look(self) -> Culprit | None:
        frame = sys._current_frames().get(self._thread_ident)
        return None if frame is None else describe(frame)


def _worst(samples: Tally[Culprit]) -> Culprit:
    """Pick who was seen most often, and of what it did the line seen most often."""
    who: Tally[tuple[str, str]] = Tally()
    for culprit, times in samples.items():
        who[culprit.actor, culprit.message] += times
    if not who:
        return Culprit("", "", "unknown", ())
    actor, message = who.most_common(1)[0][0]
    return max((c for c in samples if (c.actor, c.message) == (actor, message)), key=samples.__getitem__)


def describe(frame: FrameType) -> Culprit:
    """Name the actor, the message type and the line that a stack belongs to. Never switches."""
    stack: list[str] = []
    own = actor = message = ""
    called: FrameType | None = None
    at: FrameType | None = frame
    while at is not None and at.f_code is not _RUN:
        place = _place(at.f_code, at.f_lineno)
        if len(stack) < MAX_STACK:
            stack.append(place)
        if not own and not _is_foreign(at.f_code.co_filename):
            own = place
        called, at = at, at.f_back
    if at is not None and called is not None:
        actor, message = _carried(called)
    elif _is_idle(frame):
        own = "the hub waited for the processor or for the interpreter's lock"
    return Culprit(actor, message, own or (stack[0] if stack else "unknown"), tuple(stack))


def _carried(called: FrameType) -> tuple[str, str]:
    """The actor and the message type in the arguments of what a runner called.

    Only this short-lived frame's locals are read: reading them makes a copy that lives as long as the frame, and the
    runner's own frame would keep an actor alive with it.
    """
    values = called.f_locals
    given = [values.get(name) for name in called.f_code.co_varnames[: called.f_code.co_argcount]]
    for at, value in enumerate(given):
        ref = value if isinstance(value, Ref) else getattr(value, "_actor_ref", None)
        if isinstance(ref, Ref):
            return ref.name or ref.path, _type_of(given[at + 1]) if at + 1 < len(given) else "start"
    return "", ""


def _is_idle(frame: FrameType) -> bool:
    """Whether the hub itself is on top: then it waits for events and is late because the machine is."""
    return frame.f_code.co_name == "run" and frame.f_code.co_filename.endswith("gevent/hub.py")


def _is_foreign(file: str) -> bool:
    return "site-packages" in file or file.startswith(("<frozen", sys.base_prefix))


def _place(code: CodeType, line: int) -> str:
    return f"{code.co_filename}:{line} in {code.co_qualname}"


def _type_of(message: object) -> str:
    method = getattr(message, "method", None)
    return f"{type(message).__name__}({method})" if isinstance(method, str) else type(message).__name__
