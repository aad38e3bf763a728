"""Programs that serve all contestants of a question: they print where they are, and end with their input."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from bench.contestant import ROOT


@contextmanager
def served(module: str, variable: str) -> Iterator[Mapping[str, str]]:
    """Run such a program and give its line to the contestants as an environment variable."""
    command = [sys.executable, "-m", module]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield {variable: process.stdout.readline().decode().strip()}
        finally:
            process.stdin.close()
            process.wait(20)
