"""The handle of one child process: spawn it, send it a message, hear what it says, stop it. No actor and no policy.

What the process does reaches its owner as calls of `on_message` and, exactly once and last, `on_exit`; both are made in
a greenlet of the handle and must not block for long.

A process is the leader of its own session, so one signal reaches everything it started that has not left the session
on purpose. What is left of the session when the process ends is killed. When the daemon itself is killed by SIGKILL,
the kernel ends its workers; what these had started in turn then lives on, unless it notices that its parent is gone.
"""

from __future__ import annotations

import os
import signal
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
from actors.workers.spawn import Spawned
from config.secret import redact
from runtime import clock

CHILD_PROGRAM = Path(child.__file__).resolve()
RAY_BRIDGE_PROGRAM = CHILD_PROGRAM.with_name("ray_bridge.py")
#: no folder of ours and none of the user's account on sys.path; the Python stack of a segmentation fault on stderr
OPTIONS = ("-P", "-s", "-X", "faulthandler")
CHILD_SOCKET = 3
ALWAYS_INHERITED = ("PATH", "HOME", "LANG")
#: after so many received bytes the reader lets others run, whether or not more is there
READ_SLICE_BYTES = 1 << 20
SOCKET_BYTES = 1 << 20
PIPE_CHUNK_BYTES = 1 << 16
#: how long after the end of the process its pipes are read on, when something it detached still holds them
LEFTOVER_S = 0.1
#: a process that closed its socket is expected to end; so long it is waited for
EOF_GRACE_S = 1.0

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
    than a worker brings the `decoder` of its messages.
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
        self._max_message = max_message
        self._decoder = decoder
        self._on_message = on_message
        self._on_exit = on_exit
        self._violation: str | None = None
        self._ended = Event()
        self._writer: gevent.Greenlet[..., object] | None = None
        self._drained = Event()
        self._unasked_eof: clock.Timer | None = None
        self.started_at = clock.now()
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):  # a megabyte then travels in one or two turns of the hub instead of six
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        pipes = {name: os.pipe() for name in ("stdout", "stderr")}
        try:
            self._spawned = Spawned(
                [command.python, *OPTIONS, str(command.program), str(CHILD_SOCKET), str(os.getpid())],
                command.environment,
                {1: pipes["stdout"][1], 2: pipes["stderr"][1], CHILD_SOCKET: theirs.fileno()},
                lambda: gevent.spawn(self._finish),
            )
        except BaseException:
            ours.close()
            for read_end, _ in pipes.values():
                os.close(read_end)
            raise
        finally:
            theirs.close()
            for _, write_end in pipes.values():
                os.close(write_end)
        self.pid = self._spawned.pid
        self._socket = ours
        self._reader = gevent.spawn(self._read_messages)
        self._lines = {name: Lines(partial(on_line, name), redact) for name in pipes}
        self._outputs = [gevent.spawn(read_pipe, read_end, self._lines[name]) for name, (read_end, _) in pipes.items()]

    # -- what the owner does ------------------------------------------------------------------------------------------

    def send(self, frame: bytearray) -> None:
        """Send one frame; what the socket does not take at once is sent behind the caller's back. Never switches."""
        if self._writer is not None and not self._writer.dead:
            raise RuntimeError(f"process {self.pid} is still being sent a message, wait for its answer")
        sent = 0
        try:
            # Not the socket's own send, which would wait.
            sent = os.write(self._socket.fileno(), frame)
        except BlockingIOError:
            pass
        except OSError:
            return  # it is ending; on_exit tells
        if sent < len(frame):
            self._writer = gevent.spawn(self._send_rest, memoryview(frame)[sent:])

    def _send_rest(self, rest: memoryview) -> None:
        try:
            self._socket.sendall(rest)
        except OSError:
            pass  # it is ending; on_exit tells

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

    def _read_messages(self) -> None:
        try:
            self._read_frames()
        except OSError:
            pass
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            self.break_off(f"broke the protocol ({type(error).__name__}), something in it writes to its socket")
        finally:
            self._drained.set()
        if self.is_alive:
            self._unasked_eof = clock.after(EOF_GRACE_S, self.break_off, "closed its socket and lived on")

    def _read_frames(self) -> None:
        while True:
            header = self._exactly(HEADER_BYTES)
            if header is None:
                return
            size = int.from_bytes(header, "big")
            # The child keeps to the limit by itself; the margin is for the few bytes around a value.
            if size > self._max_message + 1024:
                raise ValueError("the length of a frame is over the limit")
            payload = self._exactly(size)
            if payload is None:
                return
            message = self._decoder.decode(payload)
            del payload
            self._on_message(message)

    def _exactly(self, size: int) -> bytearray | None:
        buffer = bytearray(size)
        view, got, unyielded = memoryview(buffer), 0, 0
        while got < size:
            count = self._socket.recv_into(view[got : got + READ_SLICE_BYTES])
            if count == 0:
                return None
            got += count
            unyielded += count
            if unyielded >= READ_SLICE_BYTES:
                unyielded = 0
                gevent.sleep(0)
        return buffer

    def _finish(self) -> None:
        # What it wrote before it ended is in the socket and in the pipes already; only something that left its session
        # can keep them open.
        leftovers: list[Any] = [self._drained, *self._outputs]
        gevent.wait(leftovers, timeout=LEFTOVER_S)
        gevent.killall([*self._outputs, self._reader, *filter(None, [self._writer])])
        if self._unasked_eof is not None:
            self._unasked_eof.cancel()
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
