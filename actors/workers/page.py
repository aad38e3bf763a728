"""The page of memory that a worker process shares with its daemon: how calls that were sent ahead are taken back.

A message that is in the socket cannot be fetched back from there, and a process that is deep in a long call answers no
questions. So each side writes one word that the other reads: the process the number of the message that it has taken
last, before it looks further; the daemon the number up to which it takes its calls back, before it looks what has been
taken. Whichever comes second sees what the first has written, so both agree on every single call whether it has begun.
"""

from __future__ import annotations

import fcntl
import mmap
import os

from gevent.monkey import get_original

from actors.workers.child import BEGUN, BUSY_NS, PAGE_BYTES, TAKEN_BACK

#: above the numbers that descriptors have in a child, which would otherwise be overwritten before they are copied
LOWEST_FD = 10

#: The lock is a fence between a word that is written and one that is read, which the processor may swap without it.
#: It is taken twice: nothing moves behind the first release, nothing before the second acquire, and these two keep
#: their order. One acquire would do on x86-64, where it is a full barrier, but not on ARM.
_fence = get_original("_thread", "allocate_lock")()


class Page:
    """The daemon's side. Never switches."""

    @staticmethod
    def where_possible() -> Page | None:
        """Return a fresh page, None on a system that has no memory files: calls are then not sent ahead."""
        return Page() if hasattr(os, "memfd_create") else None

    def __init__(self) -> None:
        made = os.memfd_create("regrow-worker")
        try:
            os.ftruncate(made, PAGE_BYTES)
            self._words = memoryview(mmap.mmap(made, PAGE_BYTES)).cast("Q")
            self.fd = fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, LOWEST_FD)
        finally:
            os.close(made)

    def close_fd(self) -> None:
        """Close the descriptor, once the child has its own; the memory stays."""
        os.close(self.fd)

    def begun(self) -> int:
        """Return the number of the message that the process has taken last."""
        return int(self._words[BEGUN])

    def busy_ns(self) -> int:
        """Return for how long the process has worked on calls that are answered."""
        return int(self._words[BUSY_NS])

    def take_back(self, up_to: int) -> int:
        """Take back all calls up to this number that have not begun; return the number of the last that has."""
        self._words[TAKEN_BACK] = up_to
        with _fence:
            pass
        with _fence:
            return int(self._words[BEGUN])
