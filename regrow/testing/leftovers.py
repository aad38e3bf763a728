"""What a test left behind: living actors, names, timers and child processes."""

from __future__ import annotations

import gc
import os
from pathlib import Path

from runtime import clock, names, scheduler
from runtime.clock import Timer
from runtime.ref import Ref
from runtime.scheduler import DEAD


def living_actors() -> list[Ref]:
    """Return every actor that has not ended, wherever it is referred to from. Slow: walks the heap. Never switches."""
    return [thing for thing in gc.get_objects() if isinstance(thing, Ref) and thing.state != DEAD]


def child_processes() -> set[int]:
    """Return the pids of this process's children, zombies left out. Never switches."""
    found = set()
    for task in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        try:
            pids = task.read_text().split()
        except OSError:  # the thread has ended since it was listed
            continue
        for pid in pids:
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except (OSError, IndexError):
                continue
            if state != "Z":
                found.add(int(pid))
    return found


class Leftovers:
    """Notes what exists when it is made; `found` tells what came since and is still there."""

    def __init__(self) -> None:
        self._living = scheduler.S.living
        self._actors = {id(ref) for ref in living_actors()} if self._living else set()
        self._names = set(names.registered())
        self._timers = {id(timer) for timer in clock.pending_timers()}
        self._processes = child_processes()

    def found(self) -> list[str]:
        """Return a line for each thing that was left behind. Never switches."""
        lines = []
        if scheduler.S.living > self._living:
            fresh = [ref for ref in living_actors() if id(ref) not in self._actors]
            lines += [f"actor {ref}" for ref in fresh if ref.parent is None or ref.parent.state == DEAD] or [
                f"actor {ref}" for ref in fresh
            ]
        lines += [f"name {name!r}" for name in names.registered() if name not in self._names]
        lines += [f"timer {timer!r}" for timer in self.timers()]
        lines += [f"process {pid}" for pid in sorted(child_processes() - self._processes)]
        return lines

    def timers(self) -> list[Timer]:
        """Return the new timers of others: the machine's own sweep ends by itself. Never switches."""
        return [
            timer
            for timer in clock.pending_timers()
            if id(timer) not in self._timers and timer is not scheduler.S.sweep_timer
        ]
