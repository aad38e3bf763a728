"""Every part alone, around a call that no integration makes: the example of examples/guarded at a real peer."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gevent
import pytest
from gevent import subprocess
from gevent.server import StreamServer

from actors.resilience.guarded import RETRIES
from actors.resilience.limiter import DECISIONS
from regrow.protocol.errors import ConnectionFailed, DecodeError
from regrow.resilience import Item
from regrow.testing import ManualClock
from runtime.ref import Ref
from supervisors import Supervisor
from tests.actors.resilience.conftest import found
from tests.support.ports import free_port

EXAMPLE = Path(__file__).parents[3] / "examples" / "guarded" / "quotes.py"


class Exchange:
    """A peer with a protocol of its own: a line of symbols in, a line of prices out."""

    def __init__(self) -> None:
        self.port = free_port()
        self.asked: list[list[str]] = []
        self.hang_ups = 0
        self.short = False
        self._server: StreamServer | None = None

    def start(self) -> None:
        self._server = StreamServer(("127.0.0.1", self.port), self._serve)
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(timeout=1)
            self._server = None

    def _serve(self, connection: Any, _: Any) -> None:
        with connection, connection.makefile() as lines:
            symbols = lines.readline().split()
            self.asked.append(symbols)
            if self.hang_ups:
                self.hang_ups -= 1
                return
            prices = [str(len(symbol) * 1.5) for symbol in symbols]
            connection.sendall(f"{' '.join(prices[:-1] if self.short else prices)}\n".encode())


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    made = Exchange()
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("guarded_quotes", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["guarded_quotes"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def quotes(example: ModuleType, exchange: Exchange) -> Iterator[Ref]:
    supervisor = Supervisor.start(children=example.parts("127.0.0.1", exchange.port), max_restarts=100)
    yield found("quotes")
    supervisor.stop()


def price(symbol: str = "ACME") -> Any:
    return found("quotes").call("price", {"symbol": symbol}, timeout=5.0)


def test_it_runs_as_its_readme_says(exchange: Exchange) -> None:
    command = [sys.executable, "-m", "gevent.monkey", str(EXAMPLE), "127.0.0.1", str(exchange.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "one price: 6.0\nmany at once: [6.0, 10.5, 7.5, 12.0]\n"
    assert exchange.asked == [["ACME"], ["ACME", "INITECH", "HOOLI", "UMBRELLA"]]


def test_the_cache_spares_the_peer_and_stands_in_while_it_is_away(quotes: Ref, exchange: Exchange) -> None:
    with ManualClock() as clock:
        assert [price(), price()] == [6.0, 6.0]
        assert exchange.asked == [["ACME"]]
        clock.advance(11)
        exchange.stop()
        begun = gevent.spawn(price)
        while not begun.ready():  # the pauses between its tries
            clock.advance(0.02)
            gevent.sleep(0.001)
        assert begun.get(timeout=5) == 6.0
        exchange.start()
        clock.advance(1)
        assert price() == 6.0
        assert exchange.asked == [["ACME"]] * 2


def test_a_call_that_the_peer_hangs_up_on_is_tried_again(quotes: Ref, exchange: Exchange) -> None:
    exchange.hang_ups = 2
    before = RETRIES.value("quotes"), DECISIONS.value("quotes", "admitted")
    assert price() == 6.0
    assert exchange.asked == [["ACME"]] * 3
    assert RETRIES.value("quotes") == before[0] + 2
    assert DECISIONS.value("quotes", "admitted") == before[1] + 3


def test_many_callers_are_one_line_at_the_peer(quotes: Ref, exchange: Exchange) -> None:
    batcher = found("quotes/batcher")
    calls = [gevent.spawn(batcher.ask, Item("A" * length), timeout=5.0) for length in range(1, 21)]
    gevent.joinall(calls, raise_error=True)
    assert [call.value for call in calls] == [length * 1.5 for length in range(1, 21)]
    assert [len(symbols) for symbols in exchange.asked] == [20]


def test_an_error_of_the_call_goes_to_all_of_the_batch(quotes: Ref, exchange: Exchange) -> None:
    exchange.short = True
    batcher = found("quotes/batcher")
    calls = [gevent.spawn(batcher.ask, Item(symbol), timeout=5.0) for symbol in ("A", "B")]
    gevent.joinall(calls)
    assert [type(call.exception) for call in calls] == [DecodeError] * 2


def test_the_breaker_opens_and_later_lets_a_probe_through(quotes: Ref, exchange: Exchange) -> None:
    exchange.stop()
    with pytest.raises(ConnectionFailed):
        price()
    assert found("quotes/breaker").actor.status()["circuit"] == "open"
    exchange.start()
    gevent.sleep(0.6)
    assert price() == 6.0
    gevent.sleep(0.01)  # nobody waits for the outcome
    assert found("quotes/breaker").actor.status()["circuit"] == "closed"


@pytest.mark.parametrize("part", ["limiter", "breaker", "cache"])
def test_a_part_that_crashes_fails_no_call(quotes: Ref, exchange: Exchange, part: str) -> None:
    for symbol in ("A", "BB", "CCC"):
        found(f"quotes/{part}").kill()
        assert price(symbol) == len(symbol) * 1.5
    assert found("quotes").serial == quotes.serial
