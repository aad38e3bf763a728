"""The actors that the core questions are asked of."""

from __future__ import annotations

from typing import Any

from runtime.actor import Actor


class Echo(Actor):
    """Answers with what it got."""

    def on_receive(self, message: Any) -> Any:
        return message


class Crasher(Actor):
    """Crashes at the first message; tells `up` of each start."""

    def __init__(self, up: Any = None) -> None:
        self.up = up

    def on_start(self) -> None:
        if self.up is not None:
            self.up(self.ref)

    def on_receive(self, message: Any) -> Any:
        raise RuntimeError("crashed for the bench")
