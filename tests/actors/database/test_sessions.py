"""What a connection is made of: its name, its limits, its transactions, and what it keeps prepared."""

from __future__ import annotations

import os
import socket
from typing import Any

import gevent
import psycopg
import pytest

from actors.database import metrics
from actors.database.engine import Setup
from actors.database.postgres import PostgresEngine, PostgresSettings
from actors.database.postgres_login import PostgresLogin
from config.schema import DatabaseUrl
from regrow.protocol.errors import DatabaseError
from tests.actors.database.conftest import StartDatabase
from tests.support.servers.postgres import PostgresDatabase

ONE = {"sql": "SELECT 1", "kind": "value"}


def test_the_server_ends_a_statement_by_itself_soon_after_its_deadline(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    # whoever is killed in the middle of a statement can cancel nothing
    limit = {"sql": "SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'", "kind": "value"}
    operations = {"limit": limit, "short_limit": limit | {"timeout": "2s"}}
    database = start_database(postgres_schema.url, operations, pool_size=1)

    limits = [database.ask("limit", timeout=seconds) for seconds in (30.0, 3.0, 0.5, 60.0)]

    assert limits == [50_000, 5_000, 1_000, 100_000]
    assert database.ask("short_limit", timeout=60.0) == 5_000


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_an_operation_runs_in_the_isolation_it_names(
    start_database: StartDatabase, postgres_schema: PostgresDatabase, level: str
) -> None:
    shown = {"sql": "SHOW transaction_isolation", "kind": "value"}
    several = {"statements": [shown, shown], "isolation": level, "read_only": True}
    operations = {"one": shown | {"isolation": level}, "several": several, "plain": shown}
    database = start_database(postgres_schema.url, operations, pool_size=1)

    assert database.ask("one") == level
    assert database.ask("several") == [level, level]
    assert database.ask("plain") == "read committed"


PREPARED = {"sql": "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'INSERT%'", "kind": "value"}
ADDING: dict[str, Any] = {
    "add": {"sql": "INSERT INTO t VALUES (:a)", "kind": "execute", "params": {"a": "int"}},
    "add_many": {"sql": "INSERT INTO t VALUES (:a + 1)", "kind": "many", "params": {"a": "int"}},
    "prepared": PREPARED,
}


@pytest.mark.parametrize(("prepare", "expected"), [(True, 2), (False, 0)])
def test_repeated_statements_are_prepared_unless_the_configuration_forbids_it(
    start_database: StartDatabase, postgres_schema: PostgresDatabase, prepare: bool, expected: int
) -> None:
    setup = ["CREATE TABLE IF NOT EXISTS t (a int)"]
    database = start_database(postgres_schema.url, ADDING, setup=setup, pool_size=1, prepare=prepare)

    for number in range(10):
        database.ask("add", a=number)
    database.ask("add_many", rows=[{"a": number} for number in range(20)])

    assert database.ask("prepared") == expected


def test_what_clients_send_is_never_prepared(start_database: StartDatabase, postgres_schema: PostgresDatabase) -> None:
    prepared = {"sql": "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%mine%'", "kind": "value"}
    database = start_database(postgres_schema.url, {"prepared": prepared}, allow_sql="all", pool_size=1)

    for _ in range(20):
        database.ask("sql", statement="SELECT 1 AS mine")

    assert database.ask("prepared") == 0


def test_a_session_has_the_name_of_its_daemon_and_pool_unless_the_url_gives_one(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    name = {"sql": "SHOW application_name", "kind": "value"}
    database = start_database(postgres_schema.url, {"name": name}, pool_size=1)
    assert database.ask("name") == "regrow/test/db"
    database.stop()

    named = start_database(f"{postgres_schema.url}&application_name=shop", {"name": name}, pool_size=1)

    assert named.ask("name") == "shop"


def test_a_silent_network_is_given_up_after_the_configured_time(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    database = start_database(postgres_schema.url, {"one": ONE}, pool_size=1, silence=7.0)
    database.ask("one")

    descriptor = database.part("db/connection-1").actor.engine._connection.pgconn.socket

    own = socket.socket(fileno=os.dup(descriptor))
    try:
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
    finally:
        own.close()


def test_two_daemons_that_set_up_the_same_database_do_not_disturb_each_other(
    postgres_schema: PostgresDatabase,
) -> None:
    statements = ("CREATE TABLE IF NOT EXISTS t (a int)", "SELECT pg_sleep(0.2)")
    login = PostgresLogin(DatabaseUrl(postgres_schema.url), "test")
    engines = [PostgresEngine(PostgresSettings(login, setup=Setup(statements))) for _ in range(2)]

    gevent.joinall([gevent.spawn(engine.open, 5.0) for engine in engines], timeout=10, raise_error=True)

    for engine in engines:
        engine.close()
    with psycopg.connect(postgres_schema.url) as other:
        assert other.execute("SELECT count(*) FROM t").fetchone() == (0,)


@pytest.mark.parametrize(("synchronous", "level"), [("full", 2), ("normal", 1)])
def test_a_connection_to_sqlite_keeps_references_and_writes_as_safely_as_it_is_told(
    start_database: StartDatabase, synchronous: str, level: int
) -> None:
    operations = {
        "mode": {"sql": "PRAGMA journal_mode", "kind": "value"},
        "level": {"sql": "PRAGMA synchronous", "kind": "value"},
        "orphan": {"sql": "INSERT INTO child VALUES (5)", "kind": "execute"},
    }
    setup = ["CREATE TABLE parent (a INTEGER PRIMARY KEY)", "CREATE TABLE child (a REFERENCES parent)"]
    database = start_database("sqlite:///a.db", operations, setup=setup, synchronous=synchronous)

    assert (database.ask("mode"), database.ask("level")) == ("wal", level)
    with pytest.raises(DatabaseError) as caught:
        database.ask("orphan")
    assert caught.value.details["sqlstate"] == "23503"


def test_the_wait_for_a_connection_is_measured(start_database: StartDatabase, engine_url: str) -> None:
    database = start_database(engine_url, {"one": ONE}, pool_size=1)
    cell = metrics.WAIT.cell("db")
    before = sum(cell.counts)

    database.ask("one")

    assert sum(cell.counts) == before + 1
