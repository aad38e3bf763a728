"""An API inside real daemons, asked over the wire: every fault is one typed answer, and recovery needs no restart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import gevent
import pytest

import regrow
from regrow.protocol.errors import (
    CircuitOpen,
    ConnectionFailed,
    DecodeError,
    InvalidArguments,
    NotFound,
    RateLimited,
    TimedOut,
    UpstreamError,
)
from tests.edge.gateway.harness import Raw
from tests.support.daemon import Daemon
from tests.support.fixtures import StartDaemon
from tests.support.http_peer import HttpPeer
from tests.support.servers.redis import RedisServer

TOKEN = "tok-secret-9876543210"

Connect = Callable[[Daemon], regrow.Client]


@pytest.fixture
def connect() -> Iterator[Connect]:
    clients: list[regrow.Client] = []

    def to(daemon: Daemon) -> regrow.Client:
        clients.append(regrow.connect(daemon.endpoint, timeout=10.0))
        return clients[-1]

    yield to
    for client in clients:
        client.close()


def config(url: str, *, redis: str | None = None, more: str = "") -> str:
    return f"""
[daemon]
name = "orders"
{"" if redis is None else f'redis = "{redis}"'}
[integrations.api]
type = "rest"
base_url = "{url}"
auth = {{ bearer = "${{API_TOKEN}}" }}
retry = {{ retries = 0 }}
{more}
[integrations.api.operations.get_user]
request = "GET /users/{{username}}"
"""


def test_every_fault_of_the_peer_is_one_typed_answer_and_the_next_call_after_recovery_works(
    daemon: StartDaemon, connect: Connect, http_peer: HttpPeer
) -> None:
    more = 'timeout = "300ms"\nbreaker = { failures = 5, reset_after = "500ms" }'
    started = daemon(config(http_peer.url, more=more), env={"API_TOKEN": TOKEN})
    client = connect(started)
    http_peer.reply("GET /users/ada", json={"login": "ada"})
    http_peer.reply("GET /users/slow", hold=True)
    http_peer.reply("GET /users/garbage", raw=b"\x00\x01 no http")
    http_peer.reply("GET /users/undecodable", body=b"<html>", headers={"Content-Type": "application/json"})
    http_peer.reply("GET /users/missing", status=404, json={"message": "Not Found"})
    http_peer.reply("GET /users/echo", status=401, body=f"bad token {TOKEN}".encode())
    assert client.ask("api", "get_user", username="ada") == {"login": "ada"}
    assert http_peer.requests[0].headers["authorization"] == f"Bearer {TOKEN}"

    with pytest.raises(TimedOut):
        client.ask("api", "get_user", username="slow")
    with pytest.raises(ConnectionFailed):
        client.ask("api", "get_user", username="garbage")
    with pytest.raises(DecodeError):
        client.ask("api", "get_user", username="undecodable")
    with pytest.raises(UpstreamError) as missing:
        client.ask("api", "get_user", username="missing")
    assert (missing.value.status, missing.value.body) == (404, {"message": "Not Found"})
    with pytest.raises(UpstreamError) as echoed:
        client.ask("api", "get_user", username="echo")
    assert TOKEN not in str(echoed.value.to_wire())
    with pytest.raises(InvalidArguments):
        client.ask("api", "get_user")
    with pytest.raises(NotFound):
        client.ask("api", "no_such_operation")

    http_peer.stop()
    for _ in range(2):
        with pytest.raises(ConnectionFailed) as down:
            client.ask("api", "get_user", username="ada")
        assert down.value.started == "no"
    with pytest.raises(CircuitOpen) as refused:
        client.ask("api", "get_user", username="ada")
    assert 0 < (refused.value.retry_after_s or 0) <= 0.5

    http_peer.start()
    gevent.sleep(0.6)
    assert client.ask("api", "get_user", username="ada") == {"login": "ada"}
    http_peer.release()

    metrics = started.get("/metrics").text
    assert 'regrow_breaker_transitions_total{actor="api",state="open"} 1.0' in metrics
    assert 'regrow_breaker_state{actor="api",state="closed"} 1.0' in metrics
    assert 'regrow_http_requests_total{actor="api",operation="get_user",outcome="timeout"} 1.0' in metrics
    assert TOKEN not in metrics + started.get("/tree").text + started.log


def test_two_daemons_share_window_and_circuit_through_redis_and_live_through_its_absence(
    daemon: StartDaemon, connect: Connect, http_peer: HttpPeer, redis_server: RedisServer
) -> None:
    text = config(http_peer.url, redis=redis_server.url, more="breaker = { failures = 2 }")
    text += f"""
[integrations.limited]
type = "rest"
base_url = "{http_peer.url}"
rate_limit = {{ requests = 4, window = "1h" }}
[integrations.limited.operations.get_user]
request = "GET /users/{{username}}"
"""
    daemons = [daemon(text, env={"API_TOKEN": TOKEN}) for _ in range(2)]
    first, second = (connect(started) for started in daemons)
    http_peer.reply("GET /users/ada", json={})
    http_peer.reply("GET /users/bad", status=500)

    for client in (first, second) * 2:
        client.ask("limited", "get_user", username="ada")
    for client in (first, second):
        with pytest.raises(RateLimited):
            client.ask("limited", "get_user", username="ada")
        with pytest.raises(UpstreamError):
            client.ask("api", "get_user", username="bad")
    daemons[1].wait_for_log("breaker.opened")
    for client in (first, second):
        with pytest.raises(CircuitOpen):
            client.ask("api", "get_user", username="ada")
    assert http_peer.count() == 6

    redis_server.stop()
    began = time.monotonic()
    for client in (first, second):
        assert client.ask("limited", "get_user", username="ada") == {}
    assert time.monotonic() - began < 3.0

    redis_server.start()
    gevent.sleep(1.1)
    for client in (first, second) * 2:
        client.ask("limited", "get_user", username="ada")
    with pytest.raises(RateLimited):
        first.ask("limited", "get_user", username="ada")


@pytest.mark.parametrize("algorithm", ["sliding_window", "token_bucket"])
def test_a_modest_client_is_served_beside_one_that_floods(
    daemon: StartDaemon, http_peer: HttpPeer, algorithm: str
) -> None:
    http_peer.reply("*", json={})
    # 50 a second either way: ten calls take 0.2 s alone, twice that beside one other client, 10 s behind its 500 calls.
    limit = {
        "sliding_window": 'rate_limit = { requests = 1, window = "20ms" }',
        "token_bucket": 'rate_limit = { requests = 50, window = "1s", algorithm = "token_bucket", burst = 1 }',
    }[algorithm]
    started = daemon(config(http_peer.url, more=f"concurrency = 5\n{limit}"), env={"API_TOKEN": TOKEN})
    with Raw(started.endpoint) as flood, Raw(started.endpoint) as modest:
        for number in range(500):
            flood.ask("get_user", {"username": f"f{number}"}, to="api", deadline_ms=30_000)
        flood.reply()
        before = http_peer.count()
        began = time.monotonic()
        for number in range(10):
            modest.ask("get_user", {"username": f"m{number}"}, to="api", deadline_ms=30_000)
        assert [modest.reply() for _ in range(10)] == [{}] * 10
        took_s = time.monotonic() - began
    # Twice its own share, and what held the five workers when it came.
    assert 0.3 < took_s < 1.5
    assert http_peer.count() - before <= 35
