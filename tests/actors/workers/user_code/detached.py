"""Functions that start processes which are to live on."""

from __future__ import annotations

import subprocess
import sys

SLEEPER = [sys.executable, "-c", "import time; time.sleep(300)"]


def in_its_own_session() -> int:
    """What a user writes who means it."""
    return subprocess.Popen(SLEEPER, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid


def in_the_session_of_the_worker() -> int:
    return subprocess.Popen(SLEEPER, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid
