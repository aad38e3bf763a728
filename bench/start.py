"""Starting actors under one dynamic supervisor, each start acknowledged before the next."""

from __future__ import annotations

from time import perf_counter

from bench.core import OTP
from bench.echo import Echo
from bench.question import Case, Goal, Metric, Question
from supervisors import ChildSpec, DynamicSupervisor, start_dynamic

QUESTION = Question(
    name="start",
    title="start of an actor",
    cases=[
        Case(
            "10 000 under one dynamic supervisor",
            {"n": 10_000},
            [Metric("us", "start of one", "us", goals=[Goal("OTP", at_most=2.5)])],
            quick={"n": 100},
        ),
        Case(
            "10 000 that nobody supervises",
            {"n": 10_000, "bare": 1},
            [Metric("us", "start of one", "us")],
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
        began = perf_counter()
        refs = [Echo.start() for _ in range(n)]
        took = perf_counter() - began
        for ref in refs:
            ref.kill()
        return {"us": took / n * 1e6}
    boss = DynamicSupervisor.start(ChildSpec("child", Echo, shutdown="brutal_kill"))
    began = perf_counter()
    for _ in range(n):
        start_dynamic(boss)
    took = perf_counter() - began
    boss.stop(timeout=None)
    return {"us": took / n * 1e6}
