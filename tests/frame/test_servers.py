from __future__ import annotations

import os
import signal

import psutil
import psycopg
import pytest
import redis as redis_client

from tests.support.processes import await_end
from tests.support.servers.postgres import PostgresDatabase, PostgresServer
from tests.support.servers.redis import RedisServer


def _one(database: PostgresDatabase, query: str) -> object:
    with database.connect() as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def test_a_fresh_database_has_no_tables(postgres_database: PostgresDatabase) -> None:
    assert _one(postgres_database, "select count(*) from pg_tables where schemaname = 'public'") == 0


def test_two_databases_share_nothing(postgres: PostgresServer, postgres_database: PostgresDatabase) -> None:
    other = postgres.create_database()
    with postgres_database.connect() as connection:
        connection.execute("create table only_here (id int)")
    assert _one(other, "select count(*) from pg_tables where schemaname = 'public'") == 0
    postgres.drop_database(other)


def test_postgres_refuses_a_wrong_password(postgres: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.url().replace(postgres.password, "wrong"))


def test_postgres_keeps_port_and_data_over_a_restart(postgres_server: PostgresServer) -> None:
    database = postgres_server.create_database()
    with database.connect() as connection:
        connection.execute("create table kept as select 7 as seven")
    postgres_server.restart()
    assert _one(database, "select seven from kept") == 7


def test_an_immediate_stop_cuts_sessions_and_the_next_start_recovers(postgres_server: PostgresServer) -> None:
    with psycopg.connect(postgres_server.url()) as connection:
        postgres_server.stop("immediate")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
        assert not postgres_server.is_running()
        postgres_server.start()
    psycopg.connect(postgres_server.url()).close()


def test_a_frozen_postgres_answers_nobody_until_it_goes_on(postgres_server: PostgresServer) -> None:
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        postgres_server.sigstop()
        states = {psutil.Process(postgres_server.pid).status()}
        states |= {child.status() for child in psutil.Process(postgres_server.pid).children()}
        assert states == {psutil.STATUS_STOPPED}
        postgres_server.sigcont()
        assert connection.execute("select 1").fetchone() == (1,)


def test_a_killed_postgres_leaves_no_process() -> None:
    with PostgresServer() as server:
        processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        server.kill()
        assert await_end(processes, 0.0) == []


def test_postgres_never_runs_as_root(postgres: PostgresServer) -> None:
    assert psutil.Process(postgres.pid).uids().effective != 0


def test_redis_starts_empty_for_each_test_1(redis: RedisServer) -> None:
    with redis.connect() as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


test_redis_starts_empty_for_each_test_2 = test_redis_starts_empty_for_each_test_1


def test_redis_keeps_its_port_over_a_restart_and_forgets_its_keys(redis_server: RedisServer) -> None:
    with redis_server.connect() as client:
        client.set("key", "value")
        redis_server.restart()
    with redis_server.connect() as client:
        assert client.get("key") is None


def test_a_stopped_redis_refuses_connections(redis_server: RedisServer) -> None:
    redis_server.stop()
    with redis_server.connect() as client, pytest.raises(redis_client.ConnectionError):
        client.ping()


def test_a_frozen_redis_answers_again_when_it_goes_on(redis_server: RedisServer) -> None:
    with redis_server.connect(socket_timeout=0.1) as client:
        client.ping()
        redis_server.sigstop()
        with pytest.raises(redis_client.TimeoutError):
            client.ping()
        redis_server.sigcont()
        assert client.ping()


def test_a_server_killed_from_outside_can_be_started_again(redis_server: RedisServer) -> None:
    os.kill(redis_server.pid, signal.SIGKILL)
    redis_server.kill()
    redis_server.start()
    with redis_server.connect() as client:
        assert client.ping()
