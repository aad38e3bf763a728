"""xoscar: actors of one pool, asked within its own process."""

from __future__ import annotations

import asyncio
from typing import Any

import xoscar

from bench.timing import Watch

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

    watch = Watch()
    await asyncio.gather(*(work() for _ in range(askers)))
    watch.stop()
    await xoscar.destroy_actor(echo)
    return watch.per(each * askers)


def close() -> None:
    if _pool is not None:
        _loop.run_until_complete(_pool.stop())
