"""The front of an actor that has several instances (`instances` of [actors.*]): it gives each message to one of them.

With a `key` the value of that argument decides, so all calls of one key are handled by one instance, in the order in
which they came; a crash of another instance does not touch them. What has no key goes to the instance with the least to
do. The front has the entry's name, never waits, and keeps nothing but the promises on their way: the instance's answer,
or its crash, is the caller's.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Mapping
from typing import Any

from regrow.protocol.errors import InvalidArguments, RegrowError, Unavailable
from runtime.actor import Actor
from runtime.exports import Exported
from runtime.messages import Call
from runtime.names import whereis
from runtime.promise import ActorDied, Promise
from runtime.reasons import Crashed
from runtime.ref import RETRY_AFTER_S, Ref
from supervisors.partition import partition_of

Scalar = str | bytes | int | float | decimal.Decimal | uuid.UUID | dt.date | enum.Enum


def name_of_instance(name: str, instance: int) -> str:
    """Return the name of one instance, as its `ref.name` says it. Never switches."""
    return f"{name}/{instance}"


class Relay(Promise):
    """What an instance is given in place of the caller's promise: tells it when the work began, and how it ended.

    Once the caller was answered in another way (its deadline, the end of the front) the instance never begins the work.
    """

    __slots__ = ("_is_done", "outer", "target")

    def __init__(self, outer: Promise, target: Ref) -> None:
        self.outer = outer
        self.target = target
        super().__init__(deadline=outer.deadline, callback=_answer)
        outer.on_abandon = self._give_up

    @property
    def started(self) -> bool:
        return self.outer.started

    @started.setter
    def started(self, value: bool) -> None:
        self.outer.started = value

    @property
    def done(self) -> bool:
        return self._is_done or self.outer.done

    @done.setter
    def done(self, value: bool) -> None:
        self._is_done = value

    @property
    def client(self) -> str:  # type: ignore[override]
        return self.outer.client

    @property
    def is_letter(self) -> bool:  # type: ignore[override]
        return self.outer.is_letter

    def expire_at_deadline(self) -> None:
        """Leave that to the caller's own promise, whose end is this one's too. Never switches."""

    def _give_up(self) -> None:
        self.error = self.outer.error
        stop = self.on_abandon
        self._settled()
        if stop is not None:
            stop()


def _answer(relay: Promise) -> None:
    assert isinstance(relay, Relay)
    outer, error = relay.outer, relay.error
    if error is None:
        outer.resolve(relay.value)
        return
    reason = relay.target.reason
    # A caller within the process gets the exception itself, as from any actor; the wire would look for its crash in us.
    if not isinstance(error, RegrowError) and outer.callback is not None and isinstance(reason, Crashed):
        error = ActorDied(
            f"{relay.target.path} crashed while it worked on the request",
            started="yes",
            actor=relay.target.name,
            crash_id=reason.crash_id,
        )
    outer.reject(error)


class PartitionedActor(Actor):
    """Stands for the instances `name/0`, `name/1` ... of one class, whose `exports` it has."""

    def __init__(self, name: str, instances: int, key: str | None, exports: Mapping[str, Exported]) -> None:
        super().__init__()
        self.exports = exports
        self._name = name
        self._names = [name_of_instance(name, instance) for instance in range(instances)]
        self._key = key
        self._last = -1

    def on_call(self, call: Call) -> None:
        key = call.args.get(self._key) if self._key is not None else None
        self._hand_on(call, self._instance_with_least_to_do() if key is None else self._instance_of(key))

    def on_receive(self, message: Any) -> None:
        self._hand_on(message, self._instance_with_least_to_do())

    def _hand_on(self, message: Any, target: Ref) -> None:
        promise = self.defer()
        if promise.owner is None:  # told by somebody who wants to hear nothing, or given up already
            if not promise.done:
                target.request(message, None)
            return
        promise.started = False
        target.request(message, Relay(promise, target))

    def _instance_of(self, key: object) -> Ref:
        if not isinstance(key, Scalar):
            raise InvalidArguments(
                f"argument {self._key} decides which instance of {self._name} is asked, it must be a text or a number, "
                f"not {type(key).__name__}"
            )
        name = self._names[partition_of(key, len(self._names))]
        ref = whereis(name)
        if ref is None:
            raise Unavailable(
                f"{name}, to which this {self._key} belongs, is not running; come back later",
                actor=name,
                retry_after_s=RETRY_AFTER_S,
            )
        return ref

    def _instance_with_least_to_do(self) -> Ref:
        best, least, found = None, 0, 0
        number = len(self._names)
        for step in range(1, number + 1):
            place = (self._last + step) % number
            ref = whereis(self._names[place])
            if ref is None:
                continue
            load = ref.queued + (ref.runner is not None) + len(ref.deferred or ())
            if best is None or load < least:
                best, least, found = ref, load, place
            if load == 0:
                break
        if best is None:
            raise Unavailable(
                f"none of the {number} instances of {self._name} is running; come back later",
                actor=self._name,
                retry_after_s=RETRY_AFTER_S,
            )
        self._last = found
        return best

    def status(self) -> Mapping[str, Any]:
        """Return what operators see: how many there are, how many of them run, what routes. Never switches."""
        running = sum(whereis(name) is not None for name in self._names)
        return {"instances": len(self._names), "running": running, "key": self._key}
