"""Peers: what the gateway knows of one connection: its rights, its asks in flight, and the answers it has not read yet.

Invariant: an admitted ask holds one place of `max_in_flight` until its answer was handed to ZeroMQ, so there is always
room for that answer. Everything else that is sent (refusals, pongs) may use a bounded number of further places.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from regrow.protocol.errors import Overloaded, RegrowError
from regrow.protocol.frames import AnswerOp, encode
from runtime.clock import Timer
from runtime.edge.gateway import counters
from runtime.edge.gateway.outcome import Outcome, error_outcome
from runtime.edge.gateway.rights import Rights
from runtime.promise import Promise

if TYPE_CHECKING:
    from runtime.edge.gateway.feed import Subscription
    from runtime.edge.gateway.memory import Remembered
    from runtime.edge.gateway.port import Port
    from runtime.edge.gateway.streaming import StreamAsk

SPARE_PLACES = 100

AskKey = bytes | tuple[tuple[bytes, ...], bytes]


class Ask:
    """One ask in flight: where its answer goes, and the promise that will hold it."""

    __slots__ = ("codec", "envelope", "id", "key", "peer", "promise", "ref", "remembered", "service", "target", "timer")

    def __init__(self, peer: Peer, key: AskKey, id: bytes, envelope: tuple[bytes, ...], target: str) -> None:
        self.peer = peer
        self.key = key
        self.id = id
        self.envelope = envelope
        self.target = target
        self.codec: Any = "json"
        self.promise: Promise | None = None
        self.ref: Any = None
        self.service: Any = None
        self.remembered: Remembered | None = None
        self.timer: Timer | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has had its terminal answer."""
        return self.peer.asks.get(self.key) is not self

    @property
    def started(self) -> bool:
        """Whether its work has begun, as far as is known."""
        work = self.promise or (self.remembered.promise if self.remembered is not None else None)
        return work is not None and work.started

    def has_begun(self) -> bool:
        """Tell the same, to who gives up the work: what has not begun never will. Never switches."""
        work = self.promise or (self.remembered.promise if self.remembered is not None else None)
        return work is not None and work.has_begun()

    def stop(self, error: RegrowError) -> None:
        """End it early with this error; with an idem key the work itself goes on. Never switches."""
        if self.promise is None or not self.promise.abandon(error):
            self.finish(error_outcome(error, self.target, self.ref))

    def settled(self, promise: Promise) -> None:
        """Answer, as the callback of the promise. Never switches."""
        self.finish(self.service.outcome_of(promise, self.target, self.ref, self.codec))

    def finish(self, outcome: Outcome) -> None:
        """Send the one terminal answer; whoever comes second finds nothing to do. Never switches."""
        if self.is_over:
            return
        peer = self.peer
        del peer.asks[self.key]
        self.service.ask_ended()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.remembered is not None:
            self.remembered.leave(self)
            self.remembered = None
        peer.send_reserved(outcome, self.id, self.envelope)

    def __repr__(self) -> str:
        return f"<Ask {self.id!r} to {self.target}>"


class Peer:
    """One connection to one of the gateway's sockets."""

    __slots__ = (
        "_connection",
        "address",
        "asks",
        "client",
        "descriptor",
        "gone",
        "heard_at",
        "is_dealer",
        "key_name",
        "max_in_flight",
        "max_message",
        "max_outbox",
        "outbox",
        "outbox_bytes",
        "paused",
        "port",
        "rights",
        "route",
        "subscriptions",
        "user_id",
    )

    def __init__(
        self, port: Port, route: bytes, *, key_name: str, user_id: str, rights: Rights, descriptor: int, address: str
    ) -> None:
        self.port = port
        self.route = route
        self._connection = f"connection {port.name} {route.hex()}"
        self.key_name = key_name
        self.user_id = user_id
        self.rights = rights
        self.descriptor = descriptor
        self.address = address
        self.max_in_flight = port.max_in_flight
        self.max_message = port.max_message
        self.max_outbox = max(port.max_outbox, port.max_message)
        self.client = ""
        self.is_dealer = False
        self.gone = False
        self.heard_at = 0.0
        self.asks: dict[AskKey, Ask] = {}
        self.outbox: deque[list[bytes]] = deque()
        self.outbox_bytes = 0
        self.subscriptions: dict[bytes, Subscription] = {}
        self.paused: dict[StreamAsk | Subscription, None] = {}  # what goes on once the outbox is empty

    @property
    def identity(self) -> str:
        """Whose requests these are, for queues that are fair between clients: the key's name, else the connection."""
        return f"key {self.key_name}" if self.key_name else self._connection

    def is_full(self) -> bool:
        """Tell whether another ask would have no room for its answer. Never switches."""
        return len(self.asks) + len(self.outbox) >= self.max_in_flight

    def send(
        self,
        op: AnswerOp,
        id: bytes,
        header: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        envelope: Sequence[bytes] = (),
    ) -> None:
        """Send what no place was reserved for; dropped and counted when the client does not read. Never switches."""
        counters.ANSWERS.inc(op)
        if self.gone:
            counters.UNDELIVERED.inc("gone")
        elif len(self.outbox) >= self.max_in_flight + SPARE_PLACES or self.outbox_bytes > self.max_outbox:
            counters.UNDELIVERED.inc("slow_client")
        else:
            self.port.send(self, encode(op, id, header, body, envelope))

    def send_error(self, error: RegrowError, id: bytes, envelope: Sequence[bytes], *, duplicate: bool = False) -> None:
        """Send an ERROR outside of any ask; `duplicate`: the ask with this id is unaffected. Never switches."""
        self.send("ERROR", id, {"duplicate": True} if duplicate else None, error_outcome(error).body, envelope)

    def send_reserved(self, outcome: Outcome, id: bytes, envelope: Sequence[bytes]) -> None:
        """Send the answer of an ask, for which there is a place. Never switches."""
        if self.outbox and self.outbox_bytes + outcome.size_bytes > self.max_outbox:
            error = Overloaded(
                f"the answer has {outcome.size_bytes} bytes and found {self.outbox_bytes} bytes of answers that this "
                "client has not read, read faster or ask for less",
                started="yes",
                retryable="unknown",
            )
            outcome = error_outcome(error)
        counters.ANSWERS.inc(outcome.op)
        if self.gone:
            counters.UNDELIVERED.inc("gone")
        else:
            self.port.send(self, encode(outcome.op, id, outcome.header, outcome.body, envelope))

    def send_part(self, part: Outcome, id: bytes) -> None:
        """Send a PART; its stream makes sure that few of them wait here. Never switches."""
        counters.ANSWERS.inc("PART")
        if self.gone:
            counters.UNDELIVERED.inc("gone")
        else:
            self.port.send(self, encode("PART", id, part.header, part.body))

    def send_event(self, op: AnswerOp, id: bytes, header: Mapping[str, Any], body: bytes | None) -> None:
        """Send an EVENT or GAP; its subscription sends none while others wait here. Never switches."""
        counters.ANSWERS.inc(op)
        if self.gone:
            counters.UNDELIVERED.inc("gone")
        else:
            self.port.send(self, encode(op, id, header, body))

    def flushed(self) -> None:
        """Let streams and subscriptions go on that waited for the outbox to be empty. Never switches."""
        paused, self.paused = self.paused, {}
        for one in paused:
            one.go_on()

    def forget(self) -> None:
        """Let go of a connection that ended: what it waited for has nobody to go to. Never switches."""
        self.gone = True
        counters.UNDELIVERED.inc("gone", by=len(self.outbox))
        counters.OUTBOX_BYTES.add(-self.outbox_bytes)
        self.outbox.clear()
        self.outbox_bytes = 0
        for subscription in list(self.subscriptions.values()):
            subscription.end()
        for ask in list(self.asks.values()):
            ask.service.give_up(ask)

    def __repr__(self) -> str:
        who = self.key_name or self.client or self.route.hex()
        return f"<Peer {who} at {self.address}, {len(self.asks)} asks, {len(self.outbox)} answers unread>"
