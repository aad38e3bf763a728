"""Rows and copies as fast as their reader wants them, on a connection that is always free again afterwards."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from regrow.protocol.errors import (
    Cancelled,
    ConnectionFailed,
    DatabaseError,
    DeadlineExceeded,
    NotFound,
    RegrowError,
    TimedOut,
    TooLarge,
)
from runtime import clock
from runtime.promise import Promise
from runtime.ref import spawn
from runtime.streams import Batch, iterate
from tests.actors.database.conftest import Database, StartDatabase
from tests.support.servers.postgres import PostgresDatabase, PostgresServer

NUMBERS = {
    "sql": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :last) SELECT i FROM n",
    "kind": "stream",
    "params": {"last": "int"},
}
#: gives one row, and then nothing for a very long time
STUCK = {
    "sql": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000000) "
    "SELECT i FROM n WHERE i = 1 OR i = 2000000000",
    "kind": "stream",
}
WIDE = {
    "sql": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) "
    "SELECT i, CAST(:filler AS TEXT) AS filler FROM n",
    "kind": "stream",
    "max_bytes": 200_000,
}
ONE = {"sql": "SELECT 1", "kind": "value"}
NONE = {"sql": "SELECT 1 AS one WHERE 1 = 2", "kind": "stream"}
OPERATIONS: dict[str, Any] = {"numbers": NUMBERS, "stuck": STUCK, "wide": WIDE, "one": ONE, "none": NONE}


def pull(stream: Any, most: int, timeout: float = 5.0) -> Batch:
    promise = Promise(deadline=clock.now() + timeout)
    stream.pull(most, promise)
    promise.expire_at_deadline()
    batch: Batch = promise.wait()
    return batch


@pytest.fixture
def database(start_database: StartDatabase, engine_url: str) -> Database:
    return start_database(engine_url, OPERATIONS, pool_size=1)


def test_a_stream_gives_every_row_once_and_in_order(database: Database) -> None:
    assert [row["i"] for row in database.ask("numbers", last=2500)] == list(range(1, 2501))
    assert database.ask("one") == 1


def test_a_stream_without_rows_ends_at_once(database: Database) -> None:
    batch = pull(database.ask("none"), 10)

    assert (batch.items, batch.done) == ([], True)
    assert database.ask("one") == 1


def test_the_end_that_came_with_the_last_row_needs_no_further_pull(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    database = start_database(postgres_schema.url, OPERATIONS, pool_size=1)
    list(database.ask("numbers", last=3))

    batch = pull(database.ask("numbers", last=5), 5)

    assert [row["i"] for row in batch.items] == [1, 2, 3, 4, 5]
    assert batch.done
    assert database.ask("one") == 1


def test_a_pull_gives_no_more_than_was_asked_for(database: Database) -> None:
    stream = database.ask("numbers", last=100)
    got: list[int] = []
    while True:
        batch = pull(stream, 7)
        assert len(batch.items) <= 7
        got += [row["i"] for row in batch.items]
        if batch.done:
            break

    assert got == list(range(1, 101))


def test_a_stream_holds_its_connection_and_an_end_gives_it_back(database: Database) -> None:
    stream = database.ask("numbers", last=10_000)
    pull(stream, 5)

    assert database.status()["in_use"] == 1
    assert database.connection_status()["stream"] == "numbers"
    waiting = database.ask_later("one")
    gevent.sleep(0.05)
    assert not waiting.done

    stream.close()

    assert waiting.wait(5.0) == 1
    assert database.status()["in_use"] == 0


def test_a_closed_stream_can_not_be_read(database: Database) -> None:
    stream = database.ask("numbers", last=10_000)
    stream.close()
    stream.close()

    with pytest.raises(NotFound):
        pull(stream, 5)

    assert database.ask("one") == 1


def test_a_stream_that_nobody_reads_is_ended(start_database: StartDatabase, engine_url: str) -> None:
    database = start_database(engine_url, OPERATIONS, pool_size=1, stream_idle=0.2)
    stream = database.ask("numbers", last=10_000)
    pull(stream, 5)

    assert database.ask("one") == 1, "it came after the idle stream"

    assert [event.fields["operation"] for event in database.events if event.topic == "stream.idled"] == ["numbers"]
    with pytest.raises(NotFound):
        pull(stream, 5)


def test_the_timeout_of_an_operation_ends_its_stream(start_database: StartDatabase, engine_url: str) -> None:
    database = start_database(engine_url, OPERATIONS | {"stuck": STUCK | {"timeout": "300ms"}}, pool_size=1)
    stream = database.ask("stuck")

    with pytest.raises(TimedOut) as caught:
        list(stream)

    assert "lasted longer than its timeout" in str(caught.value)
    assert database.ask("one") == 1


def test_a_pull_ends_at_its_deadline_and_the_statement_with_it(database: Database) -> None:
    database.ask("one")
    stream = database.ask("stuck")

    with pytest.raises(DeadlineExceeded):
        list(iterate(stream, timeout_s=0.3))

    assert database.ask("one", timeout=5.0) == 1
    assert [event.topic for event in database.events] == ["database.connected"], "the same connection"


def test_closing_cuts_off_a_pull_under_way(database: Database) -> None:
    stream = database.ask("stuck")
    promise = Promise(deadline=clock.now() + 10)
    stream.pull(5, promise)
    gevent.sleep(0.1)
    if promise.done:  # the first row came at once, so this is the endless pull
        promise = Promise(deadline=clock.now() + 10)
        stream.pull(5, promise)
        gevent.sleep(0.1)

    stream.close()

    with pytest.raises(Cancelled):
        promise.wait(5.0)
    assert database.ask("one") == 1


def test_a_row_above_the_limit_is_too_large_and_the_connection_lives(database: Database) -> None:
    assert len(list(database.ask("wide", filler="x" * 10_000))) == 300

    with pytest.raises(TooLarge, match="a row of operation wide has more than its max_bytes of 200000 bytes"):
        list(database.ask("wide", filler="x" * 300_000))

    assert database.ask("one") == 1
    assert [event.topic for event in database.events] == ["database.connected"]


def test_a_stream_of_a_broken_statement_is_a_database_error(start_database: StartDatabase, engine_url: str) -> None:
    operations = {"broken": {"sql": "SELECT * FROM nowhere", "kind": "stream"}, "one": ONE}
    database = start_database(engine_url, operations, pool_size=1)

    with pytest.raises(DatabaseError, match="nowhere"):
        database.ask("broken")

    assert database.ask("one") == 1


def test_a_stream_writes_nothing_not_even_in_a_function(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    setup = [
        "CREATE TABLE IF NOT EXISTS t (a int)",
        "CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (1) RETURNING a'",
    ]
    operations = {"writes": {"sql": "SELECT writes() AS a", "kind": "stream"}, "one": ONE}
    database = start_database(postgres_schema.url, operations, setup=setup, pool_size=1)

    with pytest.raises(DatabaseError) as caught:
        list(database.ask("writes"))

    assert caught.value.details["sqlstate"] == "25006"
    assert database.ask("one") == 1


def test_a_caller_that_gave_up_before_the_stream_began_leaves_no_stream(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    operations = {"sleep": {"sql": "SELECT pg_sleep(:s)", "kind": "value"}, "numbers": NUMBERS, "one": ONE}
    database = start_database(postgres_schema.url, operations, pool_size=1)
    database.ask("one")
    busy = database.ask_later("sleep", s=0.2)
    promise = database.ask_later("numbers", last=10)
    promise.cancel()

    busy.wait(5.0)

    assert database.ask("one") == 1
    assert "stream" not in database.connection_status()


def test_memory_stays_small_while_a_large_answer_streams(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    # ten megabytes in rows of one: no pull brings more than about one
    operations = {
        "big": {"sql": "SELECT i, repeat('x', 1000000) AS x FROM generate_series(1, 10) i", "kind": "stream"},
        "one": ONE,
    }
    database = start_database(postgres_schema.url, operations, pool_size=1)
    stream = database.ask("big")
    sizes = []
    done = False
    while not done:
        batch = pull(stream, 1000)
        sizes.append(len(batch.items))
        done = batch.done

    assert sum(sizes) == 10
    assert max(sizes) <= 2
    assert database.ask("one") == 1


def test_a_server_that_goes_in_the_middle_of_a_stream_is_told(
    start_database: StartDatabase, postgres_server: PostgresServer
) -> None:
    database = start_database(postgres_server.url(), {"numbers": NUMBERS, "one": ONE}, pool_size=1, breaker=None)
    stream = database.ask("numbers", last=100_000)
    pull(stream, 5)

    postgres_server.restart("immediate")

    with pytest.raises(RegrowError) as caught:
        list(stream)
    assert caught.value.code == "connection_error"
    assert database.ask("one") == 1


@pytest.mark.allow_leaks("timer")  # a kill runs no hook of the actor, so its timers end by themselves
def test_a_killed_connection_ends_its_stream(database: Database) -> None:
    stream = database.ask("numbers", last=10_000)
    pull(stream, 5)

    database.part("db/connection-1").kill()

    with pytest.raises(RegrowError) as caught:
        pull(stream, 5)
    assert caught.value.code in ("actor_down", "unavailable")
    child = next(child for child in database.plan.children if child.name == "db/connection-1")
    database.refs.insert(0, spawn(child.start, child.args, child.kwargs, name=child.name))
    assert database.ask("one") == 1


# -- COPY


COPY_OPERATIONS: dict[str, Any] = {
    "dump": {"sql": "COPY (SELECT * FROM users ORDER BY name) TO STDOUT (FORMAT csv, HEADER)", "kind": "copy_out"},
    "dump_binary": {"sql": "COPY users TO STDOUT (FORMAT binary)", "kind": "copy_out"},
    "dump_many": {"sql": "COPY (SELECT generate_series(1, 200000)) TO STDOUT", "kind": "copy_out"},
    "fill": {"sql": "COPY users (name, born) FROM STDIN", "kind": "copy_in", "max_rows": 100},
    "fill_csv": {"sql": "COPY users (name, born) FROM STDIN (FORMAT csv)", "kind": "copy_in"},
    "count": {"sql": "SELECT count(*) FROM users", "kind": "value"},
}


@pytest.fixture
def copying(start_database: StartDatabase, postgres_schema: PostgresDatabase) -> Database:
    setup = ["CREATE TABLE IF NOT EXISTS users (name text PRIMARY KEY, born date)"]
    return start_database(postgres_schema.url, COPY_OPERATIONS, setup=setup, pool_size=1)


def test_rows_that_were_copied_in_can_be_copied_out(copying: Database) -> None:
    rows = [["Ada, Countess", "1815-12-10"], ['Al"an\n', None]]

    assert copying.ask("fill", rows=rows) == {"rowcount": 2}

    assert "".join(copying.ask("dump")) == 'name,born\n"Ada, Countess",1815-12-10\n"Al""an\n",\n'
    assert copying.ask("count") == 2


def test_data_in_the_format_of_the_statement_is_copied_in(copying: Database) -> None:
    assert copying.ask("fill_csv", data="Ada,1815-12-10\nGrace,\n") == {"rowcount": 2}
    assert copying.ask("count") == 2


def test_a_binary_copy_is_base64(copying: Database) -> None:
    import base64

    copying.ask("fill", rows=[["Ada", None]])

    assert base64.b64decode("".join(copying.ask("dump_binary"))).startswith(b"PGCOPY\n")


def test_a_copy_that_fails_names_the_line_and_keeps_nothing(copying: Database) -> None:
    rows = [["Ada", None], ["Grace", None], ["secret-name", "no date"]]

    with pytest.raises(DatabaseError) as caught:
        copying.ask("fill", rows=rows)

    assert caught.value.details["line"] == 3
    assert "no date" not in str(caught.value.to_wire())
    assert copying.ask("count") == 0


# -- a copy in several calls


def copy_begun(copying: Database, rows: list[list[Any]]) -> str:
    answer = copying.ask("fill", rows=rows, more=True)
    assert list(answer) == ["copy"]
    key: str = answer["copy"]
    return key


def test_a_copy_of_many_calls_is_kept_as_a_whole_by_the_last_one(
    copying: Database, shared_database: PostgresDatabase
) -> None:
    key = copy_begun(copying, [["first", None]])
    for number in range(50):
        rows = [[f"user {number} {index}", "2026-11-21"] for index in range(100)]
        assert copying.ask("fill", copy=key, rows=rows, more=True) == {"copy": key}
    assert copying.connection_status()["stream_items"] == 5001
    schema = copying.config.url.reveal().rpartition("%3D")[2]
    with shared_database.connect() as other:
        found = other.execute(f"SELECT count(*) FROM {schema}.users").fetchone()
    assert found == (0,), "nothing is kept before the end"

    assert copying.ask("fill", copy=key, rows=[["last", None]]) == {"rowcount": 5002}

    assert copying.ask("count") == 5002
    assert copying.status()["in_use"] == 0


def test_a_copy_of_many_calls_may_end_without_rows_and_takes_data(copying: Database) -> None:
    key = copying.ask("fill_csv", data="Ada,1815-12-10\nGr", more=True)["copy"]
    copying.ask("fill_csv", copy=key, data=b"ace,\n", more=True)

    assert copying.ask("fill_csv", copy=key) == {"rowcount": 2}
    assert "".join(copying.ask("dump")) == "name,born\nAda,1815-12-10\nGrace,\n"


def test_a_copy_that_is_undone_keeps_nothing_and_frees_its_connection(copying: Database) -> None:
    key = copy_begun(copying, [["Ada", None]])

    assert copying.ask("fill", copy=key, undo=True) == {"rowcount": 0}

    assert copying.ask("count") == 0
    assert [event.topic for event in copying.events] == ["database.connected"], "the same connection"


def test_a_mistake_in_a_copy_of_many_calls_is_told_at_its_end_and_nothing_is_kept(copying: Database) -> None:
    key = copy_begun(copying, [["Ada", None]])
    copying.ask("fill", copy=key, rows=[["Grace", "no date"]], more=True)

    with pytest.raises(DatabaseError) as caught:
        copying.ask("fill", copy=key, rows=[["Alan", None]])

    assert caught.value.details["line"] == 2
    assert copying.ask("count") == 0
    assert [event.topic for event in copying.events] == ["database.connected"], "the same connection"


@pytest.mark.parametrize("more", [False, True])
def test_a_copy_that_cannot_begin_is_an_error_of_its_statement(
    start_database: StartDatabase, postgres_schema: PostgresDatabase, more: bool
) -> None:
    operations = {"fill": {"sql": "COPY nowhere FROM STDIN", "kind": "copy_in"}, "one": ONE}
    database = start_database(postgres_schema.url, operations, pool_size=1)

    with pytest.raises(DatabaseError, match="nowhere") as caught:
        database.ask("fill", rows=[[1]], more=more)

    assert caught.value.details["sqlstate"] == "42P01"
    assert database.ask("one") == 1
    assert [event.topic for event in database.events] == ["database.connected"], "the same connection"


def test_rows_that_do_not_fit_leave_a_copy_of_many_calls_as_it_was(copying: Database) -> None:
    key = copy_begun(copying, [["Ada", None]])
    with pytest.raises(TooLarge):
        copying.ask("fill", copy=key, rows=[["a", None]] * 101)

    assert copying.ask("fill", copy=key) == {"rowcount": 1}


def test_a_copy_that_nobody_goes_on_with_is_undone(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    setup = ["CREATE TABLE IF NOT EXISTS users (name text PRIMARY KEY, born date)"]
    database = start_database(postgres_schema.url, COPY_OPERATIONS, setup=setup, pool_size=1, stream_idle=0.2)
    key = copy_begun(database, [["Ada", None]])

    assert database.ask("count") == 0, "it came after the idle copy"

    assert [event.fields["operation"] for event in database.events if event.topic == "stream.idled"] == ["fill"]
    with pytest.raises(NotFound, match="no copy under way with this key"):
        database.ask("fill", copy=key, rows=[["Grace", None]])


def test_a_copy_that_waits_for_a_lock_ends_at_the_deadline_of_its_call(
    copying: Database, shared_database: PostgresDatabase
) -> None:
    key = copy_begun(copying, [["Ada", None]])
    schema = copying.config.url.reveal().rpartition("%3D")[2]
    with shared_database.connect() as other, other.transaction():
        other.execute(f"INSERT INTO {schema}.users VALUES ('Grace')")  # whoever adds another Grace has to wait

        with pytest.raises(DeadlineExceeded):
            copying.ask("fill", timeout=0.3, copy=key, rows=[["Grace", None]])

    assert copying.ask("count") == 1
    with pytest.raises(NotFound):
        copying.ask("fill", copy=key)


def test_a_server_that_goes_in_the_middle_of_a_copy_is_told(
    start_database: StartDatabase, postgres_server: PostgresServer
) -> None:
    setup = ["DROP TABLE IF EXISTS users", "CREATE TABLE users (name text PRIMARY KEY, born date)"]
    database = start_database(postgres_server.url(), COPY_OPERATIONS, setup=setup, pool_size=1, breaker=None)
    key = copy_begun(database, [["Ada", None]])

    postgres_server.restart("fast")

    with pytest.raises(ConnectionFailed):
        database.ask("fill", copy=key)
    assert database.ask("count") == 0


@pytest.mark.parametrize("argument", [{"rows": [["a"]] * 101}, {"rows": [1]}, {}, {"data": 5}])
def test_what_cannot_be_copied_in_is_refused_before_anything_is_sent(
    copying: Database, argument: dict[str, Any]
) -> None:
    with pytest.raises(RegrowError) as caught:
        copying.ask("fill", **argument)

    assert caught.value.code in ("invalid_arguments", "too_large")


def test_no_part_of_a_copy_is_above_the_limit(start_database: StartDatabase, postgres_schema: PostgresDatabase) -> None:
    lines = "SELECT repeat('x', 900) FROM generate_series(1, 100)"
    operations = {
        "dump": {"sql": f"COPY ({lines}) TO STDOUT", "kind": "copy_out", "max_bytes": 2000},
        "dump_binary": {"sql": f"COPY ({lines}) TO STDOUT (FORMAT binary)", "kind": "copy_out", "max_bytes": 2000},
        "wide": {"sql": f"COPY ({lines}) TO STDOUT", "kind": "copy_out", "max_bytes": 800},
        "one": ONE,
    }
    database = start_database(postgres_schema.url, operations, pool_size=1)

    for name in ("dump", "dump_binary"):
        parts = list(database.ask(name))
        assert max(map(len, parts)) <= 2000
        assert len(parts) in (50, 100)
    with pytest.raises(TooLarge, match="a row of operation wide has more than its max_bytes of 800 bytes"):
        list(database.ask("wide"))
    assert database.ask("one") == 1


def test_a_copy_is_read_in_parts_of_whole_lines_and_can_be_left(copying: Database) -> None:
    stream = copying.ask("dump_many")
    first = pull(stream, 2)
    assert len(first.items) == 2
    assert first.items[0].startswith("1\n2\n")
    assert first.items[0].endswith("\n")

    stream.close()

    assert copying.ask("count") == 0
    assert [event.topic for event in copying.events] == ["database.connected"]
    assert "".join(copying.ask("dump_many")).count("\n") == 200_000


def test_no_pull_of_a_copy_brings_more_than_about_a_megabyte(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    operations = {
        "big": {"sql": "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 10000)) TO STDOUT", "kind": "copy_out"}
    }
    database = start_database(postgres_schema.url, operations, pool_size=1)
    stream = database.ask("big")
    sizes = []
    while not (batch := pull(stream, 10_000)).done:
        sizes.append(sum(map(len, batch.items)))

    assert len(sizes) >= 8
    assert max(sizes) < 2 << 20
