"""The event bus: what happened, in the past tense, for logs, metrics, operators and subscribers on the wire.

Publishing is a plain call in the publisher's greenlet; a subscriber must neither block nor switch. With nobody
subscribed a publication costs one test. The last events are kept in a bounded ring, numbered without gaps.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from runtime import clock

KEPT = 1000

Subscriber = Callable[["Event"], None]


class Event:
    """One thing that happened: `number`, `at` (unix seconds), `topic` ("actor.crashed") and JSON-safe `fields`.

    `source` is the object itself that the fields describe, for subscribers in the same process.
    """

    __slots__ = ("at", "fields", "number", "source", "topic")

    def __init__(self, number: int, topic: str, fields: dict[str, Any], source: object) -> None:
        self.source = source
        self.number = number
        self.at = clock.wall()
        self.topic = topic
        self.fields = fields

    def __repr__(self) -> str:
        return f"<Event {self.number} {self.topic} {self.fields}>"


_numbers = itertools.count(1)
_subscribers: tuple[Subscriber, ...] = ()
_recent: deque[Event] = deque(maxlen=KEPT)
_log = logging.getLogger("regrow.events")


def publish(topic: str, *, _source: object = None, **fields: Any) -> None:
    """Tell every subscriber, and remember the event. Never switches."""
    if not _subscribers:
        return
    event = Event(next(_numbers), topic, fields, _source)
    _recent.append(event)
    for subscriber in _subscribers:
        try:
            subscriber(event)
        except Exception:  # noqa: BLE001 - the bus is an edge: a broken subscriber must not harm the publisher
            _log.exception("a subscriber of events failed", extra={"topic": topic})


def listening() -> bool:
    """Tell whether a publication would reach anybody, for publishers whose fields are costly. Never switches."""
    return bool(_subscribers)


def subscribe(subscriber: Subscriber) -> Callable[[], None]:
    """Add a subscriber and return the function that removes it. Never switches."""
    global _subscribers
    _subscribers = (*_subscribers, subscriber)

    def unsubscribe() -> None:
        global _subscribers
        _subscribers = tuple(s for s in _subscribers if s is not subscriber)

    return unsubscribe


def recent() -> list[Event]:
    """Return the last events, oldest first. Never switches."""
    return list(_recent)
