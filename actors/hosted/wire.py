"""What the front of an actor in a process and that process exchange: length-prefixed msgpack, as workers do."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Begin(msgspec.Struct, tag="begin", array_like=True):
    """The first message: make the actor "package.module:Class" with these arguments and start it."""

    actor_class: str
    args: dict[str, Any]
    name: str | None


class Handle(msgspec.Struct, tag="handle", array_like=True):
    """Handle one message; answered with Answer, Refusal or, for a generator, Opened.

    `remaining_s` is what is left until the deadline of the request.
    """

    kind: Literal["call", "message"]
    method: str
    body: Any
    remaining_s: float | None


class Pull(msgspec.Struct, tag="pull", array_like=True):
    """Make further items of a stream; answered with Items or Refusal."""

    key: int
    most: int


class Close(msgspec.Struct, tag="close", array_like=True):
    """Close a stream; not answered."""

    key: int


class Stop(msgspec.Struct, tag="stop", array_like=True):
    """Stop the actor in the orderly way and end; answered with Stopped."""


class Begun(msgspec.Struct, tag="begun", array_like=True):
    """The actor's on_start has returned."""


class Answer(msgspec.Struct, tag="answer", array_like=True):
    """The handler returned; `status` is what the actor shows of itself."""

    value: Any
    header: dict[str, Any] | None
    status: dict[str, Any]


class Refusal(msgspec.Struct, tag="refusal", array_like=True):
    """The handler raised a typed error, whose wire form is `body`; the actor lives."""

    body: dict[str, Any]
    status: dict[str, Any]


class Opened(msgspec.Struct, tag="opened", array_like=True):
    """The method is a generator."""

    key: int


class Items(msgspec.Struct, tag="items", array_like=True):
    """What a Pull has made."""

    values: list[Any]
    done: bool


class Stopped(msgspec.Struct, tag="stopped", array_like=True):
    """The actor has stopped in the orderly way; the process ends."""


class Crashed(msgspec.Struct, tag="crashed", array_like=True):
    """An exception escaped from the actor, at its start too; the process ends."""

    error: str
    message: str
    traceback: str


ToHost = Begin | Handle | Pull | Close | Stop
FromHost = Begun | Answer | Refusal | Opened | Items | Stopped | Crashed
