"""Two daemons' worth of the same API with one real Redis between them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from actors.integrations import rest
from actors.resilience.breaker import Permit
from actors.resilience.limiter import Admit
from actors.seam import Context
from config.load import load_table
from config.secret import Secret
from regrow.protocol.errors import CircuitOpen, RateLimited, Unavailable, UpstreamError
from supervisors import ChildSpec, Supervisor
from tests.actors.rest.conftest import Start
from tests.support.http_peer import HttpPeer
from tests.support.servers.redis import RedisServer


def other_daemon(url: str, redis_url: str, folder: Path, part: str, **table: object) -> ChildSpec:
    """The part of the same API as another daemon would have it, under a name of its own in this process."""
    config = load_table(rest.Rest, {"base_url": url, **table}, folder, environ={})
    plan = rest.plan("api", config, Context(folder, folder, Secret(redis_url), "other"))
    spec = next(child for child in plan.children if child.id == part)
    spec.name = f"other/{part}"
    return spec


def test_two_daemons_share_the_window(api: Start, http_peer: HttpPeer, redis: RedisServer, tmp_path: Path) -> None:
    http_peer.reply("*", json={})
    limit = {"requests": 3, "window": "1h"}
    made = api(redis_url=redis.url, rate_limit=limit)
    supervisor = Supervisor.start([other_daemon(http_peer.url, redis.url, tmp_path, "limiter", rate_limit=limit)])
    from runtime.names import whereis

    other = whereis("other/limiter")
    assert other is not None
    other.ask(Admit())
    other.ask(Admit())
    made.call("get_user", username="ada")
    with pytest.raises(RateLimited):
        made.call("get_user", username="ada")
    supervisor.stop()


def test_two_daemons_share_the_circuit(api: Start, http_peer: HttpPeer, redis: RedisServer, tmp_path: Path) -> None:
    http_peer.reply("*", status=500)
    breaker = {"failures": 2}
    made = api(redis_url=redis.url, breaker=breaker)
    supervisor = Supervisor.start([other_daemon(http_peer.url, redis.url, tmp_path, "breaker", breaker=breaker)])
    from runtime.names import whereis

    other = whereis("other/breaker")
    assert other is not None
    for _ in range(2):
        with pytest.raises(UpstreamError):
            made.call("get_user", username="ada")
    with pytest.raises(CircuitOpen):
        other.ask(Permit())
    supervisor.stop()


def test_while_redis_is_stopped_calls_go_on_and_after_its_return_it_is_used_again(
    api: Start, http_peer: HttpPeer, redis_server: RedisServer
) -> None:
    http_peer.reply("*", json={})
    made = api(redis_url=redis_server.url, rate_limit={"requests": 1000, "window": "1h"})
    made.call("get_user", username="ada")
    redis_server.stop()
    began = time.monotonic()
    for _ in range(20):
        made.call("get_user", username="ada")
    assert time.monotonic() - began < 1.0
    assert made.part("limiter").actor.status()["redis"] == "down"
    redis_server.start()
    time.sleep(1.05)
    made.call("get_user", username="ada")
    assert made.part("limiter").actor.status()["redis"] == "up"


def test_with_a_closed_policy_a_stopped_redis_refuses_quickly(
    api: Start, http_peer: HttpPeer, redis_server: RedisServer
) -> None:
    http_peer.reply("*", json={})
    made = api(redis_url=redis_server.url, on_redis_down="closed")
    made.call("get_user", username="ada")
    redis_server.stop()
    began = time.monotonic()
    with pytest.raises(Unavailable, match="redis") as caught:
        made.call("get_user", username="ada")
    assert time.monotonic() - began < 0.5
    assert caught.value.started == "no"
    assert http_peer.count() == 1
