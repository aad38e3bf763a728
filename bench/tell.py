"""Tells, until the last one has been handled."""

from __future__ import annotations

from bench.core import OTP, PYKKA_GEVENT, PYKKA_THREADS
from bench.echo import Echo
from bench.question import Case, Goal, Question, times_faster
from bench.timing import Watch, both
from supervisors import ChildSpec, Supervisor, which_children

QUESTION = Question(
    name="tell",
    title="tell, drained",
    cases=[
        Case(
            "bursts of 5 000",
            {"n": 25_000, "burst": 5000},
            both("tell and its handling", Goal("OTP", at_most=2.5), times_faster("pykka threads", 8)),
            quick={"n": 500, "burst": 100},
        ),
    ],
    rounds=7,
    best_of=9,
    peers=[OTP, PYKKA_THREADS, PYKKA_GEVENT],
    note="A mailbox of ours holds 10 000 messages, so each sender waits for the drain after each burst.",
)


def ours(n: int, burst: int) -> dict[str, float]:
    """Time `n` tells in bursts, each drained by an ask."""
    boss = Supervisor.start([ChildSpec("echo", Echo)])
    echo = which_children(boss)[0][1]
    bursts = n // burst
    watch = Watch()
    for _ in range(bursts):
        for _ in range(burst):
            echo.tell("hello")
        echo.ask("flush")
    watch.stop()
    boss.stop()
    return watch.per(bursts * burst)
