"""Transactions of several statements, statements that clients send, and the storage contract on tables."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from actors.database.stored import AssetConfig
from actors.storage.actor import ActorStorage
from actors.storage.contract import ListsPartitions
from actors.storage.registry import Registry
from regrow.protocol.errors import ConnectionFailed, DatabaseError, InvalidArguments, NotFound, RegrowError, TooLarge
from tests.actors.database.conftest import Database, StartDatabase
from tests.support.servers.postgres import PostgresDatabase, PostgresServer

ACCOUNTS = [
    "CREATE TABLE IF NOT EXISTS accounts (name VARCHAR(20) PRIMARY KEY, balance INTEGER CHECK (balance >= 0))",
    "INSERT INTO accounts VALUES ('Ada', 100), ('Alan', 0) ON CONFLICT (name) DO NOTHING",
]
TRANSFER: dict[str, Any] = {
    "statements": [
        "UPDATE accounts SET balance = balance + :amount WHERE name = :to",
        "UPDATE accounts SET balance = balance - :amount WHERE name = :from",
        {"sql": "SELECT balance FROM accounts WHERE name = :from", "kind": "value"},
        "SELECT name, balance FROM accounts ORDER BY name",
    ],
    "params": {"amount": "int", "to": "text", "from": "text"},
}
BALANCES = "SELECT name, balance FROM accounts ORDER BY name"
UNTOUCHED = [{"name": "Ada", "balance": 100}, {"name": "Alan", "balance": 0}]


def transfer(database: Database, amount: int) -> Any:
    arguments: dict[str, Any] = {"amount": amount, "to": "Alan", "from": "Ada"}
    return database.ask("transfer", **arguments)


@pytest.fixture
def bank(start_database: StartDatabase, engine_url: str) -> Database:
    return start_database(engine_url, {"transfer": TRANSFER, "balances": BALANCES}, setup=ACCOUNTS, pool_size=2)


def test_a_transaction_answers_a_list_with_an_item_for_each_statement(bank: Database) -> None:
    after = [{"name": "Ada", "balance": 70}, {"name": "Alan", "balance": 30}]

    assert transfer(bank, 30) == [{"rowcount": 1}, {"rowcount": 1}, 70, after]
    assert bank.ask("balances") == after


def test_a_statement_that_fails_undoes_the_ones_before_it_and_is_named(bank: Database) -> None:
    with pytest.raises(DatabaseError, match="in statement 2 of 4, nothing was kept") as caught:
        transfer(bank, 101)

    assert (caught.value.details["sqlstate"], caught.value.details["index"]) == ("23514", 1)
    assert bank.ask("balances") == UNTOUCHED


def test_the_parameters_of_a_transaction_are_checked_before_anything_is_sent(bank: Database) -> None:
    with pytest.raises(InvalidArguments):
        bank.ask("transfer", amount="many", to="Alan")

    assert bank.ask("balances") == UNTOUCHED


def test_the_limit_of_an_answer_counts_for_the_whole_transaction(
    start_database: StartDatabase, engine_url: str
) -> None:
    wide = {"sql": "SELECT CAST(:filler AS TEXT) AS filler", "kind": "query"}
    operations = {"wide": {"statements": [wide] * 3, "max_bytes": 5000}, "one": "SELECT 1 AS one"}
    database = start_database(engine_url, operations, pool_size=1)

    assert len(database.ask("wide", filler="x" * 1000)) == 3
    with pytest.raises(TooLarge, match="max_bytes of 5000 bytes"):
        database.ask("wide", filler="x" * 2000)
    assert database.ask("one") == [{"one": 1}]


def test_concurrent_transactions_lose_nothing(bank: Database) -> None:
    callers = [gevent.spawn(transfer, bank, 1) for _ in range(20)]
    gevent.joinall(callers, timeout=20, raise_error=True)

    assert bank.ask("balances") == [{"name": "Ada", "balance": 80}, {"name": "Alan", "balance": 20}]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_restarted_in_mid_transaction_keeps_nothing_and_the_next_call_works(
    start_database: StartDatabase, postgres_server: PostgresServer, mode: str
) -> None:
    operations = {
        "slow": {"statements": ["UPDATE accounts SET balance = 7", {"sql": "SELECT pg_sleep(30)", "kind": "value"}]},
        "balances": BALANCES,
    }
    setup = ["DROP TABLE IF EXISTS accounts", *ACCOUNTS]
    database = start_database(postgres_server.url(), operations, setup=setup, pool_size=1, breaker=None)
    database.ask("balances")
    promise = database.ask_later("slow")
    gevent.sleep(0.1)

    postgres_server.restart(mode)

    with pytest.raises(ConnectionFailed) as caught:
        promise.wait(5.0)
    assert caught.value.started == "unknown"
    assert database.ask("balances") == UNTOUCHED


# -- statements of clients


def test_without_leave_there_is_no_method_for_raw_sql(bank: Database) -> None:
    assert "sql" not in bank.plan.exports
    with pytest.raises(NotFound):
        bank.front.call("sql", {"statement": "SELECT 1"})


def test_a_client_may_read_with_values_that_are_bound(start_database: StartDatabase, engine_url: str) -> None:
    database = start_database(engine_url, {}, setup=ACCOUNTS, allow_sql="read_only")
    evil = "Ada' OR 'x' = 'x"

    found = database.ask("sql", statement="SELECT name FROM accounts WHERE name = :name", params={"name": "Ada"})

    assert found == [{"name": "Ada"}]
    assert database.ask("sql", statement="SELECT name FROM accounts WHERE name = :name", params={"name": evil}) == []
    assert database.ask("sql", statement="SELECT count(*) FROM accounts", kind="value") == 2


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM accounts",
        "WITH gone AS (DELETE FROM accounts RETURNING name) SELECT * FROM gone",
        "DROP TABLE accounts",
        "COMMIT",
        "SET default_transaction_read_only = off",
        "PRAGMA query_only = OFF",
        "SELECT 1; DELETE FROM accounts",
        "",
        "SELECT $1",
    ],
)
def test_a_client_that_may_read_can_do_nothing_else(
    start_database: StartDatabase, engine_url: str, statement: str
) -> None:
    database = start_database(engine_url, {"balances": BALANCES}, setup=ACCOUNTS, allow_sql="read_only")

    with pytest.raises(RegrowError) as caught:
        database.ask("sql", statement=statement)

    assert caught.value.code in ("invalid_arguments", "database_error")
    assert database.ask("balances") == UNTOUCHED


def test_a_function_cannot_write_or_change_the_session_in_a_reading_statement(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    writes = "CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'DELETE FROM accounts; SELECT 1'"
    operations = {"balances": BALANCES, "path": {"sql": "SHOW search_path", "kind": "value"}}
    database = start_database(
        postgres_schema.url, operations, setup=[*ACCOUNTS, writes], allow_sql="read_only", pool_size=1
    )

    with pytest.raises(DatabaseError) as caught:
        database.ask("sql", statement="SELECT writes()")
    database.ask("sql", statement="SELECT set_config('search_path', 'elsewhere', false)")
    with pytest.raises(DatabaseError):
        database.ask("sql", statement="SELECT set_config('transaction_read_only', 'off', false)")

    assert caught.value.details["sqlstate"] == "25006"
    assert database.ask("balances") == UNTOUCHED
    assert "elsewhere" not in database.ask("path")


def test_a_trusted_client_may_write(start_database: StartDatabase, engine_url: str) -> None:
    database = start_database(engine_url, {"balances": BALANCES}, setup=ACCOUNTS, allow_sql="all")

    answer = database.ask("sql", statement="UPDATE accounts SET balance = :b", params={"b": 5}, kind="execute")

    assert answer == {"rowcount": 2}
    assert [row["balance"] for row in database.ask("balances")] == [5, 5]
    with pytest.raises(InvalidArguments, match="it would outlast the statement"):
        database.ask("sql", statement="BEGIN", kind="execute")


# -- the storage contract

USERS = AssetConfig(
    load="SELECT name, age FROM users WHERE day = :partition ORDER BY name;",
    store="INSERT INTO users (name, age, day) VALUES (:name, :age, :partition)",
    delete="DELETE FROM users WHERE day = :partition",
    list_partitions="SELECT DISTINCT day FROM users ORDER BY day",
    params={"age": "int", "partition": "date"},
)
USERS_TABLE = ["CREATE TABLE IF NOT EXISTS users (name VARCHAR(20) UNIQUE, age INTEGER, day DATE)"]
ALICE_AND_BOB = [{"name": "Alice", "age": 30}, {"name": "Bob", "age": 31}]


@pytest.fixture
def storage(start_database: StartDatabase, engine_url: str) -> ActorStorage:
    start_database(engine_url, {}, setup=USERS_TABLE, storage={"users": USERS})
    found = Registry().resolve("db")
    assert isinstance(found, ActorStorage)
    return found


def test_what_is_stored_is_loaded_by_its_partition(storage: ActorStorage) -> None:
    storage.store("users", ALICE_AND_BOB, "2026-11-21")

    assert storage.load("users", "2026-11-21") == ALICE_AND_BOB
    assert storage.exists("users", "2026-11-21")


def test_what_is_not_there_is_not_found(storage: ActorStorage) -> None:
    assert not storage.exists("users", "2026-11-22")
    with pytest.raises(NotFound, match="nothing stored for partition '2026-11-22'"):
        storage.load("users", "2026-11-22")
    with pytest.raises(NotFound, match="no asset 'orders'"):
        storage.load("orders", "2026-11-22")


def test_a_store_keeps_all_rows_or_none(storage: ActorStorage) -> None:
    with pytest.raises(DatabaseError):
        storage.store("users", [*ALICE_AND_BOB, {"name": "Alice", "age": 1}], "2026-11-21")

    assert not storage.exists("users", "2026-11-21")


def test_what_was_deleted_is_gone_and_deleting_again_does_no_harm(storage: ActorStorage) -> None:
    storage.store("users", ALICE_AND_BOB[0], "2026-11-21")
    storage.store("users", ALICE_AND_BOB[1], "2026-11-20")
    assert isinstance(storage, ListsPartitions)
    assert storage.list_partitions("users") == ["2026-11-20", "2026-11-21"]

    storage.delete("users", "2026-11-21")
    storage.delete("users", "2026-11-21")

    assert storage.list_partitions("users") == ["2026-11-20"]


@pytest.mark.parametrize("data", [5, "rows", [1], None])
def test_only_rows_can_be_stored(storage: ActorStorage, data: Any) -> None:
    with pytest.raises(InvalidArguments, match="stores rows: a list of objects"):
        storage.store("users", data, "2026-11-21")
