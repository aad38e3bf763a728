"""The batcher actor: gathers what many callers want sent, and sends it as one message; each caller gets its own answer.

It stands before any actor that can do many things at once for the price of one. A batch goes when it is full, when its
oldest item has waited `max_delay_s`, when a caller in it has spent half of its time, or when the daemon drains; what a
caller that gave up wanted is left out. The batch lives as long as its most patient caller: one with a tiny deadline
shortens nothing for the others, and when all have given up the batch is cancelled.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regrow.protocol.errors import DecodeError, Overloaded, RegrowError, Unavailable
from runtime import clock, events
from runtime.actor import Actor
from runtime.measure import Counter, Gauge
from runtime.messages import WithHeader
from runtime.names import whereis
from runtime.promise import ClientPromise, Promise

BATCHES = Counter("batches_total", "batches that were sent, by how they ended", ("actor", "operation", "outcome"))
ITEMS = Counter("batch_items_total", "items that came, by what became of them", ("actor", "operation", "outcome"))
WAITING = Gauge("batch_waiting", "items that wait for their batch to be sent", ("actor", "operation"))

BATCH_OUTCOMES = ("ok", "failed", "cancelled")
ITEM_OUTCOMES = ("answered", "refused", "failed", "overloaded", "gave_up")

MAX_SIZE, MAX_DELAY_S = 100, 5.0
# The actor behind it is back within its supervisor's first pauses; for longer nobody waits for it.
PATIENCE_S, PAUSE_S = 2.0, 0.02
# At the end of the daemon what was sent is waited for, a little shorter than a supervisor waits for its child.
LAST_ANSWERS_S = 4.0

Split = Callable[[Any, int], Sequence[Any]]


class _Place:
    """An item's place in the next batch, which it leaves when its caller gives up."""

    __slots__ = ("_leave", "_promise")

    def __init__(self, leave: Callable[[Promise], None], promise: Promise) -> None:
        self._leave = leave
        self._promise = promise

    def __call__(self) -> None:
        self._leave(self._promise)

    def withdraw(self) -> bool:
        """Leave it; nobody has begun what has not been sent."""
        self._leave(self._promise)
        return False


@dataclass(frozen=True, slots=True)
class Item:
    """Ask for one thing to be done, as one of a batch; `weight` counts against the batcher's `max_weight`."""

    value: Any
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """What the actor behind gets: `items` in order of arrival, and a `key` that no other batch has.

    Its answer is split among the callers; the error it raises goes to all of them.
    """

    items: tuple[Any, ...]
    key: str


@dataclass(frozen=True, slots=True)
class _Due:
    """The batcher's own timer."""


@dataclass(frozen=True, slots=True)
class _Draining:
    """Told by the batcher to itself: from now on nothing waits for more."""


@dataclass(frozen=True, slots=True, eq=False)
class _Answered:
    """Told by the batcher to itself: a message, so that a split that is wrong crashes nobody else."""

    flight: _Flight


class _Flight:
    """A batch on its way, and who waits for it."""

    __slots__ = ("batch", "done", "ends", "gone", "patience_ends", "promises")

    def __init__(self, batch: Batch, promises: list[Promise], now: float, ends: float) -> None:
        self.batch = batch
        self.promises = promises
        self.ends = ends
        self.patience_ends = now + PATIENCE_S
        self.done: Promise | None = None
        self.gone = 0


def each(answer: Any, count: int) -> Sequence[Any]:
    """Split an answer that is a list with one place for each item, in order; raises DecodeError. Never switches.

    A place that holds an exception is that item's error.
    """
    if not isinstance(answer, list | tuple):
        raise DecodeError(f"a batch of {count} was answered with a value of type {type(answer).__name__}, not a list")
    if len(answer) != count:
        raise DecodeError(f"a batch of {count} got {len(answer)} answers")
    return answer


def alike(answer: Any, count: int) -> Sequence[Any]:
    """Give the one answer to all. Never switches."""
    return [answer] * count


class Batcher(Actor):
    """Batches for the actor that has the name `to`; ask it with an `Item`.

    `integration` and `operation` name it in metrics and errors. `queue` bounds the items that wait or are on their way;
    more are refused with Overloaded. `message` makes what the actor is sent, `split` the answers of its answer. A batch
    ends `timeout_s` seconds after it was sent, whatever its callers' deadlines.
    """

    timeout = 60.0

    def __init__(
        self,
        integration: str,
        to: str,
        *,
        max_size: int = MAX_SIZE,
        max_delay_s: float = MAX_DELAY_S,
        max_weight: float = math.inf,
        queue: int = 10_000,
        timeout_s: float = 30.0,
        operation: str = "",
        message: Callable[[Batch], object] = lambda batch: batch,
        split: Split = each,
    ) -> None:
        super().__init__()
        if max_size < 1 or max_delay_s <= 0 or queue < max_size:
            raise ValueError(
                f"a batch holds at least 1 item, waits for some time, and its queue holds one batch at least: found "
                f"max_size {max_size}, max_delay_s {max_delay_s:g}, queue {queue}"
            )
        self._labels = (integration, operation)
        self._to = to
        self._max_size = max_size
        self._max_delay_s = max_delay_s
        self._max_weight = max_weight
        self._bound = queue
        self._timeout_s = timeout_s
        self._message = message
        self._split = split
        self._waiting: dict[Promise, Item] = {}
        self._weight = 0
        self._due_at = math.inf
        self._timer: clock.Timer | None = None
        self._flights: set[_Flight] = set()
        self._under_way = 0

    def on_start(self) -> None:
        """Make the series exist; hear of the daemon's drain, in which nobody waits for others any more."""
        declare(*self._labels)
        self._count()
        ref = self.ref

        def hear(event: events.Event) -> None:
            if not ref.is_alive():
                stop_listening()
            elif event.topic == "daemon.draining":
                ref.post(_Draining())

        stop_listening = events.subscribe(hear)
        self._stop_listening = stop_listening

    def on_stop(self) -> None:
        """Send what waits, and wait for the answers for some seconds."""
        self._stop_listening()
        self._flush()
        ends = clock.now() + LAST_ANSWERS_S
        for flight in list(self._flights):
            if flight.done is None:
                self._settle(flight, self._unavailable("is stopping"))
                continue
            try:
                flight.done.wait(max(0.0, ends - clock.now()))
            except Exception:  # noqa: BLE001 - an edge: what went wrong is told to those who wait
                pass
            if flight.done.done:
                self._answered(flight, flight.done)

    def on_receive(self, message: object) -> None:
        """Take an item into the next batch; its answer comes later. Never switches."""
        if isinstance(message, Item):
            self._take(message)
        elif isinstance(message, _Due):
            self._flush()
        elif isinstance(message, _Draining):
            self._max_delay_s = 0.0
            self._flush()
        elif isinstance(message, _Flight):
            self._send(message)
        elif isinstance(message, _Answered):
            flight = message.flight
            if flight in self._flights and flight.done is not None:
                self._answered(flight, flight.done)
        else:
            raise TypeError(f"the batcher of {self._name} got a message of type {type(message).__name__}")

    def status(self) -> Mapping[str, Any]:
        """Return how many items wait and how many are on their way. Never switches."""
        return {
            "waiting": len(self._waiting),
            "under_way": self._under_way,
            "batches": len(self._flights),
            "max_size": self._max_size,
            "max_delay_s": self._max_delay_s,
        }

    @property
    def _name(self) -> str:
        integration, operation = self._labels
        return f"{integration}.{operation}" if operation else integration

    def _take(self, item: Item) -> None:
        open_items = len(self._waiting) + self._under_way
        if open_items >= self._bound:
            ITEMS.inc(*self._labels, "overloaded")
            raise Overloaded(
                f"{self._name}: {open_items} items wait for their batch or are on their way, come back later",
                actor=self._labels[0],
                retry_after_s=1.0,
            )
        if self._waiting and self._weight + item.weight > self._max_weight:
            self._flush()
        promise, now = self.defer(), clock.now()
        self._waiting[promise] = item
        self._weight += item.weight
        promise.on_abandon = _Place(self._left, promise)
        delay_s = self._max_delay_s
        if promise.deadline is not None:
            delay_s = min(delay_s, max(0.0, promise.deadline - now) / 2)
        if delay_s <= 0 or len(self._waiting) >= self._max_size or self._weight >= self._max_weight:
            self._flush()
        elif now + delay_s < self._due_at:
            if self._timer is not None:
                self._timer.cancel()
            self._due_at = now + delay_s
            self._timer = self.send_after(delay_s, _Due())
        self._count()

    def _left(self, promise: Promise) -> None:
        """Leave out what a caller wanted that gave up before it was sent."""
        item = self._waiting.pop(promise, None)
        if item is None:
            return
        ITEMS.inc(*self._labels, "gave_up")
        self._weight -= item.weight
        if not self._waiting:
            self._no_timer()
        self._count()

    def _no_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due_at = math.inf

    def _flush(self) -> None:
        self._no_timer()
        waiting, self._waiting, self._weight = self._waiting, {}, 0
        if not waiting:
            return
        now = clock.now()
        promises = list(waiting)
        deadlines = [math.inf if promise.deadline is None else promise.deadline for promise in promises]
        batch = Batch(tuple(item.value for item in waiting.values()), uuid.uuid4().hex)
        flight = _Flight(batch, promises, now, min(now + self._timeout_s, max(deadlines)))
        for promise in promises:
            promise.on_abandon = lambda: self._gone(flight)
        self._flights.add(flight)
        self._under_way += len(promises)
        self._count()
        self._send(flight)

    def _send(self, flight: _Flight) -> None:
        if flight not in self._flights:
            return
        ref = whereis(self._to)
        if ref is not None:
            name = f"batches of {self._name}"
            flight.done = ClientPromise(name, deadline=flight.ends, callback=lambda _: self.ref.post(_Answered(flight)))
            ref.request(self._message(flight.batch), flight.done)
        elif clock.now() + PAUSE_S < min(flight.patience_ends, flight.ends):
            # It has just crashed: its supervisor brings it back.
            self.send_after(PAUSE_S, flight)
        else:
            self._settle(flight, self._unavailable("has nobody to send to"))

    def _gone(self, flight: _Flight) -> None:
        """Count a caller that gave up while its batch is on its way; nobody works on a batch that nobody waits for."""
        ITEMS.inc(*self._labels, "gave_up")
        flight.gone += 1
        if flight.gone == len(flight.promises):
            if flight.done is None:
                self._end(flight, "cancelled")
            else:
                flight.done.cancel()

    def _answered(self, flight: _Flight, answer: Promise) -> None:
        if answer.error is not None:
            self._settle(flight, answer.error)
            return
        value, header = answer.value, None
        if isinstance(value, WithHeader):
            value, header = value.value, value.header
        try:
            answers = self._split(value, len(flight.promises))
        except RegrowError as error:
            self._settle(flight, error)
            return
        for promise, own in zip(flight.promises, answers, strict=True):
            if isinstance(own, BaseException):
                if promise.reject(own):
                    ITEMS.inc(*self._labels, "refused")
            elif promise.resolve(own if header is None else WithHeader(own, {**header, "batch": len(answers)})):
                ITEMS.inc(*self._labels, "answered")
        self._end(flight, "ok")

    def _settle(self, flight: _Flight, error: BaseException) -> None:
        """Give all that still wait the same error."""
        for promise in flight.promises:
            if promise.reject(error):
                ITEMS.inc(*self._labels, "failed")
        self._end(flight, "cancelled" if flight.gone == len(flight.promises) else "failed")

    def _end(self, flight: _Flight, outcome: str) -> None:
        if flight in self._flights:
            self._flights.discard(flight)
            self._under_way -= len(flight.promises)
            BATCHES.inc(*self._labels, outcome)

    def _unavailable(self, why: str) -> Unavailable:
        return Unavailable(f"the batcher of {self._name} {why}", actor=self._labels[0], retry_after_s=1.0)

    def _count(self) -> None:
        WAITING.set(len(self._waiting), *self._labels)


def declare(integration: str, operation: str = "") -> None:
    """Make every series of a batcher exist. Never switches."""
    for outcome in BATCH_OUTCOMES:
        BATCHES.declare(integration, operation, outcome)
    for outcome in ITEM_OUTCOMES:
        ITEMS.declare(integration, operation, outcome)
    WAITING.declare(integration, operation)
