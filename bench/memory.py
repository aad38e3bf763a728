"""What an idle actor costs, supervised by one dynamic supervisor: before and after its first message."""

from __future__ import annotations

import gc
from pathlib import Path
from time import perf_counter

from bench.contestant import Contestant
from bench.core import OTP
from bench.echo import Echo
from bench.question import Case, Goal, Metric, Peer, Question
from supervisors import ChildSpec, DynamicSupervisor, start_dynamic

PAGE_BYTES = 4096

QUESTION = Question(
    name="memory",
    title="memory of an idle actor, supervised",
    cases=[
        Case(
            "100 000 actors",
            {"n": 100_000},
            [
                Metric("idle_bytes", "before its first message", "bytes", goals=[Goal(at_most=1500)]),
                Metric("used_bytes", "after its first message", "bytes", goals=[Goal(at_most=2500)]),
            ],
            quick={"n": 1000},
            rounds=3,
            warm_up=False,
        ),
        Case(
            "1 000 000 actors in one process",
            {"n": 1_000_000},
            [
                Metric("idle_bytes", "before its first message", "bytes", goals=[Goal(at_most=1500)]),
                Metric("used_bytes", "after its first message", "bytes", goals=[Goal(at_most=2500)]),
                Metric("ask_us", "an ask of each in turn", "us"),
            ],
            peers=[],
            quick={"n": 2000},
            rounds=1,
            warm_up=False,
        ),
    ],
    peers=[OTP],
    note="Ours is the growth of the process's resident memory, OTP's that of erlang:memory(total).",
)


def _resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def ours(n: int) -> dict[str, float]:
    """Measure in a fresh process, since memory that an earlier round gave back would be used again unseen."""
    with Contestant(Peer("ours, fresh", "bench.memory", patched=True)) as fresh:
        return fresh.answer("grow", {"n": n})


def grow(n: int) -> dict[str, float]:
    """Start `n` actors, ask each once, and see what the process grew by."""
    boss = DynamicSupervisor.start(ChildSpec("child", Echo, shutdown="brutal_kill"))
    start_dynamic(boss).ask("warm up")
    before = _resident_bytes()
    refs = [start_dynamic(boss) for _ in range(n)]
    idle = _resident_bytes()
    began = perf_counter()
    for ref in refs:
        ref.ask("hello")
    took = perf_counter() - began
    used = _resident_bytes()
    boss.stop(timeout=None)
    return {"idle_bytes": (idle - before) / n, "used_bytes": (used - before) / n, "ask_us": took / n * 1e6}
