"""A real `regrow run` in a process of its own, with a configuration, ports and a folder of its own.

    d = daemon('''
    [integrations.db]
    type = "database"
    url = "sqlite:///var/app.db"
    ''', env={"GITHUB_TOKEN": "x"}, files={"my_app.py": "..."})
    d.get("/tree").json(); d.run("tree", "--json").stdout; d.endpoint; d.pid; d.log

Where the text says nothing, the gateway and HTTP listen on free loopback ports. The configuration is
`<folder>/regrow.toml`; relative paths in it start there. `d.kill(); d.start()` is a crash and a new start with the same
folder and ports. Everything still running when the test ends is stopped in good order, and must end so.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.support.ports import free_port
from tests.support.processes import Child, ChildFailed, await_end, end_processes, processes_below
from tests.support.servers.folders import make_folder, remove_folder

READY_LINE = r"^regrow \S+ is ready\b"
"""What the daemon prints when it serves requests."""

COVERAGE_VARIABLES = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
PROGRAM = Path(sys.executable).with_name("regrow")

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 20.0
CHILD_END_TIMEOUT_S = 3.0
"""How long child processes may outlive a daemon that was killed."""


class Daemon:
    """One daemon; start it with `start`, which the fixture does."""

    def __init__(
        self,
        toml: str = "",
        *,
        env: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        measured: bool = True,
    ) -> None:
        self.folder = make_folder("daemon", None)
        self.config = self.folder / "regrow.toml"
        for name, text in (files or {}).items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.config.write_text(with_free_ports(toml))
        # The text may be wrong on purpose: then there is no endpoint to speak of.
        try:
            settings = tomllib.loads(self.config.read_text())
        except tomllib.TOMLDecodeError:
            settings = {}
        self.endpoint = next(iter(settings.get("gateway", {}).get("bind", ())), "")
        self.http = f"http://{settings.get('http', {}).get('bind', '')}"
        self.state_dir = self.folder / settings.get("daemon", {}).get("state_dir", "var")
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("REGROW_")}
        if not measured:
            for name in COVERAGE_VARIABLES:
                self._environment.pop(name, None)
        self._environment |= env or {}
        self._child: Child | None = None
        self._below: list[psutil.Process] = []

    def __repr__(self) -> str:
        return f"<Daemon {self.endpoint} {self._child!r}>"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def process(self) -> Child:
        """The process; AssertionError before the first start."""
        if self._child is None:
            raise ChildFailed("the daemon was not started")
        return self._child

    @property
    def log(self) -> str:
        """Everything that the latest start wrote to stdout and stderr."""
        return "" if self._child is None else self._child.log

    def is_running(self) -> bool:
        return self._child is not None and self._child.is_running()

    def start(self, *arguments: str, ready: bool = True) -> None:
        """Start it, and return when it is ready; with `ready=False` at once (a daemon that must refuse to start)."""
        if self.is_running():
            raise ChildFailed(f"{self!r} runs already")
        command = [str(PROGRAM), "run", "--config", str(self.config), *arguments]
        self._child = Child(command, env=self._environment, cwd=self.folder)
        if ready:
            self._child.wait_for_line(READY_LINE, START_TIMEOUT_S)

    def wait_for_log(self, pattern: str, timeout_s: float = 10.0) -> re.Match[str]:
        """Return the first match of `pattern` in a line of the log, waiting for it when need be."""
        return self.process.wait_for_line(pattern, timeout_s)

    def get(self, path: str, *, timeout_s: float = 10.0, **options: Any) -> requests.Response:
        """GET a path of the HTTP edge."""
        with requests.Session() as session:
            session.trust_env = False
            return session.get(self.http + path, timeout=timeout_s, **options)

    def run(
        self, *arguments: str, input_text: str | None = None, timeout_s: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line against this daemon and return its status and output."""
        return subprocess.run(
            [str(PROGRAM), *arguments],
            env=self._environment | {"REGROW_ENDPOINT": self.endpoint, "REGROW_CONFIG": str(self.config)},
            cwd=self.folder,
            stdin=subprocess.DEVNULL if input_text is None else None,
            input=input_text,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def children(self) -> list[psutil.Process]:
        """Return the living processes below the daemon: its Python workers and what they started."""
        return processes_below(self.pid)

    def send_signal(self, number: int) -> None:
        """Send a signal; what is below the daemon then must be gone when it has ended."""
        self._remember_below()
        self.process.send_signal(number)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Return the exit status; ChildFailed when it has not ended in time, or has left a process behind."""
        status = self.process.wait(timeout_s)
        self._require_nothing_below()
        return status

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """End it by SIGTERM, as `wait` does, and return the exit status."""
        self.send_signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL it. Its workers must notice by themselves."""
        self.send_signal(signal.SIGKILL)
        self.wait(5.0)

    def close(self) -> None:
        """Stop it when it runs, remove its folder. ChildFailed when it did not end in good order."""
        try:
            if self.is_running():
                status = self.stop()
                if status != 0:
                    raise ChildFailed(f"{self!r} ended with status {status} at SIGTERM; its log:\n{self.log}")
        finally:
            if self._child is not None:
                self._child.kill()
            end_processes(self._below)
            remove_folder(self.folder)

    def _remember_below(self) -> None:
        if self.is_running():
            known = {process.pid for process in self._below}
            self._below += [process for process in self.children() if process.pid not in known]

    def _require_nothing_below(self) -> None:
        if left := await_end(self._below, CHILD_END_TIMEOUT_S):
            names = [f"{process.pid} {' '.join(process.cmdline())}" for process in left]
            raise ChildFailed(f"{self!r} left processes behind: {'; '.join(names)}; its log:\n{self.log}")
        self._below.clear()


def with_free_ports(toml: str) -> str:
    """Return the configuration with listeners on free ports where it names none; what is no TOML stays."""
    try:
        parsed = tomllib.loads(toml)
    except tomllib.TOMLDecodeError:
        return toml
    for table, line in (
        ("gateway", f'bind = ["tcp://127.0.0.1:{free_port()}"]'),
        ("http", f'bind = "127.0.0.1:{free_port()}"'),
    ):
        if "bind" in parsed.get(table, {}):
            continue
        header = re.compile(rf"^\s*\[{table}\].*$", re.MULTILINE)
        if found := header.search(toml):
            toml = f"{toml[: found.end()]}\n{line}{toml[found.end() :]}"
        else:
            toml = f"{toml}\n[{table}]\n{line}\n"
    return toml
