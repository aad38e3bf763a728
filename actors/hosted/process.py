"""The front of an actor that lives in a child process of its own (`run_in = "process"`).

The front has the actor's name, mailbox, exports and place in the tree; its handler hands one message at a time to the
process and waits there for the answer, so queueing, deadlines and supervision are those of any actor. The state of the
user's class stays in the process. When the process ends, or an exception escapes from the class, the front crashes;
when the front is ended (a deadline, a kill), so is the process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from gevent.event import AsyncResult

from actors.hosted.wire import (
    Answer,
    Begin,
    Begun,
    Close,
    Crashed,
    FromHost,
    Handle,
    Items,
    Opened,
    Pull,
    Refusal,
    Stop,
    Stopped,
)
from actors.workers.child import HEADER_BYTES
from actors.workers.process import Command, Exit, WorkerProcess
from config.secret import Secret, redact
from regrow.protocol.errors import InvalidArguments, TooLarge, error_from_wire
from runtime import events
from runtime.actor import Actor
from runtime.exports import Exported
from runtime.messages import Call, WithHeader
from runtime.signals import Down, monitor

HOST_PROGRAM = Path(__file__).with_name("host.py").resolve()
MAX_MESSAGE = 64 << 20
MOST_AT_ONCE = 64
REAP_S = 2.0

_DECODER: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(FromHost)


class HostedCrash(Exception):
    """An exception escaped from the user's class in its process; the text has its type, message and traceback."""


class HostedProcessDied(Exception):
    """The process of an actor ended though nobody ended it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The process ended while no message was in hand."""


def _plain(value: Any) -> Any:
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, str | int | float):
        return next(kind(value) for kind in (str, int, float) if isinstance(value, kind))
    raise TypeError(f"a value of type {type(value).__module__}.{type(value).__qualname__} cannot be sent")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_plain, decimal_format="string")


class ProcessActor(Actor):
    """Stands for an actor in a process: `actor_class` is "package.module:Class", `args` its keyword arguments."""

    def __init__(self, actor_class: str, args: Mapping[str, Any], exports: Mapping[str, Exported]) -> None:
        super().__init__()
        self.exports = exports
        self._begin = Begin(actor_class, dict(args), None)
        self._process: WorkerProcess | None = None
        self._waiting: AsyncResult[Any] | None = None
        self._crashed: Crashed | None = None
        self._exit: Exit | None = None
        self._has_stopped = False
        self._shown: dict[str, Any] = {}

    def on_start(self) -> None:
        monitor(self.ref, self._after_end)
        inherited = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = WorkerProcess(
            Command(sys.executable, inherited, HOST_PROGRAM),
            max_message=MAX_MESSAGE,
            on_message=self._heard,
            on_exit=self._process_ended,
            on_line=self._print,
            decoder=_DECODER,
        )
        said = self._exchange(msgspec.structs.replace(self._begin, name=self.ref.name))
        if not isinstance(said, Begun):
            raise HostedProcessDied(f"the process of {self.ref.path} said {type(said).__name__} before it began")

    # -- messages

    def on_call(self, call: Call) -> Any:
        return self._handled(Handle("call", call.method, dict(call.args), self._left_s()))

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Ended):
            raise self._why()
        return self._handled(Handle("message", "", message, self._left_s()))

    def _left_s(self) -> float | None:
        return None if self.deadline is None else self.remaining_s(float("inf"))

    def _handled(self, message: Handle) -> Any:
        said = self._exchange(message)
        if isinstance(said, Opened):
            return self._items(said.key)
        return self._value(said)

    def _value(self, said: Any) -> Any:
        if isinstance(said, Refusal):
            self._shown = said.status
            raise error_from_wire({**said.body, "message": redact(str(said.body.get("message", "")))})
        if not isinstance(said, Answer):
            raise HostedProcessDied(f"the process of {self.ref.path} answered with {type(said).__name__}")
        self._shown = said.status
        return said.value if said.header is None else WithHeader(said.value, said.header)

    def _items(self, key: int) -> Generator[Any, None, None]:
        most, done = 1, False
        try:
            while not done:
                said = self._exchange(Pull(key, most))
                if not isinstance(said, Items):
                    done = True
                    self._value(said)
                    return
                most, done = min(2 * most, MOST_AT_ONCE), said.done
                yield from said.values
        finally:
            # Also called for a generator that is thrown away with its actor, when nobody may wait.
            if not done and self._process is not None and self._process.is_alive and self._waiting is None:
                self._process.send(self._frame(Close(key)))

    def _frame(self, message: msgspec.Struct) -> bytearray:
        frame = bytearray(HEADER_BYTES)
        try:
            _ENCODER.encode_into(message, frame, HEADER_BYTES)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidArguments(f"a message for the process of {self.ref.path} cannot be sent: {error}") from None
        size = len(frame) - HEADER_BYTES
        if size > MAX_MESSAGE:
            raise TooLarge(f"a message for {self.ref.path} is {size} bytes, the limit is {MAX_MESSAGE} bytes")
        frame[:HEADER_BYTES] = size.to_bytes(HEADER_BYTES, "big")
        return frame

    def _exchange(self, message: msgspec.Struct) -> Any:
        frame, process = self._frame(message), self._process
        if process is None or self._exit is not None:
            raise self._why()
        waiting = self._waiting = AsyncResult()
        try:
            process.send(frame)
            said = waiting.get()
        finally:
            self._waiting = None
        if isinstance(said, Exit):
            raise self._why()
        return said

    # -- the process

    def _heard(self, said: Any) -> None:
        if isinstance(said, Crashed):
            self._crashed = said  # its end follows
        elif isinstance(said, Stopped):
            self._has_stopped = True
        elif self._waiting is not None:
            self._waiting.set(said)

    def _process_ended(self, exit: Exit) -> None:
        self._exit = exit
        if self._waiting is not None:
            self._waiting.set(exit)
        elif self.ref.is_alive():
            if self._has_stopped:
                self.stop()
            else:
                self.ref.post(Ended())

    def _why(self) -> Exception:
        if self._crashed is not None:
            crashed = self._crashed
            text = f"{crashed.error}: {crashed.message}" if crashed.message else crashed.error
            return HostedCrash(redact(f"{text}\n\nin the process of {self.ref.path}:\n{crashed.traceback}"))
        lines = [line for line in (self._exit.stderr if self._exit is not None else ()) if line]
        last = f"; last on stderr: {' | '.join(lines[-3:])}" if lines else ""
        return HostedProcessDied(f"the process of {self.ref.path} {self._exit or 'is gone'}{last}")

    def _print(self, stream: str, line: str) -> None:
        events.publish("worker.output", actor=self.ref.name or self.ref.path, stream=stream, line=line)

    def on_stop(self) -> None:
        process = self._process
        if process is None or self._exit is not None:
            return
        try:
            self._exchange(Stop())
        except HostedProcessDied:
            if not self._has_stopped:
                raise
        process.wait(REAP_S)

    def _after_end(self, _down: Down) -> None:
        if self._process is not None:
            self._process.kill()

    def status(self) -> Mapping[str, Any]:
        """Return what the class showed after its last message, and the process. Never switches."""
        process = self._process
        facts: dict[str, Any] = {"run_in": "process", "pid": process.pid if process is not None else None}
        facts["rss_bytes"] = process.rss_bytes() if process is not None else None
        return {**self._shown, **facts}
