"""A scrape of 10 000 series: how long the hub is kept from its other work meanwhile."""

from __future__ import annotations

from statistics import quantiles
from time import perf_counter, thread_time
from typing import Any

import gevent
from gevent import get_hub

from bench.question import Case, Goal, Metric, Peer, Question
from runtime.edge.metrics import Metrics
from runtime.measure import Counter, Histogram, Instrument

BEAT_S = 0.001

QUESTION = Question(
    name="metrics",
    title="/metrics with 10 000 series",
    cases=[
        Case(
            "10 000 series, 100 of them histograms",
            {"series": 10_000, "scrapes": 10},
            [
                Metric("gap_ms", "longest time that the hub ran nothing else", "ms", goals=[Goal(at_most=20)]),
                Metric("turn_ms", "longest turn of the hub, in processor time", "ms", goals=[Goal(at_most=20)]),
                Metric("scrape_ms", "scrape", "ms"),
            ],
            quick={"series": 500, "scrapes": 1},
        ),
    ],
    peers=[Peer("prometheus_client on the hub", "bench.peers.stock_metrics", needs="prometheus_client", patched=True)],
    rounds=5,
    note="The gap is the worst of ten scrapes, seen by a greenlet that sleeps 1 ms at a time.",
)

_made: tuple[Metrics, int] | None = None


def ours(series: int, scrapes: int) -> dict[str, float]:
    """Scrape so often, and watch the hub."""
    global _made
    if _made is None or _made[1] != series:
        registry: list[Instrument] = []
        calls = Counter("calls_total", "calls", ("actor", "outcome"), max_series=2 * series, registry=registry)
        for number in range(series - 100):
            calls.inc(f"actor-{number // 5}", f"outcome-{number % 5}")
        waits = Histogram("wait_seconds", "waits", ("actor",), registry=registry)
        for number in range(100):
            waits.observe(number / 100, f"actor-{number}")
        _made = Metrics(lambda: None, version="bench", registry=registry), series
    return watched(_made[0].render, scrapes)


def watched(scrape: Any, scrapes: int) -> dict[str, float]:
    """Return the worst gap and turn of the hub while it scrapes, and the time of a scrape."""
    loop = get_hub().loop
    turns = [0.0, 0.0]
    after_poll, before_poll = loop.check(ref=False), loop.prepare(ref=False, priority=-2)

    def began() -> None:
        turns[1] = thread_time()

    def ended() -> None:
        turns[0] = max(turns[0], thread_time() - turns[1])

    gaps: list[float] = []

    def beat() -> None:
        while True:
            due = perf_counter() + BEAT_S
            gevent.sleep(BEAT_S)
            gaps.append(perf_counter() - due)

    watcher = gevent.spawn(beat)
    gevent.sleep(0.01)
    began()
    after_poll.start(began)
    before_poll.start(ended)
    took = []
    for _ in range(scrapes):
        start = perf_counter()
        scrape()
        took.append(perf_counter() - start)
        gevent.sleep(0.005)
    watcher.kill()
    for handle in (after_poll, before_poll):
        handle.stop()
        handle.close()
    middle = quantiles(took, n=2)[0] if len(took) > 1 else took[0]
    return {"gap_ms": max(gaps) * 1e3, "turn_ms": turns[0] * 1e3, "scrape_ms": middle * 1e3}


def close() -> None:
    if _made is not None:
        _made[0].close()
