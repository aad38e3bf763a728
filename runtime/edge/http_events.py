"""Events as they happen, over HTTP: a stream of server-sent events.

    GET /events?topics=breaker.*,actor.crashed      from now on; without topics everything
    GET /events?since=1234                          what is still kept after that number comes first

Each event is `id: <its number>`, `event: <its topic>` and its fields as JSON; `event: gap` tells how many were lost,
because the reader was too slow or away for too long. Last-Event-ID counts as `since`, so a reader that reconnects by
itself goes on where it was. A stream ends when the daemon drains.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gevent.event import Event as Flag

from regrow.protocol.errors import BadRequest, Overloaded
from runtime import events
from runtime.edge.gateway.feed import Topics, encoded
from runtime.edge.http import Request, Response
from runtime.measure import Gauge

MAX_STREAMS: Final = 32
MAX_PATTERNS: Final = 100
PIECE: Final = 64
#: a reader that is gone is noticed when something is sent to it
BEAT_S: Final = 15.0
RETRY_MS: Final = 2000

#: what could hold payloads or tells of operators, for callers that may not change anything
_ADMIN_ONLY: Final = ("actor.traced", "admin.", "worker.output")

STREAMS = Gauge("http_server_event_streams", "streams of events that are open now")
_open: set[Stream] = set()


def stream_events(request: Request) -> Response:
    """Answer with the stream; raises `BadRequest` and `Overloaded`. Never switches."""
    query = request.query()
    patterns = [each for text in query.get("topics", ()) for each in text.split(",") if each]
    if len(patterns) > MAX_PATTERNS:
        raise BadRequest(f"http: {len(patterns)} topics are more than {MAX_PATTERNS}")
    topics = Topics(patterns or ["*"])
    since = _number(query["since"][-1] if "since" in query else request.header("last-event-id"))
    if len(_open) >= MAX_STREAMS:
        raise Overloaded(f"http: {MAX_STREAMS} streams of events are open already", retry_after_s=5.0)
    body = Stream(topics, since, sees_all=request.caller.changes)
    return Response(body, "text/event-stream; charset=utf-8", headers=[("X-Accel-Buffering", "no")])


class Stream(Iterator[bytes]):
    """One reader's place in the ring that the event bus keeps."""

    def __init__(self, topics: Topics, since: int | None, *, sees_all: bool) -> None:
        self._topics = topics
        self._sees_all = sees_all
        self._news = Flag()
        self._ends = False
        self._first = [f"retry: {RETRY_MS}\n\n".encode()]
        kept = events.recent()
        newest = kept[-1].number if kept else 0
        self._cursor = newest if since is None else since
        if since is not None and since > newest:
            # A number of an earlier run of the daemon: what came after it nobody knows.
            self._cursor = 0
            self._first.append(_gap(None))
        self._unsubscribe = events.subscribe(self._happened)
        _open.add(self)
        STREAMS.set(len(_open))
        if since is not None:
            self._news.set()

    def __next__(self) -> bytes:
        """Return the next piece, waiting for it when there is none. Switches greenlets."""
        if self._first:
            return b"".join(self._first.pop(0) for _ in range(len(self._first)))
        while True:
            self._news.clear()
            piece = self._piece()
            if piece:
                return piece
            if self._ends:
                raise StopIteration
            if not self._news.wait(BEAT_S):
                return b": still here\n\n"

    def close(self) -> None:
        """Give the place back; a second time does nothing. Never switches."""
        self._ends = True
        self._unsubscribe()
        _open.discard(self)
        STREAMS.set(len(_open))
        self._news.set()

    def _happened(self, event: events.Event) -> None:
        if event.topic == "daemon.draining":
            # The server's end must not wait for readers that never end by themselves.
            self._ends = True
        self._news.set()

    def _piece(self) -> bytes:
        """Return the next events as text, a bounded number at once."""
        kept = [event for event in events.recent() if event.number > self._cursor]
        if not kept:
            return b""
        parts = []
        lost = kept[0].number - self._cursor - 1
        if lost > 0 and self._cursor:
            parts.append(_gap(lost))
        for event in kept[:PIECE]:
            self._cursor = event.number
            if self._topics.match(event.topic) and (self._sees_all or not event.topic.startswith(_ADMIN_ONLY)):
                head = f"id: {event.number}\nevent: {event.topic}\ndata: ".encode()
                parts.append(head + encoded(event, "json", True) + b"\n\n")
        if len(kept) > PIECE:
            self._news.set()
        return b"".join(parts)


def _gap(lost: int | None) -> bytes:
    return f'event: gap\ndata: {{"lost": {"null" if lost is None else lost}}}\n\n'.encode()


def _number(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise BadRequest(f"http: since is {text[:50]!r}, expected the number of an event")
    return int(text)
