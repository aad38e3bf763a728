"""The gateway in the tree: it lets the sockets be read while it lives, and carries out the drain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.actor import Actor
from runtime.edge.gateway.sockets import GatewaySockets


class Drain:
    """The message that makes the gateway refuse new work; the answer comes once none is left: asks, told messages, and
    idem work whose askers are gone.

    Work in flight has `timeout_s` seconds, then its asks are answered with cancelled. The answer is how much was left.
    """

    __slots__ = ("timeout_s",)

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s


class Gateway(Actor):
    """The gateway: a crash or restart of it costs no connection and no answer, because the sockets are not its own."""

    timeout = None  # a drain may take as long as the configuration says

    def __init__(self, sockets: GatewaySockets) -> None:
        self._sockets = sockets

    def on_start(self) -> None:
        self._sockets.open()
        self._sockets.read_for(self.ref)

    def on_stop(self) -> None:
        self._sockets.pause()

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Drain):
            self._sockets.begin_drain(message.timeout_s)
            self._sockets.wait_for_work(message.timeout_s)
            left = self._sockets.end_what_is_left()
            self._sockets.flush(1.0)
            return left
        return super().on_receive(message)

    def status(self) -> Mapping[str, Any]:
        return self._sockets.status()
