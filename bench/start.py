"""Starting actors under one dynamic supervisor, each start acknowledged before the next."""

from __future__ import annotations

from bench.core import OTP
from bench.echo import Echo
from bench.question import Case, Goal, Question
from bench.timing import Watch, both
from supervisors import ChildSpec, DynamicSupervisor, start_dynamic

QUESTION = Question(
    name="start",
    title="start of an actor",
    cases=[
        Case(
            "10 000 under one dynamic supervisor",
            {"n": 10_000},
            both("start of one", Goal("OTP", at_most=2.5)),
            quick={"n": 100},
        ),
        Case(
            "10 000 that nobody supervises",
            {"n": 10_000, "bare": 1},
            both("start of one"),
            peers=[],
            quick={"n": 100},
        ),
    ],
    rounds=7,
    best_of=5,
    peers=[OTP],
)


def ours(n: int, bare: int = 0) -> dict[str, float]:
    """Time `n` starts."""
    if bare:
        watch = Watch()
        refs = [Echo.start() for _ in range(n)]
        watch.stop()
        for ref in refs:
            ref.kill()
        return watch.per(n)
    boss = DynamicSupervisor.start(ChildSpec("child", Echo, shutdown="brutal_kill"))
    watch = Watch()
    for _ in range(n):
        start_dynamic(boss)
    watch.stop()
    boss.stop(timeout=None)
    return watch.per(n)
