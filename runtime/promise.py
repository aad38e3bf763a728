"""Promises: the one answer of one ask, and futures, pykka's face of them.

Decisions. A promise is settled once; whoever comes later is ignored, which is what makes "exactly one answer" cheap. An
expired or cancelled promise is simply settled, and the actor skips it at dequeue; so no clock is read per message
there. The waiter is a greenlet (in-process ask) or a callback (the gateway), never both, and never an event object.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pykka
from gevent import get_hub
from greenlet import getcurrent

from regrow.protocol.errors import ActorDown, Cancelled, DeadlineExceeded, Overloaded, Unavailable
from runtime import clock

if TYPE_CHECKING:
    from runtime.ref import Ref

_hub = get_hub()
_run_callback = _hub.loop.run_callback
_hub_switch = _hub.switch


class ActorUnavailable(Unavailable, pykka.ActorDeadError):
    """The actor is dead, or died before it began this request; also pykka's `ActorDeadError`."""


class ActorDied(ActorDown, pykka.ActorDeadError):
    """The actor died while it worked on this request; also pykka's `ActorDeadError`."""


class AskTimeout(DeadlineExceeded, pykka.Timeout):
    """The caller's deadline passed; also pykka's `Timeout`."""


class MailboxFull(Overloaded):
    """The actor's mailbox is at its bound."""


class Promise:
    """The answer to come of one request: `value` or `error` once `done`; `deadline` on the scale of `clock.now()`.

    `started` is True from the moment the actor took the request out of its mailbox. `on_abandon` is called once, in the
    hub, when the caller gave up (deadline, cancel) while the actor still works. It may have a method `withdraw`, of an
    actor that hands work on: it is called before the error is made, takes the work back if nobody has begun it, and
    tells whether somebody has.
    """

    __slots__ = ("callback", "deadline", "done", "error", "on_abandon", "owner", "started", "timer", "value", "waiter")

    is_letter = False  # nobody waits for the answer, somebody only wants to know when the work is over
    client = ""  # who asks, where that is known from the start: see `ClientPromise` and `runtime.origin`

    def __init__(self, *, deadline: float | None = None, callback: Callable[[Promise], object] | None = None) -> None:
        self.waiter: Any = None
        self.callback = callback
        self.value: Any = None
        self.error: BaseException | None = None
        self.done = False
        self.started = False
        self.deadline = deadline
        self.owner: Ref | None = None  # the actor that deferred it and so owes the answer
        self.on_abandon: Callable[[], object] | None = None
        self.timer: clock.Timer | None = None

    def resolve(self, value: Any = None) -> bool:
        """Settle with a value; False when it was settled before. Never switches."""
        if self.done:
            return False
        self.value = value
        self._settled()
        return True

    def reject(self, error: BaseException) -> bool:
        """Settle with an error; False when it was settled before. Never switches."""
        if self.done:
            return False
        self.error = error
        self._settled()
        return True

    def abandon(self, error: BaseException) -> bool:
        """Settle in the caller's name (deadline, cancel) and tell whoever works on it to stop. Never switches."""
        stop = self.on_abandon
        if not self.reject(error):
            return False
        if stop is not None:
            try:
                stop()
            except Exception:  # noqa: BLE001 - an edge: the worker's clean-up must not harm the caller
                _hub.handle_error(stop, *sys.exc_info())
        return True

    def has_begun(self) -> bool:
        """Tell whether the work has begun; to be asked by who gives up, for what has not never will. Never switches."""
        withdraw = getattr(self.on_abandon, "withdraw", None)
        return self.started if withdraw is None else bool(withdraw())

    def cancel(self) -> bool:
        """Give up waiting; an actor that has not begun never will. Never switches."""
        return self.abandon(
            Cancelled("the request was cancelled by its caller", started="yes" if self.has_begun() else "no")
        )

    def expire_at_deadline(self) -> None:
        """Start the timer that answers at the deadline, unless there is none. Never switches."""
        if self.deadline is not None and self.timer is None and not self.done:
            self.timer = clock.after(max(0.0, self.deadline - clock.now()), self._expire)

    def _expire(self) -> None:
        self.timer = None
        if not self.done:
            self.abandon(deadline_error(self.has_begun()))

    def _settled(self) -> None:
        self.done = True
        # It leads to the work, which leads here: a result of megabytes would wait for the garbage collector.
        self.on_abandon = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.owner is not None:
            owner, self.owner = self.owner, None
            if owner.deferred is not None:
                owner.deferred.discard(self)
        if self.waiter is not None:
            _run_callback(wake, self)
        if self.callback is not None:
            call_back(self)

    def wait(self, timeout_s: float | None = None) -> Any:
        """Return the value or raise the error; `AskTimeout` after `timeout_s` seconds. Switches greenlets."""
        if not self.done and (self.waiter is not None or self.callback is not None):
            self._wait_beside_others(timeout_s)
        elif not self.done:
            timer = None
            if timeout_s is not None:
                timer = clock.after(timeout_s, self._stop_waiting)
            self.waiter = getcurrent()
            try:
                while not self.done and self.waiter is not None:  # type: ignore[redundant-expr] # others change both meanwhile
                    _hub_switch()
            finally:
                self.waiter = None
                if timer is not None:
                    timer.cancel()
            if not self.done:
                raise self._no_answer(timeout_s)
        if self.error is not None:
            raise self.error
        return self.value

    def _wait_beside_others(self, timeout_s: float | None) -> None:
        """Wait for a promise that somebody else waits for too."""
        waiting: list[Any] = [getcurrent()]
        before = self.callback

        def go_on() -> None:
            if waiting:
                waiting.pop().switch()

        def settled(promise: Promise) -> None:
            _run_callback(go_on)
            if before is not None:
                before(promise)

        self.callback = settled
        timer = None if timeout_s is None else clock.after(timeout_s, go_on)
        try:
            while waiting:
                _hub_switch()
        finally:
            waiting.clear()
            if self.callback is settled:
                self.callback = before
            if timer is not None:
                timer.cancel()
        if not self.done:
            raise self._no_answer(timeout_s)

    def _no_answer(self, timeout_s: float | None) -> AskTimeout:
        return AskTimeout(f"no answer within {timeout_s or 0.0:g} s", started="yes" if self.started else "unknown")

    def _stop_waiting(self) -> None:
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            waiter.switch()

    def __repr__(self) -> str:
        state = "done" if self.done else "started" if self.started else "queued"
        return f"<Promise {state}>"


class ClientPromise(Promise):
    """The promise of a request that belongs to a known client, which the queues on its way treat as one.

    A class of its own, so that asks within the process, which are made a million times a second, carry nothing for it.
    """

    __slots__ = ("client",)

    def __init__(
        self, client: str, *, deadline: float | None = None, callback: Callable[[Promise], object] | None = None
    ) -> None:
        super().__init__(deadline=deadline, callback=callback)
        self.client = client


def deadline_error(started: bool) -> AskTimeout:
    """Return the error of a passed deadline, which says whether the work had begun. Never switches."""
    if started:
        return AskTimeout("the deadline passed while the actor worked on the request", started="yes")
    return AskTimeout(
        "the deadline passed before the actor began, the request was dropped", started="no", retryable=True
    )


def wake(promise: Promise) -> None:
    """Switch to the greenlet that waits for this promise, if it still does; called in the hub."""
    waiter = promise.waiter
    if waiter is not None:
        promise.waiter = None
        waiter.switch()


def call_back(promise: Promise) -> None:
    """Call the promise's callback; an error in it is reported and harms nobody. Never switches."""
    callback = promise.callback
    if callback is not None:
        promise.callback = None
        try:
            callback(promise)
        except Exception:  # noqa: BLE001 - an edge: the receiver of an answer must not crash the actor that gave it
            _hub.handle_error(callback, *sys.exc_info())


class Future(pykka.Future[Any]):
    """pykka's future over a promise: get, set, set_exception, map, filter, join, reduce keep their meaning."""

    def __init__(self, promise: Promise | None = None) -> None:
        super().__init__()
        self._promise = Promise() if promise is None else promise
        self._is_set = promise is not None

    def get(self, *, timeout: float | None = None) -> Any:
        """Return the value or raise the error, waiting at most `timeout` seconds. Switches greenlets."""
        if self._get_hook is not None:
            return super().get(timeout=timeout)
        return self._promise.wait(timeout)

    def set(self, value: Any = None) -> None:
        self._set_once()
        self._promise.resolve(value)

    def set_exception(self, exc_info: Any = None) -> None:
        self._set_once()
        if isinstance(exc_info, BaseException):
            error: BaseException | None = exc_info
        else:
            error = (exc_info or sys.exc_info())[1]
        if error is None:
            raise ValueError("set_exception needs an exception: none was given and none is being handled")
        self._promise.reject(error)

    def set_get_hook(self, func: Callable[[float | None], Any]) -> None:
        self._set_once()
        super().set_get_hook(func)

    def _set_once(self) -> None:
        if self._is_set:
            raise pykka_full()
        self._is_set = True

    def __repr__(self) -> str:
        return f"<Future of {self._promise!r}>"


def pykka_full() -> Exception:
    """Return what pykka raises when a future is set twice."""
    import queue

    return queue.Full("this future has been set before")
