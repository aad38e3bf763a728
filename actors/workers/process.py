"""The handle of one child process: spawn it, send it a message, hear what it says, stop it. No actor and no policy.

What the process does reaches its owner as calls of `on_message`, made in the hub, and, exactly once and last, of
`on_exit`, made in a greenlet of the handle. Neither may block.

A process is the leader of its own session, so one signal reaches everything it started that has not left the session
on purpose. What is left of the session when the process ends is killed. When the daemon itself is killed by SIGKILL,
the kernel ends its workers; what these had started in turn then lives on, unless it notices that its parent is gone.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import msgspec
from gevent import get_hub, socket
from gevent.event import Event

from actors.workers import child
from actors.workers.child import HEADER_BYTES, FromChild
from actors.workers.memory import OUT_OF_MEMORY_KILLS, resident_bytes
from actors.workers.output import Lines
from actors.workers.page import Page
from actors.workers.spawn import Spawned
from config.secret import redact
from runtime import clock

CHILD_PROGRAM = Path(child.__file__).resolve()
RAY_BRIDGE_PROGRAM = CHILD_PROGRAM.with_name("ray_bridge.py")
#: no folder of ours and none of the user's account on sys.path; the Python stack of a segmentation fault on stderr
OPTIONS = ("-P", "-s", "-X", "faulthandler")
CHILD_SOCKET = 3
CHILD_PAGE = 4
ALWAYS_INHERITED = ("PATH", "HOME", "LANG")
#: so much is read in one turn of the hub; a message that is larger has a buffer of its own, and larger turns
READ_BYTES = 1 << 15
READ_SLICE_BYTES = 1 << 20
#: a process that has ended left no more than its socket's buffer holds
MAX_LEFTOVER_READS = 1000
SOCKET_BYTES = 1 << 20
PIPE_CHUNK_BYTES = 1 << 16
#: how long after the end of the process its pipes are read on, when something it detached still holds them
LEFTOVER_S = 0.1
#: glibc returns larger blocks than any that was freed before to the system, and each page of a new one costs 2 us: most
#: of what a frame of a megabyte takes. So one of this size is freed first; in return up to twice as much stays unused.
KEPT_HEAP_BYTES = 4 << 20
#: a process that closed its socket is expected to end; so long it is waited for
EOF_GRACE_S = 1.0

bytes(KEPT_HEAP_BYTES)

_FROM_CHILD: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(FromChild)
_TO_CHILD = msgspec.msgpack.Encoder(decimal_format="string")


@dataclass(frozen=True)
class Command:
    """How a child is started: interpreter, the variables it gets, program. The environment never appears in a repr."""

    python: str
    environment: Mapping[str, str] = field(repr=False)
    program: Path = CHILD_PROGRAM


@dataclass(frozen=True)
class Exit:
    """How a process ended: `code` as in subprocess (negative is a signal), the rule it broke, its last words."""

    pid: int
    code: int
    stderr: tuple[str, ...]
    violation: str | None = None
    memory_was_out: bool | None = None

    def __str__(self) -> str:
        if self.violation is not None:
            return self.violation
        if self.code < 0:
            hint = " (the kernel killed for lack of memory just then: have fewer workers, or lower max_memory)"
            return f"was ended by {_signal_name(-self.code)}{hint if self.memory_was_out else ''}"
        return f"exited with code {self.code}"

    def details(self) -> dict[str, object]:
        """Return the facts for an error's details: JSON-safe. Never switches."""
        facts: dict[str, object] = {"pid": self.pid}
        if self.code < 0:
            facts["signal"] = _signal_name(-self.code)
            if self.memory_was_out is not None:
                facts["memory_was_out"] = self.memory_was_out
        else:
            facts["exit_code"] = self.code
        if self.stderr:
            facts["stderr"] = list(self.stderr)
        return facts


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def environment(inherited: Sequence[str]) -> dict[str, str]:
    """Return the variables of a worker: PATH, HOME, LANG and the listed ones, where they are set. Never switches."""
    return {name: os.environ[name] for name in (*ALWAYS_INHERITED, *inherited) if name in os.environ}


def encode(message: msgspec.Struct) -> bytearray:
    """Return a message's whole frame; raises TypeError, ValueError or OverflowError for values that cannot travel.

    Never switches.
    """
    frame = bytearray(HEADER_BYTES)
    _TO_CHILD.encode_into(message, frame, HEADER_BYTES)
    frame[:HEADER_BYTES] = (len(frame) - HEADER_BYTES).to_bytes(HEADER_BYTES, "big")
    return frame


class WorkerProcess:
    """One living child process.

    `on_message` gets each message, `on_exit` the end, after the last message. `on_line` gets ("stdout" | "stderr",
    line) of what the child prints, bounded as `output.Lines` says. A program that says other things
    than a worker brings the `decoder` of its messages. While `on_message` runs, `together` are all messages of the same
    read, and `unheard` is how many of them are still to come.
    """

    def __init__(
        self,
        command: Command,
        *,
        max_message: int,
        on_message: Callable[[Any], object],
        on_exit: Callable[[Exit], object],
        on_line: Callable[[str, str], object],
        decoder: msgspec.msgpack.Decoder[Any] = _FROM_CHILD,
    ) -> None:
        # The child keeps to the limit by itself; the margin is for the few bytes around a value.
        self._max_frame = max_message + 1024
        self._decode = decoder.decode
        self._on_message = on_message
        self._on_exit = on_exit
        self._violation: str | None = None
        self._ended = Event()
        self._unasked_eof: clock.Timer | None = None
        self._unsent: deque[bytes | bytearray] = deque()
        self._unsent_at = 0  # so much of the first of them has been sent
        self._rest = b""
        self._large: bytearray | None = None
        self._large_got = 0
        self.unheard = 0
        self.together: list[Any] = []
        self.started_at = clock.now()
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):  # a megabyte then travels in one or two turns of the hub instead of six
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        pipes: dict[str, tuple[int, int]] = {}
        self.page: Page | None = None
        try:
            for name in ("stdout", "stderr"):
                pipes[name] = os.pipe()
            argv = [command.python, *OPTIONS, str(command.program), str(CHILD_SOCKET), str(os.getpid())]
            descriptors = {1: pipes["stdout"][1], 2: pipes["stderr"][1], CHILD_SOCKET: theirs.fileno()}
            if command.program == CHILD_PROGRAM:
                self.page = Page.where_possible()
            if self.page is not None:
                argv.append(str(CHILD_PAGE))
                descriptors[CHILD_PAGE] = self.page.fd
            self._spawned = Spawned(argv, command.environment, descriptors, lambda: gevent.spawn(self._finish))
        except BaseException:
            ours.close()
            for read_end, _ in pipes.values():
                os.close(read_end)
            raise
        finally:
            theirs.close()
            if self.page is not None:
                self.page.close_fd()
            for _, write_end in pipes.values():
                os.close(write_end)
        self.pid = self._spawned.pid
        self._socket = ours
        self._fd = ours.fileno()
        loop = get_hub().loop
        self._readable: Any = loop.io(self._fd, 1)
        self._writable: Any = loop.io(self._fd, 2)
        self._readable.start(self._read)
        self._lines = {name: Lines(partial(on_line, name), redact) for name in pipes}
        self._outputs = [gevent.spawn(read_pipe, read_end, self._lines[name]) for name, (read_end, _) in pipes.items()]

    # -- what the owner does ------------------------------------------------------------------------------------------

    def send(self, frame: bytes | bytearray) -> None:
        """Send one frame; what the socket does not take at once is sent behind the caller's back. Never switches."""
        if self._unsent:
            self._unsent.append(frame)
            return
        try:
            sent = os.write(self._fd, frame)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # it is ending; on_exit tells
        if sent < len(frame):
            self._unsent.append(frame)
            self._unsent_at = sent
            self._writable.start(self._send_rest)

    def _send_rest(self) -> None:
        unsent = self._unsent
        try:
            while unsent:
                frame = unsent[0]
                self._unsent_at += os.write(self._fd, memoryview(frame)[self._unsent_at :])
                if self._unsent_at < len(frame):
                    return
                unsent.popleft()
                self._unsent_at = 0
        except BlockingIOError:
            return
        except OSError:
            unsent.clear()  # it is ending; on_exit tells
        self._writable.stop()

    def close(self) -> None:
        """Close the socket, which an idle process takes as the request to end in its own time. Never switches."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def terminate(self) -> None:
        """Send SIGTERM to the process and all it started. Never switches."""
        self._spawned.signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the process and all it started. Never switches."""
        self._spawned.signal(signal.SIGKILL)

    def break_off(self, violation: str) -> None:
        """Kill a process that breaks the rules; its Exit will say so. Never switches."""
        if self._violation is None and self.is_alive:
            self._violation = f"{violation}, and was killed"
            self.kill()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until on_exit has been called; False when `timeout_s` passed first. Switches greenlets."""
        return bool(self._ended.wait(timeout_s))

    @property
    def is_alive(self) -> bool:
        """Whether the process has not been reaped. Never switches."""
        return self._spawned.code is None

    def rss_bytes(self) -> int | None:
        """Return the resident memory of the process and its descendants, None if unknown. Never switches."""
        OUT_OF_MEMORY_KILLS.look()
        return resident_bytes(self.pid) if self.is_alive else None

    # -- what the process does ----------------------------------------------------------------------------------------

    def read_now(self) -> None:
        """Pass on all that the process has said so far. Never switches."""
        reads = 0
        while self._readable.active and reads < MAX_LEFTOVER_READS and self._read():
            reads += 1

    def _read(self) -> bool:
        """Read once and pass on the messages that are whole; False when there is no more for now."""
        if self._large is not None:
            return self._read_large(self._large)
        try:
            chunk = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            chunk = b""
        if not chunk:
            self._read_end()
            return False
        if self._rest:
            chunk = self._rest + chunk
        self._take(chunk)
        return True

    def _take(self, chunk: bytes) -> None:
        at, end, decode = 0, len(chunk), self._decode
        messages: list[Any] = []
        broken: Exception | None = None
        try:
            while end - at >= HEADER_BYTES:
                begin = at + HEADER_BYTES
                size = int.from_bytes(chunk[at:begin], "big")
                if size > self._max_frame:
                    raise ValueError("the length of a frame is over the limit")
                if begin + size > end:
                    if size > READ_BYTES:
                        self._large = bytearray(size)
                        self._large_got = end - begin
                        self._large[: end - begin] = chunk[begin:]
                        at = end
                    break
                at = begin + size
                messages.append(decode(chunk[begin:at]))
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            broken = error
        self._rest = chunk[at:]
        self._pass_on(messages)
        if broken is not None:
            self._break_protocol(broken)

    def _read_large(self, message: bytearray) -> bool:
        view, got = memoryview(message), self._large_got
        try:
            count = os.readv(self._fd, [view[got : got + READ_SLICE_BYTES]])
        except BlockingIOError:
            return False
        except OSError:
            count = 0
        if count == 0:
            self._read_end()
            return False
        self._large_got = got + count
        if self._large_got == len(message):
            self._large = None
            try:
                decoded = self._decode(message)
            except (msgspec.MsgspecError, RecursionError, ValueError) as error:
                self._break_protocol(error)
            else:
                del view, message
                self._pass_on([decoded])
        return True

    def _pass_on(self, messages: list[Any]) -> None:
        self.unheard = len(messages)
        self.together = messages
        for message in messages:
            self.unheard -= 1
            self._on_message(message)
        self.together = []

    def _break_protocol(self, error: Exception) -> None:
        self._readable.stop()
        self.break_off(f"broke the protocol ({type(error).__name__}), something in it writes to its socket")

    def _read_end(self) -> None:
        self._readable.stop()
        if self.is_alive:
            self._unasked_eof = clock.after(EOF_GRACE_S, self.break_off, "closed its socket and lived on")

    def _finish(self) -> None:
        # What it wrote before it ended is in the socket and in the pipes already; only something that left its session
        # can keep them open.
        self.read_now()
        gevent.wait(list(self._outputs), timeout=LEFTOVER_S)
        gevent.killall(self._outputs)
        if self._unasked_eof is not None:
            self._unasked_eof.cancel()
        for watcher in (self._readable, self._writable):
            watcher.stop()
            watcher.close()
        self._unsent.clear()
        self._fd = -1  # the number may soon belong to somebody else
        self._socket.close()
        self._ended.set()
        code = self._spawned.code
        assert code is not None
        last_words = tuple(self._lines["stderr"].last)
        self._on_exit(Exit(self.pid, code, last_words, self._violation, self._spawned.memory_was_out))

    def __repr__(self) -> str:
        return f"<WorkerProcess {self._spawned!r}>"


def read_pipe(fd: int, lines: Lines) -> None:
    """Read a pipe until its writers have closed it, then close it. Switches greenlets."""
    os.set_blocking(fd, False)
    watcher = get_hub().loop.io(fd, 1)
    try:
        while True:
            # Waits before each chunk even when more is there: a flood of output must not have the hub to itself.
            get_hub().wait(watcher)
            try:
                chunk = os.read(fd, PIPE_CHUNK_BYTES)
            except BlockingIOError:
                continue
            if not chunk:
                break
            lines.feed(chunk)
    finally:
        watcher.stop()
        watcher.close()
        os.close(fd)
        lines.end()
