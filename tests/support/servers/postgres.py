"""A private PostgreSQL server: a real cluster in a temporary folder, on a loopback port that it keeps for life."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg
from psycopg import sql

from tests.support.ports import free_port
from tests.support.processes import Child, ChildFailed, end_with_parent
from tests.support.servers.folders import make_folder, remove_folder, unprivileged_user
from tests.support.servers.programs import postgres_folder

_STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "16MB",
    "max_connections": "50",
    "max_wal_size": "256MB",
    "autovacuum_naptime": "1h",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_destination": "stderr",
}


@dataclass(frozen=True)
class PostgresDatabase:
    """One database of a private server."""

    name: str
    url: str

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        """Open a connection in autocommit mode; whoever asks closes it (`with` does)."""
        return psycopg.connect(self.url, autocommit=True, **options)


class PostgresServer:
    """Owns one PostgreSQL cluster from initdb to the removal of its folder.

    `with PostgresServer() as server:` starts it; `start`, `stop`, `restart`, `kill`, `sigstop` and `sigcont` may
    follow in any order. The port, the password and the data stay the same for life.
    Logins need the password.
    """

    user = "regrow"

    def __init__(self, **settings: str) -> None:
        self.programs = postgres_folder()
        self.password = secrets.token_hex(8)
        self.port = free_port()
        self._settings = _SETTINGS | settings
        self._runs_as = unprivileged_user()
        self._folder = make_folder("postgres", self._runs_as)
        self._child: Child | None = None
        self._databases = 0
        try:
            self._make_programs_reachable()
            self._initialise()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> PostgresServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<PostgresServer port={self.port} {self._child!r}>"

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return self._running().pid

    @property
    def log(self) -> str:
        return "" if self._child is None else self._child.log

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database, password included."""
        return f"postgresql://{self.user}:{self.password}@127.0.0.1:{self.port}/{database}"

    def is_running(self) -> bool:
        return self._child is not None and self._child.is_running()

    def start(self) -> None:
        """Start it and return when it accepts connections; nothing happens when it runs."""
        for attempt in range(5):
            if self.is_running():
                return
            arguments = [argument for name, value in self._settings.items() for argument in ("-c", f"{name}={value}")]
            self._child = Child(
                [str(self.programs / "postgres"), "-D", str(self._data), "-p", str(self.port), *arguments],
                env=self._environment(),
                cwd=self._folder,
                user=self._runs_as,
            )
            try:
                self._child.wait_for_line(
                    "database system is ready to accept", 30.0
                )  # a standby: read-only connections
                return
            except ChildFailed:
                taken = "could not bind" in self._child.log
                self._child.kill()
                # Between the choice and the first start another test run may have taken the port.
                if attempt == 4 or not taken or self._databases:
                    raise
                self.port = free_port()

    def stop(self, mode: str = "fast") -> None:
        """Stop it: "fast" ends sessions and saves, "immediate" drops them as a crash does, "smart" waits for them."""
        if self._child is None:
            return
        if self._child.is_running():
            self._child.thaw()
        self._child.stop(_STOP_SIGNALS[mode], 20.0)
        self._child = None

    def restart(self, mode: str = "fast") -> None:
        """Stop and start it on the same port with the same data."""
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """SIGKILL the postmaster and its backends."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def sigstop(self) -> None:
        """Freeze the postmaster and every backend: connections stay open, nothing is answered."""
        self._running().freeze()

    def sigcont(self) -> None:
        """End `sigstop`."""
        self._running().thaw()

    def create_database(self) -> PostgresDatabase:
        """Create an empty database with a new name."""
        self._databases += 1
        name = f"test_{self._databases}"
        self._administer(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return PostgresDatabase(name, self.url(name))

    def drop_database(self, database: PostgresDatabase) -> None:
        """Drop a database and end the sessions in it."""
        self._administer(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database.name)))

    def close(self) -> None:
        """End it and remove its folder."""
        if self._child is not None:
            # Nobody will read the data again: an immediate stop spares the checkpoint, a kill leaves its shared memory.
            try:
                self.stop("immediate")
            except ChildFailed:
                self.kill()
        remove_folder(self._folder)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _running(self) -> Child:
        if self._child is None or not self._child.is_running():
            raise ChildFailed("the private PostgreSQL server is stopped: start it first")
        return self._child

    def _administer(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url(), autocommit=True, connect_timeout=10) as connection:
            connection.execute(statement)

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "HOME": str(self._folder)}

    def _make_programs_reachable(self) -> None:
        # Programs from a wheel may lie in a home folder that the unprivileged user cannot enter.
        user = self._runs_as
        if user is None or self._try(["postgres", "--version"]):
            return
        package = self.programs.parents[1]
        # A wheel's programs find its libraries by their relative place, beside the package.
        for source in (package, package.with_name(f"{package.name}.libs")):
            if source.is_dir():
                shutil.copytree(source, self._folder / source.name, symlinks=True)
        for path in self._folder.rglob("*"):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
        self.programs = self._folder / self.programs.relative_to(package.parent)

    def _try(self, command: list[str]) -> bool:
        try:
            self._run_program(command)
        except (OSError, subprocess.SubprocessError):
            return False
        return True

    def _initialise(self) -> None:
        password_file = self._folder / "password"
        password_file.write_text(self.password)
        if self._runs_as is not None:
            os.chown(password_file, self._runs_as.pw_uid, self._runs_as.pw_gid)
        options = ["--no-sync", "--no-locale", "--encoding=UTF8", "--auth=scram-sha-256", f"--username={self.user}"]
        self._run_program(["initdb", *options, f"--pwfile={password_file}", f"--pgdata={self._data}"])
        password_file.unlink()

    def _run_program(self, command: list[str]) -> None:
        finished = subprocess.run(
            [str(self.programs / command[0]), *command[1:]],
            env=self._environment(),
            cwd=self._folder,
            preexec_fn=end_with_parent(self._runs_as),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
        if finished.returncode:
            output = finished.stdout.decode("utf-8", "replace")
            raise subprocess.SubprocessError(f"{command[0]} ended with {finished.returncode}: {output}")
