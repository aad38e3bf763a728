"""Greenlets that call something: as fast as it goes, or at a steady rate with their waits."""

from __future__ import annotations

from collections.abc import Callable
from statistics import quantiles
from time import perf_counter

import gevent


def per_second(call: Callable[[], object], n: int, callers: int) -> float:
    """Return the calls per second of so many greenlets that make `n` calls together."""
    each = max(1, n // callers)

    def work() -> None:
        for _ in range(each):
            call()

    began = perf_counter()
    gevent.joinall([gevent.spawn(work) for _ in range(callers)], raise_error=True)
    return each * callers / (perf_counter() - began)


def steady(call: Callable[[], object], rate_per_s: float, seconds: float) -> list[float]:
    """Begin a call at every beat whatever the earlier ones do; return each one's seconds from when it was due."""
    waits: list[float] = []
    began = perf_counter()

    def one(due: float) -> None:
        call()
        waits.append(perf_counter() - due)

    running = []
    for number in range(int(rate_per_s * seconds)):
        due = began + number / rate_per_s
        gevent.sleep(max(0.0, due - perf_counter()))
        running.append(gevent.spawn(one, due))
    gevent.joinall(running, raise_error=True)
    return waits


def p99_ms(waits: list[float]) -> float:
    """Return the 99th centile in milliseconds."""
    return quantiles(waits, n=100)[98] * 1e3
