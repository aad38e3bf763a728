"""Thespian in its simple system base: actors in the asker's own process."""

from __future__ import annotations

from typing import Any

from thespian.actors import Actor, ActorExitRequest, ActorSystem

from bench.timing import Watch

_system = ActorSystem("simpleSystemBase")


class Echo(Actor):
    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802 - Thespian's name
        if not isinstance(message, ActorExitRequest):
            self.send(sender, message)


def ask(n: int, askers: int, measured: int = 0) -> dict[str, float]:
    """Time `n` asks by the one asker that a system can have."""
    echo = _system.createActor(Echo)
    watch = Watch()
    for _ in range(n):
        _system.ask(echo, "hello", 5)
    watch.stop()
    _system.tell(echo, ActorExitRequest())
    return watch.per(n)


def close() -> None:
    _system.shutdown()
