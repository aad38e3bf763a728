"""Actors for the tests of the core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runtime.actor import Actor
from runtime.signals import Down, Exit


class Doer(Actor):
    """Does what it is sent: calls functions with itself, raises exceptions, returns anything else."""

    def __init__(self, *, trap_exit: bool = False, log: list[Any] | None = None) -> None:
        super().__init__()
        self.trap_exit = trap_exit
        self.log: list[Any] = [] if log is None else log

    def on_stop(self) -> None:
        self.log.append("on_stop")

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        self.log.append(("on_failure", exception_type, exception_value, traceback))

    def on_down(self, down: Down) -> None:
        self.log.append(("down", down.ref, str(down.reason)))

    def on_exit(self, signal: Exit) -> None:
        self.log.append(("exit", signal.sender, str(signal.reason)))

    def on_idle(self) -> None:
        self.log.append("on_idle")

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, BaseException):
            raise message
        return message(self) if callable(message) else message


class Failing(Actor):
    """Fails to start, in `__init__` or in `on_start`."""

    def __init__(self, error: BaseException, where: str = "on_start") -> None:
        super().__init__()
        self.error = error
        if where == "__init__":
            raise error

    def on_start(self) -> None:
        raise self.error


class Terminating(Actor):
    """Hears why it stops, and does something about it."""

    def __init__(self, hook: Callable[[Any], object], *, trap_exit: bool = False) -> None:
        super().__init__()
        self.hook = hook
        self.trap_exit = trap_exit

    def on_terminate(self, reason: Any) -> None:
        self.hook(reason)
