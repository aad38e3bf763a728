"""psycopg_pool's ConnectionPool under greenlets: no actor, no deadline, no breaker."""

from __future__ import annotations

import os
from typing import Any

from psycopg_pool import ConnectionPool

from bench.callers import per_second

CONNECTIONS = 10
_pool: Any = None


def _select() -> int:
    with _pool.connection() as connection:
        value: int = connection.execute("select 1").fetchone()[0]
    return value


def database(n: int, callers: int) -> dict[str, float]:
    """Measure `select 1` per second."""
    global _pool
    if _pool is None:
        _pool = ConnectionPool(
            os.environ["BENCH_DATABASE"], min_size=CONNECTIONS, max_size=CONNECTIONS, kwargs={"autocommit": True}
        )
        _pool.wait()
    return {"per_s": per_second(_select, n, callers)}


def close() -> None:
    if _pool is not None:
        _pool.close()
