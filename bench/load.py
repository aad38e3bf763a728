"""Client processes that keep a window of requests in flight for a while, and how many answers they got.

Each client is a program that prints `ready`, waits for a line, works for its time and prints a count.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def answers_per_s(client: Sequence[str], clients: int, seconds: float) -> float:
    """Run that many clients at the same time and return the answers of all of them per second."""
    command = [sys.executable, "-m", *client, str(seconds)]
    running = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(clients)
    ]
    try:
        for process in running:
            if _line(process) != "ready":
                raise RuntimeError(f"a client of {client[0]} did not get ready, status {process.poll()}")
        for process in running:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
        return sum(float(_line(process)) for process in running) / seconds
    finally:
        for process in running:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()
