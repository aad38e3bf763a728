"""prometheus_client as its documentation shows it: the text is made where the request is served, on the hub."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from bench.metrics import watched

_made: dict[int, CollectorRegistry] = {}


def metrics(series: int, scrapes: int) -> dict[str, float]:
    """Scrape so often, and watch the hub."""
    if series not in _made:
        registry = _made[series] = CollectorRegistry()
        calls = Counter("calls", "calls", ("actor", "outcome"), registry=registry)
        for number in range(series - 100):
            calls.labels(f"actor-{number // 5}", f"outcome-{number % 5}").inc()
        waits = Histogram("wait_seconds", "waits", ("actor",), registry=registry)
        for number in range(100):
            waits.labels(f"actor-{number}").observe(number / 100)
    return watched(lambda: generate_latest(_made[series]), scrapes)
