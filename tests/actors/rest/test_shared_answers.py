"""Answers kept in a real Redis, by the fronts of real daemons: who shares them, who never does, and who asks."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import regrow
from actors.integrations import INTEGRATIONS, rest
from actors.resilience.cache import Lookup
from actors.seam import Context
from config.errors import ConfigErrors
from config.load import load, load_table
from config.secret import Secret
from regrow.protocol.errors import UpstreamError
from tests.actors.rest.conftest import Start, outcome
from tests.support.daemon import Daemon
from tests.support.fixtures import StartDaemon
from tests.support.http_peer import HttpPeer, Reply
from tests.support.servers.redis import RedisServer

CACHED = {
    "get_user": {"request": "GET /users/{username}", "cache": "5m"},
    "change": {"request": "PATCH /users/{username}"},
    "own": {"request": "GET /mine", "cache": "5m", "headers": {"token": "Authorization"}},
}
STORE = {"cache_store": "redis", "operations": CACHED}

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


def config(url: str, redis: str, *, token: str = "tok-of-both-0123456789") -> str:
    return f"""
[daemon]
redis = "{redis}"
[integrations.api]
type = "rest"
base_url = "{url}"
auth = {{ bearer = "{token}" }}
cache_store = "redis"
[integrations.api.operations]
get_user = {{ request = "GET /users/{{username}}", cache = "5m" }}
change = {{ request = "PATCH /users/{{username}}" }}
"""


def names(server: RedisServer, what: str) -> list[bytes]:
    with server.connect() as client:
        return sorted(client.keys(f"*:{what}:*"))


def test_two_daemons_ask_a_peer_once_and_hear_of_each_others_changes(
    daemon: StartDaemon, connect: Connect, http_peer: HttpPeer, redis: RedisServer
) -> None:
    http_peer.reply("*", json={"login": "ada"})
    http_peer.reply("GET /users/cold", json={"login": "cold"}, delay_s=0.3)
    here, there = (connect(daemon(config(http_peer.url, redis.url))) for _ in range(2))
    assert here.ask("api", "get_user", username="ada") == {"login": "ada"}
    assert there.ask("api", "get_user", username="ada") == {"login": "ada"}
    assert http_peer.count() == 1

    there.ask("api", "change", username="ada", bio="x")
    here.ask("api", "get_user", username="ada")
    assert http_peer.count("GET /users/ada") == 2

    with ThreadPoolExecutor(20) as pool:
        calls = [pool.submit(client.ask, "api", "get_user", username="cold") for client in (here, there) * 50]
        assert [call.result(10.0) for call in calls] == [{"login": "cold"}] * 100
    assert http_peer.count("GET /users/cold") == 1


def test_daemons_with_different_credentials_never_share_an_answer(
    daemon: StartDaemon, connect: Connect, http_peer: HttpPeer, redis: RedisServer
) -> None:
    http_peer.reply("*", handler=lambda request: Reply(json=request.headers["authorization"]))
    here = connect(daemon(config(http_peer.url, redis.url, token="tok-of-one-0123456789")))
    there = connect(daemon(config(http_peer.url, redis.url, token="tok-of-other-0123456789")))
    for _ in range(2):
        assert here.ask("api", "get_user", username="ada") == "Bearer tok-of-one-0123456789"
        assert there.ask("api", "get_user", username="ada") == "Bearer tok-of-other-0123456789"
    assert http_peer.count() == 2


def test_daemons_answer_while_redis_is_killed_and_share_again_when_it_is_back(
    daemon: StartDaemon, connect: Connect, http_peer: HttpPeer, redis_server: RedisServer
) -> None:
    http_peer.reply("*", json={})
    here, there = (connect(daemon(config(http_peer.url, redis_server.url))) for _ in range(2))
    here.ask("api", "get_user", username="ada")
    redis_server.kill()
    began = time.monotonic()
    for _ in range(20):
        here.ask("api", "get_user", username="ada")
        there.ask("api", "get_user", username="ada")
    assert time.monotonic() - began < 5.0
    # One from memory, the other as a miss and then from its own memory.
    assert http_peer.count() == 2
    redis_server.start()
    time.sleep(1.1)
    here.ask("api", "get_user", username="bob")
    there.ask("api", "get_user", username="bob")
    assert http_peer.count("GET /users/bob") == 1


def test_once_a_change_is_answered_redis_has_forgotten_what_was_before(
    api: Start, http_peer: HttpPeer, redis: RedisServer
) -> None:
    http_peer.reply("*", json={})
    made = api(redis_url=redis.url, **STORE)
    for _ in range(20):
        made.call("get_user", username="ada")
        made.part("cache").ask(Lookup("goes behind what was told"))
        assert len(names(redis, "e")) == 1
        made.call("change", username="ada")
        assert names(redis, "e") == []


def test_bytes_of_somebody_else_in_redis_cost_one_request_and_no_more(
    api: Start, http_peer: HttpPeer, redis: RedisServer
) -> None:
    http_peer.reply("*", json={"login": "ada"})
    made = api(redis_url=redis.url, **STORE)
    made.call("get_user", username="ada")
    with redis.connect() as client:
        for name in names(redis, "e"):
            client.delete(name)
            client.set(name, b"\x81\xa5hello")
    assert [made.call("get_user", username="ada") for _ in range(3)] == [{"login": "ada"}] * 3
    assert http_peer.count() == 2


# The Redis client leaves the socket of a connect that a kill cut off to the garbage collector, which closes it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_cache_actor_that_is_killed_fails_no_call(api: Start, http_peer: HttpPeer, redis: RedisServer) -> None:
    http_peer.reply("*", json={"login": "ada"}, delay_s=0.02)
    made = api(redis_url=redis.url, **STORE)
    calls = []
    for number in range(30):
        calls += [made.begin("get_user", username=f"user{number % 5}") for _ in range(10)]
        made.part("cache").kill()
    assert [outcome(call) for call in calls] == [{"login": "ada"}] * 300
    assert made.call("get_user", username="user0") == {"login": "ada"}
    gc.collect()


@pytest.mark.parametrize("reply", [{"status": 500}, {"json": {}, "headers": {"Cache-Control": "no-store"}}])
def test_whoever_asked_in_vain_leaves_the_asking_to_others(
    api: Start, http_peer: HttpPeer, redis: RedisServer, reply: dict[str, Any]
) -> None:
    http_peer.reply("*", **reply)
    made = api(redis_url=redis.url, **STORE)
    try:
        made.call("get_user", username="ada")
    except UpstreamError:
        pass
    made.part("cache").ask(Lookup("goes behind what was told"))
    assert names(redis, "l") == []


def test_one_that_may_not_ask_leaves_it_to_others_too(api: Start, http_peer: HttpPeer, redis: RedisServer) -> None:
    made = api(redis_url=redis.url, **STORE)
    made.part("breaker").call("open")
    with pytest.raises(regrow.CircuitOpen):
        made.call("get_user", username="ada")
    made.part("cache").ask(Lookup("goes behind what was told"))
    assert names(redis, "l") == []


def test_no_name_in_redis_shows_a_credential_or_an_argument(
    api: Start, http_peer: HttpPeer, redis: RedisServer
) -> None:
    http_peer.reply("*", json={}, headers={"Cache-Control": "public, max-age=60"})
    made = api(redis_url=redis.url, auth={"bearer": "${TOKEN}"}, **STORE)
    made.call("get_user", username="ada", secret="hush-hush")
    made.call("own", token="Bearer of-a-caller")
    with redis.connect() as client:
        everything = b" ".join(client.keys("*"))
        for name in client.keys("*meta") + client.keys("*index"):
            kind = client.type(name)
            everything += b" ".join(client.hgetall(name) if kind == b"hash" else client.zrange(name, 0, -1))
    assert len(names(redis, "e")) == 2
    for secret in (b"tok-secret", b"hush", b"of-a-caller", b"ada"):
        assert secret not in everything


@pytest.mark.parametrize(("control", "kept"), [("max-age=60", 0), ("public, max-age=60", 2)])
def test_answers_to_callers_own_credentials_are_shared_only_between_the_same_and_if_the_peer_allows_it(
    api: Start, http_peer: HttpPeer, redis: RedisServer, control: str, kept: int
) -> None:
    http_peer.reply("*", handler=lambda r: Reply(json=r.headers["authorization"], headers={"Cache-Control": control}))
    made = api(redis_url=redis.url, **STORE)
    for token in ("Bearer one", "Bearer two", "Bearer one"):
        assert made.call("own", token=token) == token
    made.part("cache").ask(Lookup("goes behind what was told"))
    assert len(names(redis, "e")) == kept
    assert http_peer.count() == (2 if kept else 3)


def place_of(folder: Path, **table: object) -> str:
    """Under which name in Redis the answers of such an API lie."""
    config = load_table(
        rest.Rest, {"base_url": "https://api.test", "cache_store": "redis", **table}, folder, environ={}
    )
    plan = rest.plan("api", config, Context(folder, folder, Secret("redis://127.0.0.1:1/0"), "test"))
    (shared,) = [child.args[2] for child in plan.children if child.id == "cache"]
    return repr(shared)


def test_whatever_changes_what_the_peer_answers_is_another_place(tmp_path: Path) -> None:
    hmac = {"secret": "k1", "message": "{body}"}
    tables: list[dict[str, object]] = [
        {},
        {"base_url": "https://other.test"},
        {"auth": {"bearer": "a"}},
        {"auth": {"bearer": "b"}},
        {"auth": {"basic": {"username": "a", "password": "b"}}},
        {"auth": {"api_key": "a", "query": "key"}},
        {"auth": {"api_key": "a", "query": "other"}},
        {"auth": {"hmac": hmac}},
        {"auth": {"hmac": {**hmac, "secret": "k2"}}},
        {"auth": {"oauth2": {"token_url": "https://t.test", "client_id": "a", "client_secret": "s"}}},
        {"auth": {"oauth2": {"token_url": "https://t.test", "client_id": "b", "client_secret": "s"}}},
        {"headers": {"X-Tenant": "1"}},
        {"headers": {"X-Tenant": "2"}},
    ]
    assert len({place_of(tmp_path, **table) for table in tables}) == len(tables)
    assert place_of(tmp_path, timeout="1s") == place_of(tmp_path)


def test_it_needs_the_redis_of_the_daemon(tmp_path: Path) -> None:
    file = tmp_path / "regrow.toml"
    text = '[integrations.api]\ntype = "rest"\nbase_url = "https://x"\ncache_store = "redis"\n'
    file.write_text(text)
    with pytest.raises(ConfigErrors) as caught:
        load(file, INTEGRATIONS)
    (error,) = caught.value.errors
    assert (error.key, error.line) == ("integrations.api.cache_store", 4)
    assert "redis in [daemon]" in error.problem
    file.write_text(f'[daemon]\nredis = "redis://localhost/0"\n{text}')
    assert load(file, INTEGRATIONS).integrations["api"].config.cache_store == "redis"
