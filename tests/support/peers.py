"""Servers of others for the tests of HTTP: they run in an environment of their own, which `make peers` makes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import gevent
import pytest
import requests

from tests.support.ports import free_port
from tests.support.processes import Child

PROJECT = Path(__file__).resolve().parents[2]
PYTHON = PROJECT / ".venv" / "peers" / "bin" / "python"
MOUNTEBANK = PROJECT / ".venv" / "peers" / "node_modules" / "mountebank" / "bin" / "mb"
PROGRAMS = Path(__file__).parent / "foreign"

needs_peers = pytest.mark.skipif(not PYTHON.is_file(), reason="the servers of others are not there: make peers")
needs_mountebank = pytest.mark.skipif(
    not MOUNTEBANK.is_file() or shutil.which("node") is None, reason="mountebank is not there: make peers, with node"
)


class Foreign:
    """One running server; `url` is where it is. Use it with `with`."""

    def __init__(self, *command: str, environ: dict[str, str] | None = None, program: str = str(PYTHON)) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        filled = [part.replace("{port}", str(self.port)) for part in command]
        self._child = Child([program, *filled], env={"PATH": "/usr/bin:/bin", **(environ or {})})

    def __enter__(self) -> Self:
        deadline = time.monotonic() + 30.0
        while True:
            try:
                requests.get(self.url, timeout=5.0).close()
            except requests.ConnectionError:
                # Nothing tells when a foreign server listens.
                if time.monotonic() > deadline or not self._child.is_running():
                    raise AssertionError(f"{self._child!r} does not listen\n{self._child.log}") from None
                gevent.sleep(0.05)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()

    def __repr__(self) -> str:
        return f"<Foreign {self.url} {self._child!r}>"


class Mountebank(Foreign):
    """A mountebank server; its imposters are the peers that misbehave as their stubs say."""

    def __init__(self, folder: Path) -> None:
        node = shutil.which("node")
        assert node is not None
        quiet = ("--nologfile", "--loglevel", "warn", "--pidfile", str(folder / "mb.pid"))
        super().__init__(str(MOUNTEBANK), "start", "--port", "{port}", "--host", "127.0.0.1", *quiet, program=node)

    def imposter(self, *stubs: Mapping[str, Any], protocol: str = "http", **settings: Any) -> int:
        """Let an imposter listen on a free port of loopback, which is returned."""
        port = free_port()
        told = {"protocol": protocol, "host": "127.0.0.1", "port": port, "stubs": list(stubs), **settings}
        answer = requests.post(f"{self.url}/imposters", json=told, timeout=10)
        assert answer.status_code == 201, answer.text
        return port

    def seen(self, port: int) -> int:
        """Return how many requests (of tcp: pieces of data) an imposter has seen."""
        told: int = requests.get(f"{self.url}/imposters/{port}", timeout=10).json()["numberOfRequests"]
        return told

    def remove(self, port: int) -> None:
        """End an imposter and all its connections; nothing listens on its port any more."""
        requests.delete(f"{self.url}/imposters/{port}", timeout=10).raise_for_status()


def program(name: str) -> str:
    """Return the path of a server's program."""
    return str(PROGRAMS / name)
