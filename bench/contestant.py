"""A contestant: a process of its own that answers one line per round, so that patched and unpatched never mix.

The protocol is words, since the Erlang side speaks it too: `function key=number ...` in, `key=number ...` out, or
`error: what happened`.
"""

from __future__ import annotations

import importlib.util
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bench.question import Number, Peer

ROOT = Path(__file__).resolve().parent.parent
PEERS = Path(__file__).resolve().parent / "peers"
ANSWER_S = 600.0
ERL = ["erl", "+S", "1", "+P", "2000000", "-noshell", "-kernel", "logger_level", "none"]


class Missing(Exception):
    """A peer cannot take part here; the text says why."""


class RoundFailed(Exception):
    """A contestant answered with an error, ended, or did not answer."""


class Contestant:
    """A running contestant. Close it, or use it as a context manager."""

    def __init__(self, peer: Peer, environment: Mapping[str, str] | None = None) -> None:
        self.peer = peer
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        command = [*_raised(), *(self._erlang() if peer.module == "otp" else self._python())]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # so that what it started ends with it
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0", **(environment or {})},
        )

    def _erlang(self) -> list[str]:
        if shutil.which("erl") is None or shutil.which("erlc") is None:
            raise Missing("erl is not on PATH (Debian: erlang-nox)")
        self._folder = tempfile.TemporaryDirectory(prefix="bench-otp-")
        subprocess.run(["erlc", "-o", self._folder.name, str(PEERS / "otp.erl")], check=True, capture_output=True)
        return [*ERL, "-pa", self._folder.name, "-s", "otp", "main"]

    def _python(self) -> list[str]:
        for name in self.peer.needs.split():
            if importlib.util.find_spec(name) is None:
                raise Missing(f"{name} is not installed (make bench)")
        patched = ["--patched"] if self.peer.patched else []
        return [sys.executable, "-m", "bench.child", self.peer.module, *patched]

    def answer(self, function: str, params: Mapping[str, Number]) -> dict[str, float]:
        """Run one round; raises `RoundFailed`."""
        words = [self.peer.function or function, *(f"{key}={value}" for key, value in params.items())]
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write((" ".join(words) + "\n").encode())
            process.stdin.flush()
        except BrokenPipeError:
            raise RoundFailed(f"{self.peer.name} ended with status {process.wait()}") from None
        if not select.select([process.stdout], [], [], ANSWER_S)[0]:
            raise RoundFailed(f"{self.peer.name} did not answer within {ANSWER_S:g} s")
        line = process.stdout.readline().decode().strip()
        if not line:
            raise RoundFailed(f"{self.peer.name} ended with status {process.wait()}")
        if line.startswith("error:"):
            raise RoundFailed(f"{self.peer.name}: {line[6:].strip()}")
        return {key: float(value) for key, value in (word.split("=") for word in line.split())}

    def close(self) -> None:
        """End the process; it leaves by itself at the end of its input, or is killed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        if self._folder is not None:
            self._folder.cleanup()

    def __enter__(self) -> Contestant:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _raised() -> list[str]:
    """Run every contestant above the machine's other programs, where that is allowed: they disturb less."""
    nice = shutil.which("nice")
    return [nice, "-n", "-15"] if nice is not None and os.geteuid() == 0 else []
