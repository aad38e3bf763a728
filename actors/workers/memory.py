"""Resident memory of a process and its descendants, read from /proc (Linux). Never switches."""

from __future__ import annotations

import os
from pathlib import Path

MAX_PROCESSES = 200

_PROC = Path("/proc")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int) -> int | None:
    """Return the resident memory of a process and its descendants; None when it is gone or the system has no /proc."""
    total: int | None = None
    waiting, seen = [pid], 0
    while waiting and seen < MAX_PROCESSES:
        folder = _PROC / str(waiting.pop())
        seen += 1
        try:
            pages = int((folder / "statm").read_bytes().split()[1])
            for task in os.listdir(folder / "task"):  # noqa: PTH208 - names only, a Path each would double the cost
                waiting += map(int, (folder / "task" / task / "children").read_bytes().split())
        except (OSError, IndexError, ValueError):
            continue
        total = (total or 0) + pages * _PAGE_BYTES
    return total
