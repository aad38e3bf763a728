"""What an operation promises, the same on PostgreSQL and on SQLite."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regrow.protocol.errors import DatabaseError, InvalidArguments, NotFound, TooLarge
from runtime.messages import Call
from tests.actors.database.conftest import Database, StartDatabase

SETUP = [
    "CREATE TABLE IF NOT EXISTS users (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, born TEXT)",
    "INSERT INTO users VALUES (1, 'Ada', '1815-12-10'), (2, 'Alan', '1912-06-23') ON CONFLICT (id) DO NOTHING",
]
OPERATIONS: dict[str, Any] = {
    "all_users": "SELECT id, name FROM users ORDER BY id",
    "by_name": {"sql": "SELECT id, name, born FROM users WHERE name = :name", "kind": "one"},
    "count": {"sql": "SELECT count(*) FROM users", "kind": "value"},
    "add": {"sql": "INSERT INTO users (id, name) VALUES (:id, :name)", "kind": "execute"},
    "add_many": {"sql": "INSERT INTO users (id, name) VALUES (:id, :name)", "kind": "many"},
    "add_returning": {"sql": "INSERT INTO users (id, name) VALUES (:id, :name) RETURNING id, name", "kind": "one"},
    "remove": {"sql": "DELETE FROM users WHERE id > :above", "kind": "execute"},
    "rename_all": {"sql": "UPDATE users SET name = name || :suffix RETURNING id", "kind": "one"},
    "add_read_only": {"sql": "INSERT INTO users (id, name) VALUES (9, 'x')", "kind": "execute", "read_only": True},
    "count_read_only": {"sql": "SELECT count(*) FROM users", "kind": "value", "read_only": True},
    "born_on": {"sql": "SELECT name FROM users WHERE born = :day", "kind": "value", "params": {"day": "text"}},
    "typed": {
        "sql": "SELECT CAST(:a AS INTEGER) AS a, CAST(:d AS TEXT) AS d, CAST(:t AS TEXT) AS t",
        "kind": "one",
        "params": {"a": {"type": "int", "default": 7}, "d": "decimal", "t": "text"},
    },
    "echo": {"sql": "SELECT CAST(:text AS TEXT)", "kind": "value"},
    "wide": {
        "sql": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) "
        "SELECT i, CAST(:filler AS TEXT) AS filler FROM n",
        "max_rows": 500,
    },
    "wide_in_bytes": {
        "sql": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) "
        "SELECT i, CAST(:filler AS TEXT) AS filler FROM n",
        "max_bytes": 20_000,
    },
    "twice": "SELECT id, name AS id FROM users",
    "broken": "SELECT * FROM nowhere",
}


@pytest.fixture
def database(start_database: StartDatabase, engine_url: str) -> Database:
    return start_database(engine_url, OPERATIONS, setup=SETUP, pool_size=2)


def test_rows_that_were_stored_are_loaded_by_their_date(start_database: StartDatabase, engine_url: str) -> None:
    operations = {
        "load": {"sql": "SELECT name FROM users WHERE date = :date ORDER BY name", "params": {"date": "date"}},
        "store": {
            "sql": "INSERT INTO users (name, date) VALUES (:name, :date)",
            "kind": "many",
            "params": {"date": "date"},
        },
    }
    database = start_database(engine_url, operations, setup=["CREATE TABLE users (name TEXT, date DATE)"])
    rows = [{"name": "Alice", "date": "2026-11-21"}, {"name": "Bob", "date": "2026-11-21"}]

    assert database.ask("store", rows=rows) == {"rowcount": 2}
    assert database.ask("load", date="2026-11-21") == [{"name": "Alice"}, {"name": "Bob"}]
    assert database.ask("load", date="2026-11-22") == []


def test_a_query_answers_a_list_of_objects(database: Database) -> None:
    assert database.ask("all_users") == [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Alan"}]


def test_one_answers_an_object_or_null(database: Database) -> None:
    assert database.ask("by_name", name="Ada") == {"id": 1, "name": "Ada", "born": "1815-12-10"}
    assert database.ask("by_name", name="Grace") is None


def test_value_answers_the_first_column(database: Database) -> None:
    assert database.ask("count") == 2


def test_execute_answers_how_many_rows_changed(database: Database) -> None:
    assert database.ask("add", id=3, name="Grace") == {"rowcount": 1}
    assert database.ask("remove", above=0) == {"rowcount": 3}


def test_many_runs_each_row_in_one_transaction(database: Database) -> None:
    rows = [{"id": number, "name": f"user {number}"} for number in range(10, 1210)]

    assert database.ask("add_many", rows=rows) == {"rowcount": 1200}
    assert database.ask("count") == 1202


def test_many_without_rows_changes_nothing(database: Database) -> None:
    assert database.ask("add_many", rows=[]) == {"rowcount": 0}


def test_a_constraint_in_row_57_of_100_names_the_row_and_keeps_nothing(database: Database) -> None:
    rows = [{"id": 100 + number, "name": f"user {number}" if number != 57 else "Ada"} for number in range(1, 101)]

    with pytest.raises(DatabaseError) as caught:
        database.ask("add_many", rows=rows)

    error = caught.value
    assert "row 57 of 100" in str(error)
    assert (error.details["index"], error.details["rows"], error.details["sqlstate"]) == (56, 100, "23505")
    assert error.details["constraint"] in ("users_name_key", "users.name")
    assert error.retryable is False
    assert database.ask("count") == 2


def test_an_error_shows_no_value(database: Database) -> None:
    with pytest.raises(DatabaseError) as caught:
        database.ask("add", id=1, name="a very private name")

    assert "private" not in str(caught.value.to_wire())
    assert caught.value.details["sqlstate"] == "23505"


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=30))
def test_any_text_comes_back_as_it_went_in(database: Database, text: str) -> None:
    assert database.ask("echo", text=text) == text


@pytest.mark.parametrize(
    "text", ["it's", "100%", "%s %(x)s", "$1", ":name", "?", "'; DROP TABLE users; --", '"', "\\'"]
)
def test_values_are_never_sql(database: Database, text: str) -> None:
    database.ask("add", id=77, name=text)

    assert database.ask("by_name", name=text) == {"id": 77, "name": text, "born": None}


@pytest.mark.parametrize(
    ("operation", "arguments", "message"),
    [
        ("by_name", {"nmae": "x"}, "no parameter 'nmae': did you mean name"),
        ("by_name", {}, "misses name"),
        ("add", {"id": 1}, "misses name: give all of id, name"),
        ("count", {"x": 1}, "it takes none"),
        ("typed", {"a": "1", "d": 1, "t": ""}, "argument a of operation typed must be an integer, found str"),
        ("typed", {"d": "abc", "t": ""}, "argument d of operation typed must be a decimal number"),
        ("add_many", {"rows": [{"id": 1, "name": "x"}, {"id": 2}]}, "misses name in row 2 of 2"),
        ("add_many", {"rows": 5}, "takes one argument, rows"),
        ("echo", {"text": "\ud800"}, "whole Unicode characters"),
    ],
)
def test_unfit_arguments_are_refused_before_anything_is_sent(
    database: Database, operation: str, arguments: dict[str, Any], message: str
) -> None:
    before = sum(database.connection_status(index)["statements"] for index in (1, 2))

    with pytest.raises(InvalidArguments, match=message) as caught:
        database.front.ask(Call(operation, arguments))

    assert caught.value.started == "no"
    assert sum(database.connection_status(index)["statements"] for index in (1, 2)) == before


def test_the_wire_sees_a_schema_for_each_operation(database: Database) -> None:
    schema = database.plan.exports["typed"].schema()

    assert schema["properties"]["a"]["anyOf"] == [{"type": "integer"}, {"type": "null"}]
    assert set(schema["required"]) == {"d", "t"}
    with pytest.raises(InvalidArguments):
        database.ask("typed", a="no integer", d="1", t="")


def test_declared_parameters_are_converted_and_defaulted(database: Database) -> None:
    assert database.ask("typed", d="1.50", t=None) == {"a": 7, "d": "1.50", "t": None}


def test_an_unknown_operation_is_not_found(database: Database) -> None:
    with pytest.raises(NotFound):
        database.front.ask(Call("nothing", {}))


def test_too_many_rows_are_too_large(database: Database) -> None:
    with pytest.raises(TooLarge, match="max_rows of 500 rows") as caught:
        database.ask("wide", filler="")

    assert caught.value.started == "yes"
    assert database.ask("count") == 2


def test_too_many_bytes_are_too_large(database: Database) -> None:
    with pytest.raises(TooLarge, match="max_bytes of 20000 bytes"):
        database.ask("wide_in_bytes", filler="x" * 1000)

    assert database.ask("count") == 2


def test_a_second_row_where_one_is_promised_is_an_error_and_nothing_is_kept(database: Database) -> None:
    with pytest.raises(DatabaseError, match="at most one row") as caught:
        database.ask("rename_all", suffix="!")

    assert caught.value.details["sqlstate"] == "21000"
    assert database.ask("by_name", name="Ada") is not None


def test_an_insert_can_answer_what_it_made(database: Database) -> None:
    assert database.ask("add_returning", id=5, name="Grace") == {"id": 5, "name": "Grace"}
    assert database.ask("count") == 3


def test_a_read_only_operation_cannot_write(database: Database) -> None:
    with pytest.raises(DatabaseError) as caught:
        database.ask("add_read_only")

    assert caught.value.details["sqlstate"] == "25006"
    assert database.ask("count_read_only") == 2
    assert database.ask("add", id=9, name="x") == {"rowcount": 1}


def test_two_columns_of_one_name_are_an_error_and_not_one_column(database: Database) -> None:
    with pytest.raises(DatabaseError, match="column id twice"):
        database.ask("twice")


def test_a_broken_statement_is_a_database_error_and_the_next_one_works(database: Database) -> None:
    with pytest.raises(DatabaseError, match="nowhere") as caught:
        database.ask("broken")

    assert caught.value.started == "yes"
    assert caught.value.retryable is False
    assert database.ask("count") == 2


def test_operations_run_at_the_same_time_on_several_connections(database: Database) -> None:
    answers = gevent.joinall([gevent.spawn(database.ask, "by_name", name="Ada") for _ in range(50)], timeout=10)

    assert [answer.get()["id"] for answer in answers] == [1] * 50
    assert database.status()["in_use"] == 0


def test_the_setup_ran_once_and_may_run_again(start_database: StartDatabase, engine_url: str) -> None:
    first = start_database(engine_url, OPERATIONS, setup=SETUP)
    first.ask("remove", above=1)
    first.stop()

    second = start_database(engine_url, OPERATIONS, setup=SETUP)

    assert second.ask("count") == 2


def test_a_setup_statement_that_fails_is_named_and_the_front_lives(
    start_database: StartDatabase, engine_url: str
) -> None:
    database = start_database(
        engine_url, {"one": "SELECT 1 AS one"}, setup=["CREATE TABLE t (a INTEGER)", "CREATE nonsense"]
    )

    with pytest.raises(DatabaseError, match="setup statement 2 failed"):
        database.ask("one")

    assert database.front.is_alive()
