"""The front of an actor whose handlers run on a native thread of its own (`run_in = "thread"`).

For blocking C calls that give the interpreter back: the hub serves everybody else meanwhile. The front hands one
message at a time to the thread and waits there. A handler that outlives its limits crashes the actor as always; its
thread cannot be stopped, so it is left behind, reported when it stays, and the restart has a thread of its own; only so
many may hang at the same time (`lane.MAX_LEFT_BEHIND`), then the start itself fails.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from types import GeneratorType, TracebackType
from typing import Any

from actors.hosted.lane import Lane
from runtime import clock, scheduler
from runtime.actor import Actor
from runtime.exports import exports_of
from runtime.messages import Call
from runtime.promise import Promise
from runtime.reasons import NORMAL, ExitReason
from runtime.ref import StopRequest, _enter_hub_thread
from runtime.scheduler import run_callback_threadsafe
from runtime.signals import Down, Exit, monitor

_END = object()


class LanePromise:
    """A deferred answer that a thread may give."""

    def __init__(self, promise: Promise) -> None:
        self._promise = promise

    @property
    def done(self) -> bool:
        return self._promise.done

    @property
    def deadline(self) -> float | None:
        return self._promise.deadline

    def resolve(self, value: Any = None) -> None:
        """Answer. Never switches."""
        run_callback_threadsafe(self._promise.resolve, value)

    def reject(self, error: BaseException) -> None:
        """Answer with an error. Never switches."""
        run_callback_threadsafe(self._promise.reject, error)


class LaneTimer:
    """A timer that was set, and may be cancelled, from a thread."""

    def __init__(self, timer: clock.Timer) -> None:
        self._timer = timer

    def cancel(self) -> None:
        """Let it not happen. Never switches."""
        run_callback_threadsafe(self._timer.cancel)


class OnLane:
    """What of an actor's API must know that it is called on a thread beside the hub's; mixed into the user's class."""

    _lane: Lane
    _front: ThreadActor

    @property
    def deadline(self) -> float | None:
        promise = self._lane.promise
        return None if promise is None else promise.deadline

    def defer(self) -> Any:
        """Take over the answer of the ask in hand. Never switches."""
        promise = self._lane.promise
        return LanePromise(Promise() if promise is None else _in_hub(self._front.owe, promise))

    def send_after(self, delay_s: float, message: Any) -> Any:
        """Post `message` to this actor in `delay_s` seconds. Never switches."""
        return LaneTimer(_in_hub(clock.after, delay_s, self._front.ref.post, message))

    def stop(self, reason: ExitReason = NORMAL) -> None:
        """Stop after the messages that wait already. Never switches."""
        run_callback_threadsafe(self._front.ref.post, StopRequest(reason))


def _in_hub(function: Callable[..., Any], *args: Any) -> Any:
    return _enter_hub_thread(function, *args).wait()


class ThreadActor(Actor):
    """Stands for an actor on a thread; `actor_class` is the user's class, `args` its keyword arguments."""

    def __init__(self, actor_class: type[Actor], args: Mapping[str, Any]) -> None:
        super().__init__()
        self.exports = exports_of(actor_class)
        self.trap_exit = actor_class.trap_exit
        self._class = actor_class
        self._args = dict(args)
        self._hosted: Any = None
        self._lane = Lane(self.ref.name or self.ref.path)

    def on_start(self) -> None:
        monitor(self.ref, self._after_end)
        self._run(self._make)

    def _make(self) -> None:
        # Runs on the thread, so that what belongs to a thread is made on the right one.
        made = type(self._class.__name__, (OnLane, self._class), {"__module__": self._class.__module__})
        hosted: Any = object.__new__(made)
        hosted._actor_ref, hosted._lane, hosted._front = self.ref, self._lane, self
        hosted.__init__(**self._args)
        self._hosted = hosted
        hosted.on_start()

    def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        value = self._lane.run(scheduler.current_promise(), function, *args)
        return self._items(value) if value.__class__ is GeneratorType else value

    def _items(self, generator: Generator[Any, Any, Any]) -> Generator[Any, None, None]:
        done = False
        try:
            while not done:
                item = self._run(next, generator, _END)
                if item is _END:
                    done = True
                else:
                    yield item
        finally:
            if not done and not self._lane.is_busy and scheduler.current_ref() is self.ref:
                self._run(generator.close)

    def owe(self, promise: Promise) -> Promise:
        """Defer a request in hand, on the hub. Never switches."""
        ref = self.ref
        if not promise.done:
            promise.owner = ref
            promise.expire_at_deadline()
            if ref.deferred is None:
                ref.deferred = set()
            ref.deferred.add(promise)
        return promise

    # -- what arrives

    def on_call(self, call: Call) -> Any:
        return self._run(self._hosted.on_call, call)

    def on_receive(self, message: Any) -> Any:
        return self._run(self._hosted.on_receive, message)

    def on_down(self, down: Down) -> None:
        self._run(self._hosted.on_down, down)

    def on_exit(self, signal: Exit) -> None:
        self._run(self._hosted.on_exit, signal)

    def on_terminate(self, reason: ExitReason) -> None:
        self._run(self._hosted.on_terminate, reason)

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._hosted is not None and not self._lane.is_busy:
            self._run(self._hosted.on_failure, exception_type, exception_value, traceback)

    def _after_end(self, _down: Down) -> None:
        self._lane.end()

    def status(self) -> Mapping[str, Any]:
        """Return what the class shows of itself. Never switches."""
        shown = dict(self._hosted.status()) if self._hosted is not None else {}
        return {**shown, "run_in": "thread"}
