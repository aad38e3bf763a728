"""Starting a child process without holding up the hub, and hearing of its end.

posix_spawn does not copy the daemon's memory map: 0.4 ms, where gevent.subprocess, which forks, takes 16 ms of the hub
in a process of 90 MB (medians of 20). The rest of what Popen does is done elsewhere: descriptors that Python opens are
closed by exec, and the child itself closes others and changes its folder.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping

from gevent import get_hub

from actors.workers.memory import OUT_OF_MEMORY_KILLS


class Spawned:
    """A child process in a session of its own; `code` is its exit code, negative for a signal, None until it ended.

    `memory_was_out` tells of a process that somebody else ended by SIGKILL whether the kernel did so at that time, to
    whichever process, for lack of memory; None where nobody can know.
    It reads /dev/null; `descriptors` says which of ours it gets as which of its own. `on_end` is called once, in the
    hub. Raises OSError when it cannot be started. Must be made in the hub's thread: the kernel's parent-death signal
    follows the thread, not the process.
    """

    def __init__(
        self,
        argv: list[str],
        environment: Mapping[str, str],
        descriptors: Mapping[int, int],
        on_end: Callable[[], object],
    ) -> None:
        loop = get_hub().loop
        loop.install_sigchld()
        self.code: int | None = None
        self.memory_was_out: bool | None = None
        self._killed = False
        OUT_OF_MEMORY_KILLS.look()
        self.pid = os.posix_spawn(
            argv[0],
            argv,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                # In rising order, so that none overwrites one that is still to be copied: ours are above the first
                # three.
                *((os.POSIX_SPAWN_DUP2, ours, its) for its, ours in sorted(descriptors.items())),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE,),
        )
        # Nothing has switched since the spawn, so the loop cannot have reaped it before it is watched.
        self._watcher = loop.child(self.pid, ref=False)
        self._on_end = on_end
        self._watcher.start(self._reaped)

    def _reaped(self) -> None:
        self.code = os.waitstatus_to_exitcode(self._watcher.rstatus)
        self._watcher.stop()
        self._watcher.close()
        if self.code == -signal.SIGKILL and not self._killed:
            self.memory_was_out = OUT_OF_MEMORY_KILLS.has_grown()
        # The number cannot belong to anybody else yet: it was freed in this very turn of the hub, and as long as
        # members of the session live the kernel does not give it away.
        self._send(signal.SIGKILL)
        self._on_end()

    def signal(self, number: int) -> None:
        """Send a signal to the process and to all of its session, unless it has ended. Never switches."""
        if self.code is None:
            self._killed = self._killed or number == signal.SIGKILL
            self._send(number)

    def _send(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass

    def __repr__(self) -> str:
        return f"<Spawned {self.pid} {'alive' if self.code is None else f'ended {self.code}'}>"
