"""Servers of others for the tests of HTTP: they run in an environment of their own, which `make peers` makes."""

from __future__ import annotations

import time
from pathlib import Path

import gevent
import pytest
import requests

from tests.support.ports import free_port
from tests.support.processes import Child

PROJECT = Path(__file__).resolve().parents[2]
PYTHON = PROJECT / ".venv" / "peers" / "bin" / "python"
PROGRAMS = Path(__file__).parent / "foreign"

needs_peers = pytest.mark.skipif(not PYTHON.is_file(), reason="the servers of others are not there: make peers")


class Foreign:
    """One running server; `url` is where it is. Use it with `with`."""

    def __init__(self, *command: str, environ: dict[str, str] | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        filled = [part.replace("{port}", str(self.port)) for part in command]
        self._child = Child([str(PYTHON), *filled], env={"PATH": "/usr/bin:/bin", **(environ or {})})

    def __enter__(self) -> Foreign:
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


def program(name: str) -> str:
    """Return the path of a server's program."""
    return str(PROGRAMS / name)
