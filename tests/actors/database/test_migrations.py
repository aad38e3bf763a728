"""Migrations from the command line, on real databases of both engines."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import psycopg
import pytest

from actors.database import migrations
from actors.database.migrations import MigrationError, apply_pending, open_postgres, open_sqlite, read_folder
from actors.database.postgres_login import PostgresLogin
from config.schema import DatabaseUrl
from regrow import cli
from regrow.protocol.exits import EX_FAILED, EX_OK, EX_USAGE
from tests.support.servers.postgres import PostgresDatabase

USERS = "CREATE TABLE users (name VARCHAR(20));\nINSERT INTO users VALUES ('a;b'); -- one; two\n"
ORDERS = "CREATE TABLE orders (id INTEGER)"

Migrate = Callable[..., tuple[int, str, str]]


class Project:
    """A folder with a configuration of one database and its migrations."""

    def __init__(self, folder: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.url = url
        self.migrations = folder / "migrations"
        self.migrations.mkdir()
        self._capsys = capsys
        self.config = folder / "regrow.toml"
        self.config.write_text(f'[integrations.db]\ntype = "database"\nurl = "{url}"\nmigrations = "migrations"\n')

    def write(self, name: str, text: str) -> None:
        (self.migrations / name).write_text(text)

    def migrate(self, *options: str) -> tuple[int, str, str]:
        status = cli.main(["migrate", "--config", str(self.config), *options])
        shown = self._capsys.readouterr()
        return status, shown.out, shown.err

    def rows(self, query: str) -> list[Any]:
        if self.url.startswith("sqlite"):
            connection = sqlite3.connect(self.folder / "app.db")
            try:
                return connection.execute(query).fetchall()
            finally:
                connection.close()
        with psycopg.connect(self.url, autocommit=True) as other:
            return other.execute(query.encode()).fetchall()

    def tables(self) -> set[str]:
        names = "information_schema.tables WHERE table_schema = current_schema()"
        sqlite = self.url.startswith("sqlite")
        query = "SELECT name FROM sqlite_master WHERE type = 'table'" if sqlite else f"SELECT table_name FROM {names}"
        return {row[0] for row in self.rows(query)}


@pytest.fixture(params=["postgresql", "sqlite"])
def project(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    postgres_schema: PostgresDatabase,
) -> Project:
    url = postgres_schema.url if request.param == "postgresql" else "sqlite:///app.db"
    return Project(tmp_path, url, capsys)


def test_migrations_are_applied_in_order_and_once(project: Project) -> None:
    project.write("0002_orders.sql", ORDERS)
    project.write("0001_users.sql", USERS)

    assert project.migrate() == (EX_OK, "db: applied 0001_users.sql\ndb: applied 0002_orders.sql\n", "")

    assert project.rows("SELECT name FROM users") == [("a;b",)]
    assert project.rows("SELECT number, name FROM regrow_migrations ORDER BY number") == [
        (1, "0001_users.sql"),
        (2, "0002_orders.sql"),
    ]
    assert project.migrate() == (EX_OK, "db: nothing to apply\n", "")


def test_a_dry_run_tells_and_changes_nothing(project: Project) -> None:
    project.write("0001_users.sql", USERS)

    status, out, _ = project.migrate("--dry-run", "--json")

    assert status == EX_OK
    assert json.loads(out) == {"database": "db", "migration": "0001_users.sql", "state": "pending"}
    if project.url.startswith("sqlite"):
        assert not (project.folder / "app.db").exists()
    else:
        assert project.tables() == set()


def test_a_migration_that_fails_is_undone_and_the_ones_before_it_stay(project: Project) -> None:
    project.write("0001_users.sql", USERS)
    project.write("0002_broken.sql", f"{ORDERS};\nINSERT INTO nowhere VALUES (1);")
    project.write("0003_more.sql", "CREATE TABLE more (a INTEGER)")

    status, out, err = project.migrate()

    assert (status, out) == (EX_FAILED, "db: applied 0001_users.sql\n")
    assert "0002_broken.sql failed, nothing of it was kept" in err
    assert "nowhere" in err
    assert project.tables() == {"users", "regrow_migrations"}
    project.write("0002_broken.sql", ORDERS)
    assert project.migrate()[0] == EX_OK
    assert project.tables() == {"users", "orders", "more", "regrow_migrations"}


def test_a_file_that_changed_after_it_was_applied_is_an_error(project: Project) -> None:
    project.write("0001_users.sql", USERS)
    project.migrate()
    project.write("0001_users.sql", USERS + "-- more")

    status, _, err = project.migrate()

    assert status == EX_FAILED
    assert "0001_users.sql was changed after it was applied" in err


def test_a_file_that_is_gone_or_comes_too_late_is_an_error(project: Project) -> None:
    project.write("0002_users.sql", USERS)
    project.migrate()
    project.write("0001_orders.sql", ORDERS)
    assert "0001_orders.sql comes before 0002_users.sql, which was applied already" in project.migrate()[2]
    (project.migrations / "0001_orders.sql").unlink()
    (project.migrations / "0002_users.sql").unlink()

    assert "0002_users.sql was applied and is no longer in the folder" in project.migrate()[2]


def test_a_file_that_ends_the_transaction_itself_is_refused(project: Project) -> None:
    project.write("0001_users.sql", f"{USERS}\nCOMMIT;\nCREATE TABLE late (a INTEGER);")

    status, _, err = project.migrate()

    assert status == EX_FAILED
    assert "0001_users.sql ends the transaction itself, so it was not remembered" in err


def test_a_trigger_is_one_statement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, "sqlite:///app.db", capsys)
    trigger = "CREATE TRIGGER t AFTER INSERT ON users BEGIN DELETE FROM users; SELECT 1; END;"
    project.write("0001_users.sql", f"{USERS}{trigger}\nINSERT INTO users VALUES ('c')")

    assert project.migrate()[0] == EX_OK
    assert project.rows("SELECT * FROM users") == []


def test_a_file_may_run_outside_a_transaction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], postgres_schema: PostgresDatabase
) -> None:
    project = Project(tmp_path, postgres_schema.url, capsys)
    project.write("0001_users.sql", USERS)
    project.write("0002_index.sql", "-- no transaction\nCREATE INDEX CONCURRENTLY by_name ON users (name)")

    assert project.migrate()[0] == EX_OK
    assert project.migrate()[1] == "db: nothing to apply\n"


def test_a_mistake_is_told_with_its_line_and_without_the_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], postgres_schema: PostgresDatabase
) -> None:
    project = Project(tmp_path, postgres_schema.url, capsys)
    project.write("0001_users.sql", "CREATE TABLE users (name text);\nCREATE TABEL orders ();\n")
    assert 'line 2: syntax error at or near "TABEL"' in project.migrate()[2]
    password = psycopg.conninfo.conninfo_to_dict(postgres_schema.url)["password"]
    wrong = postgres_schema.url.replace(str(password), "a-wrong-secret")
    project.config.write_text(project.config.read_text().replace(postgres_schema.url, wrong))

    status, _, err = project.migrate()

    assert status == EX_FAILED
    assert "password authentication failed" in err
    assert "a-wrong-secret" not in err


def test_a_table_of_the_same_name_that_is_not_ours_is_told_in_a_line(project: Project) -> None:
    project.write("0001_users.sql", USERS)
    strange = "CREATE TABLE regrow_migrations (number INTEGER)"
    if project.url.startswith("sqlite"):
        project.rows(strange)
    else:
        with psycopg.connect(project.url, autocommit=True) as other:
            other.execute(strange)

    status, out, err = project.migrate()

    assert (status, out) == (EX_FAILED, "")
    assert err.startswith("regrow: db: ")
    assert "name" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["users.sql"], "users.sql has no number: name it like 0001_users.sql"),
        (["0001_a.sql", "1_b.sql"], "have the same number"),
    ],
)
def test_a_folder_that_makes_no_order_is_an_error(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        (tmp_path / name).write_text("SELECT 1")

    with pytest.raises(MigrationError, match=message):
        read_folder(tmp_path)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="there is no folder"):
        read_folder(tmp_path / "nothing")


def test_a_database_without_migrations_is_wrong_usage(project: Project) -> None:
    status, _, err = project.migrate("other")

    assert status == EX_USAGE
    assert "no database 'other' has a key migrations, those that have: db" in err


def test_two_that_migrate_at_once_apply_each_file_once(tmp_path: Path, postgres_schema: PostgresDatabase) -> None:
    (tmp_path / "0001_users.sql").write_text(USERS + "SELECT pg_sleep(0.2)")
    (tmp_path / "0002_orders.sql").write_text(ORDERS)
    files = read_folder(tmp_path)
    login = PostgresLogin(DatabaseUrl(postgres_schema.url), "test")

    def migrate() -> int:
        with open_postgres(login, 5.0) as database:
            return apply_pending(database, files, lambda _migration: None)

    both = gevent.joinall([gevent.spawn(migrate), gevent.spawn(migrate)], timeout=10, raise_error=True)

    assert sorted(each.get() for each in both) == [0, 2]


def test_a_file_that_somebody_else_has_applied_meanwhile_is_not_applied_again(tmp_path: Path) -> None:
    (tmp_path / "0001_users.sql").write_text(USERS)
    (migration,) = read_folder(tmp_path)

    with open_sqlite(tmp_path / "app.db") as first, open_sqlite(tmp_path / "app.db") as second:
        assert first.applied() == second.applied() == []

        assert [first.apply(migration), second.apply(migration)] == [True, False]


def test_a_lock_that_stays_taken_is_an_error_and_not_a_hang(
    postgres_schema: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_WAIT_S", 0.2)
    login = PostgresLogin(DatabaseUrl(postgres_schema.url), "test")

    with open_postgres(login, 5.0), pytest.raises(MigrationError, match="somebody else has been migrating"):
        open_postgres(login, 5.0).__enter__()
