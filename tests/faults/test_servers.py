"""PostgreSQL and Redis stopped and started again under a daemon that stays up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from regrow import CircuitOpen, ConnectionFailed, DatabaseError, RateLimited, RegrowError, Unavailable, UpstreamError
from tests.faults.conftest import Caller
from tests.support.daemon import Daemon
from tests.support.fixtures import StartDaemon
from tests.support.http_peer import HttpPeer
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.redis import RedisServer

POSTGRES = """
[integrations.shop]
type = "database"
url = "{url}"
pool_size = 2
timeout = "10s"
[integrations.shop.operations.add]
sql = "INSERT INTO orders (customer) VALUES (:customer)"
kind = "execute"
params = {{ customer = "text" }}
[integrations.shop.operations.count]
sql = "SELECT count(*) FROM orders"
kind = "value"
[integrations.shop.operations.sleep]
sql = "SELECT 1 FROM pg_sleep(:seconds)"
kind = "value"
params = {{ seconds = "float" }}
"""
PEER = """
[integrations.{name}]
type = "rest"
base_url = "{url}"
concurrency = 2
on_redis_down = "{down}"
retry = {{ retries = 0 }}
rate_limit = {{ requests = {requests}, window = "1h" }}
breaker = {{ failures = 3, reset_after = "1h" }}
[integrations.{name}.operations.get]
request = "GET /thing"
[integrations.{name}.operations.bad]
request = "GET /bad"
"""
SHARED = """
[daemon]
redis = "{redis}"
"""


@pytest.fixture
def callers() -> Iterator[list[Caller]]:
    made: list[Caller] = []
    yield made
    for each in made:
        each.close()


def caller_of(served: Daemon, callers: list[Caller]) -> Caller:
    made = Caller(served)
    callers.append(made)
    return made


@pytest.mark.slow
def test_postgresql_is_stopped_during_a_statement_and_started_again(
    daemon: StartDaemon, postgres_server: PostgresServer, callers: list[Caller]
) -> None:
    database = postgres_server.create_database()
    with database.connect() as connection:
        connection.execute("CREATE TABLE orders (id serial PRIMARY KEY, customer text NOT NULL)")
    served = daemon(POSTGRES.format(url=database.url))
    caller = caller_of(served, callers)
    assert caller.ask("shop", "add", customer="Ada") == {"rowcount": 1}
    # The statement is seen to run by a connection of the test's own before the server goes away.
    pending = caller.later("shop", "sleep", seconds=60.0)
    with database.connect() as connection:
        while not connection.execute("SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep($1)%'").fetchone():
            connection.execute("SELECT pg_sleep(0.01)")
        connection.execute("CHECKPOINT")  # the test's server writes lazily, and what follows is a crash
    postgres_server.stop("immediate")
    cut_off = pending.value()
    assert isinstance(cut_off, ConnectionFailed | DatabaseError), repr(cut_off)
    assert cut_off.started in ("yes", "unknown")
    for _ in range(3):
        refused = failure(caller, "shop", "count")
        assert isinstance(refused, ConnectionFailed | Unavailable | CircuitOpen), repr(refused)
        assert refused.started == "no"
    postgres_server.start()
    assert caller.recovered("shop", "count") == 1
    assert served.is_running()


def failure(caller: Caller, target: str, method: str) -> RegrowError:
    value = caller.later(target, method).value()
    assert isinstance(value, RegrowError), repr(value)
    return value


def test_while_redis_is_stopped_the_open_policy_goes_on_and_the_closed_one_refuses(
    daemon: StartDaemon, redis_server: RedisServer, http_peer: HttpPeer, callers: list[Caller]
) -> None:
    http_peer.reply("GET /thing", json={"ok": True}, close=True)
    peers = [
        PEER.format(name=name, url=http_peer.url, down=down, requests=1000)
        for name, down in (("free", "open"), ("strict", "closed"))
    ]
    served = daemon(SHARED.format(redis=redis_server.url) + "".join(peers))
    caller = caller_of(served, callers)
    assert caller.ask("free", "get") == caller.ask("strict", "get") == {"ok": True}
    redis_server.stop()
    for _ in range(3):
        assert caller.ask("free", "get") == {"ok": True}
        assert caller.error(Unavailable, "strict", "get").started == "no"
    redis_server.start()
    assert caller.recovered("strict", "get") == {"ok": True}
    assert caller.ask("free", "get") == {"ok": True}
    assert served.is_running()


def test_two_daemons_share_a_window_and_a_circuit_through_one_redis(
    daemon: StartDaemon, redis: RedisServer, http_peer: HttpPeer, callers: list[Caller]
) -> None:
    http_peer.reply("GET /thing", json={"ok": True}, close=True)
    http_peer.reply("GET /bad", status=503, close=True)
    peers = [
        PEER.format(name=name, url=http_peer.url, down="closed", requests=requests)
        for name, requests in (("limited", 3), ("broken", 1000))
    ]
    toml = SHARED.format(redis=redis.url) + "".join(peers)
    one, other = (caller_of(daemon(toml), callers) for _ in range(2))
    assert [each.ask("limited", "get") for each in (one, other, one)] == [{"ok": True}] * 3
    for each in (one, other):
        limited = each.error(RateLimited, "limited", "get")
        assert limited.started == "no"
        assert limited.retry_after_s is not None
    assert http_peer.count("GET /thing") == 3
    for each in (one, other, one):
        each.error(UpstreamError, "broken", "bad")
    for each in (other, one):
        assert each.error(CircuitOpen, "broken", "bad").started == "no"
    assert http_peer.count("GET /bad") == 3
