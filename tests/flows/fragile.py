"""An actor of the user's for the path of a crash."""

from __future__ import annotations

import gevent.event

from regrow import Actor, exported


class Fragile(Actor):
    """Crashes when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = gevent.event.Event()

    @exported
    def fall(self) -> None:
        """Crash once the test opens the gate."""
        self.gate.wait(5.0)
        raise RuntimeError("fell")

    @exported
    def stand(self) -> str:
        """Answer."""
        return "stands"
