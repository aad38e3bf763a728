"""Actors: the class that users write, pykka's API on the machine of this package.

The hooks keep pykka's meaning. Beyond pykka: an actor that raises anything but a typed error crashes, asked or told;
mailboxes are bounded; `ask` has a finite default timeout; `on_start` is part of the start and its failure is the
start's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import GeneratorType, TracebackType
from typing import Any, ClassVar

import pykka
from pykka import messages as pykka_messages

from runtime import clock, scheduler
from runtime.exports import Exported, exported, exports_of
from runtime.messages import Call
from runtime.promise import Future, Promise, deadline_error
from runtime.reasons import NORMAL, ExitReason
from runtime.ref import DEFAULT_MAILBOX, Ref, StopRequest, spawn
from runtime.signals import Down, Exit, monitor
from runtime.streams import open_stream
from runtime.sys import URGENT, extras_of

__all__ = ["Actor", "Exported", "exported"]

DEFAULT_TIMEOUT_S = 30.0


class Actor(pykka.Actor):
    """An actor: one message at a time, in order for each sender; it may block without holding up anybody else.

    `mailbox` bounds the messages that wait, `timeout` is the seconds a request may take when its caller names no
    deadline and how long a handler may run at the most (None: no limit, only in code); `trap_exit` turns exit signals
    of linked actors into `on_exit`. `inspectable` names the attributes that operators may read.
    """

    mailbox: ClassVar[int | None] = DEFAULT_MAILBOX
    timeout: ClassVar[float | None] = DEFAULT_TIMEOUT_S
    trap_exit: bool = False
    inspectable: ClassVar[tuple[str, ...]] = ()
    fifo: ClassVar[bool] = False  # supervisors: nothing overtakes in the mailbox, sys requests neither

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """Runs in the new actor's own greenlet; `super().__init__()` is pykka's custom and not needed here."""

    @classmethod
    def start(cls, *args: Any, **kwargs: Any) -> Any:
        """Start an actor that nobody supervises and return its `Ref`. Switches greenlets."""
        return spawn(cls, args, kwargs)

    @classmethod
    def start_linked(cls, *args: Any, **kwargs: Any) -> Ref:
        """Start an actor linked to the calling one, which becomes its parent. Switches greenlets."""
        parent = scheduler.current_ref()
        if parent is None:
            raise TypeError("start_linked was called outside of an actor, only actors have links")
        return spawn(cls, args, kwargs, parent=parent)

    # -- what an actor may use

    @property
    def ref(self) -> Ref:
        ref: Ref = self._actor_ref  # type: ignore[assignment]
        return ref

    @property
    def actor_ref(self) -> Any:
        return self._actor_ref

    @property
    def actor_urn(self) -> str:  # type: ignore[override]
        return self.ref.actor_urn

    @property
    def actor_inbox(self) -> Any:  # type: ignore[override]
        return self.ref.actor_inbox

    @property
    def actor_stopped(self) -> Any:  # type: ignore[override]
        return self.ref.actor_stopped

    @property
    def deadline(self) -> float | None:
        """The deadline of the request in hand on the scale of `clock.now()`, or None."""
        promise = scheduler.current_promise()
        return None if promise is None else promise.deadline

    def remaining_s(self, default: float) -> float:
        """Return the seconds left for the request in hand, at most `default`; raises `AskTimeout` at zero.

        Never switches.
        """
        deadline = self.deadline
        if deadline is None:
            return default
        left = deadline - clock.now()
        if left <= 0:
            raise deadline_error(started=True)
        return min(left, default)

    def defer(self) -> Promise:
        """Take over the answer of the ask in hand: what the handler returns is ignored, the promise answers later.

        When this actor ends first, the caller gets `ActorDied`. For a message that was told, the promise goes nowhere.
        An actor that only queues the work sets `promise.started` to False and, when the work begins, to True: that is
        what a deadline, a cancel and the actor's own end tell the caller. Never switches.
        """
        promise = scheduler.current_promise()
        if promise is None:
            return Promise()
        ref = self.ref
        if not promise.done:
            promise.owner = ref
            promise.expire_at_deadline()
            if ref.deferred is None:
                ref.deferred = set()
            ref.deferred.add(promise)
        return promise

    def on_abandon(self, callback: Callable[[], object]) -> None:
        """Have `callback` called in the hub when the caller of the request in hand gives up. Never switches."""
        promise = scheduler.current_promise()
        if promise is not None:
            promise.on_abandon = callback

    def send_after(self, delay_s: float, message: Any) -> clock.Timer:
        """Post `message` to this actor in `delay_s` seconds, unless the timer is cancelled or the actor ends.

        Never switches.
        """
        return clock.after(delay_s, self.ref.post, message)

    def continue_with(self, message: Any) -> None:
        """Have `message` handled next, before any that wait (OTP's continue). Never switches."""
        ref = self.ref
        if ref.mailbox is None:
            ref.post(message)
        else:
            ref.mailbox.appendleft((message, None))
            if ref.extras is not None:
                ref.extras.arrived_first()
            ref.wake_up()

    def idle_after(self, delay_s: float) -> None:
        """Have `on_idle` called once when no message came for `delay_s` seconds; any message cancels it.

        Never switches.
        """
        extras = extras_of(self.ref)
        if extras.idle_timer is not None:
            extras.idle_timer.cancel()
        extras.idle_timer = clock.after(delay_s, self.ref.post, _Idle())

    def stop(self, reason: ExitReason = NORMAL) -> None:
        """Stop after the messages that wait already. Never switches."""
        self.ref.post(StopRequest(reason))

    # -- hooks

    def on_start(self) -> None:
        """Set up; the start is acknowledged when this returns, and fails with what it raises."""

    def on_stop(self) -> None:
        """Clean up before an orderly stop; not called after a crash or a kill."""

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Clean up after an exception escaped from a handler."""

    def on_terminate(self, reason: ExitReason) -> None:
        """Hear why the actor stops in the orderly way (OTP's terminate); calls `on_stop`."""
        self.on_stop()

    def on_receive(self, message: Any) -> Any:
        """Handle a message that nothing else handles; the return value answers an ask."""
        raise TypeError(f"{type(self).__name__} has no on_receive and got a message of type {type(message).__name__}")

    def on_down(self, down: Down) -> None:
        """Hear that a monitored actor ended."""

    def on_exit(self, signal: Exit) -> None:
        """Hear that a linked actor ended; only with `trap_exit`."""

    def on_idle(self) -> None:
        """Hear that no message came for as long as `idle_after` said."""

    def on_call(self, call: Call) -> Any:
        """Run an exported method; overridden by actors whose methods come from the configuration."""
        if call.method not in exports_of(type(self)):
            from regrow.protocol.errors import NotFound

            raise NotFound(f"{type(self).__name__} exports no method {call.method!r}")
        return getattr(self, call.method)(**call.args)

    def status(self) -> Mapping[str, Any]:
        """Return what operators see of this actor: JSON-safe, cheap, without secrets. Never switches."""
        return {}

    # -- pykka's abstract methods, which its own loop would use

    @staticmethod
    def _create_actor_inbox() -> Any:
        raise NotImplementedError("an actor's mailbox belongs to its ref")

    @staticmethod
    def _create_future() -> Any:
        return Future()

    def _start_actor_loop(self) -> None:
        raise NotImplementedError("actors are carried by runners, start them with start()")

    def __str__(self) -> str:
        return str(self._actor_ref)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._actor_ref}>"


class _Idle:
    """The message of an idle timer."""

    __slots__ = ()


def _handle_idle(ref: Ref, _message: _Idle) -> None:
    ref.actor.on_idle()


def _handle_call(ref: Ref, call: Call) -> Any:
    value = ref.actor.on_call(call)
    return open_stream(ref, value) if value.__class__ is GeneratorType else value


def _handle_exit(ref: Ref, signal: Exit) -> None:
    if signal.void:
        return
    if signal.sender is ref.parent:
        ref.stop_now(signal.reason)
    else:
        ref.actor.on_exit(signal)


def _handle_down(ref: Ref, down: Down) -> None:
    ref.actor.on_down(down)


def _handle_stop(ref: Ref, request: StopRequest) -> bool:
    runner = ref.runner
    reply, runner.reply = runner.reply, None
    if reply is not None:  # answered by the end itself, which does not wait for a hook that hangs
        monitor(ref, lambda _down: reply.resolve(True))
    ref.stop_now(request.reason)
    return True


def _handle_pykka_stop(ref: Ref, _message: Any) -> bool:
    return _handle_stop(ref, StopRequest(NORMAL))


def _walk(root: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        root = getattr(root, name)
    return root


def _handle_proxy_call(ref: Ref, message: pykka_messages.ProxyCall) -> Any:
    return _walk(ref.actor, tuple(message.attr_path))(*message.args, **message.kwargs)


def _handle_proxy_get(ref: Ref, message: pykka_messages.ProxyGetAttr) -> Any:
    return _walk(ref.actor, tuple(message.attr_path))


def _handle_proxy_set(ref: Ref, message: pykka_messages.ProxySetAttr) -> None:
    *parents, name = message.attr_path
    setattr(_walk(ref.actor, tuple(parents)), name, message.value)


URGENT.add(StopRequest)
scheduler.SPECIAL.update(
    {
        Call: _handle_call,
        _Idle: _handle_idle,
        Exit: _handle_exit,
        Down: _handle_down,
        StopRequest: _handle_stop,
        pykka_messages._ActorStop: _handle_pykka_stop,
        pykka_messages.ProxyCall: _handle_proxy_call,
        pykka_messages.ProxyGetAttr: _handle_proxy_get,
        pykka_messages.ProxySetAttr: _handle_proxy_set,
    }
)
