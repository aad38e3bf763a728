"""A memory cgroup of the kernel's own, with a limit: who needs more in it is killed by the out-of-memory killer."""

from __future__ import annotations

import os
import time
from pathlib import Path

V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")
EMPTY_S = 5.0


class MemoryCgroup:
    """One cgroup below the root's; raises OSError, with what the kernel says, where none can be made."""

    def __init__(self, name: str, limit_bytes: int) -> None:
        self.is_v1 = (V1 / "memory.limit_in_bytes").exists()
        self.folder = (V1 if self.is_v1 else V2) / f"{name}-{os.getpid()}"
        if not self.is_v1:
            controllers = (V2 / "cgroup.controllers").read_text().split()
            if "memory" not in controllers:
                raise OSError(f"the controllers of {V2} are {controllers}, memory is not among them")
            (V2 / "cgroup.subtree_control").write_text("+memory")
        self.folder.mkdir()
        try:
            self._write("memory.limit_in_bytes" if self.is_v1 else "memory.max", str(limit_bytes))
        except OSError:
            self.folder.rmdir()
            raise

    def add(self, pid: int) -> None:
        """Move a process into the group."""
        self._write("cgroup.procs", str(pid))

    def kills(self) -> int:
        """How many processes of the group the kernel has killed for lack of memory."""
        text = (self.folder / ("memory.oom_control" if self.is_v1 else "memory.events")).read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill "))

    def remove(self) -> None:
        """Remove the group, whose processes must have ended."""
        until = time.monotonic() + EMPTY_S
        while True:  # the kernel lets go of an ended process a little after it was reaped, and tells nobody
            try:
                self.folder.rmdir()
                return
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)

    def _write(self, file: str, text: str) -> None:
        (self.folder / file).write_text(text)
