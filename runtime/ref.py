"""Refs: one incarnation of one actor, as everybody else holds it (OTP's pid), and its life from start to end.

Decisions. A restart makes a new ref; what survives a restart is the name. The ref is also the control block, so an idle
actor costs one ref, one instance and no greenlet; the mailbox is made by the first message. An end is logical and
immediate: name freed, asks answered, links and monitors told, whatever the handler still does; the handler's greenlet
is unwound afterwards. So a handler that cannot be stopped never holds up its supervisor, it is reported as stuck.
"""

from __future__ import annotations

import itertools
import linecache
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pykka
from gevent import spawn_raw
from gevent.monkey import get_original
from greenlet import getcurrent

from regrow.protocol.errors import Cancelled, RegrowError
from runtime import clock, events, letters, names, scheduler
from runtime.messages import Call, WithHeader
from runtime.promise import ActorDied, ActorUnavailable, AskTimeout, Future, MailboxFull, Promise
from runtime.reasons import KILL, KILLED, NORMAL, SHUTDOWN, Crashed, ExitReason, StartFailed, Stop, reason_of
from runtime.scheduler import (
    ALIVE,
    DEAD,
    HUB_THREAD,
    STARTING,
    SUSPENDED,
    Killed,
    Runner,
    S,
    get_ident,
    hub,
    hub_switch,
    run_callback,
    run_callback_threadsafe,
    slice_goes_on,
)
from runtime.signals import Exit, Monitor

if TYPE_CHECKING:
    from runtime.actor import Actor
    from runtime.exports import Exported
    from runtime.sys import Extras

DEFAULT_ASK_TIMEOUT_S = 5.0
DEFAULT_MAILBOX = 10_000
RETRY_AFTER_S = 0.1
STREAMS = "_actor_streams"  # the attribute under which an actor keeps its open streams; most have none

_serials = itertools.count(1)
new = object.__new__
idle = S.idle  # only ever changed in place
_dying: deque[tuple[Ref, ExitReason]] = deque()  # ends that links pass on, which happen after the one that caused them
_STATES = {STARTING: "starting", ALIVE: "running", SUSPENDED: "suspended", DEAD: "dead"}


class HandlerOverran(Exception):
    """A handler outlived its request's deadline and its actor's own timeout."""


class _Ask(Promise):
    """The promise of a blocking ask, made without keyword arguments because it is made for each of them."""

    __slots__ = ("before",)
    before: Any  # the ask that was handed over before this one, see `scheduler.S.handed`

    def __init__(self, waiter: Any, deadline: float | None) -> None:
        self.waiter = waiter
        self.callback = self.value = self.error = None
        self.done = self.started = False
        self.deadline = deadline
        self.owner = self.on_abandon = self.timer = None


class StopRequest:
    """The message of an orderly stop; handled in its turn, after the messages that came before it."""

    __slots__ = ("reason",)

    def __init__(self, reason: ExitReason) -> None:
        self.reason = reason


class Ref(pykka.ActorRef[Any]):
    """One incarnation of an actor. Refs may be passed around freely, also to other threads."""

    __slots__ = (
        "actor",
        "actor_class",
        "bound",
        "deferred",
        "exports",
        "extras",
        "handled",
        "label",
        "links",
        "mailbox",
        "name",
        "parent",
        "parent_linked",
        "reason",
        "runner",
        "serial",
        "start_arguments",
        "start_promise",
        "state",
        "timeout_s",
        "watchers",
        "watching",
    )

    def __init__(self, actor_class: type[Actor], parent: Ref | None, label: str | None) -> None:
        self.actor_class = actor_class
        self.parent = parent
        self.label = label
        self.serial = next(_serials)
        self.state = STARTING
        self.bound: int | None = actor_class.mailbox
        self.timeout_s: float | None = actor_class.timeout
        self.handled = 0
        self.parent_linked = False
        self.actor: Any = None
        self.name: str | None = None
        self.mailbox: deque[tuple[Any, Promise | None]] | None = None
        self.runner: Any = None  # None when idle, scheduler.QUEUED while in line, else the runner that carries it
        self.links: dict[Ref, None] | None = None
        self.watchers: dict[Monitor, None] | None = None
        self.watching: dict[Monitor, None] | None = None
        self.deferred: set[Promise] | None = None
        self.extras: Extras | None = None
        self.exports: Mapping[str, Exported] | None = None
        self.reason: ExitReason | None = None
        self.start_promise: Promise | None = None
        self.start_arguments: Any = None

    # -- sending

    def tell(self, message: Any) -> None:
        """Send a message without waiting; raises `ActorUnavailable` (dead) or `MailboxFull`. Never switches."""
        if get_ident() != HUB_THREAD:
            self._from_foreign_thread(self.request, message, None).wait()
            return
        if self.state == DEAD:
            raise self.unavailable()
        box = self.mailbox
        if box is None:
            box = self.mailbox = deque()
        elif self.bound is not None and len(box) >= self.bound:
            raise self.mailbox_full()
        box.append((message, None))
        if self.extras is not None:
            self.extras.arrived()
        if self.runner is None and self.state != SUSPENDED:
            self.runner = scheduler.QUEUED
            S.ready.append(self)
            if not S.scheduled:
                S.scheduled = True
                run_callback(scheduler._drain)

    def ask(self, message: Any, *, block: bool = True, timeout: float | None = DEFAULT_ASK_TIMEOUT_S) -> Any:  # noqa: C901
        """Send a message and return the reply, within `timeout` seconds (None: no limit of its own).

        Inside a handler the deadline of the request in hand bounds it too. Raises what the handler raised,
        `AskTimeout`, `ActorUnavailable` (never started), `ActorDied`, `MailboxFull`. With `block=False` returns a
        `Future` at once. Switches greenlets.
        """
        me = getcurrent()
        deadline = None if timeout is None else clock.now() + timeout
        if type(me) is Runner:
            outer = me.reply
            if outer is not None and outer.deadline is not None and (deadline is None or outer.deadline < deadline):
                deadline = outer.deadline
            if me.ref is self and block:
                raise RuntimeError(f"{self} asked itself, which can never be answered, call the method instead")
        elif me is not S.asker:
            if get_ident() != HUB_THREAD:
                return self._ask_from_foreign_thread(message, block, timeout)
            if me is not hub:
                S.asker = me
            elif block:
                raise RuntimeError("ask was called in the hub, where nothing may wait, use request with a callback")
        if not block:
            promise = Promise(deadline=deadline)
            self.request(message, promise)
            return Future(promise)
        if self.state == DEAD:
            raise self.unavailable()
        reply = new(_Ask)  # as its __init__ does, without the call
        reply.waiter = me
        reply.deadline = deadline
        reply.callback = reply.value = reply.error = reply.owner = reply.on_abandon = reply.timer = None
        reply.done = reply.started = False
        box = self.mailbox
        if box is None:
            box = self.mailbox = deque()
        elif box and self.bound is not None and len(box) >= self.bound:
            raise self.mailbox_full()
        box.append((message, reply))
        if self.extras is not None:
            self.extras.arrived()
        try:
            if self.runner is None and (S.budget > 0 or slice_goes_on()) and self.state == ALIVE:
                reply.before = S.handed
                S.handed = reply
                (idle.pop() if idle else Runner()).switch(self)
                if S.handed is reply:
                    S.handed = reply.before
            else:
                if self.runner is None and self.state != SUSPENDED:
                    scheduler.schedule(self)
                reply.expire_at_deadline()
                if not S.sweeping:
                    scheduler.start_sweep()
            while not reply.done:
                hub_switch()
        except BaseException:
            reply.waiter = None
            if not reply.done:  # the caller itself was killed, or its gevent.Timeout fired
                reply.abandon(Cancelled("the caller stopped waiting", started="yes" if reply.has_begun() else "no"))
            raise
        if reply.error is not None:
            raise reply.error
        return reply.value

    def call(
        self, method: str, args: Mapping[str, Any] | None = None, *, timeout: float | None = DEFAULT_ASK_TIMEOUT_S
    ) -> Any:
        """Call an exported method with arguments by name and return its value. Switches greenlets."""
        value = self.ask(Call(method, args or {}), timeout=timeout)
        return value.value if value.__class__ is WithHeader else value

    def cast(self, method: str, args: Mapping[str, Any] | None = None) -> None:
        """Call an exported method without waiting for it. Never switches."""
        self.tell(Call(method, args or {}))

    def request(self, message: Any, promise: Promise | None) -> None:
        """Send a message whose answer settles `promise`; a refusal settles it too, and raises without one.

        Never switches.
        """
        refusal: RegrowError | None = None
        if self.state == DEAD:
            refusal = self.unavailable()
        else:
            if self.mailbox is None:
                self.mailbox = deque()
            if self.bound is not None and len(self.mailbox) >= self.bound:
                refusal = self.mailbox_full()
        if refusal is not None:
            if promise is None:
                raise refusal
            promise.reject(refusal)
            return
        self.mailbox.append((message, promise))  # type: ignore[union-attr]
        if promise is not None:
            promise.expire_at_deadline()
        if self.extras is not None:
            self.extras.arrived()
        self.wake_up()

    def post(self, message: Any, promise: Promise | None = None) -> None:
        """Put a message of the machine (exit, down, stop) into the mailbox, beyond its bound. Never switches."""
        if self.state == DEAD:
            if promise is not None:
                promise.reject(self.unavailable())
            return
        if self.mailbox is None:
            self.mailbox = deque()
        self.mailbox.append((message, promise))
        if self.extras is not None:
            self.extras.arrived()
        self.wake_up()

    def post_urgent(self, message: Any, promise: Promise | None = None) -> None:
        """Put a sys request before the user messages that wait, behind earlier sys requests. Never switches."""
        if self.mailbox is None:
            self.post(message, promise)
            return
        waiting = enumerate(self.mailbox)
        at = next((i for i, (other, _) in waiting if other.__class__ is not message.__class__), len(self.mailbox))
        self.mailbox.insert(at, (message, promise))
        if self.extras is not None:
            self.extras.arrived()
        self.wake_up()

    def wake_up(self) -> None:
        """Get in line for a runner, unless one carries this actor already. Never switches."""
        if self.runner is None and (
            self.state != SUSPENDED or (self.extras is not None and self.extras.has_urgent(self))
        ):
            scheduler.schedule(self)
        if not S.sweeping:
            scheduler.start_sweep()

    def _from_foreign_thread(
        self, function: Callable[..., object], message: Any, promise: Promise | None
    ) -> _ThreadBox:
        if promise is None:
            return _enter_hub_thread(function, message, None)
        box = _ThreadBox()

        def enter() -> None:
            try:
                function(message, promise)
                promise.expire_at_deadline()
            except BaseException as error:  # noqa: BLE001 - carried over to the thread that called
                promise.reject(error)

        promise.callback = lambda settled: box.put(settled.value, settled.error)
        run_callback_threadsafe(enter)
        return box

    def _ask_from_foreign_thread(self, message: Any, block: bool, timeout: float | None) -> Any:
        promise = Promise(deadline=None if timeout is None else clock.now() + timeout)
        box = self._from_foreign_thread(self.request, message, promise)
        return box.wait() if block else box.future()

    # -- facts

    def is_alive(self) -> bool:
        return self.state != DEAD

    @property
    def path(self) -> str:
        """The ids from the root down, joined by `/`; the name, or class and serial, where no supervisor gave an id."""
        label = self.label or self.name or f"{self.actor_class.__name__}-{self.serial}"
        return label if self.parent is None or self.label is None else f"{self.parent.path}/{label}"

    @property
    def state_name(self) -> str:
        return _STATES[self.state]

    @property
    def queued(self) -> int:
        """Messages that wait in the mailbox."""
        return len(self.mailbox) if self.mailbox else 0

    @property
    def actor_urn(self) -> str:  # type: ignore[override]
        return f"urn:regrow:actor:{self.serial}"

    @property
    def actor_stopped(self) -> Any:  # type: ignore[override]
        return _Stopped(self)

    @property
    def actor_inbox(self) -> Any:  # type: ignore[override]
        return _Inbox(self)

    def _actor_weakref(self) -> Any:  # type: ignore[override]
        return self.actor

    def __repr__(self) -> str:
        return f"<Ref {self}>"

    def __str__(self) -> str:
        return f"{self.path} ({self.actor_class.__name__} #{self.serial}, {self.state_name}, {self.queued} queued)"

    def unavailable(self) -> ActorUnavailable:
        """Return the error of a request that this dead actor never began."""
        why = f", it ended: {self.reason}" if self.reason is not None and not isinstance(self.reason, Crashed) else ""
        return ActorUnavailable(f"{self.path} is not running{why}", actor=self.name, retry_after_s=RETRY_AFTER_S)

    def mailbox_full(self) -> MailboxFull:
        """Return the error of a request that found the mailbox full, and count it."""
        letters.full()
        if self.extras is not None:
            self.extras.refused()
        return MailboxFull(
            f"the mailbox of {self.path} is full: {self.bound} messages wait, come back later",
            actor=self.name,
            retry_after_s=RETRY_AFTER_S,
        )

    # -- life

    def construct(self) -> None:
        """Make the actor and start it; runs in the actor's own greenlet."""
        args, kwargs = self.start_arguments
        self.start_arguments = None
        actor_class = self.actor_class
        actor = actor_class.__new__(actor_class, *args, **kwargs)
        actor._actor_ref = self
        self.actor = actor
        actor.__init__(*args, **kwargs)  # set up before __init__, so that it knows its ref
        actor.on_start()

    def start_failed(self, error: BaseException) -> None:
        """End an actor whose start failed; its parent hears it from the start itself, not by the link."""
        if self.parent is not None and self.parent.links is not None:
            self.parent.links.pop(self, None)
        self.parent_linked = False
        reason = reason_of(error)
        promise = self.start_promise
        self.start_promise = None
        self.end(reason)
        if promise is not None:
            promise.error = error
            promise.done = True

    def stop(
        self, *, block: bool = True, timeout: float | None = DEFAULT_ASK_TIMEOUT_S, reason: ExitReason = NORMAL
    ) -> Any:
        """Ask the actor to stop after the messages it has; True when it did, False when it was dead already.

        `timeout` bounds the wait alone: after an `AskTimeout` the actor stops all the same when its turn comes.
        Switches greenlets when `block` is true; else returns a `Future`.
        """
        promise = Promise()
        if self.state == DEAD:
            promise.resolve(False)
        elif get_ident() != HUB_THREAD:
            box = self._from_foreign_thread(self.post, StopRequest(reason), promise)
            return box.wait(timeout) if block else box.future()
        else:
            self.post(StopRequest(reason), promise)
        return promise.wait(timeout) if block else Future(promise)

    def kill(self) -> None:
        """End the actor now, untrappably, with the reason `killed`; no hook of it runs.

        Does not return when it kills itself.
        """
        if get_ident() != HUB_THREAD:
            _enter_hub_thread(self.die_now, KILLED).wait()
            return
        self.die_now(KILLED)
        if self.runner is getcurrent():
            raise Killed

    def exit(self, reason: ExitReason, sender: Ref | None = None) -> None:
        """Send an exit signal, as OTP's `exit(Pid, Reason)`; the sender defaults to the calling actor.

        Does not return when it ends the calling actor. Never switches.
        """
        if reason == KILL:
            self.kill()
            return
        origin = sender or scheduler.current_ref() or OUTSIDE
        if origin is self and reason.kind == "normal" and not self.traps_exits():
            self.die_now(reason)  # the one case in which `normal` ends an actor
        else:
            self.hear_exit(origin, reason)
        if self.state == DEAD and self.runner is getcurrent():
            raise Killed

    def shut_down(self, sender: Ref) -> None:
        """Be told by the supervisor to stop: in the mailbox's order, with `on_stop`. Never switches."""
        self.post(Exit(sender, SHUTDOWN))

    def hear_exit(self, sender: Ref, reason: ExitReason) -> None:
        """Take an exit signal (OTP, section "exit signals").

        A message when trapping, else death by any abnormal one.
        """
        if self.state == DEAD:
            return
        if self.traps_exits():
            self.post(Exit(sender, reason))
        elif reason.kind != "normal":
            _dying.append((self, reason))
            if not S.ending:
                _pass_on_ends()

    def traps_exits(self) -> bool:
        return self.actor is not None and bool(self.actor.trap_exit)

    def die_now(self, reason: ExitReason) -> None:
        """End at once, whatever the handler does, and unwind the handler afterwards."""
        if self.state == DEAD:
            return
        runner = self.runner
        started = self.state != STARTING
        self.end(reason)
        if not started and self.start_promise is not None:
            promise, self.start_promise = self.start_promise, None
            promise.reject(StartFailed(reason))
        if runner.__class__ is Runner:
            run_callback(scheduler.throw_killed, runner, self)
            if not S.sweeping:
                scheduler.start_sweep()

    def overran(self, runner: Runner, elapsed_s: float) -> None:
        """Be ended by the sweep: the handler in hand outlived every limit."""
        error = HandlerOverran(
            f"{self.path} worked {elapsed_s:.3g} s on one message, longer than its timeout of {self.timeout_s:g} s "
            f"and the request's deadline"
        )
        reason = Crashed(error)
        self.publish_crash(reason, runner.message)
        self.die_now(reason)

    def report_stuck(self, runner: Runner) -> None:
        """Tell that the handler of this dead actor has not ended although it was told to."""
        frame = runner.gr_frame
        where = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "unknown"
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip() if frame is not None else ""
        events.publish("actor.stuck", actor=self.name or self.path, path=self.path, where=where, line=line)

    def stop_now(self, reason: ExitReason) -> None:
        """Stop in the orderly way: the terminate hook, then the end; runs in the actor's own greenlet."""
        try:
            self.actor.on_terminate(reason)
        except Stop as stop:
            reason = stop.reason
        except Killed:
            if self.state != DEAD:
                raise
        except BaseException as error:  # noqa: BLE001 - the actor loop: OTP lets an exception in terminate replace the reason
            reason = Crashed(error)
            self.publish_crash(reason, None)
        self.end(reason)

    def crash(self, reason: Crashed, message: Any) -> None:
        """End because an exception escaped: the failure hook, then the end; runs in the actor's own greenlet."""
        self.publish_crash(reason, message)
        exception = reason.exception
        try:
            self.actor.on_failure(type(exception), exception, exception.__traceback__)
        except Killed:
            if self.state != DEAD:
                raise
        except BaseException:  # noqa: BLE001 - the actor loop: a failing failure hook must not hide the crash
            scheduler.report(self)
        self.end(reason)

    def publish_crash(self, reason: Crashed, message: Any) -> None:
        """Publish the crash report; its text is made only when somebody listens."""
        if events.listening():
            from runtime.crashes import crash_report

            try:
                report = crash_report(self, reason, message)
            except Exception:  # noqa: BLE001 - the text of the user's own objects may fail; the actor ends all the same
                scheduler.report(self)
            else:
                events.publish("actor.crashed", **report)

    def end(self, reason: ExitReason) -> None:
        """Be dead: free the name, answer every ask, then tell links and monitors, each once. Never switches."""
        if self.state == DEAD:
            return
        self.state = DEAD
        S.living -= 1
        self.reason = reason
        S.ending += 1
        try:
            if self.name is not None:
                names.release(self)
            self._answer_all(reason)
            if self.extras is not None:
                self.extras.closed(self)
            self._tell_links(reason)
            self._tell_watchers(reason)
            actor, self.actor = self.actor, None
            if actor is not None and STREAMS in actor.__dict__:
                for opened in actor.__dict__.pop(STREAMS).values():
                    opened.forget()
        finally:
            S.ending -= 1
        if _dying and not S.ending:
            _pass_on_ends()

    def _tell_watchers(self, reason: ExitReason) -> None:
        watchers, self.watchers = self.watchers, None
        if watchers:
            for watch in watchers:
                watch.fire(reason)
        watching, self.watching = self.watching, None
        if watching:
            for watch in watching:
                if watch.ref.watchers is not None:
                    watch.ref.watchers.pop(watch, None)

    def _answer_all(self, reason: ExitReason) -> None:
        """Answer the ask in hand, then those whose answer was deferred, then those that still wait."""
        crash = reason.crash_id if isinstance(reason, Crashed) else None
        runner = self.runner
        if runner.__class__ is Runner and runner.ref is self:
            reply = runner.reply
            if reply is not None and not reply.done and reply.owner is None:
                reply.reject(reason.exception if isinstance(reason, Crashed) else self._died(crash))
        deferred, self.deferred = self.deferred, None
        if deferred:
            for promise in list(deferred):
                promise.owner = None
                # An actor that only queues or hands on work says itself when the work begins.
                promise.reject(self._died(crash) if promise.has_begun() else self.unavailable())
        box, self.mailbox = self.mailbox, None
        if box:
            self._answer_queued(box)

    def _died(self, crash_id: str | None) -> ActorDied:
        return ActorDied(
            f"{self.path} ended while it worked on the request: {self.reason.kind if self.reason else 'killed'}",
            started="yes",
            actor=self.name,
            crash_id=crash_id,
        )

    def _answer_queued(self, box: deque[tuple[Any, Promise | None]]) -> None:
        lost = unbegun = 0
        for message, promise in box:
            if promise is None:
                lost += message.__class__ not in (Exit, StopRequest)
            elif message.__class__ is StopRequest:
                promise.resolve(True)
            else:
                lost += promise.is_letter
                unbegun += not promise.is_letter
                promise.reject(self.unavailable())
        if lost or unbegun:
            letters.died(lost + unbegun)
        if lost:
            events.publish("messages.lost", actor=self.name or self.path, count=lost, reason="actor_died")

    def _tell_links(self, reason: ExitReason) -> None:
        parent = self.parent
        if parent is not None and self.parent_linked:  # which stays set: the parent knows that it was told
            if parent.links is not None:
                parent.links.pop(self, None)
            parent.hear_exit(self, reason)
        links, self.links = self.links, None
        if links:
            for other in links:
                if other.links is not None:
                    other.links.pop(self, None)
                if other.parent is self:
                    other.parent_linked = False
                other.hear_exit(self, reason)

    def skipped(self, promise: Promise) -> None:
        """Count a request that was given up before this actor began it."""
        letters.expired()
        if self.extras is not None:
            self.extras.expired(promise)


def _pass_on_ends() -> None:
    """End the actors to which an exit signal came that they do not trap.

    One after the other and not one within the other, since links may form a chain of any length.
    """
    S.ending += 1
    try:
        while _dying:
            ref, reason = _dying.popleft()
            ref.die_now(reason)
    finally:
        S.ending -= 1


class _Stopped:
    """pykka's view of an actor's end: a threading.Event's reading half."""

    def __init__(self, ref: Ref) -> None:
        self._ref = ref

    def is_set(self) -> bool:
        return self._ref.state == DEAD


class _Inbox:
    """pykka's view of the mailbox: its reading half."""

    def __init__(self, ref: Ref) -> None:
        self._ref = ref

    def empty(self) -> bool:
        return not self._ref.mailbox


class _ThreadBox:
    """Where a foreign native thread waits for what the hub's thread gives it."""

    def __init__(self) -> None:
        self._lock = get_original("_thread", "allocate_lock")()
        self._lock.acquire()
        self._value: Any = None
        self._error: BaseException | None = None

    def put(self, value: Any, error: BaseException | None) -> None:
        self._value, self._error = value, error
        self._lock.release()

    def wait(self, timeout_s: float | None = None) -> Any:
        if not self._lock.acquire(True, -1 if timeout_s is None else timeout_s):
            raise AskTimeout(f"no answer within {timeout_s:g} s")
        self._lock.release()
        if self._error is not None:
            raise self._error
        return self._value

    def future(self) -> Future:
        future = Future()
        future.set_get_hook(self.wait)
        return future


def _enter_hub_thread(function: Callable[..., object], *args: Any) -> _ThreadBox:
    """Call a function, which must not switch, in the hub's thread; the calling thread may wait for its result."""
    box = _ThreadBox()

    def enter() -> None:
        try:
            value = function(*args)
        except BaseException as error:  # noqa: BLE001 - carried over to the thread that called
            box.put(None, error)
        else:
            box.put(value, None)

    run_callback_threadsafe(enter)
    return box


def _spawn_from_foreign_thread(*args: Any, **kwargs: Any) -> Ref:
    """Start an actor in the hub's thread, in a greenlet of its own, since a start may block."""
    box = _ThreadBox()

    def start() -> None:
        try:
            ref = spawn(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - carried over to the thread that called
            box.put(None, error)
        else:
            box.put(ref, None)

    run_callback_threadsafe(spawn_raw, start)
    started: Ref = box.wait()
    return started


def spawn(
    actor_class: type[Actor],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    parent: Ref | None = None,
    label: str | None = None,
    prepare: Callable[[Ref], None] | None = None,
) -> Ref:
    """Start an actor and return its ref once `on_start` returned; with a `parent` it is linked to it from the first
    instant.

    Raises what `__init__` or `on_start` raised (`Ignore`, `Stop` included), `NameTaken`. `prepare` sets the new ref up
    before anything of the actor runs. Switches greenlets.
    """
    if get_ident() != HUB_THREAD:
        return _spawn_from_foreign_thread(
            actor_class, args, kwargs, name=name, parent=parent, label=label, prepare=prepare
        )
    me = getcurrent()
    if me is hub:
        raise RuntimeError("an actor was started in the hub, where nothing may wait, start it from a greenlet")
    ref = Ref(actor_class, parent, label)
    if prepare is not None:
        prepare(ref)
    if name is not None:
        names.register(name, ref)
    S.living += 1
    if parent is not None:
        ref.parent_linked = True
        if parent.links is None:
            parent.links = {}
        parent.links[ref] = None
    ref.start_arguments = (args, kwargs or {})
    promise = ref.start_promise = _Ask(me, None)
    try:
        if S.budget > 0 or slice_goes_on():
            runner = S.idle.pop() if S.idle else Runner()
            ref.runner = runner
            runner.switch(ref)
        else:
            scheduler.schedule(ref)
        while not promise.done:
            hub_switch()
    except BaseException:
        promise.waiter = None
        raise
    ref.start_promise = None
    if promise.error is not None:
        raise promise.error
    return ref


class _Outside:
    """The sender of signals that come from no actor."""

    links = parent = None
    path = "outside"

    def __repr__(self) -> str:
        return "<outside>"


OUTSIDE: Any = _Outside()
