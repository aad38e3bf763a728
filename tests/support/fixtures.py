"""The fixtures of the test kit; `tests/support/__init__.py` tells how to use them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import pytest

from tests.support.daemon import Daemon
from tests.support.http_peer import HttpPeer, RawPeer
from tests.support.processes import ChildFailed
from tests.support.servers.postgres import PostgresDatabase, PostgresServer
from tests.support.servers.redis import RedisServer


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The session's PostgreSQL server; never stop it."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres_database(postgres: PostgresServer) -> Iterator[PostgresDatabase]:
    """A fresh database in the session's server."""
    database = postgres.create_database()
    yield database
    postgres.drop_database(database)


@pytest.fixture
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server of the test's own, to be stopped, killed and frozen at will."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def _session_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis(_session_redis: RedisServer) -> Iterator[RedisServer]:
    """The session's Redis server, empty; never stop it."""
    _session_redis.flush()
    yield _session_redis
    _session_redis.flush()


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A Redis server of the test's own, to be stopped, killed and frozen at will."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def http_peer() -> Iterator[HttpPeer]:
    """A scripted HTTP server that listens already."""
    peer = HttpPeer()
    peer.start()
    yield peer
    peer.stop()


@pytest.fixture
def raw_peer() -> Iterator[RawPeer]:
    """A TCP listener that listens already, and is silent until told how to behave."""
    peer = RawPeer()
    peer.start()
    yield peer
    peer.stop()


class StartDaemon(Protocol):
    """What the fixture `daemon` gives: call it, as often as need be, to start a daemon."""

    def __call__(
        self,
        toml: str = "",
        *arguments: str,
        env: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        ready: bool = True,
        measured: bool = True,
    ) -> Daemon: ...


@pytest.fixture
def daemon() -> Iterator[StartDaemon]:
    """Start real daemons; see `tests.support.daemon`."""
    started: list[Daemon] = []

    def start(
        toml: str = "",
        *arguments: str,
        env: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        ready: bool = True,
        measured: bool = True,
    ) -> Daemon:
        made = Daemon(toml, env=env, files=files, measured=measured)
        started.append(made)
        made.start(*arguments, ready=ready)
        return made

    yield start
    failures: list[str] = []
    for made in reversed(started):
        # Shown by pytest when the test failed.
        print(f"--- log of {made!r}\n{made.log}")
        try:
            made.close()
        except ChildFailed as failure:
            failures.append(str(failure))
    if failures:
        pytest.fail("\n".join(failures), pytrace=False)
