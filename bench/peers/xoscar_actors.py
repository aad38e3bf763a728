"""xoscar: actors of one pool, asked within its own process."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

import xoscar

_loop = asyncio.new_event_loop()
_pool: Any = None


class Echo(xoscar.StatelessActor):
    def echo(self, message: Any) -> Any:
        return message


def ask(n: int, askers: int, measured: int = 0) -> dict[str, float]:
    """Time `n` asks by `askers` tasks of one actor."""
    return _loop.run_until_complete(_ask(max(1, n // askers), askers))


async def _ask(each: int, askers: int) -> dict[str, float]:
    global _pool
    if _pool is None:
        _pool = await xoscar.create_actor_pool("127.0.0.1", n_process=0)
    echo = await xoscar.create_actor(Echo, address=_pool.external_address)

    async def work() -> None:
        for _ in range(each):
            await echo.echo("hello")

    began = perf_counter()
    await asyncio.gather(*(work() for _ in range(askers)))
    took = perf_counter() - began
    await xoscar.destroy_actor(echo)
    return {"us": took / (each * askers) * 1e6}


def close() -> None:
    if _pool is not None:
        _loop.run_until_complete(_pool.stop())
