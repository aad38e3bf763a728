"""Memory as the kernel tells it in /proc (Linux): what a process has, and whether it ran out. Never switches."""

from __future__ import annotations

import os
from pathlib import Path

from runtime import clock

MAX_PROCESSES = 200
#: the newest look that a death is compared with is at least so old, since the kernel counts before the process is gone
LOOK_EVERY_S = 0.5

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


class OutOfMemoryKills:
    """Tells whether the kernel has killed a process for lack of memory lately, in this machine or in one of its groups.

    `look` often, then `has_grown` covers the last one to two LOOK_EVERY_S. One look takes 34 us.
    """

    def __init__(self, source: Path = _PROC / "vmstat") -> None:
        self._source = source
        self._looked_at = float("-inf")
        self._before = self._latest = self._count()

    def look(self) -> None:
        """Remember the count of now, unless the last look was just before. Never switches."""
        now = clock.now()
        passed_s = now - self._looked_at
        if passed_s >= LOOK_EVERY_S:
            self._looked_at = now
            count = self._count()
            # What was seen long ago, when there were no workers, says nothing about lately.
            self._before, self._latest = (self._latest if passed_s < 4 * LOOK_EVERY_S else count), count

    def has_grown(self) -> bool | None:
        """Tell whether the kernel has killed since; None where it does not tell. Never switches."""
        now = self._count()
        return None if now is None or self._before is None else now > self._before

    def _count(self) -> int | None:
        try:
            _, found, rest = self._source.read_bytes().partition(b"\noom_kill ")
        except OSError:
            return None
        return int(rest.split(b"\n", 1)[0]) if found else None


OUT_OF_MEMORY_KILLS = OutOfMemoryKills()
