"""Logins and servers that change: rotated passwords, failover, notifications, health, setup and teardown."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import psycopg
import pytest

from actors.database.engine import Lost
from actors.database.postgres_login import PostgresLogin
from config.schema import DatabaseUrl
from config.secret import Secret
from regrow.protocol.errors import ConnectionFailed, DatabaseError
from runtime import clock, events
from runtime.actor import Actor
from runtime.names import whereis
from runtime.ref import Ref
from supervisors import ChildSpec, Supervisor
from tests.actors.database.conftest import Database, StartDatabase
from tests.support.servers.postgres import PostgresDatabase, PostgresServer

ONE = {"sql": "SELECT 1", "kind": "value"}
PORT = {"sql": "SHOW port", "kind": "value"}
PID = {"sql": "SELECT pg_backend_pid()", "kind": "value"}
NO_BREAKER: dict[str, Any] = {"breaker": None}


# -- passwords


@pytest.fixture
def role(postgres_schema: PostgresDatabase) -> Iterator[str]:
    """A user whose password the test changes."""
    name = f"rotating_{postgres_schema.name}"
    with postgres_schema.connect() as admin:
        admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'first-secret'")
        yield name
        admin.execute(f"DROP ROLE {name}")


def url_of(database: PostgresDatabase, role: str) -> str:
    parts = psycopg.conninfo.conninfo_to_dict(database.url)
    return f"postgresql://{role}@127.0.0.1:{parts['port']}/{parts['dbname']}"


def test_a_rotated_password_is_read_at_the_next_connection(
    start_database: StartDatabase, postgres_schema: PostgresDatabase, role: str, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("first-secret\n")
    url = url_of(postgres_schema, role)
    database = start_database(url, {"pid": PID, "one": ONE}, pool_size=1, password_file=file, **NO_BREAKER)
    pid = database.ask("pid")

    with postgres_schema.connect() as admin:
        admin.execute(f"ALTER ROLE {role} PASSWORD 'second-secret'")
        file.write_text("second-secret\n")
        admin.execute("SELECT pg_terminate_backend(%s, 2000)", (pid,))

    assert database.ask("pid") != pid
    assert "secret" not in f"{database.status()} {database.connection_status()} {database.config!r} {database.events}"


def test_a_login_refused_while_the_file_is_written_is_tried_with_the_new_password(
    start_database: StartDatabase,
    postgres_schema: PostgresDatabase,
    role: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "password"
    file.write_text("an-old-secret")
    connect = psycopg.connect
    passwords: list[Any] = []

    def connect_and_rotate(*args: Any, **keys: Any) -> Any:
        # the file changes between its reading and the server's answer
        passwords.append(keys["password"])
        file.write_text("first-secret")
        return connect(*args, **keys)

    monkeypatch.setattr(psycopg, "connect", connect_and_rotate)
    url = url_of(postgres_schema, role)
    # nothing is kept open, so that the login is that of the call
    database = start_database(url, {"one": ONE}, pool_size=1, min_size=0, password_file=file, **NO_BREAKER)

    assert database.ask("one") == 1
    assert passwords == ["an-old-secret", "first-secret"]
    assert not [event for event in database.events if event.topic == "database.connection_lost"]


def test_a_password_file_that_is_not_there_is_named(
    start_database: StartDatabase, postgres_schema: PostgresDatabase, tmp_path: Path
) -> None:
    url = url_of(postgres_schema, "regrow")
    database = start_database(url, {"one": ONE}, pool_size=1, password_file=tmp_path / "nothing", **NO_BREAKER)

    with pytest.raises(ConnectionFailed, match=r"nothing cannot be read: No such file") as caught:
        database.ask("one")

    assert caught.value.started == "no"


# -- several hosts


class Standby(PostgresServer):
    """A real standby: a copy of a running primary that follows it, and takes no writes until it is promoted."""

    def __init__(self, primary: PostgresServer) -> None:
        self._primary = primary
        super().__init__()
        self.password = primary.password

    def promote(self) -> None:
        with psycopg.connect(self.url(), autocommit=True) as admin:
            assert admin.execute("SELECT pg_promote()").fetchone() == (True,)

    def _initialise(self) -> None:
        source = ["--host=127.0.0.1", f"--port={self._primary.port}", f"--username={self.user}"]
        kind = ["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
        self._run_program(["pg_basebackup", *source, *kind, f"--pgdata={self._data}"])

    def _environment(self) -> dict[str, str]:
        return super()._environment() | {"PGPASSWORD": self._primary.password}


@pytest.fixture
def standby(postgres_server: PostgresServer) -> Iterator[Standby]:
    server = Standby(postgres_server)
    with server:
        yield server


def both(standby: Standby, primary: PostgresServer, parameters: str) -> str:
    hosts = f"127.0.0.1:{standby.port},127.0.0.1:{primary.port}"
    return f"postgresql://regrow:{primary.password}@{hosts}/postgres?{parameters}"


def test_writes_follow_the_primary_when_it_fails_over(
    start_database: StartDatabase, postgres_server: PostgresServer, standby: Standby
) -> None:
    url = both(standby, postgres_server, "target_session_attrs=read-write")
    database = start_database(url, {"port": PORT, "one": ONE}, pool_size=1, **NO_BREAKER)
    assert database.ask("port") == str(postgres_server.port), "the first host takes no writes"

    postgres_server.stop()
    with pytest.raises(ConnectionFailed, match="none of 2 attempts led to a server"):
        database.ask("one")
    standby.promote()

    assert database.ask("port") == str(standby.port)


def test_a_primary_that_takes_no_writes_any_more_is_left_for_the_new_one(
    start_database: StartDatabase, postgres_server: PostgresServer, standby: Standby
) -> None:
    operations = {"write": {"sql": "CREATE TABLE IF NOT EXISTS moved (a int)", "kind": "execute"}, "port": PORT}
    url = both(standby, postgres_server, "target_session_attrs=read-write")
    database = start_database(url, operations, pool_size=1, **NO_BREAKER)
    database.ask("write")
    assert database.ask("port") == str(postgres_server.port)
    with psycopg.connect(postgres_server.url(), autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        admin.execute("SELECT pg_reload_conf()")
        try:
            standby.promote()
            _until_it_reads_only(admin)

            assert database.ask("write") == {"rowcount": 0}

            assert database.ask("port") == str(standby.port)
        finally:
            admin.execute("ALTER SYSTEM RESET default_transaction_read_only")


def _until_it_reads_only(session: psycopg.Connection[Any]) -> None:
    # the server tells its sessions one by one, and nobody when it is done
    with gevent.Timeout(5.0):
        while session.execute("SHOW default_transaction_read_only").fetchone() != ("on",):
            gevent.sleep(0.01)


def test_each_kind_of_session_leads_to_its_host(postgres_server: PostgresServer, standby: Standby) -> None:
    def port_of(wanted: str) -> int:
        url = both(standby, postgres_server, f"target_session_attrs={wanted}")
        with PostgresLogin(DatabaseUrl(url), "test").connect(5.0) as connection:
            return connection.info.port

    first, second = standby.port, postgres_server.port

    assert port_of("any") == first
    assert port_of("primary") == second
    assert port_of("read-write") == second
    assert port_of("standby") == first
    assert port_of("prefer-standby") == first
    standby.stop("immediate")
    assert port_of("prefer-standby") == second
    with pytest.raises(Lost):
        port_of("standby")


def test_hosts_are_tried_in_random_order_where_the_url_says_so(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    parts = psycopg.conninfo.conninfo_to_dict(postgres_schema.url)
    hosts = f"127.0.0.1:{parts['port']},localhost:{parts['port']}"
    url = f"postgresql://{parts['user']}:{parts['password']}@{hosts}/{parts['dbname']}"

    def first_hosts(parameters: str) -> set[str]:
        found = set()
        for _ in range(30):
            with PostgresLogin(DatabaseUrl(url + parameters), "test").connect(5.0) as connection:
                found.add(connection.info.host)
        return found

    assert first_hosts("") == {"127.0.0.1"}
    assert first_hosts("?load_balance_hosts=random") == {"127.0.0.1", "localhost"}


def test_a_host_that_does_not_answer_costs_its_own_time_only(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    parts = psycopg.conninfo.conninfo_to_dict(postgres_schema.url)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = f"127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{parts['port']}"
        url = f"postgresql://{parts['user']}:{parts['password']}@{hosts}/{parts['dbname']}"
        began = clock.now()
        database = start_database(url, {"one": ONE}, pool_size=1, connect_timeout=0.3, **NO_BREAKER)

        assert database.ask("one") == 1
        assert clock.now() - began < 2.0


# -- notifications


def test_notifications_become_events(start_database: StartDatabase, postgres_schema: PostgresDatabase) -> None:
    database = start_database(postgres_schema.url, {"one": ONE}, pool_size=1, listen=["orders", 'odd "name"'])
    database.wait_for("database.listening")

    with postgres_schema.connect() as other:
        other.execute("SELECT pg_notify('orders', 'number 5')")
        other.execute("SELECT pg_notify('elsewhere', '')")
        other.execute("SELECT pg_notify('odd \"name\"', '')")
    database.wait_for("database.notified", 2)

    assert notified(database) == [("orders", "number 5"), ('odd "name"', "")]
    assert database.part("db/listener").actor.status()["notified"] == 2


def test_a_secret_in_a_notification_is_not_published(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    secret = Secret("a-secret-of-the-configuration")
    database = start_database(postgres_schema.url, {}, listen=["orders"])
    database.wait_for("database.listening")

    with postgres_schema.connect() as other:
        other.execute("SELECT pg_notify('orders', %s)", (f"key {secret.reveal()}",))
    database.wait_for("database.notified")

    assert notified(database) == [("orders", "key ***")]


def test_many_notifications_at_once_all_arrive_in_order(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    database = start_database(postgres_schema.url, {}, listen=["orders"])
    database.wait_for("database.listening")

    with postgres_schema.connect() as other:
        other.execute("SELECT pg_notify('orders', i::text) FROM generate_series(1, 1000) i")
    database.wait_for("database.notified", 1000)

    assert [payload for _channel, payload in notified(database)] == [str(number) for number in range(1, 1001)]


def test_a_listener_listens_again_after_its_server_was_away(
    start_database: StartDatabase, postgres_server: PostgresServer
) -> None:
    database = start_database(postgres_server.url(), {}, listen=["orders"], min_size=0, **NO_BREAKER)
    database.wait_for("database.listening")
    postgres_server.stop()
    database.wait_for("database.connection_lost")
    assert database.part("db/listener").actor.status()["state"] == "waiting"

    postgres_server.start()
    database.wait_for("database.listening", 2)
    with psycopg.connect(postgres_server.url(), autocommit=True) as other:
        other.execute("NOTIFY orders, 'again'")
    database.wait_for("database.notified")

    assert notified(database) == [("orders", "again")]
    assert [event.fields["again"] for event in database.events if event.topic == "database.listening"] == [False, True]


def notified(database: Database) -> list[tuple[str, str]]:
    return [
        (event.fields["channel"], event.fields["payload"])
        for event in database.events
        if event.topic == "database.notified"
    ]


# -- those who cannot work without it


class Needy(Actor):
    """Asks the database when it starts and for each message, and crashes when that fails."""

    def on_start(self) -> None:
        self.on_receive("start")
        events.publish("needy.started")

    def on_receive(self, message: object) -> None:
        database = whereis("db")
        assert database is not None
        try:
            database.call("one", timeout=5.0)
        except ConnectionFailed as error:
            raise RuntimeError("I cannot work without my database") from error


@pytest.mark.allow_leaks("timer")  # the wait of the crashed child ends by itself
def test_who_waits_for_the_database_starts_when_it_is_back_and_spends_no_restarts(
    start_database: StartDatabase, postgres_server: PostgresServer
) -> None:
    database = start_database(postgres_server.url(), {"one": ONE}, pool_size=1, **NO_BREAKER)
    needy = ChildSpec("needy", Needy, name="needy", depends_on=["db"], on_dependency_down="wait")
    root: Ref = Supervisor.start([needy], max_restarts=0, max_seconds=5)
    try:
        database.wait_for("needy.started")
        postgres_server.stop()
        child = whereis("needy")
        assert child is not None
        child.tell("work")
        database.wait_for("database.connection_lost")

        postgres_server.start()

        database.wait_for("needy.started", 2)
        assert root.is_alive()
    finally:
        root.stop()


# -- health, setup and teardown


def test_the_teardown_runs_when_the_pool_stops(start_database: StartDatabase, engine_url: str) -> None:
    setup = ["CREATE TABLE IF NOT EXISTS sessions (name TEXT)", "INSERT INTO sessions VALUES ('ours')"]
    operations = {"count": {"sql": "SELECT count(*) FROM sessions", "kind": "value"}}
    first = start_database(engine_url, operations, setup=setup, teardown=["DELETE FROM sessions"])
    assert first.ask("count") == 1

    first.stop()

    second = start_database(engine_url, operations)
    assert second.ask("count") == 0


def test_a_teardown_that_fails_is_told_and_the_pool_stops(start_database: StartDatabase, engine_url: str) -> None:
    told: list[events.Event] = []
    unsubscribe = events.subscribe(told.append)
    database = start_database(engine_url, {"one": ONE}, teardown=["SELECT 1", "DELETE FROM nowhere"])
    database.ask("one")

    database.stop()

    unsubscribe()
    failed = [event.fields for event in told if event.topic == "database.teardown_failed"]
    assert [fields["statement"] for fields in failed] == [2]
    assert "nowhere" in failed[0]["error"]


def test_a_connection_that_fails_its_health_check_is_replaced(start_database: StartDatabase, engine_url: str) -> None:
    operations = {
        "hurt": {"sql": "DROP TABLE fit", "kind": "execute"},
        "heal": {"sql": "CREATE TABLE fit (a INT)", "kind": "execute"},
    }
    database = start_database(
        engine_url,
        operations,
        setup=["CREATE TABLE IF NOT EXISTS fit (a INTEGER)"],
        health_check="SELECT a FROM fit",
        check_interval=0.1,
        pool_size=1,
        **NO_BREAKER,
    )
    database.ask("hurt")

    database.wait_for("database.connection_lost")

    lost = next(event for event in database.events if event.topic == "database.connection_lost")
    assert "the health check failed" in lost.fields["error"]


def test_a_database_that_is_away_is_unhealthy_in_tree_and_metrics(
    start_database: StartDatabase, postgres_server: PostgresServer
) -> None:
    from actors.database import metrics

    database = start_database(postgres_server.url(), {"one": ONE}, pool_size=1, **NO_BREAKER)
    database.ask("one")
    assert database.status()["health"] == "healthy"
    assert metrics.HEALTHY.cell("db").value == 1

    postgres_server.stop()
    with pytest.raises((ConnectionFailed, DatabaseError)):
        database.ask("one")

    assert (database.status()["health"], database.status()["state"]) == ("unhealthy", "waiting")
    assert metrics.HEALTHY.cell("db").value == 0
    postgres_server.start()
    database.ask("one")
    gevent.sleep(0)
    assert database.status()["health"] == "healthy"
