"""What happens to callers, connections and statements when something breaks; on real servers that really break."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import gevent
import psycopg
import pytest
from gevent.server import StreamServer

from actors.database import connection, metrics
from actors.database.values import size_of
from actors.resilience.policy import BreakerPolicy
from config.schema import PositiveDuration
from regrow.protocol.errors import (
    Cancelled,
    CircuitOpen,
    ConnectionFailed,
    DatabaseError,
    DeadlineExceeded,
    Overloaded,
    RegrowError,
    TimedOut,
    TooLarge,
    Unavailable,
)
from runtime import clock
from runtime.names import whereis
from tests.actors.database.conftest import Database, StartDatabase
from tests.support.servers.postgres import PostgresDatabase, PostgresServer

ONE = {"sql": "SELECT 1", "kind": "value"}
PID = {"sql": "SELECT pg_backend_pid()", "kind": "value"}
SLEEP = {"sql": "SELECT pg_sleep(:seconds)", "kind": "value"}
SLEEP_READ_ONLY = {"sql": "SELECT pg_sleep(:seconds)", "kind": "value", "read_only": True}
#: counts for ever in SQLite, and for a long time in PostgreSQL
ENDLESS = {
    "sql": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000000) "
    "SELECT count(*) FROM n",
    "kind": "value",
}
NO_BREAKER: dict[str, Any] = {"breaker": None}


def error_of(database: Database, operation: str, **arguments: Any) -> RegrowError:
    with pytest.raises(RegrowError) as caught:
        database.ask(operation, **arguments)
    return caught.value


# -- deadlines and callers that give up


def test_the_caller_is_answered_at_its_deadline_and_the_statement_is_cut_off(
    start_database: StartDatabase, engine_url: str
) -> None:
    database = start_database(engine_url, {"endless": ENDLESS, "one": ONE}, pool_size=1)
    database.ask("one")
    began = clock.now()

    with pytest.raises(DeadlineExceeded) as caught:
        database.ask("endless", timeout=0.2)

    assert caught.value.started == "yes"
    assert clock.now() - began < 1.0
    assert database.ask("one") == 1
    assert clock.now() - began < 2.0, "the connection was free soon after the deadline"
    assert [event.topic for event in database.events] == ["database.connected"], "and is the same one"


def test_a_statement_that_was_cut_off_leaves_the_same_connection_usable(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    database = start_database(postgres_schema.url, {"sleep": SLEEP, "pid": PID}, pool_size=1)
    before = database.ask("pid")

    with pytest.raises(DeadlineExceeded):
        database.ask("sleep", timeout=0.2, seconds=30)

    assert database.ask("pid") == before
    with postgres_schema.connect() as other:
        running = other.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(%' AND state = 'active'"
        )
        assert running.fetchone() == (1,), "only the question itself"


def test_an_operation_has_a_timeout_of_its_own(start_database: StartDatabase, engine_url: str) -> None:
    database = start_database(engine_url, {"endless": ENDLESS | {"timeout": "150ms"}, "one": ONE}, pool_size=1)

    error = error_of(database, "endless")

    assert isinstance(error, TimedOut)
    assert "timeout of 0.15 s" in str(error)
    assert database.ask("one") == 1


def test_a_caller_that_cancels_stops_the_statement(start_database: StartDatabase, engine_url: str) -> None:
    database = start_database(engine_url, {"endless": ENDLESS, "one": ONE}, pool_size=1)
    database.ask("one")
    promise = database.ask_later("endless")
    gevent.sleep(0.1)
    began = clock.now()

    promise.cancel()

    assert isinstance(promise.error, Cancelled)
    assert database.ask("one") == 1
    assert clock.now() - began < 2.0


def test_a_deadline_in_the_middle_of_many_rows_keeps_none(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    operations = {
        "add": {"sql": "INSERT INTO t SELECT :a::int FROM (SELECT pg_sleep(0.05)) s", "kind": "many"},
        "count": {"sql": "SELECT count(*) FROM t", "kind": "value"},
    }
    setup = ["CREATE TABLE IF NOT EXISTS t (a int)"]
    database = start_database(postgres_schema.url, operations, setup=setup, pool_size=1)
    database.ask("count")

    with pytest.raises(DeadlineExceeded):
        database.ask("add", timeout=0.3, rows=[{"a": number} for number in range(100)])

    assert database.ask("count") == 0


def test_a_job_that_ran_out_of_time_before_its_connection_took_it_leaves_the_connection_usable(
    start_database: StartDatabase, postgres_server: PostgresServer
) -> None:
    keys = {"pool_size": 1, "check_interval": 0.2, "connect_timeout": 20.0}
    database = start_database(postgres_server.url(), {"one": ONE}, **keys, **NO_BREAKER)
    database.ask("one")
    postgres_server.sigstop()
    gevent.sleep(0.5)  # the connection asks the frozen server for a sign of life, and takes no jobs
    promises = [database.ask_later("one", timeout=0.1) for _ in range(3)]
    with pytest.raises(DeadlineExceeded) as caught:
        promises[0].wait(5.0)

    postgres_server.sigcont()

    assert caught.value.started == "yes", "the front had taken it"
    assert database.ask("one") == 1
    assert [promise.done for promise in promises] == [True] * 3


def test_a_cancelled_caller_in_the_line_is_passed_over(start_database: StartDatabase, engine_url: str) -> None:
    database = start_database(engine_url, {"endless": ENDLESS, "one": ONE}, pool_size=1)
    first = database.ask_later("endless", timeout=0.5)
    second = database.ask_later("endless")
    gevent.sleep(0.05)

    second.cancel()

    assert database.ask("one") == 1, "the second one did not run"
    assert isinstance(first.error, DeadlineExceeded)


def test_the_hub_is_free_while_a_statement_runs(start_database: StartDatabase, engine_url: str) -> None:
    database = start_database(engine_url, {"endless": ENDLESS}, pool_size=1)
    ticks = []

    def tick() -> None:
        while True:
            ticks.append(clock.now())
            gevent.sleep(0.01)

    ticker = gevent.spawn(tick)
    with pytest.raises(DeadlineExceeded):
        database.ask("endless", timeout=0.5)
    ticker.kill()

    assert max(later - earlier for earlier, later in pairwise(ticks)) < 0.4


# -- the line


def test_callers_wait_in_order_for_a_connection(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    database = start_database(postgres_schema.url, {"sleep": SLEEP}, pool_size=1)
    answered: list[int] = []
    promises = [database.ask_later("sleep", seconds=0.02) for _ in range(5)]
    for number, promise in enumerate(promises):
        promise.callback = lambda _promise, number=number: answered.append(number)

    database.ask("sleep", seconds=0)

    assert answered == [0, 1, 2, 3, 4]


def test_a_client_with_many_callers_costs_another_client_one_turn(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    database = start_database(postgres_schema.url, {"sleep": SLEEP}, pool_size=1)
    answered: list[str] = []
    database.ask("sleep", seconds=0)
    for name in ("flood",) * 20 + ("modest",) * 2:
        promise = database.ask_later("sleep", client=name, seconds=0.01)
        promise.callback = lambda _promise, name=name: answered.append(name)

    while len(answered) < 22:
        database.ask("sleep", seconds=0)

    assert [index for index, name in enumerate(answered) if name == "modest"] in ([1, 3], [2, 4])


def test_a_client_that_fills_the_line_makes_room_for_another_one(
    start_database: StartDatabase, engine_url: str
) -> None:
    database = start_database(engine_url, {"endless": ENDLESS, "one": ONE}, pool_size=1, queue=4)
    database.ask("one")
    flood = [database.ask_later("endless", client="flood", timeout=0.3) for _ in range(5)]
    modest = database.ask_later("one", client="modest")
    gevent.sleep(0.05)

    newest = flood[-1].error

    assert isinstance(newest, Overloaded)
    assert newest.started == "no"
    assert "4 callers waiting for 1 connections, those of the client with most of them give way" in str(newest)
    assert modest.wait(5.0) == 1
    assert database.status()["waiting_callers"] == 0


def test_a_caller_that_gives_up_leaves_the_line_at_once(start_database: StartDatabase, engine_url: str) -> None:
    database = start_database(engine_url, {"endless": ENDLESS, "one": ONE}, pool_size=1)
    database.ask("one")
    first, second = (database.ask_later("endless", timeout=1.0) for _ in range(2))
    gevent.sleep(0.05)
    assert database.status()["waiting_callers"] == 1

    second.cancel()

    assert database.status()["waiting_callers"] == 0
    first.cancel()
    assert database.ask("one") == 1


def test_an_exhausted_pool_refuses_after_the_wait_limit_and_says_when_to_come_back(
    start_database: StartDatabase, engine_url: str
) -> None:
    database = start_database(engine_url, {"endless": ENDLESS, "one": ONE}, pool_size=1, queue_timeout=0.2)
    database.ask("one")
    busy = database.ask_later("endless", timeout=1.0)
    began = clock.now()

    error = error_of(database, "one")

    assert isinstance(error, Overloaded)
    assert "1 of 1 are in use and 0 more callers wait" in str(error)
    assert error.started == "no"
    assert error.retry_after_s is not None
    assert 0.15 < clock.now() - began < 0.8
    assert not busy.done


def test_a_full_line_refuses_at_once(start_database: StartDatabase, engine_url: str) -> None:
    database = start_database(engine_url, {"endless": ENDLESS, "one": ONE}, pool_size=1, queue=2)
    database.ask("one")
    promises = [database.ask_later("endless", timeout=0.4) for _ in range(3)]

    error = error_of(database, "one")

    assert isinstance(error, Overloaded)
    assert "2 callers waiting for 1 connections" in str(error)
    assert [promise.error for promise in promises] == [None] * 3


def test_those_in_the_line_hear_that_the_pool_stops(start_database: StartDatabase, engine_url: str) -> None:
    database = start_database(engine_url, {"endless": ENDLESS, "one": ONE}, pool_size=1)
    database.ask("one")
    promises = [database.ask_later("endless") for _ in range(2)]
    gevent.sleep(0.1)

    database.stop()

    assert promises[0].error is not None
    assert promises[0].error.started == "yes"  # type: ignore[attr-defined]
    assert isinstance(promises[1].error, Unavailable)


# -- a server that goes and comes


def test_the_pool_starts_without_a_server_and_works_when_it_comes(
    start_database: StartDatabase, postgres_server: PostgresServer
) -> None:
    postgres_server.stop()
    began = clock.now()
    database = start_database(postgres_server.url(), {"one": ONE}, pool_size=2, **NO_BREAKER)
    assert clock.now() - began < 1.0

    error = error_of(database, "one")

    assert isinstance(error, ConnectionFailed)
    assert error.started == "no"
    assert clock.now() - began < 2.0
    assert database.status()["state"] == "waiting"
    postgres_server.start()
    assert database.ask("one") == 1
    assert database.status()["state"] == "up"


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_after_a_restart_of_the_server_the_next_request_works(
    start_database: StartDatabase, postgres_server: PostgresServer, mode: str
) -> None:
    database = start_database(postgres_server.url(), {"sleep": SLEEP, "one": ONE}, pool_size=3, **NO_BREAKER)
    gevent.joinall([gevent.spawn(database.ask, "sleep", seconds=0.1) for _ in range(3)], raise_error=True)
    assert database.status()["idle"] == 3

    postgres_server.restart(mode)

    assert database.ask("one") == 1
    # and the pool is as large as before
    gevent.joinall([gevent.spawn(database.ask, "sleep", seconds=0.1) for _ in range(3)], raise_error=True)
    assert database.status()["idle"] == 3


def test_the_first_lost_connection_makes_the_others_look(
    start_database: StartDatabase, postgres_server: PostgresServer
) -> None:
    database = start_database(postgres_server.url(), {"sleep": SLEEP, "one": ONE}, pool_size=3, **NO_BREAKER)
    gevent.joinall([gevent.spawn(database.ask, "sleep", seconds=0.1) for _ in range(3)], raise_error=True)
    postgres_server.stop()

    error = error_of(database, "one")
    database.wait_for("database.connection_lost", 3)

    assert isinstance(error, ConnectionFailed)
    assert database.status()["idle"] == 0


def test_a_kept_connection_comes_back_by_itself(start_database: StartDatabase, postgres_server: PostgresServer) -> None:
    database = start_database(postgres_server.url(), {"one": ONE}, pool_size=2, min_size=1, **NO_BREAKER)
    database.ask("one")
    postgres_server.stop()
    error_of(database, "one")
    database.forget_events()

    postgres_server.start()
    database.wait_for("database.connected")

    assert database.connection_status(1)["state"] == "idle"


def test_a_statement_that_was_under_way_may_have_happened(
    start_database: StartDatabase, postgres_server: PostgresServer
) -> None:
    database = start_database(postgres_server.url(), {"sleep": SLEEP, "one": ONE}, pool_size=1, **NO_BREAKER)
    database.ask("one")
    promise = database.ask_later("sleep", seconds=30)
    gevent.sleep(0.1)

    postgres_server.stop("immediate")
    with pytest.raises(ConnectionFailed) as caught:
        promise.wait(5.0)

    assert caught.value.started == "unknown"
    assert caught.value.retryable == "unknown"


def test_a_read_only_operation_is_repeated_on_a_new_connection(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    operations = {"sleep": SLEEP_READ_ONLY, "pid": PID}
    database = start_database(postgres_schema.url, operations, pool_size=1)
    pid = database.ask("pid")
    promise = database.ask_later("sleep", seconds=0.3)
    gevent.sleep(0.1)

    with postgres_schema.connect() as other:
        other.execute("SELECT pg_terminate_backend(%s)", (pid,))

    assert promise.wait(5.0) == ""
    assert database.ask("pid") != pid


def test_a_terminated_idle_connection_is_noticed_before_anything_is_sent(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    operations = {"pid": PID, "add": {"sql": "INSERT INTO t VALUES (1)", "kind": "execute"}}
    setup = ["CREATE TABLE IF NOT EXISTS t (a int)"]
    database = start_database(postgres_schema.url, operations, setup=setup, pool_size=1)
    pid = database.ask("pid")
    with postgres_schema.connect() as other:
        other.execute("SELECT pg_terminate_backend(%s)", (pid,))
        _until_gone(other, pid)

    assert database.ask("add") == {"rowcount": 1}


def test_a_terminated_running_statement_is_answered_at_once(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    database = start_database(postgres_schema.url, {"pid": PID, "sleep": SLEEP, "one": ONE}, pool_size=1)
    pid = database.ask("pid")
    promise = database.ask_later("sleep", seconds=30)
    gevent.sleep(0.1)
    began = clock.now()
    with postgres_schema.connect() as other:
        other.execute("SELECT pg_terminate_backend(%s)", (pid,))

    with pytest.raises(ConnectionFailed, match="terminating connection"):
        promise.wait(5.0)

    assert clock.now() - began < 1.0
    assert database.ask("one") == 1


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not even obey a cancel is given up sooner."""
    monkeypatch.setattr(connection, "GRACE_S", 0.5)


@pytest.mark.usefixtures("short_grace")
def test_a_frozen_server_is_noticed_within_the_deadline(
    start_database: StartDatabase, postgres_server: PostgresServer
) -> None:
    database = start_database(postgres_server.url(), {"one": ONE}, pool_size=1, connect_timeout=0.5, **NO_BREAKER)
    database.ask("one")
    postgres_server.sigstop()
    began = clock.now()

    error = error_of_within(database, "one", 0.3)
    answered_after_s = clock.now() - began
    database.wait_for("database.connection_lost")

    assert isinstance(error, DeadlineExceeded)
    assert answered_after_s < 0.6
    second = error_of(database, "one")
    assert isinstance(second, ConnectionFailed)
    assert "no connection within 0.5 s" in str(second)
    postgres_server.sigcont()
    assert database.ask("one") == 1


@pytest.mark.usefixtures("short_grace")
def test_a_server_that_fell_silent_costs_one_caller_its_deadline_and_not_one_for_each_connection(
    start_database: StartDatabase, postgres_server: PostgresServer
) -> None:
    keys = {"pool_size": 3, "connect_timeout": 0.3, "listen": ["orders"]}
    database = start_database(postgres_server.url(), {"sleep": SLEEP, "one": ONE}, **keys, **NO_BREAKER)
    database.wait_for("database.listening")
    gevent.joinall([gevent.spawn(database.ask, "sleep", seconds=0.1) for _ in range(3)], raise_error=True)
    postgres_server.sigstop()

    assert isinstance(error_of_within(database, "one", 0.2), DeadlineExceeded)
    database.wait_for("database.connection_lost", 4)

    assert {event.fields["connection"] for event in database.events if event.topic == "database.connection_lost"} == {
        1, 2, 3, "listener",
    }  # fmt: skip
    began = clock.now()
    assert isinstance(error_of(database, "one"), ConnectionFailed)
    assert clock.now() - began < 1.0
    postgres_server.sigcont()


def test_the_first_connection_that_works_again_ends_the_pause_of_the_others(
    start_database: StartDatabase, postgres_server: PostgresServer
) -> None:
    keys = {"pool_size": 2, "listen": ["orders"]}
    database = start_database(postgres_server.url(), {"sleep": SLEEP, "one": ONE}, **keys, **NO_BREAKER)
    database.wait_for("database.listening")
    postgres_server.stop()
    for _ in range(16):  # each failure doubles the pause of one of the two
        error_of(database, "one")
    listener = database.part("db/listener").actor
    listener._failures = 10
    database.forget_events()

    postgres_server.start()
    began = clock.now()
    database.ask("one")
    gevent.joinall([gevent.spawn(database.ask, "sleep", seconds=0.1) for _ in range(2)], raise_error=True)
    database.wait_for("database.listening")

    assert database.status()["idle"] == 2
    assert clock.now() - began < 1.0


def error_of_within(database: Database, operation: str, timeout: float) -> RegrowError:
    with pytest.raises(RegrowError) as caught:
        database.ask(operation, timeout=timeout)
    return caught.value


def test_a_wrong_password_is_told_without_the_password(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    parts = psycopg.conninfo.conninfo_to_dict(postgres_schema.url)
    url = f"postgresql://{parts['user']}:very-wrong-secret@127.0.0.1:{parts['port']}/{parts['dbname']}"
    database = start_database(url, {"one": ONE}, pool_size=1)

    error = error_of(database, "one")

    assert isinstance(error, ConnectionFailed)
    assert "password authentication failed" in str(error)
    shown = (
        f"{error.to_wire()} {database.status()} {database.connection_status()} {database.config!r} {database.events}"
    )
    assert "very-wrong-secret" not in shown


def test_a_reached_connection_limit_costs_no_caller_its_answer(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    with postgres_schema.connect() as other:
        other.execute("DROP ROLE IF EXISTS few; CREATE ROLE few LOGIN PASSWORD 'few-secret' CONNECTION LIMIT 2")
    parts = psycopg.conninfo.conninfo_to_dict(postgres_schema.url)
    url = f"postgresql://few:few-secret@127.0.0.1:{parts['port']}/{parts['dbname']}"
    database = start_database(url, {"sleep": SLEEP}, pool_size=6)

    callers = [gevent.spawn(database.ask, "sleep", seconds=0.1) for _ in range(6)]
    gevent.joinall(callers, timeout=10)

    assert [caller.value for caller in callers] == [""] * 6
    assert "too many connections" in database.status()["last_error"]
    assert database.status()["idle"] == 2
    with postgres_schema.connect() as other:
        other.execute("ALTER ROLE few CONNECTION LIMIT 6")
    clock.sleep(0.3)  # the longest pause after one failed attempt, and some more
    gevent.joinall([gevent.spawn(database.ask, "sleep", seconds=0.1) for _ in range(6)], raise_error=True)
    assert database.status()["idle"] == 6


def test_the_circuit_opens_on_a_dead_server_and_closes_after_its_return(
    start_database: StartDatabase, postgres_server: PostgresServer
) -> None:
    breaker = BreakerPolicy(reset_after=PositiveDuration("200ms"))
    database = start_database(postgres_server.url(), {"one": ONE}, pool_size=1, breaker=breaker)
    postgres_server.stop()
    for _ in range(5):
        assert isinstance(error_of(database, "one"), ConnectionFailed)

    refused = error_of(database, "one")
    postgres_server.start()

    assert isinstance(refused, CircuitOpen)
    assert refused.retry_after_s is not None
    clock.sleep(refused.retry_after_s)
    assert database.ask("one") == 1


def test_a_server_that_is_sick_opens_the_circuit_although_it_answers(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    body = "BEGIN RAISE 'no space' USING ERRCODE = '53100'; END"
    full = f"CREATE FUNCTION full_disk() RETURNS int LANGUAGE plpgsql AS $${body}$$"
    database = start_database(postgres_schema.url, {"fail": "SELECT full_disk()"}, setup=[full], pool_size=1)
    for _ in range(5):
        assert isinstance(error_of(database, "fail"), DatabaseError)

    assert isinstance(error_of(database, "fail"), CircuitOpen)


def test_statements_that_are_cut_off_leave_the_circuit_closed(start_database: StartDatabase, engine_url: str) -> None:
    database = start_database(engine_url, {"endless": ENDLESS | {"timeout": "30ms"}, "one": ONE}, pool_size=1)

    for _ in range(8):
        assert isinstance(error_of(database, "endless"), TimedOut)

    assert database.ask("one") == 1


def test_a_failing_statement_leaves_the_circuit_closed(start_database: StartDatabase, engine_url: str) -> None:
    database = start_database(engine_url, {"broken": "SELECT * FROM nowhere", "one": ONE}, pool_size=1)

    for _ in range(10):
        assert isinstance(error_of(database, "broken"), DatabaseError)

    assert database.ask("one") == 1


# -- connections that nobody uses


def test_an_idle_connection_beyond_the_kept_ones_is_closed(start_database: StartDatabase, engine_url: str) -> None:
    database = start_database(
        engine_url, {"endless": ENDLESS, "one": ONE}, pool_size=2, check_interval=0.05, max_idle=0.1
    )
    busy = database.ask_later("endless", timeout=0.2)
    database.ask("one")
    assert (database.status()["idle"], database.status()["in_use"], busy.done) == (1, 1, False)
    assert {state: metrics.CONNECTIONS.cell("db", state).value for state in metrics.STATES} == {
        "idle": 1, "busy": 1, "waiting": 0, "closed": 0, "absent": 0,
    }  # fmt: skip

    database.wait_for("database.connection_closed")

    assert [event.fields["reason"] for event in database.events if event.topic == "database.connection_closed"] == [
        "idle"
    ]
    assert database.connection_status(2)["state"] == "closed"
    assert database.ask("one") == 1


def test_an_old_connection_is_replaced(start_database: StartDatabase, postgres_schema: PostgresDatabase) -> None:
    database = start_database(postgres_schema.url, {"pid": PID}, pool_size=1, check_interval=0.05, max_lifetime=0.2)
    first = database.ask("pid")

    database.wait_for("database.connected", 2)

    assert database.ask("pid") != first


def test_an_idle_connection_that_broke_is_replaced_before_anybody_needs_it(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    database = start_database(postgres_schema.url, {"pid": PID}, pool_size=1, check_interval=0.05)
    pid = database.ask("pid")

    with postgres_schema.connect() as other:
        other.execute("SELECT pg_terminate_backend(%s)", (pid,))
    database.wait_for("database.connection_lost")
    database.wait_for("database.connected", 2)

    assert database.ask("pid") != pid


def test_a_frozen_server_is_noticed_by_an_idle_pool(
    start_database: StartDatabase, postgres_server: PostgresServer
) -> None:
    keys = {"pool_size": 1, "check_interval": 0.05, "connect_timeout": 0.3}
    database = start_database(postgres_server.url(), {"one": ONE}, **keys, **NO_BREAKER)
    database.ask("one")

    postgres_server.sigstop()
    database.wait_for("database.connection_lost")

    assert database.status()["state"] == "waiting"
    assert "no sign of life within 0.3 s" in database.status()["last_error"]
    postgres_server.sigcont()
    assert database.ask("one") == 1


# -- transactions in each other's way


def test_a_serialization_failure_is_tried_again(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    operations = {
        "slow_add": {
            "sql": "UPDATE t SET a = a + 1 + length(pg_sleep(0.15)::text) RETURNING a",
            "kind": "value",
            "isolation": "repeatable read",
        },
        "read": {"sql": "SELECT a FROM t", "kind": "value"},
    }
    setup = ["CREATE TABLE IF NOT EXISTS t (a int)", "INSERT INTO t SELECT 0 WHERE NOT EXISTS (SELECT FROM t)"]
    database = start_database(postgres_schema.url, operations, setup=setup, pool_size=2, retries=5)
    repeats = metrics.REPEATS.cell("db").value

    callers = [gevent.spawn(database.ask, "slow_add") for _ in range(2)]
    gevent.joinall(callers, timeout=10)

    assert sorted(caller.get() for caller in callers) == [1, 2]
    assert database.ask("read") == 2
    assert metrics.REPEATS.cell("db").value > repeats


def test_a_deadlock_is_tried_again(start_database: StartDatabase, postgres_database: PostgresDatabase) -> None:
    operations = {"move": {"sql": "UPDATE t SET b = b + 1, c = pg_sleep(0.1)::text WHERE a = :a", "kind": "many"}}
    setup = ["CREATE TABLE t (a int, b int, c text)", "INSERT INTO t VALUES (1, 0), (2, 0)"]
    url = f"{postgres_database.url}?options=-cdeadlock_timeout%3D50ms"
    database = start_database(url, operations, setup=setup, pool_size=2)

    callers = [
        gevent.spawn(database.ask, "move", rows=[{"a": 1}, {"a": 2}]),
        gevent.spawn(database.ask, "move", rows=[{"a": 2}, {"a": 1}]),
    ]
    gevent.joinall(callers, timeout=10)

    assert [caller.get() for caller in callers] == [{"rowcount": 2}] * 2


def test_what_cannot_be_repeated_in_time_is_told_as_retryable(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    operations = {
        "fail": {"sql": "SELECT refuse()", "kind": "value"},
        "calls": {"sql": "SELECT last_value FROM calls", "kind": "value"},
    }
    body = "BEGIN PERFORM nextval('calls'); RAISE EXCEPTION 'not now' USING ERRCODE = '40001'; END"
    setup = ["CREATE SEQUENCE calls", f"CREATE FUNCTION refuse() RETURNS int LANGUAGE plpgsql AS $${body}$$"]
    database = start_database(postgres_schema.url, operations, setup=setup, pool_size=1, retries=2)

    error = error_of(database, "fail")

    assert isinstance(error, DatabaseError)
    assert (error.details["sqlstate"], error.retryable) == ("40001", True)
    assert database.ask("calls") == 3


def test_a_changed_table_does_not_break_a_prepared_operation(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    database = start_database(
        postgres_schema.url, {"all": "SELECT * FROM t"}, setup=["CREATE TABLE t (a int)"], pool_size=1
    )
    for _ in range(10):
        assert database.ask("all") == []

    with postgres_schema.connect() as other:
        other.execute("ALTER TABLE t ADD COLUMN b int; INSERT INTO t VALUES (1, 2)")

    assert database.ask("all") == [{"a": 1, "b": 2}]


def test_a_limit_of_the_administrator_is_never_widened(
    start_database: StartDatabase, postgres_database: PostgresDatabase
) -> None:
    with postgres_database.connect() as other:
        other.execute(f"ALTER DATABASE {postgres_database.name} SET statement_timeout = '200ms'")
    database = start_database(postgres_database.url, {"sleep": SLEEP}, pool_size=1)

    error = error_of(database, "sleep", seconds=30)

    assert isinstance(error, TimedOut)


def test_an_endless_answer_is_never_held_in_memory(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    operations = {
        "big": {"sql": "SELECT repeat('x', 100000) AS x FROM generate_series(1, 100000)", "max_bytes": "1MiB"},
        "one": ONE,
    }
    database = start_database(postgres_schema.url, operations, pool_size=1)
    began = clock.now()

    error = error_of(database, "big")

    assert error.code == "too_large"
    assert clock.now() - began < 3.0
    assert database.ask("one") == 1
    assert size_of("x" * 10) == 12


@pytest.fixture
def relayed(postgres_schema: PostgresDatabase) -> Iterator[str]:
    """The url of a schema behind a relay in this process: as on a network, nothing comes while the client reads."""
    parts = psycopg.conninfo.conninfo_to_dict(postgres_schema.url)

    def copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def relay(client: socket.socket, _address: object) -> None:
        with client, socket.create_connection(("127.0.0.1", int(parts["port"] or 0))) as server:
            gevent.joinall([gevent.spawn(copy, client, server), gevent.spawn(copy, server, client)])

    door = StreamServer(("127.0.0.1", 0), relay)
    door.start()
    yield postgres_schema.url.replace(f":{parts['port']}/", f":{door.server_port}/")
    door.stop(timeout=2.0)


@pytest.mark.parametrize(
    "operation",
    [
        {"sql": "SELECT repeat('x', 120000000) AS x", "kind": "query"},
        {"sql": "SELECT repeat('x', 120000000) AS x", "kind": "execute"},
        {"sql": "SELECT repeat('x', 120000000) AS x", "kind": "stream"},
        {"sql": "COPY (SELECT repeat('x', 120000000)) TO STDOUT", "kind": "copy_out"},
    ],
    ids=lambda operation: str(operation["kind"]),
)
def test_a_single_huge_row_is_never_held_in_memory(
    start_database: StartDatabase, relayed: str, operation: dict[str, Any]
) -> None:
    operations = {"huge": operation | {"max_bytes": "1MiB"}, "one": ONE}
    database = start_database(relayed, operations, pool_size=1)
    database.ask("one")
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here

    with pytest.raises(TooLarge, match="more than its max_bytes of 1048576 bytes"):
        list(database.ask("huge"))

    assert memory("VmHWM") - before < 30 << 20
    assert database.ask("one") == 1


def memory(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))


# -- SQLite


def test_a_locked_file_holds_up_only_its_caller(start_database: StartDatabase, tmp_path: Path) -> None:
    operations = {"add": {"sql": "INSERT INTO t VALUES (1)", "kind": "execute"}, "count": ONE}
    database = start_database("sqlite:///a.db", operations, setup=["CREATE TABLE IF NOT EXISTS t (a)"], pool_size=2)
    database.ask("count")
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    promise = database.ask_later("add", timeout=3.0)
    began = clock.now()

    assert database.ask("count") == 1
    assert clock.now() - began < 1.0
    gevent.sleep(0.2)
    other.execute("COMMIT")
    other.close()

    assert promise.wait(3.0) == {"rowcount": 1}


def test_a_file_that_stays_locked_is_a_deadline_and_not_a_hang(start_database: StartDatabase, tmp_path: Path) -> None:
    operations = {"add": {"sql": "INSERT INTO t VALUES (1)", "kind": "execute"}, "one": ONE}
    database = start_database("sqlite:///a.db", operations, setup=["CREATE TABLE IF NOT EXISTS t (a)"], pool_size=1)
    database.ask("one")
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = clock.now()

    with pytest.raises(DeadlineExceeded):
        database.ask("add", timeout=0.3)

    assert clock.now() - began < 0.8
    assert database.ask("one") == 1
    other.close()


def test_a_file_that_cannot_be_opened_is_a_connection_error(start_database: StartDatabase, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    database = start_database("sqlite:///folder", {"one": ONE}, pool_size=1)

    error = error_of(database, "one")

    assert isinstance(error, ConnectionFailed)
    assert error.started == "no"
    (tmp_path / "folder").rmdir()
    assert database.ask("one") == 1


def test_no_thread_stays_behind(start_database: StartDatabase) -> None:
    before = len(_native_threads())
    database = start_database("sqlite:///a.db", {"endless": ENDLESS, "one": ONE}, pool_size=3)
    for _ in range(3):
        database.ask_later("endless", timeout=0.2)
    with pytest.raises(DeadlineExceeded):
        database.ask("endless", timeout=0.2)
    assert len(_native_threads()) > before

    database.stop()
    gevent.sleep(0.2)

    assert len(_native_threads()) <= before


# -- crashes


@pytest.mark.allow_leaks("timer")  # a kill runs no hook of the actor, so its timers end by themselves
def test_a_killed_connection_actor_answers_its_caller_and_leaves_no_connection(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    database = start_database(postgres_schema.url, {"sleep": SLEEP, "pid": PID}, pool_size=1)
    pid = database.ask("pid")
    promise = database.ask_later("sleep", seconds=30)
    gevent.sleep(0.1)

    database.part("db/connection-1").kill()

    with pytest.raises(RegrowError) as caught:
        promise.wait(2.0)
    assert (caught.value.code, caught.value.started) == ("actor_down", "yes")
    with postgres_schema.connect() as other:
        other.execute("SELECT pg_terminate_backend(%s)", (pid,))
        _until_gone(other, pid)


@pytest.mark.allow_leaks("timer")  # a kill runs no hook of the actor, so its timers end by themselves
def test_a_new_front_finds_the_connections_of_the_old_one(start_database: StartDatabase, engine_url: str) -> None:
    from runtime.ref import spawn

    database = start_database(engine_url, {"one": ONE}, pool_size=2)
    database.ask("one")
    database.front.kill()
    assert whereis("db") is None

    child = database.plan.children[-1]
    database.refs.append(spawn(child.start, child.args, child.kwargs, name=child.name))

    assert database.ask("one") == 1
    assert database.status()["in_use"] == 0


def _native_threads() -> list[Path]:
    assert threading.main_thread().is_alive()
    return list(Path("/proc/self/task").iterdir())


def _until_gone(connection: psycopg.Connection[Any], pid: int) -> None:
    # PostgreSQL tells nobody but the session itself when a session has ended
    with gevent.Timeout(5.0):
        while connection.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone():
            gevent.sleep(0.01)
