"""Runs a piece of a program in a fresh interpreter that nobody has patched, as users of the client have it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run_unpatched(code: str, *arguments: str, timeout_s: float = 30.0) -> Any:
    """Run `code` with `sys.argv[1:] == arguments`; return what it prints as JSON, fail when it fails or warns."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return json.loads(done.stdout)
