"""REST calls through cache, limiter, breaker, bulkhead and workers, against a bare session that has none of it."""

from __future__ import annotations

import os
from typing import Any

from bench.callers import p99_ms, per_second, steady
from bench.question import Case, Goal, Metric, Peer, Question
from bench.served import served
from bench.tree import Tree
from runtime.messages import Call

CONCURRENCY = 50


_BARE = "bare requests.Session"

QUESTION = Question(
    name="rest",
    title="REST call",
    cases=[
        Case(
            f"concurrency {CONCURRENCY}",
            {"n": 3000},
            [Metric("per_s", "calls", "per second", lower_is_better=False, goals=[Goal(_BARE, at_least=0.85)])],
            quick={"n": 100},
        ),
        Case(
            "at about half load, 500 a second",
            {"rate": 500.0, "seconds": 3.0},
            [Metric("p99_ms", "p99 of a call, from when it was due", "ms", goals=[Goal(_BARE, added_at_most=2)])],
            quick={"rate": 100.0, "seconds": 0.5},
        ),
    ],
    peers=[Peer(_BARE, "bench.peers.bare_session", needs="requests gevent", patched=True)],
    rounds=4,
    note="Both against the same small server on the same two cores; both decode the JSON body.",
    around=lambda: served("bench.peers.http_origin", "BENCH_ORIGIN"),
)

_tree: Any = None


def _call() -> Any:
    return _tree.front.ask(Call("get_user", {"username": "ada"}), timeout=30).value


def ours(n: int = 0, rate: float = 0.0, seconds: float = 0.0) -> dict[str, float]:
    """Measure calls per second, or with a rate the 99th centile at it."""
    global _tree
    if _tree is None:
        table = {
            "base_url": os.environ["BENCH_ORIGIN"],
            "concurrency": CONCURRENCY,
            "rate_limit": {"requests": 1_000_000, "window": "1s"},
            "operations": {"get_user": {"request": "GET /users/{username}"}},
        }
        _tree = Tree("rest", "api", table)
    if rate:
        return {"p99_ms": p99_ms(steady(_call, rate, seconds))}
    return {"per_s": per_second(_call, n, CONCURRENCY)}


def close() -> None:
    if _tree is not None:
        _tree.stop()
