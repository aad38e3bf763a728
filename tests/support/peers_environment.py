"""`python -m tests.support.peers_environment`: make .venv/peers with the servers of others, in their exact versions.

Those written in Python go into an environment of their own; mountebank, which is written in JavaScript, goes beside
them into node_modules where there is an npm. Exit status 0 when everything that this machine can run is there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
FOLDER = PROJECT / ".venv" / "peers"
WANTED = Path(__file__).parent / "foreign"
REQUIREMENTS = WANTED / "requirements.txt"


def main() -> int:
    node = _start_npm()
    status = _python()
    if node is not None and (found := node.wait()) != 0:
        return found
    return status


def _python() -> int:
    python = FOLDER / "bin" / "python"
    uv = shutil.which("uv")
    commands: list[Sequence[str]]
    if uv is not None:
        commands = [
            [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(FOLDER)],
            [uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(REQUIREMENTS)],
        ]
    else:
        quiet = ["--quiet", "--disable-pip-version-check"]
        commands = [
            [sys.executable, "-m", "venv", str(FOLDER)],
            [str(python), "-m", "pip", "install", *quiet, "-r", str(REQUIREMENTS)],
        ]
    for command in commands:
        done = subprocess.run(command, check=False)
        if done.returncode:
            return done.returncode
    return 0


def _start_npm() -> subprocess.Popen[bytes] | None:
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        sys.stderr.write("no node with npm on this machine: the tests that need mountebank are skipped\n")
        return None
    FOLDER.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(WANTED / "package.json", FOLDER / "package.json")
    # What packages want to run at their installation is not run: none of them needs it.
    quiet = ["--silent", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--omit=dev"]
    return subprocess.Popen([npm, "install", "--prefix", str(FOLDER), *quiet])


if __name__ == "__main__":
    sys.exit(main())
