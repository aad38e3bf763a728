"""A module whose first import kills its process; the next one succeeds."""

from __future__ import annotations

import os
import signal
from pathlib import Path

MARK = Path(os.environ["KILLED_ONCE_MARK"])

if not MARK.exists():
    MARK.touch()
    os.kill(os.getpid(), signal.SIGKILL)
