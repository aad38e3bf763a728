"""The program of an actor's own process: it runs the user's class on a hub of its own and answers the front.

Started as `python -P -s host.py FD PARENT_PID`, a fresh interpreter, patched before anything else as the daemon is. The
class sees the API it knows, timers and generators included; names and refs of the daemon's other actors are not here.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # What the daemon itself was started with may be inheritable; gevent's own descriptors come after this.
    os.closerange(int(sys.argv[1]) + 1, min(os.sysconf("SC_OPEN_MAX"), 1 << 16))
    from gevent import monkey

    monkey.patch_all()

import importlib
import inspect
import itertools
import resource
import typing
from typing import Any

import msgspec

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
    ToHost,
)
from actors.workers.child import Codec, Connection, describe, die_with_parent, flush, stand_before_the_daemon
from config.secret import Secret
from regrow.protocol.errors import ExecutionError, InvalidArguments, NotFound, RegrowError
from runtime import clock, reasons
from runtime.exports import exports_of
from runtime.messages import Call, WithHeader
from runtime.promise import Promise
from runtime.ref import Ref, spawn
from runtime.signals import Down, monitor
from runtime.streams import Batch, Source

CRASHED = 70
_DECODER = msgspec.msgpack.Decoder(ToHost)


class Host:
    """One actor and the connection over which it is asked."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._codec = Codec()
        self._streams: dict[int, Source] = {}
        self._keys = itertools.count(1)
        self._ref: Ref | None = None
        self._is_over = False

    def serve(self) -> None:
        """Serve until the daemon closes its end. Switches greenlets."""
        while (payload := self._connection.receive()) is not None:
            message = _DECODER.decode(payload)
            match message:
                case Begin():
                    self._begin(message)
                case Handle():
                    self._handle(message)
                case Pull(key, most):
                    self._pull(key, most)
                case Close(key):
                    stream = self._streams.pop(key, None)
                    if stream is not None:
                        stream.close()
                case Stop():
                    self._living.stop(block=False, timeout=None)

    @property
    def _living(self) -> Ref:
        if self._ref is None:
            raise RuntimeError("the actor was asked before it was begun")
        return self._ref

    def _begin(self, message: Begin) -> None:
        try:
            actor_class = load(message.actor_class)
            args = fitted(actor_class, message.args)
            self._ref = spawn(actor_class, kwargs=args, name=message.name, prepare=_leave_limits_to_the_front)
        except BaseException as error:  # noqa: BLE001 - foreign code: a failed start is an answer
            self._crash(error)
        monitor(self._living, self._ended)
        self._say(Begun())

    def _handle(self, message: Handle) -> None:
        deadline = None if message.remaining_s is None else clock.now() + message.remaining_s
        promise = Promise(deadline=deadline, callback=self._answer)
        try:
            sent = self._message(message)
        except RegrowError as error:
            promise.reject(error)
        else:
            self._living.request(sent, promise)

    def _message(self, message: Handle) -> Any:
        if message.kind == "message":
            return message.body
        actor_class: Any = self._living.actor_class
        exported = exports_of(actor_class).get(message.method)
        if exported is None:
            raise NotFound(f"{type(self._living.actor).__name__} exports no method {message.method!r}")
        return Call(message.method, exported.check(message.body))

    def _answer(self, promise: Promise) -> None:
        error, value = promise.error, promise.value
        if isinstance(error, RegrowError):
            self._say(Refusal(error.to_wire(), self._status()))
        elif error is not None:
            return  # it has crashed, which `_ended` tells
        elif callable(getattr(value, "pull", None)):
            key = next(self._keys)
            self._streams[key] = value
            self._say(Opened(key))
        else:
            header = value.header if isinstance(value, WithHeader) else None
            self._say(Answer(value.value if isinstance(value, WithHeader) else value, header, self._status()))

    def _pull(self, key: int, most: int) -> None:
        stream = self._streams.get(key)

        def pulled(promise: Promise) -> None:
            if isinstance(promise.error, RegrowError):
                self._streams.pop(key, None)
                self._say(Refusal(promise.error.to_wire(), self._status()))
            elif promise.error is None:
                batch: Batch = promise.value
                if batch.done:
                    self._streams.pop(key, None)
                self._say(Items(batch.items, batch.done))

        promise = Promise(callback=pulled)
        if stream is None:
            promise.reject(NotFound("this stream is over", started="yes"))
        else:
            stream.pull(most, promise)

    def _status(self) -> dict[str, Any]:
        actor = self._living.actor
        return {} if actor is None else dict(actor.status())

    def _say(self, message: FromHost) -> None:
        flush()
        try:
            frame = self._codec.encode(message)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 - foreign values: whatever their encoding raises, their owner must hear
            refused = ExecutionError(f"the result cannot leave the process: {error}", started="yes")
            frame = self._codec.encode(Refusal(refused.to_wire(), {}))  # type: ignore[arg-type]
        self._connection.send(frame)

    def _ended(self, down: Down) -> None:
        if isinstance(down.reason, reasons.Crashed):
            self._crash(down.reason.exception)
        self._say(Stopped())
        os._exit(0)

    def _crash(self, error: BaseException) -> typing.NoReturn:
        self._say(Crashed(*describe(error)))
        os._exit(CRASHED)


def _leave_limits_to_the_front(ref: Ref) -> None:
    ref.bound = ref.timeout_s = None


def load(spec: str) -> Any:
    """Return the class named "package.module:Class"."""
    module, _, attributes = spec.partition(":")
    value: Any = importlib.import_module(module)
    for name in attributes.split("."):
        value = getattr(value, name)
    return value


def fitted(actor_class: Any, args: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments as the annotations of `__init__` want them, as the configuration's check has made them."""
    try:
        hints = typing.get_type_hints(actor_class.__init__, include_extras=True)
    except Exception:  # noqa: BLE001 - an annotation may name anything; then the plain values must do
        return args
    known = inspect.signature(actor_class.__init__).parameters
    return {
        name: msgspec.convert(value, hints[name], strict=False, dec_hook=_rebuilt)
        if name in hints and known[name].kind is not inspect.Parameter.VAR_KEYWORD
        else value
        for name, value in args.items()
    }


def _rebuilt(kind: type, value: Any) -> Any:
    if issubclass(kind, Secret):
        return Secret(value)
    try:
        return kind(value)  # type: ignore[call-arg]
    except (TypeError, ValueError) as error:
        raise InvalidArguments(f"an argument of type {kind.__name__} cannot be made in the process: {error}") from None


def main() -> None:
    """Run the process: FD and PARENT_PID are its arguments."""
    die_with_parent(int(sys.argv[2]))
    fd = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    stand_before_the_daemon()
    sys.argv[1:] = []
    Host(Connection(fd)).serve()


if __name__ == "__main__":
    main()
