"""Child processes of tests: they die with pytest, their output is kept, and one can wait for a line of it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import gevent
import psutil
from gevent.event import Event

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)

LOG_LINES = 20_000


class ChildFailed(AssertionError):
    """A child process ended, or stayed silent, where a test needed it."""


def adopt_orphans() -> None:
    """Make this process the parent of every orphan below it, so that what a killed child leaves behind is seen here."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent(user: pwd.struct_passwd | None = None) -> Callable[[], None]:
    """Return what a new child must run before exec: become `user`, and be killed when the thread that made it ends.

    The kernel forgets the death signal when the user changes, hence the order. The parent may have died before the
    call, hence the second look.
    """
    parent = os.getpid()

    def before_exec() -> None:
        if user is not None:
            os.setgroups([])
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
        if sys.platform == "linux":
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

    return before_exec


class Child:
    """One child process in a session of its own; its output is one log whose last lines are kept."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: pwd.struct_passwd | None = None,
    ) -> None:
        self.argv = tuple(argv)
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self._line_count = 0
        self._news = Event()
        self._process = subprocess.Popen(
            self.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            preexec_fn=end_with_parent(user),  # noqa: PLW1509 (two system calls, no lock, no import)
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._reader = gevent.spawn(self._read, self._process.stdout)

    def __repr__(self) -> str:
        state = "running" if self.is_running() else f"ended with {self.returncode}"
        return f"<Child {Path(self.argv[0]).name} pid={self.pid} {state}>"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    @property
    def log(self) -> str:
        """What it wrote until now, the last LOG_LINES lines."""
        return "\n".join(self._lines)

    def is_running(self) -> bool:
        return self._process.poll() is None

    def _read(self, pipe: IO[bytes]) -> None:
        try:
            for line in pipe:
                self._lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self._line_count += 1
                self._wake()
        finally:
            pipe.close()
            self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news.clear()

    def wait_for_line(self, pattern: str, timeout_s: float = 20.0, *, after_line: int = 0) -> re.Match[str]:
        """Return the first match of `pattern` in a line written after line number `after_line`.

        Raise `ChildFailed` with the log when the process ends, or `timeout_s` passes, without one.
        """
        wanted = re.compile(pattern)
        deadline = time.monotonic() + timeout_s
        seen = after_line
        while True:
            ended = self._reader.dead
            first_kept = self._line_count - len(self._lines)
            for line in list(self._lines)[max(0, seen - first_kept) :]:
                if match := wanted.search(line):
                    return match
            seen = self._line_count
            if ended:
                gevent.with_timeout(1.0, self._process.wait, timeout_value=None)
                raise ChildFailed(f"{self!r} ended without a line like {pattern!r}; its log:\n{self.log}")
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise ChildFailed(f"{self!r} wrote no line like {pattern!r} within {timeout_s} s; its log:\n{self.log}")
            self._news.wait(remaining_s)

    @property
    def lines_written(self) -> int:
        """How many lines it wrote until now; a mark for `wait_for_line(after_line=...)`."""
        return self._line_count

    def wait(self, timeout_s: float) -> int:
        """Return the exit status; raise `ChildFailed` with the log when it has not ended after `timeout_s`."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ChildFailed(f"{self!r} did not end within {timeout_s} s; its log:\n{self.log}") from None
        # A grandchild may hold the pipe open: what is in it by now is read, more is not waited for.
        self._reader.join(1.0)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens when the process has ended."""
        if self.is_running():
            os.kill(self.pid, number)

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 10.0) -> int:
        """Send a signal and return the exit status; not ended after `timeout_s`, it is killed and that is a failure."""
        self.send_signal(number)
        try:
            return self.wait(timeout_s)
        except ChildFailed:
            self.kill()
            raise

    def kill(self) -> None:
        """End it with SIGKILL, and every process below it."""
        below = processes_below(self.pid) if self.is_running() else []
        self.send_signal(signal.SIGKILL)
        self._process.wait(10.0)
        end_processes(below)
        self._reader.kill(timeout=5.0)

    def freeze(self) -> None:
        """SIGSTOP it and everything below it: its sockets stay open and nobody answers."""
        frozen = [psutil.Process(self.pid)]
        frozen[0].suspend()
        frozen += processes_below(self.pid)
        for process in frozen[1:]:
            process.suspend()
        # The signal is sent, not yet obeyed, and nothing tells when it is.
        deadline = time.monotonic() + 5.0
        while any(process.status() != psutil.STATUS_STOPPED for process in frozen) and time.monotonic() < deadline:
            gevent.sleep(0.001)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        for process in (*processes_below(self.pid), psutil.Process(self.pid)):
            with contextlib.suppress(psutil.NoSuchProcess):  # it may end at any moment, being let go or not
                process.resume()


def processes_below(pid: int) -> list[psutil.Process]:
    """Return every living descendant of a process."""
    try:
        return [child for child in psutil.Process(pid).children(recursive=True) if _is_alive(child)]
    except psutil.NoSuchProcess:
        return []


def children_of_this_process() -> dict[int, psutil.Process]:
    """Return the living children of this process by pid, adopted orphans among them."""
    children: dict[int, psutil.Process] = {}
    for pid in _child_pids():
        try:
            child = psutil.Process(pid)
        except psutil.NoSuchProcess:
            continue
        if _is_alive(child):
            children[pid] = child
    return children


def _child_pids() -> list[int]:
    # The kernel's own list costs microseconds where psutil reads every process of the machine.
    try:
        lists = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
    except OSError:
        lists = []
    if lists:
        return [int(pid) for text in lists for pid in text.split()]
    return [child.pid for child in psutil.Process().children()]


def end_processes(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL processes and wait until they are gone."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass
    await_end(processes, 5.0)


def await_end(processes: Sequence[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait until processes, children or not, have ended; return those that are alive after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    alive = [process for process in processes if _is_alive(process)]
    # There is no event for the end of a process that is not a child of ours.
    while alive and time.monotonic() < deadline:
        gevent.sleep(0.01)
        alive = [process for process in alive if _is_alive(process)]
    return alive


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
