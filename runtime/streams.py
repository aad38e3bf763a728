"""Streams: answers that come in parts, as fast as their consumer asks for them.

An exported method that is a generator answers with a `Stream`. Nothing of it runs until it is pulled; each pull is one
message, in which the actor runs the generator for a bounded number of items and a bounded time, so a consumer without
credit never blocks the actor, which serves others in between. A stream that nobody pulls for IDLE_S seconds is closed,
and so is every stream of an actor that ends. Integrations whose items come from elsewhere implement the same two calls.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterator
from typing import Any, Protocol

from regrow.protocol.errors import NotFound
from runtime import clock, events, scheduler
from runtime.promise import Promise
from runtime.ref import DEFAULT_ASK_TIMEOUT_S, STREAMS, Ref

IDLE_S = 60.0
MAX_ITEMS_PER_PULL = 1000
MAX_PULL_S = 0.02

_keys = itertools.count(1)


class Batch:
    """What one pull gave: its items in order, and whether the stream is over with them."""

    __slots__ = ("done", "items")

    def __init__(self, items: list[Any], done: bool) -> None:
        self.items = items
        self.done = done

    def __repr__(self) -> str:
        return f"<Batch of {len(self.items)}{', the last' if self.done else ''}>"


class Source(Protocol):
    """What a consumer needs of a stream, wherever its items come from."""

    def pull(self, most: int, promise: Promise) -> None:
        """Settle `promise` with a `Batch` of 1 to `most` items (0 only when done), or an error. Never switches."""
        ...

    def close(self) -> None:
        """Let go of the stream; idempotent. Never switches."""
        ...


class Pull:
    """The message that asks an actor for the next items of one of its streams."""

    __slots__ = ("key", "most")

    def __init__(self, key: int, most: int) -> None:
        self.key = key
        self.most = most


class Close:
    """The message that ends a stream early."""

    __slots__ = ("key",)

    def __init__(self, key: int) -> None:
        self.key = key


class Stream:
    """The answer of a generator method: a `Source`, and in the same process an iterable."""

    __slots__ = ("key", "ref")

    def __init__(self, ref: Ref, key: int) -> None:
        self.ref = ref
        self.key = key

    def pull(self, most: int, promise: Promise) -> None:
        """Ask for the next items; `promise` is settled with a `Batch` or an error. Never switches."""
        self.ref.request(Pull(self.key, max(1, min(most, MAX_ITEMS_PER_PULL))), promise)

    def close(self) -> None:
        """Let go of the stream; the generator is closed in its actor. Never switches."""
        if self.ref.is_alive():
            self.ref.post(Close(self.key))

    def __iter__(self) -> Iterator[Any]:
        return iterate(self)

    def __repr__(self) -> str:
        return f"<Stream {self.key} of {self.ref.path}>"


def iterate(source: Source, *, at_once: int = 100, timeout_s: float = DEFAULT_ASK_TIMEOUT_S) -> Iterator[Any]:
    """Yield the items of a source, waiting at most `timeout_s` seconds for each pull. Switches greenlets."""
    done = False
    try:
        while not done:
            promise = Promise(deadline=clock.now() + timeout_s)
            source.pull(at_once, promise)
            promise.expire_at_deadline()
            batch: Batch = promise.wait()
            done = batch.done
            yield from batch.items
    finally:
        if not done:
            source.close()


class _Open:
    """A stream inside its actor."""

    __slots__ = ("generator", "timer")

    def __init__(self, generator: Generator[Any, Any, Any]) -> None:
        self.generator = generator
        self.timer: clock.Timer | None = None

    def forget(self) -> None:
        """Let no timer outlive the stream. Never switches."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def open_stream(ref: Ref, generator: Generator[Any, Any, Any]) -> Stream:
    """Keep a generator of the calling actor as a stream. Never switches."""
    streams = _streams_of(ref)
    key = next(_keys)
    opened = streams[key] = _Open(generator)
    _expect_pull(ref, key, opened)
    return Stream(ref, key)


def _streams_of(ref: Ref) -> dict[int, _Open]:
    actor = ref.actor
    streams: dict[int, _Open] | None = actor.__dict__.get(STREAMS)
    if streams is None:
        streams = actor.__dict__[STREAMS] = {}
    return streams


def _expect_pull(ref: Ref, key: int, opened: _Open) -> None:
    if opened.timer is not None:
        opened.timer.cancel()
    opened.timer = clock.after(IDLE_S, _idle, ref, key)


def _idle(ref: Ref, key: int) -> None:
    if ref.is_alive():
        events.publish("stream.idled", actor=ref.name or ref.path, idle_s=IDLE_S)
        ref.post(Close(key))


def _handle_pull(ref: Ref, message: Pull) -> Batch:
    streams = _streams_of(ref)
    opened = streams.get(message.key)
    if opened is None:
        raise NotFound("this stream is over: it ended, was closed, or was not read for too long", started="yes")
    items: list[Any] = []
    until = time.monotonic() + MAX_PULL_S
    try:
        while len(items) < message.most:
            items.append(next(opened.generator))
            if time.monotonic() > until:
                break
    except StopIteration:
        _forget(streams, message.key, opened)
        return Batch(items, True)
    except BaseException:
        _forget(streams, message.key, opened)
        raise
    _expect_pull(ref, message.key, opened)
    return Batch(items, False)


def _handle_close(ref: Ref, message: Close) -> None:
    streams = _streams_of(ref)
    opened = streams.get(message.key)
    if opened is not None:
        _forget(streams, message.key, opened)
        opened.generator.close()


def _forget(streams: dict[int, _Open], key: int, opened: _Open) -> None:
    streams.pop(key, None)
    opened.forget()


scheduler.SPECIAL[Pull] = _handle_pull
scheduler.SPECIAL[Close] = _handle_close
