"""A module whose import kills its process each time."""

from __future__ import annotations

import os
import signal

os.kill(os.getpid(), signal.SIGSEGV)
