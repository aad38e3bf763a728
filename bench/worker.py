"""Calls of Python functions in worker processes: small ones, and ones with a megabyte of arguments."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import gevent

from bench.contestant import ROOT
from bench.question import Case, Goal, Metric, Peer, Question
from bench.tree import Tree
from runtime.messages import Call

WORKERS = 2
_GOALS = [Goal("concurrent.futures", at_least=3), Goal("loky", at_least=3)]

QUESTION = Question(
    name="worker",
    title="Python worker call",
    cases=[
        Case(
            "small, 1 caller",
            {"n": 2000, "window": 1},
            [Metric("per_s", "calls", "per second", lower_is_better=False, goals=_GOALS)],
            quick={"n": 20},
        ),
        Case(
            "small, 100 callers",
            {"n": 5000, "window": 100},
            [Metric("per_s", "calls", "per second", lower_is_better=False, goals=_GOALS)],
            quick={"n": 200},
        ),
        Case(
            "1 MB of arguments, 4 callers",
            {"n": 300, "window": 4, "size": 1_000_000},
            [Metric("gb_per_s", "arguments", "GB/s", lower_is_better=False, goals=[Goal(at_least=0.8)])],
            quick={"n": 8},
        ),
    ],
    peers=[
        Peer("concurrent.futures", "bench.peers.process_pools", function="futures"),
        Peer("loky", "bench.peers.process_pools", needs="loky", function="loky"),
    ],
    rounds=5,
    note="Two worker processes each; the peers run in an unpatched process.",
)

_tree: Any = None


def ours(n: int, window: int, size: int = 0) -> dict[str, float]:
    """Measure calls through the pool's front actor."""
    global _tree
    if _tree is None:
        table = {"functions": ["bench.peers.work:*"], "path": [str(ROOT)], "workers": WORKERS, "max_calls": 100_000_000}
        _tree = Tree("python", "ml", table)
    args: list[Any] = [b"x" * size] if size else [1, 2]
    function = "bench.peers.work:size" if size else "bench.peers.work:add"
    expected = size or 3

    def work(each: int) -> None:
        for _ in range(each):
            answer = _tree.front.ask(Call("call", {"function": function, "args": args, "kwargs": {}}), timeout=30)
            if answer != expected:
                raise RuntimeError(f"a worker answered {answer!r}")

    work(WORKERS)
    each = max(1, n // window)
    began = perf_counter()
    gevent.joinall([gevent.spawn(work, each) for _ in range(window)], raise_error=True)
    took = perf_counter() - began
    return {"gb_per_s": each * window * size / took / 1e9} if size else {"per_s": each * window / took}


def close() -> None:
    if _tree is not None:
        _tree.stop()
