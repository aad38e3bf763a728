"""How work stops when its caller gives up: an exception thrown into the wait that the work is in."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from gevent import get_hub
from greenlet import getcurrent


class CallerGone(BaseException):
    """Thrown into work that nobody waits for any more. Never leaves the actor that guards it with an `Abort`."""


class Abort:
    """A stretch of work, entered with `with`, that `fire` ends from outside wherever it waits."""

    __slots__ = ("_greenlet",)

    def __init__(self) -> None:
        self._greenlet: Any = None

    def __enter__(self) -> Self:
        self._greenlet = getcurrent()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._greenlet = None

    def fire(self) -> None:
        """End the work at its next turn of the hub; does nothing when it has ended by itself. Never switches."""
        if self._greenlet is not None:
            get_hub().loop.run_callback(self._throw)

    def _throw(self) -> None:
        greenlet, self._greenlet = self._greenlet, None
        if greenlet is not None:
            greenlet.throw(CallerGone())
