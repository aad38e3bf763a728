"""The README's tour, executed block by block in a copy of the project, on ports of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from tests.support.ports import free_port
from tests.support.processes import Child
from tests.tour.readme import ROOT, Block, blocks, promised, section

TOUR = "A tour of five minutes"
PORTS = ("5757", "5758", "5759")
COPIED = ("config", "examples", "Makefile", "pyproject.toml", "constraints.txt")
BLOCK_TIMEOUT_S = 60.0
START_TIMEOUT_S = 30.0

CURL = """\
#!{python}
import sys, urllib.request
sys.stdout.buffer.write(urllib.request.build_opener(urllib.request.ProxyHandler({{}})).open(sys.argv[-1]).read())
"""


class Terminal:
    """A shell that runs one block after another, as a person at a terminal does."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._count = 0
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            cwd=folder, env=environment, start_new_session=True,
        )  # fmt: skip

    def run(self, text: str) -> str:
        """Run a block and return everything that it wrote."""
        self._count += 1
        mark = f"--- end of block {self._count} ---"
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{text}\nwait\necho '{mark}'\n".encode())
        self._shell.stdin.flush()
        written: list[str] = []
        with gevent.Timeout(
            BLOCK_TIMEOUT_S, AssertionError(f"a block did not end within {BLOCK_TIMEOUT_S} s:\n{text}")
        ):
            for line in self._shell.stdout:
                if line.decode().strip() == mark:
                    return "".join(written)
                written.append(line.decode())
        raise AssertionError(f"the shell ended in a block:\n{text}\nafter:\n{''.join(written)}")

    def close(self) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait(10.0)
        assert self._shell.stdout is not None
        self._shell.stdout.close()


@pytest.fixture
def ports() -> dict[str, str]:
    """The README's ports, and the free ones that stand in for them."""
    return {port: str(free_port()) for port in PORTS}


def on(ports: dict[str, str], text: str) -> str:
    for written, used in ports.items():
        text = text.replace(written, used)
    return text


@pytest.fixture
def project(tmp_path: Path, ports: dict[str, str]) -> Path:
    """A copy of what a fresh clone holds, with an environment that is installed already."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, tmp_path / name)
    for file in (tmp_path / "config/default.toml", tmp_path / "examples/client.py"):
        file.write_text(on(ports, file.read_text()))
    (tmp_path / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (tmp_path / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    (tmp_path / ".venv/.for-run").touch()
    return tmp_path


@pytest.fixture
def environment(project: Path, ports: dict[str, str]) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("REGROW_", "MAKE"))}
    own["REGROW_ENDPOINT"] = f"tcp://127.0.0.1:{ports['5757']}"  # the command line's default has the README's port
    own["PYTHONUNBUFFERED"] = "1"
    own.pop("NO_COLOR", None)
    if shutil.which("curl") is None:
        tools = project / "tools"
        tools.mkdir()
        (tools / "curl").write_text(CURL.format(python=sys.executable))
        (tools / "curl").chmod(0o755)
        own["PATH"] = f"{tools}:{own['PATH']}"
    return own


class Tour:
    """What runs during a tour."""

    def __init__(self, project: Path, environment: dict[str, str], ports: dict[str, str]) -> None:
        self.project = project
        self.environment = environment
        self.ports = ports
        self.terminal = Terminal(project, environment)
        self.running: list[Child] = []

    def start(self, text: str) -> Child:
        """Start what stays running, in a terminal of its own."""
        child = Child(["bash", "-c", f"exec {text.strip()}"], env=self.environment, cwd=self.project)
        self.running.append(child)
        return child

    def close(self) -> None:
        self.terminal.close()
        for child in reversed(self.running):
            child.kill()


@pytest.fixture
def tour(project: Path, environment: dict[str, str], ports: dict[str, str]) -> Iterator[Tour]:
    made = Tour(project, environment, ports)
    yield made
    for child in made.running:
        print(f"--- {child!r}\n{child.log}")  # noqa: T201 - shown by pytest when the tour failed
    made.close()


def require(output: str, text: str, block: str) -> None:
    wanted = promised(text)
    if wanted.search(output) is None:
        raise AssertionError(f"the block\n{block}\npromises\n{text}\nand wrote\n{output}")


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_the_tour_runs_as_the_readme_tells_it(tour: Tour) -> None:
    last: Block | None = None
    child: Child | None = None
    output = ""
    ran = 0
    for block in blocks(section(TOUR)):
        text = on(tour.ports, block.text)
        if block.language == "sh" and block.stays_running:
            child, last = tour.start(text), block
            if "make run" in text:
                child.wait_for_line(r"^regrow \S+ is ready", START_TIMEOUT_S)
                child.wait_for_line(r"^`- http", 5.0)
            else:
                child.wait_for_line(r"^Serving HTTP", START_TIMEOUT_S)
        elif block.language == "sh":
            child, last = None, block
            output = tour.terminal.run(text)
            ran += 1
        elif block.language == "python":
            assert text == (tour.project / "examples/client.py").read_text()
            assert len(text.splitlines()) == 8
        else:
            assert block.language == "text"
            assert last is not None
            require(child.log + "\n" if child is not None else output, text, last.text)
    assert ran == 4
    daemon, peer = tour.running
    # Ctrl-C reaches everything in the terminal's foreground, make and the daemon alike.
    os.killpg(peer.pid, signal.SIGINT)
    peer.wait(10.0)
    refused = tour.terminal.run("""python examples/client.py catalog product '{"id": "1"}'""")
    assert '"code":"connection_error"' in refused
    assert '"started":"no"' in refused
    peer = tour.start(f"python3 -m http.server {tour.ports['5759']} --bind 127.0.0.1 --directory examples/catalog")
    peer.wait_for_line(r"^Serving HTTP", START_TIMEOUT_S)
    assert "watering can" in recovered(tour)
    os.killpg(daemon.pid, signal.SIGINT)
    daemon.wait(20.0)
    assert '"event":"daemon.stopped","cut_off":0' in daemon.log


def recovered(tour: Tour) -> str:
    """Ask until the circuit lets a probe through, which the tour's configuration does after two seconds."""
    deadline = time.monotonic() + 15.0
    while True:
        answer = tour.terminal.run("""python examples/client.py catalog product '{"id": "1"}'""")
        if answer.startswith("REPLY") or time.monotonic() > deadline:
            return answer
        gevent.sleep(0.3)
