"""The feed: events for the subscriptions of clients, read from the ring that the event bus keeps.

A subscription is a place in the ring (`cursor`): publishing only marks it, and one hub callback later it catches up, so
a burst of events costs no queue. It stops where its client's outbox is not empty and goes on when that was read; what
left the ring meanwhile is told by a GAP. An event's `seq` is its number in the daemon, so a client that comes back
names the last one it saw as `since`.

Who may see what: clients with `*` all of it. Others see the events of the actors that they may reach, without anything
that could hold a payload, a foreign text or a traceback, and never what concerns operators alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec
from gevent import get_hub

from config.secret import redact
from regrow.protocol.codec import Codec
from regrow.protocol.errors import BadRequest, Forbidden
from runtime import events
from runtime.edge.gateway import counters
from runtime.edge.gateway.rights import Rights
from runtime.events import KEPT, Event

if TYPE_CHECKING:
    from runtime.edge.gateway.peer import Peer

MAX_EVENT_BYTES: Final = 64 * 1024
MAX_TEXT_CHARS: Final = 500
MAX_KNOWN_TOPICS: Final = 1000

_PATTERN: Final = re.compile(r"\*|[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*(?:\.\*)?")
#: topics, and groups of them, for clients that may everything
_OPERATORS_ONLY: Final = frozenset(
    {"admin", "hub", "wire", "http", "health", "daemon", "actor.traced", "worker.output"}
)
#: what other clients see of an event: names and numbers that the daemon made itself
_SHOWN: Final = frozenset(
    {"actor", "incarnation", "restarts", "retry_in_s", "retry_after_s", "crash_id", "count", "calls", "idle_s"}
)


class Topics:
    """What a subscription is about: exact topics, `group.*`, or `*`."""

    __slots__ = ("_all", "_exact", "_groups", "patterns")

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(dict.fromkeys(patterns))
        for pattern in self.patterns:
            if not _PATTERN.fullmatch(pattern):
                raise BadRequest(f"{pattern!r:.80} is no topic, write breaker.opened, breaker.* or *")
        if not self.patterns:
            raise BadRequest('the header names no topics, give `topics`, such as ["breaker.*"], or ["*"] for all')
        self._all = "*" in self.patterns
        self._exact = frozenset(self.patterns)
        self._groups = tuple(pattern[:-1] for pattern in self.patterns if pattern.endswith(".*"))

    def match(self, topic: str) -> bool:
        """Tell whether a topic is meant. Never switches."""
        return self._all or topic in self._exact or topic.startswith(self._groups)

    def without(self, patterns: Iterable[str]) -> Topics | None:
        """Return the topics that are left, None when none is; raises `BadRequest` for one that is not there."""
        gone = set(patterns)
        unknown = sorted(gone - self._exact)
        if unknown:
            raise BadRequest(f"the subscription has no topic {unknown[0]!r:.80}")
        left = [pattern for pattern in self.patterns if pattern not in gone]
        return Topics(left) if left else None


def check_rights(rights: Rights, topics: Topics) -> None:
    """Raise `Forbidden` for a topic of which this client can never see anything. Never switches."""
    if rights.are_all:
        return
    if rights.are_none:
        raise Forbidden("the client may reach no actor, so it may see no events")
    for pattern in topics.patterns:
        if _is_for_operators(pattern.removesuffix(".*")):
            raise Forbidden(f"the topic {pattern} is for clients that may everything")


def _is_for_operators(topic: str) -> bool:
    return topic in _OPERATORS_ONLY or topic.partition(".")[0] in _OPERATORS_ONLY


def _may_see(rights: Rights, event: Event) -> bool:
    if rights.are_all:
        return True
    if _is_for_operators(event.topic):
        return False
    name, slash, _ = str(event.fields.get("actor", "")).partition("/")
    # a path from the root down belongs to an actor without a name, whoever has a name "root"
    return rights.sees(name) and not (slash and name == "root")


class Subscription:
    """One SUB of one connection: what it is about, and how far it has come."""

    __slots__ = ("behind", "codec", "cursor", "feed", "id", "peer", "topics")

    def __init__(self, feed: Feed, peer: Peer, id: bytes, topics: Topics, codec: Codec) -> None:
        self.feed = feed
        self.peer = peer
        self.id = id
        self.topics = topics
        self.codec: Codec = codec
        self.cursor = 0  # the number of the last event that was sent or is no concern of it
        self.behind = 0  # events after the cursor that it should get

    def wants(self, event: Event) -> bool:
        """Tell whether this event is for it. Never switches."""
        return self.topics.match(event.topic) and _may_see(self.peer.rights, event)

    def go_on(self) -> None:
        """Send what has come since, as far as its client reads. Never switches."""
        peer = self.peer
        if peer.subscriptions.get(self.id) is not self:
            return
        if peer.outbox:
            peer.paused[self] = None
            return
        kept = self.feed.kept_after(self.cursor)
        if self.feed.oldest > self.cursor + 1:
            kept = [event for event in kept if self.wants(event)]
            self.tell_gap(self.behind - len(kept))
            self.behind = len(kept)
        for event in kept:
            if peer.outbox:
                peer.paused[self] = None
                return
            self.cursor = event.number
            if not self.wants(event):
                continue
            self.behind -= 1
            header = {"seq": event.number, "topic": event.topic, "at": round(event.at, 6)}
            if self.codec != "json":
                header["codec"] = self.codec
            peer.send_event("EVENT", self.id, header, self.feed.body_of(event, self.codec, full=peer.rights.are_all))
            if peer.gone:
                return

    def tell_gap(self, lost: int | None) -> None:
        """Say that so many events (None: nobody knows how many) went missing before the next one. Never switches."""
        self.cursor = max(self.cursor, self.feed.oldest - 1)
        if lost != 0:
            counters.EVENTS_LOST.inc(by=lost or 0)
            self.peer.send_event("GAP", self.id, {"lost": lost, "seq": self.cursor}, None)

    def end(self) -> None:
        """Send nothing more. Never switches."""
        self.peer.subscriptions.pop(self.id, None)
        self.peer.paused.pop(self, None)
        self.feed.forget(self)

    def __repr__(self) -> str:
        return f"<Subscription {self.id!r} to {', '.join(self.topics.patterns)}, {self.behind} behind>"


class Feed:
    """All subscriptions of one gateway, as one subscriber of the event bus."""

    def __init__(self) -> None:
        self._subscriptions: dict[Subscription, Feed | None] = {}
        self._by_topic: dict[str, list[Subscription]] = {}
        self._waiting: dict[Subscription, None] = {}
        self._encoded: dict[tuple[int, Codec, bool], bytes] = {}
        self._scheduled = False
        self._unsubscribe: Callable[[], None] | None = None
        self.newest = 0
        self.oldest = 1

    def open(self) -> None:
        """Listen from now on, so that the bus keeps events for those who come later. Never switches."""
        if self._unsubscribe is None:
            self._measure()
            self._unsubscribe = events.subscribe(self._on_event)

    def close(self) -> None:
        """Listen no more. Never switches."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def __len__(self) -> int:
        return len(self._subscriptions)

    def add(self, peer: Peer, id: bytes, topics: Topics, codec: Codec) -> Subscription:
        """Subscribe from the next event on. Never switches."""
        subscription = Subscription(self, peer, id, topics, codec)
        subscription.cursor = self.newest
        peer.subscriptions[id] = subscription
        self._subscriptions[subscription] = None
        counters.SUBSCRIPTIONS.add(1)
        self._by_topic.clear()
        return subscription

    def replay(self, subscription: Subscription, since: int) -> None:
        """Send the events after `since` that are still kept; a GAP tells of those that are not. Never switches."""
        lost: int | None = 0
        if since > self.newest:  # numbers of an earlier run of the daemon: what came after them nobody knows
            since, lost = 0, None
        elif since < self.oldest - 1:
            lost = self.oldest - 1 - since
        subscription.cursor = max(since, self.oldest - 1)
        subscription.behind = sum(map(subscription.wants, self.kept_after(subscription.cursor)))
        subscription.tell_gap(lost)
        subscription.go_on()

    def change(self, subscription: Subscription, topics: Topics) -> None:
        """Be about other topics from now on. Never switches."""
        subscription.topics = topics
        subscription.behind = sum(map(subscription.wants, self.kept_after(subscription.cursor)))
        self._by_topic.clear()

    def forget(self, subscription: Subscription) -> None:
        """Let go of a subscription that ended. Never switches."""
        if self._subscriptions.pop(subscription, self) is None:
            counters.SUBSCRIPTIONS.add(-1)
        self._waiting.pop(subscription, None)
        self._by_topic.clear()

    def end_all(self) -> None:
        """Send what there is and end every subscription: the daemon drains. Never switches."""
        self._catch_up()
        for subscription in list(self._subscriptions):
            subscription.end()

    def _on_event(self, event: Event) -> None:
        self.newest = event.number
        self.oldest = max(1, event.number - KEPT + 1, self.oldest)
        if not self._subscriptions:
            return
        interested = self._by_topic.get(event.topic)
        if interested is None:
            interested = self._interested(event.topic)
        for subscription in interested:
            if _may_see(subscription.peer.rights, event):
                subscription.behind += 1
                self._waiting[subscription] = None
        if self._waiting and not self._scheduled:
            # not here: the publisher may be in the middle of anything, also of what sends to the same clients
            self._scheduled = True
            get_hub().loop.run_callback(self._catch_up)

    def _interested(self, topic: str) -> list[Subscription]:
        if len(self._by_topic) >= MAX_KNOWN_TOPICS:
            self._by_topic.clear()
        found = [subscription for subscription in self._subscriptions if subscription.topics.match(topic)]
        self._by_topic[topic] = found
        return found

    def _catch_up(self) -> None:
        self._scheduled = False
        waiting, self._waiting = self._waiting, {}
        for subscription in waiting:
            subscription.go_on()

    def _measure(self) -> None:
        kept = events.recent()
        if kept:
            self.newest, self.oldest = kept[-1].number, kept[0].number

    def kept_after(self, number: int) -> list[Event]:
        """Return the kept events with a higher number, oldest first. Never switches."""
        if number >= self.newest:
            return []
        kept = events.recent()
        # numbered without gaps, so no more than these; the bus may have been without any subscriber in between
        return [event for event in kept[number - self.newest :] if event.number > number]

    def body_of(self, event: Event, codec: Codec, *, full: bool) -> bytes:
        """Return the body of an EVENT, encoded once for all who get the same. Never switches."""
        key = (event.number, codec, full)
        body = self._encoded.get(key)
        if body is None:
            if len(self._encoded) >= KEPT:
                self._encoded.clear()
            body = self._encoded[key] = encoded(event, codec, full)
        return body


def encoded(event: Event, codec: Codec, full: bool) -> bytes:
    """Return the fields as an object that JSON can say, without secrets; what is too large or unsayable is left out.

    Never switches.
    """
    fields = event.fields if full else {key: value for key, value in event.fields.items() if key in _SHOWN}
    try:
        text = redact(msgspec.json.encode(fields, enc_hook=_as_text).decode())
        value = msgspec.json.decode(text)  # a masked secret may have been more than the inside of one string
    except Exception as error:  # noqa: BLE001 - the edge: foreign values were asked for their text
        text, value = "", {"unsayable": type(error).__name__}
    if len(text) > MAX_EVENT_BYTES:
        value = {key: value[key] for key in _SHOWN & value.keys() if not isinstance(value[key], list | dict)}
        value["left_out_bytes"] = len(text)
    return msgspec.json.encode(value) if codec == "json" else msgspec.msgpack.encode(value)


def _as_text(value: Any) -> str:
    return str(value)[:MAX_TEXT_CHARS]
