"""The example of examples/arrays, run as its README says: its configuration, its functions, its client."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from gevent import subprocess

from tests.support.fixtures import StartDaemon

EXAMPLE = Path(__file__).parents[3] / "examples" / "arrays"


@pytest.mark.slow
def test_an_array_of_100_mb_goes_there_and_back(daemon: StartDaemon, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "code", tmp_path / "code")
    text = (EXAMPLE / "regrow.toml").read_text()
    text = re.sub(r"bind = .*\n", "", text).replace('path = ["code"]', f'path = ["{tmp_path / "code"}"]')
    running = daemon(text)
    done = subprocess.run(
        [sys.executable, EXAMPLE / "client.py", running.endpoint],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.match(r"100 MB there and back in [\d.]+ s", done.stdout)
