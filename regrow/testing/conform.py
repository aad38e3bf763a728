"""The actor that `regrow conform` needs: one method for each role that its checks know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import Meta

from runtime import clock
from runtime.actor import Actor, exported

MAX_WAIT_S = 10.0
MAX_COUNT = 100_000


class Target(Actor):
    """Answers, waits, counts and streams; touches nothing else, so a daemon in service may have one."""

    def __init__(self) -> None:
        self._ticks = 0

    @exported
    def echo(self, value: Any = None) -> Any:
        """Give back what came."""
        return value

    @exported
    def wait(self, seconds: Annotated[float, Meta(ge=0, le=MAX_WAIT_S)]) -> float:
        """Answer after so many seconds."""
        clock.sleep(seconds)
        return seconds

    @exported
    def tick(self) -> int:
        """Tell how often this was called."""
        self._ticks += 1
        return self._ticks

    @exported
    def count(self, to: Annotated[int, Meta(ge=0, le=MAX_COUNT)]) -> Iterator[int]:
        """Stream the numbers below `to`."""
        yield from range(to)
