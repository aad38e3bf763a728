"""`select 1` through the pool actor and its connection actors, against psycopg_pool."""

from __future__ import annotations

import os
from typing import Any

from bench.callers import per_second
from bench.question import Case, Goal, Metric, Peer, Question
from bench.served import served
from bench.tree import Tree
from runtime.messages import Call

CONNECTIONS = 10


QUESTION = Question(
    name="database",
    title="database call",
    cases=[
        Case(
            "select 1, 20 callers, 10 connections",
            {"n": 5000, "callers": 20},
            [Metric("per_s", "calls", "per second", lower_is_better=False, goals=[Goal("psycopg_pool", at_least=0.9)])],
            quick={"n": 100},
        ),
    ],
    peers=[Peer("psycopg_pool", "bench.peers.psycopg_pools", needs="psycopg psycopg_pool", patched=True)],
    rounds=7,
    note="The same private PostgreSQL for both. Ours bounds each statement by its deadline.",
    around=lambda: served("bench.peers.postgres_server", "BENCH_DATABASE"),
)

_tree: Any = None


def _select() -> Any:
    return _tree.front.ask(Call("one", {}), timeout=30)


def ours(n: int, callers: int) -> dict[str, float]:
    """Measure calls per second."""
    global _tree
    if _tree is None:
        table = {
            "url": os.environ["BENCH_DATABASE"],
            "pool_size": CONNECTIONS,
            "min_size": CONNECTIONS,
            "operations": {"one": {"sql": "select 1", "kind": "value"}},
        }
        _tree = Tree("database", "db", table)
        if _select() != 1:
            raise RuntimeError("select 1 is not 1")
    return {"per_s": per_second(_select, n, callers)}


def close() -> None:
    if _tree is not None:
        _tree.stop()
