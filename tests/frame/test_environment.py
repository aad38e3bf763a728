from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[2]
TOOLS = ("sh", "dirname", "tr", "id", "rm", "mkdir", "cat", "touch", "make")

UV = """#!/bin/sh
echo "uv $*" >> "$LOG"
if [ "$1" = venv ]; then mkdir -p .venv/bin && cat "$OLD_ENOUGH" > .venv/bin/python && chmod +x .venv/bin/python; fi
"""
PYTHON = """#!/bin/sh
case "$*" in
    *version_info*) exit {too_old} ;;
    *ensurepip*) exit {without_venv} ;;
    "-m virtualenv --version") exit {without_virtualenv} ;;
    *"-m pip --python"*"--version") exit {without_pip} ;;
    "-m pip --version") exit 1 ;;
esac
echo "python $*" >> "$LOG"
case "$*" in
    "-m venv"* | "-m virtualenv"*)
        mkdir -p .venv/bin && cat "$OLD_ENOUGH" > .venv/bin/python && chmod +x .venv/bin/python ;;
esac
"""


class Machine:
    """A folder with the Makefile and its script, and a PATH of chosen programs, which record their use."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        self.bin = folder / "bin"
        self.log = folder / "log"
        self.bin.mkdir(parents=True)
        shutil.copytree(PROJECT / ".ci", self.project / ".ci")
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(PROJECT / name, self.project)
        for tool in (*TOOLS, "chmod"):
            (self.bin / tool).symlink_to(shutil.which(tool) or pytest.fail(f"{tool} is missing"))
        self.add("old-enough", PYTHON.format(too_old=0, without_venv=1, without_virtualenv=1, without_pip=1))

    def add(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(script)
        path.chmod(0o755)

    def add_python(
        self, *, too_old: int = 0, without_venv: int = 0, without_virtualenv: int = 1, without_pip: int = 0
    ) -> None:
        self.add(
            "python3",
            PYTHON.format(
                too_old=too_old,
                without_venv=without_venv,
                without_virtualenv=without_virtualenv,
                without_pip=without_pip,
            ),
        )

    def make(self, *targets: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.bin / "make", *targets],
            cwd=self.project,
            env={"PATH": str(self.bin), "LOG": str(self.log), "OLD_ENOUGH": str(self.bin / "old-enough")},
            capture_output=True,
            text=True,
            check=False,
        )

    def uses(self) -> list[str]:
        """Return what was run since the last look."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_uv_makes_the_environment_where_there_is_one(machine: Machine) -> None:
    machine.add("uv", UV)
    machine.add_python()
    assert machine.make(".venv/.for-run").returncode == 0
    pinned = "uv pip install --quiet --python .venv/bin/python --constraint constraints.txt"
    assert machine.uses() == [
        f"uv venv --quiet --python {machine.bin}/python3 .venv",
        f"{pinned} setuptools",
        f"{pinned} --no-build-isolation --editable .[demo]",
    ]


def test_uv_brings_its_own_python_where_there_is_none(machine: Machine) -> None:
    machine.add("uv", UV)
    assert machine.make(".venv/.for-run").returncode == 0
    assert machine.uses()[0] == "uv venv --quiet --python >=3.11 .venv"


def test_without_uv_python_makes_the_environment(machine: Machine) -> None:
    machine.add_python()
    assert machine.make(".venv/.for-test").returncode == 0
    uses = machine.uses()
    assert uses[0] == "python -m venv .venv"
    assert uses[-1].endswith("--constraint constraints.txt --no-build-isolation --editable .[demo,dev,fuzz]")


def test_a_python_without_venv_is_helped_by_virtualenv(machine: Machine) -> None:
    machine.add_python(without_venv=1, without_virtualenv=0)
    assert machine.make(".venv/.for-run").returncode == 0
    assert machine.uses()[0] == "python -m virtualenv --quiet .venv"


def test_a_python_without_venv_is_helped_by_its_pip(machine: Machine) -> None:
    machine.add_python(without_venv=1)
    assert machine.make(".venv/.for-run").returncode == 0
    uses = machine.uses()
    assert uses[0] == "python -m venv --without-pip .venv"
    assert uses[1].startswith("python -m pip --python .venv/bin/python install --quiet")


def test_a_python_without_anything_is_told_what_to_install(machine: Machine) -> None:
    machine.add_python(without_venv=1, without_pip=1)
    finished = machine.make(".venv/.for-run")
    assert finished.returncode == 2
    assert "has neither venv nor pip: install uv, or Debian's python3-venv" in finished.stderr


@pytest.mark.parametrize("present", [False, True])
def test_no_python_that_is_new_enough_is_told(machine: Machine, present: bool) -> None:
    if present:
        machine.add_python(too_old=1)
    finished = machine.make(".venv/.for-run")
    assert finished.returncode == 2
    assert "no Python 3.11 or newer found" in finished.stderr


def test_nothing_is_installed_twice(machine: Machine) -> None:
    machine.add("uv", UV)
    machine.make(".venv/.for-test")
    assert machine.uses()
    machine.make(".venv/.for-test")
    machine.make(".venv/.for-run")
    assert machine.uses() == []


@pytest.mark.parametrize("name", ["constraints.txt", "pyproject.toml"])
def test_a_change_of_what_is_wanted_installs_again_into_the_same_environment(machine: Machine, name: str) -> None:
    machine.add("uv", UV)
    machine.make(".venv/.for-run")
    machine.uses()
    stamp = machine.project / ".venv" / ".for-run"
    later = stamp.stat().st_mtime + 1
    os.utime(machine.project / name, (later, later))
    machine.make(".venv/.for-run")
    assert [use.split()[1] for use in machine.uses()] == ["pip", "pip"]


def test_bench_is_skipped_while_there_is_none(machine: Machine) -> None:
    machine.add("uv", UV)
    finished = machine.make("bench")
    assert (finished.returncode, "nothing to measure" in finished.stdout) == (0, True)


def test_continuous_integration_runs_make_test(machine: Machine) -> None:
    (machine.bin / "make").unlink()
    machine.add("make", '#!/bin/sh\necho "make $*" >> "$LOG"\n')
    subprocess.run(
        [shutil.which("bash") or "bash", machine.project / ".ci" / "run"],
        env={"PATH": str(machine.bin), "LOG": str(machine.log)},
        check=True,
    )
    assert machine.uses() == ["make test"]


def _pins() -> dict[str, set[str]]:
    pins: dict[str, set[str]] = {}
    for line in (PROJECT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            pins.setdefault(canonicalize_name(requirement.name), set()).add(str(requirement.specifier))
    return pins


def test_constraints_are_exact_versions_and_nothing_else() -> None:
    for line in (PROJECT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"#.*|[a-z0-9][a-z0-9-]*==[0-9][0-9a-z.]*( ; .+)?", line), line


def test_what_the_project_needs_is_installed_in_the_pinned_versions() -> None:
    pins = _pins()
    waiting = [Requirement("regrow[dev,demo]")]
    seen: set[str] = set()
    wrong: list[str] = []
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        key = f"{name}[{','.join(sorted(requirement.extras))}]"
        if key in seen:
            continue
        seen.add(key)
        distribution = importlib.metadata.distribution(name)
        if name != "regrow" and f"=={distribution.version}" not in pins.get(name, set()):
            wrong.append(f"{name} {distribution.version}")
        for text in distribution.requires or ():
            needed = Requirement(text)
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    assert wrong == []
    assert len(seen) > 20
