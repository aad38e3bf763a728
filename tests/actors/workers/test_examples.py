"""The examples of examples/arrays and examples/frames, run as their READMEs say: configuration, functions, client."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from gevent import subprocess

from tests.support.fixtures import StartDaemon

EXAMPLES = Path(__file__).parents[3] / "examples"


def output_of(name: str, daemon: StartDaemon, folder: Path) -> str:
    """Run an example's daemon and then its client, and return what the client prints."""
    shutil.copytree(EXAMPLES / name / "code", folder / "code")
    text = (EXAMPLES / name / "regrow.toml").read_text()
    text = re.sub(r"bind = .*\n", "", text).replace('path = ["code"]', f'path = ["{folder / "code"}"]')
    running = daemon(text)
    done = subprocess.run(
        [sys.executable, EXAMPLES / name / "client.py", running.endpoint],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed: str = done.stdout
    return printed


@pytest.mark.slow
def test_an_array_of_100_mb_goes_there_and_back(daemon: StartDaemon, tmp_path: Path) -> None:
    assert re.match(r"100 MB there and back in [\d.]+ s", output_of("arrays", daemon, tmp_path))


@pytest.mark.slow
def test_a_data_frame_goes_there_and_comes_back_as_its_readme_shows(daemon: StartDaemon, tmp_path: Path) -> None:
    printed = [line.split() for line in output_of("frames", daemon, tmp_path).splitlines()]
    shown = (EXAMPLES / "frames" / "README.md").read_text().partition("client.py\n")[2].partition("```")[0]
    assert printed == [line.split() for line in shown.splitlines()]
    assert len(printed) == 4
