"""An actor of your own that guards a call of its own: no integration, no configuration file, no daemon.

The peer speaks a protocol that regrow has never heard of: a line with symbols goes out, a line with prices comes back.
`Quotes` asks it through a limiter, a breaker and retries; what it has heard is kept for a while and stands in while the
peer is away; and a batcher before it makes one line of what many callers want at once.

Sockets must wait as greenlets do, so start it with `python -m gevent.monkey examples/guarded/quotes.py HOST PORT`.
"""

from __future__ import annotations

import socket
import sys

import gevent

from regrow import Actor, ChildSpec, ConnectionFailed, DecodeError, Supervisor, exported
from regrow.resilience import (
    Batch,
    Batcher,
    Breaker,
    BreakerPolicy,
    Cache,
    CircuitTable,
    Duration,
    Guarded,
    Item,
    Limiter,
    QuotaTable,
    RatePolicy,
    RetryPolicy,
    Shelf,
    Try,
    cached,
    clock,
    whereis,
)

CALL_LIMIT_S = 5.0
LONGEST_LINE = 65_536


class Quotes(Actor):
    """Prices of shares, each at most ten seconds old; while the exchange is away, at most an hour."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self.address = (host, port)
        self.guarded = Guarded(
            "quotes",
            limiter="quotes/limiter",
            breaker="quotes/breaker",
            retry=RetryPolicy(retries=2, base=Duration("20ms")),
            patience_s=1.0,
        )

    @exported
    def price(self, symbol: str) -> float:
        """The price of one share."""
        return cached(
            "quotes/cache",
            symbol,
            lambda: self.ask([symbol])[0],
            fresh_s=10.0,
            stale_s=3600.0,
            deadline=clock.now() + self.remaining_s(CALL_LIMIT_S),
        )

    def on_receive(self, message: object) -> list[float]:
        """What many callers wanted at once, from the batcher."""
        if not isinstance(message, Batch):
            raise TypeError(f"quotes got a message of type {type(message).__name__}")
        return self.ask(list(message.items))

    def ask(self, symbols: list[str]) -> list[float]:
        """One guarded call: limiter, breaker, the call itself, its outcome to the breaker, and again if need be."""
        return self.guarded.run(
            lambda current: self.call(symbols, current),
            deadline=clock.now() + self.remaining_s(CALL_LIMIT_S),
            ends=clock.now() + CALL_LIMIT_S,
            repeatable=lambda error: True,  # asking twice for a price harms nobody
        )

    def call(self, symbols: list[str], current: Try) -> list[float]:
        """One try; typed errors say what went wrong, and everything else is a crash that the supervisor heals."""
        try:
            with socket.create_connection(self.address, timeout=current.limit_s) as connection:
                connection.sendall(f"{' '.join(symbols)}\n".encode())
                line = connection.makefile().readline(LONGEST_LINE)
        except OSError as error:
            raise ConnectionFailed(f"no answer from the exchange: {type(error).__name__}") from error
        if not line.endswith("\n"):
            raise ConnectionFailed("the exchange hung up before its answer was whole")
        prices = line.split()
        if len(prices) != len(symbols):
            raise DecodeError(f"{len(symbols)} prices were asked for, {len(prices)} came")
        return [float(price) for price in prices]


def parts(host: str, port: int) -> list[ChildSpec]:
    """The tree: each part is an actor of its own, is restarted alone, and finds the others by name."""
    rate = RatePolicy(requests=50, window=Duration("1s"))
    breaker = BreakerPolicy(failures=3, reset_after=Duration("500ms"))
    return [
        ChildSpec("limiter", Limiter, args=("quotes", rate, QuotaTable()), name="quotes/limiter"),
        ChildSpec("breaker", Breaker, args=("quotes", breaker, CircuitTable()), name="quotes/breaker"),
        ChildSpec("cache", Cache, args=("quotes", Shelf(max_bytes=1 << 20)), name="quotes/cache"),
        ChildSpec("quotes", Quotes, args=(host, port), name="quotes"),
        ChildSpec(
            "batcher",
            Batcher,
            args=("quotes", "quotes"),
            kwargs={"max_size": 20, "max_delay_s": 0.02},
            name="quotes/batcher",
        ),
    ]


def main(host: str, port: int) -> None:
    """Ask the exchange at that address for some prices, one by one and many at once."""
    supervisor = Supervisor.start(children=parts(host, port))
    quotes, batcher = whereis("quotes"), whereis("quotes/batcher")
    assert quotes is not None
    assert batcher is not None
    print("one price:", quotes.call("price", {"symbol": "ACME"}))
    symbols = ["ACME", "INITECH", "HOOLI", "UMBRELLA"]
    asking = [gevent.spawn(batcher.ask, Item(symbol), timeout=5.0) for symbol in symbols]
    gevent.joinall(asking, raise_error=True)
    print("many at once:", [each.value for each in asking])
    supervisor.stop()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
