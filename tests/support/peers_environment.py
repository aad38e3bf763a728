"""`python -m tests.support.peers_environment`: make .venv/peers with the servers of others, in their exact versions."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
FOLDER = PROJECT / ".venv" / "peers"
REQUIREMENTS = Path(__file__).parent / "foreign" / "requirements.txt"


def main() -> int:
    python = FOLDER / "bin" / "python"
    uv = shutil.which("uv")
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


if __name__ == "__main__":
    sys.exit(main())
