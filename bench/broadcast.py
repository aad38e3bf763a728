"""One message to each of 10 000 actors, each of which tells a collector that it came."""

from __future__ import annotations

from typing import Any

from bench.core import OTP
from bench.question import Case, Goal, Question
from bench.timing import Watch, both
from runtime.actor import Actor
from runtime.promise import Promise

QUESTION = Question(
    name="broadcast",
    title="broadcast to 10 000 actors",
    cases=[
        Case(
            "and 10 000 messages back",
            {"actors": 10_000},
            both("one actor's message and its way back", Goal("OTP", at_most=3)),
            quick={"actors": 100},
        ),
    ],
    rounds=7,
    best_of=9,
    peers=[OTP],
)


class Member(Actor):
    def on_receive(self, message: Any) -> None:
        message.tell("back")


class Collector(Actor):
    """Answers `all` once every member told it back."""

    mailbox = 20_000

    def __init__(self, expected: int) -> None:
        self.left = expected
        self.asked: Promise | None = None

    def on_receive(self, message: Any) -> None:
        if message == "back":
            self.left -= 1
        else:
            self.asked = self.defer()
        if self.left == 0 and self.asked is not None:
            self.asked.resolve(None)


def ours(actors: int) -> dict[str, float]:
    """Time one broadcast and its answers."""
    refs = [Member.start() for _ in range(actors)]
    collector = Collector.start(actors)
    watch = Watch()
    for ref in refs:
        ref.tell(collector)
    collector.ask("all")
    watch.stop()
    for ref in [collector, *refs]:
        ref.kill()
    return watch.per(actors)
