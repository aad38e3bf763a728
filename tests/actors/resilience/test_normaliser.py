"""Failures of real libraries against real sockets and servers, and what each becomes."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import msgspec
import psycopg
import pytest
import redis as redis_library
import requests
from redis.backoff import NoBackoff
from redis.retry import Retry

from actors.resilience.normaliser import normalise, of_answer, of_graphql
from config.secret import Secret
from regrow.protocol.errors import (
    ConnectionFailed,
    DatabaseError,
    Failed,
    InvalidArguments,
    RateLimited,
    RegrowError,
    UpstreamError,
)
from tests.support.http_peer import HttpPeer, RawPeer, garbage, hang_up
from tests.support.ports import free_port
from tests.support.servers.postgres import PostgresDatabase, PostgresServer
from tests.support.servers.redis import RedisServer


def failing(action: Callable[[], object]) -> BaseException:
    """The exception that an action ends with."""
    try:
        action()
    except BaseException as error:  # noqa: BLE001 - the exception is what the test looks at
        return error
    raise AssertionError("it did not fail")


def told(error: RegrowError) -> tuple[str, str, object]:
    return error.code, error.started, error.retryable


def test_a_typed_error_stays_what_it_is() -> None:
    error = RateLimited(retry_after_s=3.0)
    assert normalise(error, "x") is error


def test_a_foreign_failure_becomes_a_typed_one_without_its_text() -> None:
    typed = normalise(ValueError("password=hunter2"), "db.query")
    assert isinstance(typed, Failed)
    assert str(typed) == "db.query: failed with ValueError"
    assert told(typed) == ("failed", "yes", "unknown")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (socket.gaierror(-2, "x"), ("connection_error", "no", True)),
        (ConnectionRefusedError(), ("connection_error", "no", True)),
        (ConnectionResetError(), ("connection_error", "unknown", True)),
        (OSError(113, "no route to host"), ("connection_error", "unknown", True)),
        (TimeoutError(), ("timeout", "unknown", True)),
        (gevent.Timeout(1.0), ("timeout", "unknown", True)),
    ],
)
def test_operating_system_errors_keep_what_is_known_of_the_work(error: BaseException, expected: Any) -> None:
    assert told(normalise(error, "x")) == expected


def test_what_the_caller_knows_of_the_work_is_kept_where_the_failure_proves_nothing() -> None:
    assert normalise(ConnectionResetError(), "x", started="yes").started == "yes"
    assert normalise(ConnectionRefusedError(), "x", started="yes").started == "no"


def test_what_was_handled_when_something_else_went_wrong_is_not_its_cause() -> None:
    def stumble() -> None:
        try:
            raise ConnectionResetError
        except ConnectionResetError:
            raise KeyError("a bug of ours") from None

    def wrapped() -> None:
        try:
            raise ConnectionResetError
        except ConnectionResetError as error:
            raise RuntimeError("could not fetch") from error

    assert normalise(failing(stumble), "x").code == "failed"
    assert normalise(failing(wrapped), "x").code == "connection_error"


def test_requests_failures_on_real_sockets_are_told_apart(http_peer: HttpPeer, raw_peer: RawPeer) -> None:
    def get(url: str) -> BaseException:
        return failing(lambda: requests.get(url, timeout=0.2).raise_for_status())

    http_peer.reply("GET /broken", status=503)
    http_peer.reply("GET /gone", status=410)
    http_peer.reply("GET /slow", hold=True)
    http_peer.reply("GET /bomb", body=b"no gzip", headers={"Content-Encoding": "gzip"})
    http_peer.reply("GET /cut", body=b"x" * 100, close_after_bytes=10)
    found = {path: told(normalise(get(f"{http_peer.url}/{path}"), "x")) for path in ("broken", "gone", "slow", "bomb")}
    assert found == {
        "broken": ("upstream_error", "yes", True),
        "gone": ("upstream_error", "yes", False),
        "slow": ("timeout", "unknown", True),
        "bomb": ("decode_error", "yes", False),
    }
    assert told(normalise(get(f"{http_peer.url}/cut"), "x")) == ("connection_error", "unknown", True)
    assert told(normalise(get(f"http://127.0.0.1:{free_port()}/"), "x")) == ("connection_error", "no", True)
    raw_peer.behave(hang_up)
    assert told(normalise(get(raw_peer.url), "x")) == ("connection_error", "unknown", True)
    raw_peer.behave(garbage(b"220 mail.example ESMTP\r\n"))
    assert told(normalise(get(raw_peer.url), "x")) == ("connection_error", "yes", True)
    http_peer.release()


def test_no_part_of_a_url_is_in_the_text(raw_peer: RawPeer) -> None:
    raw_peer.behave(hang_up)
    typed = normalise(failing(lambda: requests.get(f"{raw_peer.url}/?key=sesame", timeout=2)), "x", where="api")
    assert str(typed) == "x: api closed the connection"


@pytest.fixture
def connection(postgres_database: PostgresDatabase) -> Iterator[psycopg.Connection[Any]]:
    with postgres_database.connect() as made:
        made.execute("CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL)")
        yield made


@pytest.mark.parametrize(
    ("sql", "sqlstate", "retryable"),
    [
        ("SELECT * FROM nowhere", "42P01", False),
        ("INSERT INTO users VALUES (1, NULL)", "23502", False),
        ("SELECT 1/0", "22012", False),
        ("DO $$ BEGIN RAISE serialization_failure; END $$", "40001", True),
        ("DO $$ BEGIN RAISE too_many_connections; END $$", "53300", True),
    ],
)
def test_a_statement_that_postgresql_refuses_is_a_database_error_with_its_sqlstate(
    connection: psycopg.Connection[Any], sql: str, sqlstate: str, retryable: bool
) -> None:
    typed = normalise(failing(lambda: connection.execute(sql)), "db.ask")
    assert isinstance(typed, DatabaseError)
    assert (typed.details["sqlstate"], typed.retryable) == (sqlstate, retryable)


def test_a_postgresql_that_is_not_there_goes_or_refuses_us_is_a_connection_error(
    postgres_server: PostgresServer, postgres_database: PostgresDatabase
) -> None:
    nowhere = f"postgresql://app@127.0.0.1:{free_port()}/app?connect_timeout=2"
    assert told(normalise(failing(lambda: psycopg.connect(nowhere)), "db.ask")) == ("connection_error", "unknown", True)
    with postgres_database.connect() as made, postgres_database.connect() as other:
        other.execute("SELECT pg_terminate_backend(%s)", (made.info.backend_pid,))
        typed = normalise(failing(lambda: made.execute("SELECT 1")), "db.ask", started="no")
    assert told(typed) == ("connection_error", "no", True)


def test_sqlite_is_told_apart_by_its_own_codes(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    first = sqlite3.connect(file, isolation_level=None)
    second = sqlite3.connect(file, isolation_level=None, timeout=0)
    first.execute("CREATE TABLE t (a INTEGER PRIMARY KEY)")
    first.execute("BEGIN EXCLUSIVE")
    locked = failing(lambda: second.execute("INSERT INTO t VALUES (1)"))
    first.execute("ROLLBACK")
    missing = failing(lambda: first.execute("SELECT * FROM nowhere"))
    twice = failing(lambda: first.executescript("INSERT INTO t VALUES (1); INSERT INTO t VALUES (1)"))
    first.close()
    second.close()
    closed = failing(lambda: sqlite3.connect(tmp_path / "no" / "folder.db"))
    assert [told(normalise(error, "x")) for error in (locked, missing, twice, closed)] == [
        ("database_error", "yes", True),
        ("database_error", "yes", False),
        ("database_error", "yes", False),
        ("connection_error", "unknown", True),
    ]


def test_redis_gone_is_a_connection_error_and_a_refused_command_is_not(redis: RedisServer) -> None:
    nobody = redis_library.Redis(port=free_port(), retry=Retry(NoBackoff(), 0))
    assert isinstance(normalise(failing(nobody.ping), "x"), ConnectionFailed)
    with redis.connect() as client:
        client.set("text", "no list")
        typed = normalise(failing(lambda: client.lpush("text", "x")), "x")
    assert told(typed) == ("database_error", "yes", False)


class Order(msgspec.Struct):
    id: int
    items: list[str]


@pytest.mark.parametrize(
    ("value", "field", "why"),
    [
        ({"items": []}, "id", "missing"),
        ({"id": "one", "items": []}, "id", "Expected 'int', got 'str'"),
        ({"id": 1, "items": ["a", 2]}, "items[1]", "Expected 'str', got 'int'"),
        (3, "", "Expected 'object', got 'int'"),
    ],
)
def test_a_value_that_fails_its_check_is_invalid_and_names_its_field(value: Any, field: str, why: str) -> None:
    typed = normalise(failing(lambda: msgspec.convert(value, Order)), "orders.make")
    assert isinstance(typed, InvalidArguments)
    assert typed.details["fields"] == {field: why}


@pytest.mark.parametrize("decode", [json.loads, msgspec.json.decode, lambda text: b"\xff".decode()])
def test_what_cannot_be_decoded_is_a_decode_error(decode: Callable[[str], Any]) -> None:
    assert told(normalise(failing(lambda: decode("{")), "x")) == ("decode_error", "yes", False)


def test_an_answer_speaks_in_its_own_words_and_its_status_says_whether_to_try_again() -> None:
    problem = {"type": "about:blank", "title": "No credit.", "detail": "Your balance is 30."}
    error = of_answer(403, None, doing="bank.pay", host="bank.example", problem=problem)
    assert str(error) == "bank.pay: bank.example answered 403: No credit: Your balance is 30"
    assert (error.details["problem"], error.retryable) == (problem, False)
    again = of_answer(503, None, doing="x", host="y", problem=problem, retry_after_s=3.0)
    assert isinstance(again, UpstreamError)
    assert (again.retryable, again.retry_after_s) == (True, 3.0)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([{"message": "slow down", "type": "RATE_LIMITED"}], ("rate_limited", "yes", True)),
        ([{"message": "x", "code": "internal_server_error"}], ("upstream_error", "yes", True)),
        ([{"message": "x", "code": "UNAVAILABLE"}, {"code": "FORBIDDEN"}], ("upstream_error", "yes", False)),
        ([{"message": "x"}], ("upstream_error", "yes", False)),
        ([], ("upstream_error", "yes", False)),
    ],
)
def test_errors_of_graphql_are_told_apart_by_their_words(errors: list[Any], expected: Any) -> None:
    assert told(of_graphql(errors, 200, doing="graph.ask", wait_s=None)) == expected


def test_a_secret_in_the_text_of_a_check_is_masked() -> None:
    Secret("enum-secret-123456")
    typed = normalise(msgspec.ValidationError("Invalid enum value 'enum-secret-123456' - at `$.key`"), "x")
    assert "enum-secret" not in str(typed.to_wire())
