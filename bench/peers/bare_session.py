"""A bare, tuned requests.Session in greenlets: no limiter, no breaker, no deadline, no actor."""

from __future__ import annotations

import os
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from bench.callers import p99_ms, per_second, steady

CONNECTIONS = 50

_session = requests.Session()
_session.trust_env = False
_session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=CONNECTIONS, pool_block=True))


def _get() -> Any:
    answer = _session.get(os.environ["BENCH_ORIGIN"] + "/users/ada", timeout=30)
    answer.raise_for_status()
    return answer.json()


def rest(n: int = 0, rate: float = 0.0, seconds: float = 0.0) -> dict[str, float]:
    """Measure calls per second, or with a rate the 99th centile at it."""
    if rate:
        return {"p99_ms": p99_ms(steady(_get, rate, seconds))}
    return {"per_s": per_second(_get, n, CONNECTIONS)}
