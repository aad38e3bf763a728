"""What the Node.js client needs to be tested: node itself, and the npm package in .venv/node.

The package brings its compiled part for the usual platforms inside, so its own install script, which would build or
fetch one, is not run.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
CLIENT = PROJECT / "clients" / "node"
FOLDER = Path(sys.prefix) / "node"
MINIMUM = 18


def why_not() -> str | None:
    """Tell why the client cannot run here, None when it can."""
    node = shutil.which("node")
    if node is None:
        return "there is no node on this machine"
    found = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    if not found.startswith("v") or int(found[1:].partition(".")[0]) < MINIMUM:
        return f"node is {found.strip() or 'broken'}, the client needs {MINIMUM} or newer"
    wanted, there = _wanted(), _installed()
    if there != wanted:
        return f"the npm package zeromq {wanted} is not in {FOLDER} (python -m tests.support.install)"
    load = subprocess.run(
        [node, "--input-type=module", "-e", 'import "zeromq"'], cwd=FOLDER, capture_output=True, timeout=30, check=False
    )
    return "the npm package zeromq has no compiled part for this machine" if load.returncode else None


def install_client(run: Callable[[Sequence[str]], bool]) -> str | None:
    """Install the package when it is missing; return why the client still cannot run."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return "there is no node with npm on this machine"
    if _installed() != _wanted():
        FOLDER.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CLIENT / "package.json", FOLDER / "package.json")
        quiet = ("--silent", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts")
        run([npm, "install", "--prefix", str(FOLDER), *quiet])
    return why_not()


def _wanted() -> str:
    return str(json.loads((CLIENT / "package.json").read_text())["dependencies"]["zeromq"])


def _installed() -> str | None:
    try:
        return str(json.loads((FOLDER / "node_modules" / "zeromq" / "package.json").read_text())["version"])
    except (OSError, ValueError, KeyError):
        return None
