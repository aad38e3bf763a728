"""Who runs when: runners from a pool carry the actors that have messages; an idle actor owns no greenlet.

Decisions. An ask of an idle actor switches straight into a runner and gets control straight back with the answer,
without the hub. Everything else goes through `ready`, drained by one hub callback. Messages run in slices of about
SLICE_S; then the event loop looks at its sockets and timers. So that no clock is read per message, `budget` counts down
a chunk of them, and the clock is read when it is spent; a chunk that took long is followed by a smaller one. A prepare
watcher, which runs after gevent's callbacks and before the poll, begins the next slice. The same watcher gives a
deadline timer to the asks whose actor did not answer at once, so the ones that were answered at once never paid for a
timer.
"""

from __future__ import annotations

import logging
import math
import sys
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any

from gevent import get_hub
from gevent.monkey import get_original
from greenlet import GreenletExit, getcurrent, greenlet

from regrow.protocol.errors import RegrowError
from runtime import clock
from runtime.promise import Promise, call_back, wake
from runtime.reasons import KILLED, Crashed, Ignore, Stop

if TYPE_CHECKING:
    from runtime.ref import Ref

SLICE_S = 0.003
CHUNK_S = 0.001  # a chunk that takes longer is followed by a smaller one
MAX_CHUNK = 64  # a load that turns from microseconds to a millisecond a message overruns its slice by so many at most
MAX_IDLE_RUNNERS = 1000
LOWEST_PRIORITY = -2  # libev's; after gevent's own prepare watcher
START_COST = 4  # a start costs about as much as so many messages
SWEEP_S = 0.25
STUCK_AFTER_S = 1.0

UNWINDING = -1  # in a runner's note: its actor is dead, its handler is not

STARTING, ALIVE, SUSPENDED, DEAD = 0, 1, 2, 3

get_ident = get_original("_thread", "get_ident")
HUB_THREAD = get_ident()
hub = get_hub()
run_callback = hub.loop.run_callback
run_callback_threadsafe = hub.loop.run_callback_threadsafe
hub_switch = hub.switch
_log = logging.getLogger("regrow.actor")


class Killed(GreenletExit):
    """Thrown into the runner of an actor that has been killed; the actor is dead already."""


class _State:
    """What the hot paths share; one object, because its slots are cheaper than module globals of another module."""

    __slots__ = (
        "asker",
        "budget",
        "chunk",
        "chunk_began",
        "ending",
        "handed",
        "idle",
        "living",
        "ready",
        "runners",
        "scheduled",
        "slice_ends",
        "sweep_timer",
        "sweeping",
    )

    def __init__(self) -> None:
        self.asker: Any = None  # the greenlet that asked last and is no runner: it is known to be of the hub's thread
        self.ready: deque[Ref] = deque()  # actors with messages and no runner, each once
        self.idle: list[Runner] = []
        self.runners: set[Runner] = set()  # every living runner, for the sweep
        self.handed: Any = None  # the last ask handed straight to a runner and not answered; `before` leads to more
        self.budget = self.chunk = MAX_CHUNK
        self.scheduled = False
        self.living = 0  # actors that have not ended
        self.ending = 0  # ends in progress; those that they cause by links wait for them
        self.sweeping = False
        self.sweep_timer: clock.Timer | None = None
        self.slice_ends: float | None = None  # None until the first chunk of the slice is spent
        self.chunk_began = 0.0


class Runner(greenlet):
    """A greenlet that carries one actor after the other."""

    __slots__ = ("message", "ref", "reply", "seen")

    def __init__(self) -> None:
        super().__init__(parent=hub)
        self.ref: Ref | None = None
        self.reply: Promise | None = None
        self.message: Any = None
        self.seen: tuple[Ref, int, float] | None = None  # the sweep's note: actor, messages it had handled, since when
        S.runners.add(self)

    def run(self, ref: Ref) -> None:  # noqa: C901 - the one hot loop: a call per step would cost more than the step
        state, ready, idle, specials = S, S.ready, S.idle, SPECIAL
        while True:
            hand_back: Any = None
            handled = 0
            self.ref = ref
            ref.runner = self
            if ref.state != ALIVE:
                if ref.state == STARTING:
                    handled = START_COST
                    hand_back = _start(self, ref)
                elif ref.state == SUSPENDED and ref.extras is not None:
                    try:
                        ref.extras.serve_urgent(ref)
                    except BaseException as error:  # noqa: BLE001 - the actor loop, as below
                        _escaped(self, ref, error)
            box = ref.mailbox
            while box and ref.state == ALIVE and hand_back is None:  # whoever waits for a start goes first
                try:
                    receive = ref.actor.on_receive
                    while box:
                        if handled >= state.budget:
                            state.budget -= handled
                            handled = 0
                            if not slice_goes_on():
                                break
                        handled += 1
                        message, reply = box.popleft()
                        self.message = message
                        if reply is not None:
                            if reply.done:  # its caller gave up: deadline or cancel
                                ref.skipped(reply)
                                continue
                            reply.started = True
                        self.reply = reply
                        if ref.extras is not None:
                            ref.extras.began(message)
                        kind = type(message)
                        value = specials[kind](ref, message) if kind in specials else receive(message)
                        ref.handled += 1
                        if ref.extras is not None:
                            ref.extras.ended(None)
                        if reply is not None and not reply.done and reply.owner is None:
                            reply.value = value
                            reply.done = True
                            if reply.timer is not None:
                                reply.timer.cancel()
                            if reply.waiter is not None:
                                if hand_back is None and not box:
                                    hand_back = reply.waiter
                                    reply.waiter = None
                                else:
                                    run_callback(wake, reply)
                            if reply.callback is not None:
                                call_back(reply)
                        if ref.state != ALIVE:
                            break
                except BaseException as error:  # noqa: BLE001 - the actor loop: whatever escapes a handler becomes an exit reason
                    _escaped(self, ref, error)
                if handled >= state.budget:
                    break
            self.message = self.reply = self.ref = None
            state.budget -= handled
            if ref.runner is self:
                ref.runner = None
                if box and ref.state != DEAD:
                    ref.wake_up()
            if hand_back is None and ready and (state.budget > 0 or slice_goes_on()):
                ref = ready.popleft()
                continue
            if len(idle) >= MAX_IDLE_RUNNERS:
                state.runners.discard(self)
                if hand_back is not None:
                    run_callback(hand_back.switch)
                return
            message = reply = receive = value = box = None  # an idle runner keeps nobody's message alive
            ref = None  # type: ignore[assignment]
            idle.append(self)
            ref = hand_back.switch() if hand_back is not None else hub_switch()

    def __repr__(self) -> str:
        return f"<Runner of {self.ref!r}>"


S = _State()
SPECIAL: dict[type, Any] = {}
"""Message classes that the machine handles itself: `handler(ref, message) -> reply`; filled by runtime.actor."""


def _start(runner: Runner, ref: Ref) -> Any:
    """Make the actor and run its on_start; return the greenlet to hand control back to, if it waits for the start."""
    promise = ref.start_promise
    assert promise is not None
    runner.reply = None
    try:
        ref.construct()
    except BaseException as error:  # noqa: BLE001 - the actor loop: a failed start is an exit reason too
        if ref.state != DEAD:
            ref.start_failed(error)
        error.__traceback__ = _without_runner_frames(error)
    else:
        if ref.state == STARTING:  # else it was killed while it started
            ref.state = ALIVE
            promise.value = ref
            promise.done = True
    waiter = promise.waiter
    if waiter is not None and promise.done:
        promise.waiter = None
        return waiter
    if promise.callback is not None:
        call_back(promise)
    return None


def _without_runner_frames(error: BaseException) -> Any:
    """Drop the runner's own frame, so that a kept exception does not keep the runner's locals alive."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code in _RUNNER_CODE:
        traceback = traceback.tb_next
    return traceback


def _escaped(runner: Runner, ref: Ref, error: BaseException) -> None:
    """Decide what an exception that left a handler means: an answer, an orderly stop, or a crash."""
    error.__traceback__ = _without_runner_frames(error)
    reply = runner.reply
    if ref.state == DEAD:  # it was killed; the exception is the kill, or what the handler made of it
        return
    if isinstance(error, RegrowError):
        ref.handled += 1
        if ref.extras is not None:
            ref.extras.ended(error)
        if reply is not None:
            reply.reject(error)
        return
    if isinstance(error, Stop):
        ref.handled += 1
        if ref.extras is not None:
            ref.extras.ended(None)
        if reply is not None and reply.owner is None:
            reply.resolve(error.reply)
        ref.stop_now(error.reason)
        return
    if isinstance(error, Killed):
        ref.end(KILLED)
        return
    if isinstance(error, KeyboardInterrupt):  # Ctrl-C hits whoever runs: it ends this actor, and is for the program
        run_callback(hub.handle_system_error, KeyboardInterrupt, error)
    if isinstance(error, Ignore):
        error = RuntimeError("Ignore was raised in a handler, it belongs in __init__ or on_start")
    if ref.extras is not None:
        ref.extras.ended(error)
    ref.crash(Crashed(error), runner.message)


_RUNNER_CODE = frozenset({Runner.run.__code__, _start.__code__})


def starting() -> list[Ref]:
    """Return the actors whose start is under way. Never switches."""
    return [runner.ref for runner in S.runners if runner.ref is not None and runner.ref.state == STARTING]


def schedule(ref: Ref) -> None:
    """Put an actor that has messages and no runner in line. Never switches."""
    ref.runner = QUEUED
    S.ready.append(ref)
    if not S.scheduled:
        S.scheduled = True
        run_callback(_drain)


def _drain() -> None:
    """Hand ready actors to runners until none is left or the slice is spent; runs in the hub."""
    state, ready, idle = S, S.ready, S.idle
    state.scheduled = False
    while ready and (state.budget > 0 or slice_goes_on()):
        ref = ready.popleft()
        (idle.pop() if idle else Runner()).switch(ref)
    # What is left over waits for the prepare watcher, which begins a slice after the loop served its sockets.


def slice_goes_on() -> bool:
    """Begin another chunk of messages, unless the slice has lasted its time. Never switches."""
    state = S
    now = monotonic()
    if state.slice_ends is None:  # the first chunk may have begun long after the loop turned, so it is not timed
        state.slice_ends = now + SLICE_S
    elif now >= state.slice_ends:
        state.chunk = max(1, state.chunk >> 1) if now - state.chunk_began > CHUNK_S else state.chunk
        return False
    elif now - state.chunk_began > CHUNK_S:
        state.chunk = max(1, state.chunk >> 1)
    elif state.chunk < MAX_CHUNK:
        state.chunk += 1
    state.chunk_began = now
    state.budget = state.chunk
    return True


def _before_poll() -> None:
    """Begin a slice, and time the asks still open; runs once per turn of the loop."""
    state = S
    state.budget = state.chunk
    state.slice_ends = None
    promise = state.handed
    if promise is not None:
        state.handed = None
        while promise is not None:
            promise.expire_at_deadline()
            earlier, promise.before = promise.before, None
            promise = earlier
        if not state.sweeping:
            start_sweep()
    if not state.sweeping and len(state.idle) < len(state.runners):  # a handler is at work
        start_sweep()
    if state.ready and not state.scheduled:
        state.scheduled = True
        _next_slice.start(
            _drain
        )  # a callback added here, after gevent ran its own, would not keep the poll from blocking


QUEUED: Any = object()
"""Stands in `ref.runner` while the actor waits in `ready`."""

_next_slice = hub.loop.timer(0)
_watcher = hub.loop.prepare(ref=False, priority=LOWEST_PRIORITY)
_watcher.start(_before_poll)


def start_sweep() -> None:
    """Look every SWEEP_S seconds after handlers that outlive their limits, while any runner is held. Never switches."""
    S.sweeping = True
    S.sweep_timer = clock.after(SWEEP_S, _sweep)


def renew_sweep() -> None:
    """Begin the sweep anew on the clock of now, after the clock was replaced. Never switches."""
    if S.sweep_timer is not None:
        S.sweep_timer.cancel()
    S.sweeping = False
    for runner in S.runners:
        runner.seen = None
    if any(runner.ref is not None for runner in S.runners):
        start_sweep()


def _sweep() -> None:
    """End, as a crash, a handler that outlived both its request's deadline and its actor's own timeout."""
    now = clock.now()
    held = False
    for runner in list(S.runners):
        ref = runner.ref
        if ref is None:
            continue
        held = True
        seen = runner.seen
        if seen is None or seen[0] is not ref or seen[1] != (UNWINDING if ref.state == DEAD else ref.handled):
            runner.seen = (ref, UNWINDING if ref.state == DEAD else ref.handled, now)
        elif ref.state == DEAD:
            _watch_unwinding(runner, ref, seen[2], now)
        elif ref.state != STARTING and ref.timeout_s is not None and now - seen[2] >= ref.timeout_s:
            reply = runner.reply
            if reply is None or reply.done or reply.deadline is None or now >= reply.deadline:
                ref.overran(runner, now - seen[2])
    if held:
        S.sweep_timer = clock.after(SWEEP_S, _sweep)
    else:
        S.sweeping = False


def _watch_unwinding(runner: Runner, ref: Ref, since: float, now: float) -> None:
    """Tell, once, of a dead actor whose handler does not end; it is held against nobody else."""
    if now - since > STUCK_AFTER_S:
        ref.report_stuck(runner)
        runner.seen = (ref, UNWINDING, math.inf)


def throw_killed(runner: Runner, ref: Ref) -> None:
    """Unwind the handler of a dead actor, if that runner still carries it; runs in the hub."""
    if runner.ref is ref and not runner.dead and runner is not getcurrent():
        runner.throw(Killed())


def current_ref() -> Ref | None:
    """Return the actor on whose behalf the calling greenlet runs, or None outside of actors. Never switches."""
    me = getcurrent()
    return me.ref if me.__class__ is Runner else None


def current_promise() -> Promise | None:
    """Return the request that the calling actor works on, or None. Never switches."""
    me = getcurrent()
    return me.reply if me.__class__ is Runner else None


def report(context: object) -> None:
    """Report the exception in flight to the hub's handler, for edges that must go on. Never switches."""
    hub.handle_error(context, *sys.exc_info())
