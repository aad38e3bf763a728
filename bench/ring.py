"""A token that goes round a ring of actors."""

from __future__ import annotations

from typing import Any

from gevent import get_hub
from greenlet import getcurrent

from bench.core import OTP
from bench.question import Case, Goal, Question
from bench.timing import Watch, both
from runtime.actor import Actor

QUESTION = Question(
    name="ring",
    title="ring of 1 000 actors",
    cases=[
        Case(
            "1 000 rounds",
            {"actors": 1000, "n": 1_000_000},
            both("hop", Goal("OTP", at_most=2.5)),
            quick={"actors": 10, "n": 500},
        ),
    ],
    peers=[OTP],
    rounds=7,
    best_of=3,
)


class Member(Actor):
    """Passes the token on, until it has made its hops."""

    def __init__(self, finished: Any) -> None:
        self.next: Any = None
        self.finished = finished

    def on_receive(self, message: Any) -> None:
        if message.__class__ is int:
            if message == 0:
                self.finished()
            else:
                self.next.tell(message - 1)
        else:
            self.next = message


def ours(actors: int, n: int) -> dict[str, float]:
    """Time `n` hops."""
    hub, me = get_hub(), getcurrent()
    refs = [Member.start(lambda: hub.loop.run_callback(me.switch)) for _ in range(actors)]
    for ref, following in zip(refs, [*refs[1:], refs[0]], strict=True):
        ref.ask(following)
    watch = Watch()
    refs[0].tell(n)
    hub.switch()
    watch.stop()
    for ref in refs:
        ref.kill()
    return watch.per(n)
