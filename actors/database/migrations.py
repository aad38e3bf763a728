"""Migrations: a folder of numbered .sql files, each applied once and in order, remembered in one table.

`0001_users.sql`, `0002_orders.sql`... A file is one transaction together with its record, so that it is applied wholly
or not at all; on PostgreSQL a file that begins with `-- no transaction` (CREATE INDEX CONCURRENTLY) runs by itself and
holds one statement. Whoever migrates holds a lock: PostgreSQL's advisory lock, SQLite's write lock. A file that was
applied must not change afterwards, which its checksum tells, and new files come after the applied ones.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psycopg
from psycopg import pq

from actors.database.engine import Lost, without_values
from actors.database.postgres_login import PostgresLogin
from runtime import clock

TABLE = "regrow_migrations"
#: any number will do, as long as all who migrate the same database agree
LOCK = 0x7265676D
LOCK_WAIT_S = 60.0
LOCK_AGAIN_S = 0.1
MAX_FILES = 100_000
MAX_FILE_BYTES = 64 << 20

_NAME = re.compile(r"(\d{1,18})_([A-Za-z0-9][A-Za-z0-9_.-]*)\.sql")
_NO_TRANSACTION = re.compile(r"\s*--\s*no transaction\s*$", re.IGNORECASE | re.MULTILINE)
_CREATE = f"""
CREATE TABLE IF NOT EXISTS {TABLE} (
    number BIGINT PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL,
    applied_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
)
"""
_READ = "SELECT number, name, checksum FROM regrow_migrations ORDER BY number"


class MigrationError(Exception):
    """A migration cannot be applied; the text says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    number: int
    name: str
    text: str
    checksum: str

    @property
    def in_transaction(self) -> bool:
        return _NO_TRANSACTION.match(self.text) is None


@dataclass(frozen=True, slots=True)
class Applied:
    """One row of the table."""

    number: int
    name: str
    checksum: str


class Database(Protocol):
    """What migrating needs of a database; all of it while the lock is held."""

    def applied(self) -> list[Applied]: ...

    def apply(self, migration: Migration) -> bool:
        """Run it and remember it; False when somebody else has meanwhile."""
        ...


def read_folder(folder: Path) -> list[Migration]:
    """Return the folder's migrations in order; raise `MigrationError` for what cannot be one. Never switches."""
    try:
        paths = sorted(folder.glob("*.sql"))
    except OSError as error:
        raise MigrationError(f"the folder {folder} cannot be read: {error.strerror}") from error
    if not folder.is_dir():
        raise MigrationError(f"there is no folder {folder}: make it, or change the key migrations")
    if len(paths) > MAX_FILES:
        raise MigrationError(f"the folder {folder} has {len(paths)} migrations, at most {MAX_FILES} are read")
    found: dict[int, Migration] = {}
    for path in paths:
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"{path} has no number: name it like 0001_users.sql")
        number = int(match[1])
        if number in found:
            raise MigrationError(f"{path.name} and {found[number].name} have the same number: renumber one")
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise MigrationError(f"{path} is larger than {MAX_FILE_BYTES} bytes: split it")
            data = path.read_bytes()
            text = data.decode()
        except OSError as error:
            raise MigrationError(f"{path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise MigrationError(f"{path} is not UTF-8: save it so") from error
        found[number] = Migration(number, path.name, text, hashlib.sha256(data).hexdigest())
    return [found[number] for number in sorted(found)]


def pending(migrations: list[Migration], applied: list[Applied]) -> list[Migration]:
    """Return what is to be applied; raise `MigrationError` when files and table contradict each other.

    Never switches.
    """
    files = {migration.number: migration for migration in migrations}
    for row in applied:
        file = files.get(row.number)
        if file is None:
            raise MigrationError(f"{row.name} was applied and is no longer in the folder: bring it back")
        if file.checksum != row.checksum:
            raise MigrationError(
                f"{file.name} was changed after it was applied: restore it, and write the change as a new migration"
            )
    last = applied[-1] if applied else None
    done = {row.number for row in applied}
    left = [migration for migration in migrations if migration.number not in done]
    if last is not None and left and left[0].number < last.number:
        raise MigrationError(f"{left[0].name} comes before {last.name}, which was applied already: renumber it")
    return left


def apply_pending(database: Database, migrations: list[Migration], tell: Callable[[Migration], object]) -> int:
    """Apply what is pending, telling of each once it is done; return how many. Switches greenlets."""
    count = 0
    for migration in pending(migrations, database.applied()):
        if database.apply(migration):
            count += 1
            tell(migration)
    return count


class PostgresMigrations:
    """A PostgreSQL database under the migrations' advisory lock."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def applied(self) -> list[Applied]:
        found = self.connection.execute("SELECT to_regclass($1)", (TABLE,)).fetchone()
        if found is None or found[0] is None:
            return []
        return [Applied(*row) for row in self.connection.execute(_READ).fetchall()]

    def apply(self, migration: Migration) -> bool:
        connection = self.connection
        try:
            connection.execute(_CREATE)
            if not migration.in_transaction:
                self._run(migration)
                self._remember(migration)
                return True
            connection.execute("BEGIN")
            self._run(migration)
            if connection.info.transaction_status != pq.TransactionStatus.INTRANS:
                raise MigrationError(
                    f"{migration.name} ends the transaction itself, so it was not remembered: take BEGIN, COMMIT and "
                    "ROLLBACK out of it and look what of it is in the database"
                )
            self._remember(migration)
            connection.execute("COMMIT")
            return True
        except psycopg.Error as error:
            kept = "nothing of it was kept" if migration.in_transaction else "it ran outside a transaction"
            raise MigrationError(f"{migration.name} failed, {kept}: {_error_text(error, migration.text)}") from error
        finally:
            status = connection.info.transaction_status
            if status in (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR):
                connection.execute("ROLLBACK")

    def _run(self, migration: Migration) -> None:
        # without parameters the text goes out as it is, however many statements it has
        self.connection.execute(migration.text.encode())

    def _remember(self, migration: Migration) -> None:
        values = (migration.number, migration.name, migration.checksum)
        self.connection.execute("INSERT INTO regrow_migrations (number, name, checksum) VALUES ($1, $2, $3)", values)


class SqliteMigrations:
    """A SQLite file; each migration holds the write lock and looks again whether it is still pending."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def applied(self) -> list[Applied]:
        found = self.connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (TABLE,)).fetchone()
        return [] if found is None else [Applied(*row) for row in self.connection.execute(_READ).fetchall()]

    def apply(self, migration: Migration) -> bool:
        connection = self.connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_CREATE)
            if any(row.number == migration.number for row in self.applied()):
                return False
            for statement in _statements(migration.text):
                connection.execute(statement)
                if not connection.in_transaction:
                    raise MigrationError(
                        f"{migration.name} ends the transaction itself, so it was not remembered: take BEGIN, COMMIT "
                        "and ROLLBACK out of it and look what of it is in the database"
                    )
            values = (migration.number, migration.name, migration.checksum)
            connection.execute("INSERT INTO regrow_migrations (number, name, checksum) VALUES (?, ?, ?)", values)
            connection.execute("COMMIT")
            return True
        except sqlite3.Error as error:
            text = without_values(str(error), None, ())
            raise MigrationError(f"{migration.name} failed, nothing of it was kept: {text}") from error
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


@contextmanager
def open_postgres(login: PostgresLogin, timeout_s: float) -> Iterator[PostgresMigrations]:
    """Connect and hold the lock; raises `MigrationError` when that does not succeed in time. Switches greenlets."""
    try:
        connection = login.connect(timeout_s, autocommit=True, cursor_factory=psycopg.RawCursor)
    except Lost as lost:
        raise MigrationError(f"the database cannot be reached: {lost.reason}") from lost
    with connection:
        until = clock.now() + LOCK_WAIT_S
        try:
            while connection.execute("SELECT pg_try_advisory_lock($1)", (LOCK,)).fetchone() != (True,):
                if clock.now() >= until:
                    raise MigrationError(
                        f"somebody else has been migrating this database for {LOCK_WAIT_S:g} s: try later"
                    )
                clock.sleep(LOCK_AGAIN_S)
            yield PostgresMigrations(connection)
        except psycopg.Error as error:
            raise MigrationError(f"the table {TABLE} cannot be read: {_error_text(error, '')}") from error


@contextmanager
def open_sqlite(path: Path) -> Iterator[SqliteMigrations]:
    """Open the file, made if need be; raises `MigrationError`. Blocks, for a process that does nothing else."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=LOCK_WAIT_S, isolation_level=None)
    except (sqlite3.Error, OSError) as error:
        raise MigrationError(f"{path} cannot be opened: {error}") from error
    try:
        yield SqliteMigrations(connection)
    except sqlite3.Error as error:
        raise MigrationError(f"{path} cannot be migrated: {without_values(str(error), None, ())}") from error
    finally:
        connection.close()


def _statements(text: str) -> Iterator[str]:
    """Cut a script at the semicolons that end a statement for SQLite, triggers as a whole."""
    statement = ""
    for piece in re.split(r"(?<=;)", text):
        statement += piece
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement


def _error_text(error: psycopg.Error, text: str) -> str:
    where = ""
    position = error.diag.statement_position
    if position is not None and int(position) <= len(text):
        where = f"line {text.count(chr(10), 0, int(position) - 1) + 1}: "
    return where + without_values(error.diag.message_primary or str(error), error.sqlstate, ())
