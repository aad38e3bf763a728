"""A module whose import waits until the test lets it go on."""

from __future__ import annotations

import os
import time
from pathlib import Path

GATE = Path(os.environ["SLOW_MODULE_GATE"])

while not GATE.exists():
    time.sleep(0.005)


def answer() -> int:
    return 42


def init() -> None:
    """An init function that does nothing."""


def init_that_fails() -> None:
    raise LookupError("no model here")
