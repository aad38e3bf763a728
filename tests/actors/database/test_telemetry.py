"""What is told of statements: each that began has ended, whatever became of it."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import psycopg
import pytest

from regrow.protocol.errors import ConnectionFailed, RegrowError
from runtime import telemetry
from runtime.telemetry import CallEvent
from tests.actors.database.conftest import Database, StartDatabase
from tests.support.servers.postgres import PostgresDatabase


@pytest.fixture
def told() -> Iterator[list[CallEvent]]:
    seen: list[CallEvent] = []
    telemetry.attach("test", seen.append)
    yield seen
    telemetry.detach("test")
    telemetry.forget("db")


def _ask_until_connected(database: Database) -> None:
    """Which of several connections gets the only place is a race that the others lose first."""
    while True:
        try:
            database.ask("sleep", seconds=0.0)
        except ConnectionFailed:
            gevent.sleep(0.01)
        else:
            return


def test_a_call_that_came_back_into_the_line_and_was_refused_there_has_ended_too(
    start_database: StartDatabase, postgres_schema: PostgresDatabase, told: list[CallEvent]
) -> None:
    with postgres_schema.connect() as other:
        other.execute("DROP ROLE IF EXISTS one; CREATE ROLE one LOGIN PASSWORD 'one-secret' CONNECTION LIMIT 1")
    parts = psycopg.conninfo.conninfo_to_dict(postgres_schema.url)
    url = f"postgresql://one:one-secret@127.0.0.1:{parts['port']}/{parts['dbname']}"
    sleep = {"sql": "SELECT pg_sleep(:seconds)::text", "kind": "value", "params": {"seconds": "float"}}
    database = start_database(url, {"sleep": sleep}, pool_size=3, queue_timeout=0.2)

    _ask_until_connected(database)
    told.clear()

    def ask() -> str:
        try:
            database.ask("sleep", seconds=0.6)
        except RegrowError as error:
            return error.code
        return "ok"

    callers = [gevent.spawn(ask) for _ in range(3)]
    gevent.joinall(callers, timeout=10)

    assert sorted(str(caller.value) for caller in callers) == ["ok", "overloaded", "overloaded"]
    began = sum(event.kind == "start" for event in told)
    assert sorted(event.outcome or "" for event in told if event.kind != "start")[:1] == ["ok"]
    assert began == sum(event.kind != "start" for event in told)
