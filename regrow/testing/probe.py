"""Probes: an actor that keeps what it is sent, so that a test can wait for messages, exits and downs in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from runtime.actor import Actor
from runtime.promise import AskTimeout, Promise
from runtime.ref import Ref
from runtime.signals import Down, Exit

T = TypeVar("T")
DEFAULT_WAIT_S = 1.0


class _Inside:
    """A function to be run inside the probe's actor, for links and monitors."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function


class _ProbeActor(Actor):
    trap_exit = True

    def __init__(self, probe: Probe) -> None:
        super().__init__()
        self.probe = probe

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, _Inside):
            return message.function()
        self.probe._take(message)
        return self.probe.answer(message) if callable(self.probe.answer) else self.probe.answer

    def on_down(self, down: Down) -> None:
        self.probe._take(down)

    def on_exit(self, signal: Exit) -> None:
        self.probe._take(signal)


class Probe:
    """`probe.ref` is given to the code under test; what arrives there is taken out by `receive`, in order.

    `answer` is what asks get: a value, or a function of the message. `run` executes a function inside the probe's
    actor, which is how a probe links to and monitors others. Use it as a context manager, or call `stop`.
    """

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self._got: deque[Any] = deque()
        self._waiting: Promise | None = None
        self.ref: Ref = _ProbeActor.start(self)

    def receive(self, kind: type[T] | None = None, timeout_s: float = DEFAULT_WAIT_S) -> Any:
        """Return the next message, of class `kind` if one is given.

        Raises AssertionError for another class, or when none came within `timeout_s` seconds. Switches greenlets.
        """
        if not self._got:
            self._waiting = Promise()
            try:
                self._waiting.wait(timeout_s)
            except AskTimeout:
                raise AssertionError(f"no message within {timeout_s:g} s") from None
            finally:
                self._waiting = None
        message = self._got.popleft()
        if kind is not None and not isinstance(message, kind):
            raise AssertionError(f"expected a {kind.__name__}, got {message!r}")
        return message

    def expect_nothing(self) -> None:
        """Fail when a message waits. Never switches; settle the machine first."""
        if self._got:
            raise AssertionError(f"expected no message, got {list(self._got)!r}")

    def run(self, function: Callable[[], Any]) -> Any:
        """Run a function inside the probe's actor and return what it returns. Switches greenlets."""
        return self.ref.ask(_Inside(function))

    def stop(self) -> None:
        """End the probe's actor. Switches greenlets."""
        self.ref.stop()

    def _take(self, message: Any) -> None:
        self._got.append(message)
        if self._waiting is not None:
            self._waiting.resolve(None)

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Probe {self.ref}, {len(self._got)} messages kept>"
