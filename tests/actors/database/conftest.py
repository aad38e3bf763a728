"""A database integration without a daemon: the plan's actors, each under its own name, stopped after the test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest
from gevent.event import Event

from actors.database.operation import OperationConfig
from actors.integrations.database import DatabaseConfig, plan
from actors.seam import Context
from config.schema import DatabaseUrl
from runtime import clock, events
from runtime.messages import Call
from runtime.names import whereis
from runtime.promise import ClientPromise, Promise
from runtime.ref import Ref, spawn
from tests.support.servers.postgres import PostgresDatabase, PostgresServer

LONG = 10.0


class Database:
    """One planned and started database called `db`."""

    def __init__(self, config: DatabaseConfig, folder: Path) -> None:
        self.config = config
        self.events: list[events.Event] = []
        self._happened = Event()
        self._unsubscribe = events.subscribe(self._on_event)
        self.plan = plan("db", config, Context(folder, folder, None, "test"))
        self.refs: list[Ref] = []
        for child in self.plan.children:
            self.refs.append(spawn(child.start, child.args, child.kwargs, name=child.name))

    @property
    def front(self) -> Ref:
        return self.part("db")

    def part(self, name: str) -> Ref:
        ref = whereis(name)
        assert ref is not None, f"{name} is not there"
        return ref

    def ask(self, operation: str, timeout: float = LONG, **arguments: Any) -> Any:
        checked = self.plan.exports[operation].check(arguments)
        return self.front.call(operation, checked, timeout=timeout)

    def ask_later(self, operation: str, timeout: float = LONG, client: str = "", **arguments: Any) -> Promise:
        promise = ClientPromise(client, deadline=clock.now() + timeout)
        self.front.request(Call(operation, arguments), promise)
        return promise

    def status(self) -> dict[str, Any]:
        return dict(self.front.actor.status())

    def connection_status(self, index: int = 1) -> dict[str, Any]:
        return dict(self.part(f"db/connection-{index}").actor.status())

    def wait_for(self, topic: str, count: int = 1) -> None:
        """Wait until so many events of the topic have come."""
        with gevent.Timeout(LONG, AssertionError(f"no {topic} within {LONG:g} s")):
            while sum(event.topic == topic for event in self.events) < count:
                self._happened.clear()
                self._happened.wait()

    def forget_events(self) -> None:
        self.events.clear()

    def stop(self) -> None:
        self._unsubscribe()
        for ref in reversed(self.refs):
            if ref.is_alive():
                ref.stop()

    def _on_event(self, event: events.Event) -> None:
        self.events.append(event)
        self._happened.set()


def _written(kind: Any, value: object) -> Any:
    return kind.parse(value)


StartDatabase = Callable[..., Database]


@pytest.fixture
def start_database(tmp_path: Path) -> Iterator[StartDatabase]:
    """`start_database(url, {"name": "SELECT 1", "other": {"sql": ..., "kind": "one"}}, pool_size=2)`."""
    started: list[Database] = []

    def start(url: str, operations: dict[str, Any], **keys: Any) -> Database:
        named = {
            name: msgspec.convert(each if isinstance(each, dict) else {"sql": each}, OperationConfig, dec_hook=_written)
            for name, each in operations.items()
        }
        config = DatabaseConfig(url=DatabaseUrl.parse(url, tmp_path), operations=named, **keys)
        started.append(Database(config, tmp_path))
        return started[-1]

    yield start
    for database in started:
        database.stop()


@pytest.fixture(scope="session")
def _breakable_server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def postgres_server(_breakable_server: PostgresServer) -> Iterator[PostgresServer]:
    """A running server to be stopped and frozen at will; its folder is made once for all tests that break it."""
    _breakable_server.start()
    yield _breakable_server
    _breakable_server.stop("immediate")


_schemas = itertools.count(1)


@pytest.fixture(scope="session")
def shared_database(postgres: PostgresServer) -> PostgresDatabase:
    """One database for all tests that need no more than a schema of their own."""
    return postgres.create_database()


@pytest.fixture
def postgres_schema(shared_database: PostgresDatabase) -> PostgresDatabase:
    """An empty schema, where connections of its url are at home; made in a hundredth of a database's time."""
    schema = f"test_{next(_schemas)}"
    with shared_database.connect() as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    return PostgresDatabase(schema, f"{shared_database.url}?options=-csearch_path%3D{schema}")


@pytest.fixture(params=["postgresql", "sqlite"])
def engine_url(request: pytest.FixtureRequest, shared_database: PostgresDatabase) -> str:
    """An empty database of either engine; for PostgreSQL an empty schema, which takes a hundredth of the time."""
    # the server is asked for by name and not when needed: it must be there before the leak guard looks
    if request.param == "sqlite":
        return "sqlite:///folder/test.db"
    schema = f"test_{next(_schemas)}"
    with shared_database.connect() as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    return f"{shared_database.url}?options=-csearch_path%3D{schema}"
