"""concurrent.futures (spawn) and loky, in an unpatched process: calls submitted ahead, a window of them in flight."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from time import perf_counter
from typing import Any

from bench.peers import work

WORKERS = 2
_executors: dict[str, Any] = {}


def futures(n: int, window: int, size: int = 0) -> dict[str, float]:
    """Measure the standard library's pool."""
    if "futures" not in _executors:
        _executors["futures"] = ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn"))
    return _measure(_executors["futures"].submit, n, window, size)


def loky(n: int, window: int, size: int = 0) -> dict[str, float]:
    """Measure loky's reusable pool."""
    if "loky" not in _executors:
        from loky import get_reusable_executor

        _executors["loky"] = get_reusable_executor(max_workers=WORKERS, timeout=600)
    return _measure(_executors["loky"].submit, n, window, size)


def _measure(submit: Callable[..., Future[int]], n: int, window: int, size: int) -> dict[str, float]:
    data = b"x" * size
    call: tuple[Any, ...] = (work.size, data) if size else (work.add, 1, 2)
    expected = size or 3
    in_flight: deque[Future[int]] = deque()
    submit(*call).result()
    began = perf_counter()
    for _ in range(n):
        if len(in_flight) >= window and in_flight.popleft().result() != expected:
            raise RuntimeError("a worker answered wrongly")
        in_flight.append(submit(*call))
    for future in in_flight:
        future.result()
    took = perf_counter() - began
    return {"gb_per_s": n * size / took / 1e9} if size else {"per_s": n / took}


def close() -> None:
    for executor in _executors.values():
        executor.shutdown(wait=True)
