"""Monitors of 10 000 actors, which are then killed: until the last Down has been handled."""

from __future__ import annotations

from typing import Any

from bench.core import OTP
from bench.echo import Echo
from bench.question import Case, Goal, Question
from bench.timing import Watch, both
from runtime.actor import Actor
from runtime.promise import Promise
from runtime.signals import Down, monitor

QUESTION = Question(
    name="monitor",
    title="monitor and Down of 10 000 actors",
    cases=[
        Case(
            "monitored, killed, all heard of",
            {"actors": 10_000},
            both("monitor, kill and Down of one", Goal("OTP", at_most=3)),
            quick={"actors": 100},
        ),
    ],
    rounds=7,
    best_of=7,
    peers=[OTP],
)


class Watcher(Actor):
    """Monitors, and answers once it has heard of all of them."""

    mailbox = 20_000  # Downs are never refused, so they fill the mailbox that the last question must still enter

    def __init__(self) -> None:
        self.left = 0
        self.asked: Promise | None = None

    def on_receive(self, message: Any) -> Any:
        if message == "all heard":
            self.asked = self.defer()
            self._answer()
            return None
        for ref in message:
            monitor(ref)
        self.left = len(message)
        return None

    def on_down(self, down: Down) -> None:
        self.left -= 1
        self._answer()

    def _answer(self) -> None:
        if self.left == 0 and self.asked is not None:
            self.asked.resolve(None)


def ours(actors: int) -> dict[str, float]:
    """Time monitors, kills and Downs."""
    refs = [Echo.start() for _ in range(actors)]
    watcher = Watcher.start()
    watch = Watch()
    watcher.ask(refs)
    for ref in refs:
        ref.kill()
    watcher.ask("all heard")
    watch.stop()
    watcher.kill()
    return watch.per(actors)
