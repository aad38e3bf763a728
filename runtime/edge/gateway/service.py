"""The service: what each op of the wire does, from a decoded message to its answer; knows no socket.

One row of the request path: rights -> directory -> arguments -> room -> mailbox, with a promise whose callback encodes
the answer; no greenlet is made per request. Nothing here blocks or switches: it runs in the hub.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec

from regrow.protocol.codec import Codec, CodecError, decode_body, encode_body
from regrow.protocol.errors import (
    ActorDown,
    BadRequest,
    Cancelled,
    Conflict,
    Draining,
    ExecutionError,
    Forbidden,
    InvalidArguments,
    NotFound,
    Overloaded,
    Refused,
    RegrowError,
    TooLarge,
)
from regrow.protocol.frames import (
    MAX_HEADER_BYTES,
    MAX_ID_BYTES,
    PROTOCOL,
    VERSIONS,
    Rejected,
    Request,
)
from runtime import clock, events
from runtime.directory import Directory, Entry
from runtime.edge.gateway import counters
from runtime.edge.gateway.feed import Feed, Topics, check_rights
from runtime.edge.gateway.memory import IdemMemory, digest
from runtime.edge.gateway.outcome import Outcome, error_outcome
from runtime.edge.gateway.peer import Ask, AskKey, Peer
from runtime.edge.gateway.streaming import StreamAsk
from runtime.exports import Exported
from runtime.messages import Call, WithHeader
from runtime.promise import ClientPromise, Promise, deadline_error
from runtime.ref import Ref

HEARTBEAT_MS: Final = 2000
MAX_COMPARED: Final = 100
RETRY_AFTER_FULL_S: Final = 0.1
RETRY_AFTER_DRAIN_S: Final = 1.0

#: ops whose id is that of an ask in flight
_ABOUT_ANOTHER: Final = frozenset({"CANCEL", "CREDIT", "UNSUB"})

_log = logging.getLogger("regrow.gateway")


@dataclass(frozen=True)
class Identity:
    """What the daemon says of itself in WELCOME and PONG."""

    name: str
    version: str
    incarnation: str
    http: str | None = None


class Told(ClientPromise):
    """The promise of a TELL: a drain waits for its work, and nobody for its answer."""

    __slots__ = ()

    is_letter = True


class Service:
    """The ops of the wire over one directory; the state of connections lives in their peers."""

    def __init__(
        self,
        directory: Directory,
        identity: Identity,
        *,
        max_message: int,
        max_in_flight: int,
        max_subscriptions: int,
        max_deadline_s: float,
        hub_lag_s: Callable[[], float],
    ) -> None:
        self.directory = directory
        self.identity = identity
        self.max_message = max_message
        self.max_in_flight = max_in_flight
        self.max_subscriptions = max_subscriptions
        self.max_deadline_s = max_deadline_s
        self.hub_lag_s = hub_lag_s
        self.memory = IdemMemory()
        self.feed = Feed()
        self.draining = False
        self.in_flight = 0
        self.told = 0  # messages of TELL that are queued or at work
        self.all_done: Promise | None = None
        self._descriptions: WeakKeyDictionary[Exported, dict[str, Any]] = WeakKeyDictionary()
        self._ops: dict[str, Callable[[Peer, Request], None]] = {
            "HELLO": self._on_hello,
            "PING": self._on_ping,
            "ASK": self._on_ask,
            "TELL": self._on_tell,
            "CANCEL": self._on_cancel,
            "DESCRIBE": self._on_describe,
            "SUB": self._on_sub,
            "UNSUB": self._on_unsub,
            "CREDIT": self._on_credit,
        }

    # -- messages in

    def handle(self, peer: Peer, message: Request | Rejected) -> None:
        """Do what the message says. Raises nothing. Never switches."""
        peer.heard_at = clock.now()
        if isinstance(message, Rejected):
            counters.REQUESTS.inc(message.op or counters.INVALID)
            self._refuse(peer, message.error, message.id, message.envelope)
            return
        counters.REQUESTS.inc(message.op)
        if not message.envelope:
            peer.is_dealer = True
        try:
            if message.op not in _ABOUT_ANOTHER and _is_taken(peer, message):
                raise Conflict("a request with this id is under way on this connection, choose another id")
            self._ops[message.op](peer, message)
        except RegrowError as error:
            if message.is_answered or message.op == "CREDIT":
                self._refuse(peer, error, message.id, message.envelope)
            else:
                counters.REFUSED.inc(error.code)
        except Exception as error:  # noqa: BLE001 - the edge: a message that finds a bug of ours must harm nobody else
            _log.exception("a message could not be handled", extra={"op": message.op})
            self._answer_fault(peer, message, error)

    def _refuse(self, peer: Peer, error: RegrowError, id: bytes, envelope: tuple[bytes, ...]) -> None:
        counters.REFUSED.inc(error.code)
        under_way = ((envelope, id) if envelope else id) in peer.asks or (not envelope and id in peer.subscriptions)
        peer.send_error(error, id, envelope, duplicate=under_way)

    def _answer_fault(self, peer: Peer, message: Request, error: Exception) -> None:
        answer = ActorDown(f"the gateway failed on this {message.op}: {type(error).__name__}", started="unknown")
        ask = peer.asks.get(_key(message)) if message.op == "ASK" else None
        if ask is None:
            self._refuse(peer, answer, message.id, message.envelope)
        elif ask.promise is None or not ask.promise.abandon(answer):
            ask.finish(error_outcome(answer, ask.target, ask.ref))

    # -- the ops

    def _on_hello(self, peer: Peer, message: Request) -> None:
        versions = message.header.versions
        if versions and not set(versions) & set(VERSIONS):
            raise BadRequest(f"the client speaks {', '.join(versions)[:100]}, this daemon {', '.join(VERSIONS)}")
        peer.client = message.header.client
        header = {
            "protocol": PROTOCOL.decode(),
            "server": self.identity.name,
            "version": self.identity.version,
            "incarnation": self.identity.incarnation,
            "limits": {
                "max_message_bytes": self.max_message,
                "max_header_bytes": MAX_HEADER_BYTES,
                "max_id_bytes": MAX_ID_BYTES,
                "max_in_flight": self.max_in_flight,
                "max_subscriptions": self.max_subscriptions,
                "max_deadline_ms": round(self.max_deadline_s * 1000),
            },
            "heartbeat_ms": HEARTBEAT_MS,
        }
        if self.identity.http is not None:
            header["http"] = self.identity.http
        peer.send("WELCOME", message.id, header, None, message.envelope)

    def _on_ping(self, peer: Peer, message: Request) -> None:
        header = {"incarnation": self.identity.incarnation, "hub_lag_ms": round(self.hub_lag_s() * 1000, 3)}
        peer.send("PONG", message.id, header, None, message.envelope)

    def _on_ask(self, peer: Peer, message: Request) -> None:
        header = message.header
        entry, exported = self._find(peer, header.to, header.method)
        if header.stream or exported.streams:
            _check_stream(message, exported)
        args = _arguments(exported, message)
        if self.draining:
            raise _draining()
        if peer.is_full():
            raise Overloaded(
                f"{peer.max_in_flight} asks of this connection are in flight or their answers unread, await some first",
                retry_after_s=RETRY_AFTER_FULL_S,
            )
        timeout_s = entry.timeout_s if header.deadline_ms is None else header.deadline_ms / 1000
        deadline = clock.now() + min(timeout_s, self.max_deadline_s)
        key = _key(message)
        if header.stream:
            ask: Ask = StreamAsk(peer, key, message.id, header.to, credit=header.credit)
        else:
            ask = Ask(peer, key, message.id, message.envelope, header.to)
        ask.service = self
        ask.codec = header.codec
        if header.idem is not None:
            self._ask_once(ask, entry, message, args, deadline)
            return
        ref = entry.ref
        if ref is None:
            raise entry.unavailable()
        ask.ref = ref
        if isinstance(ask, StreamAsk):
            limit_s = self.max_deadline_s if header.deadline_ms is None else header.deadline_ms / 1000
            ask.deadline = clock.now() + min(limit_s, self.max_deadline_s)
            ask.timeout_s = entry.timeout_s
            self._ask_began(ask)
            ask.begin(Call(header.method, args))
            return
        ask.promise = ClientPromise(peer.identity, deadline=deadline, callback=ask.settled)
        self._ask_began(ask)
        ref.request(Call(header.method, args), ask.promise)

    def _ask_once(self, ask: Ask, entry: Entry, message: Request, args: Mapping[str, Any], deadline: float) -> None:
        """Answer an ask with an idem key: from memory, by joining the work under way, or by beginning it."""
        header = message.header
        assert header.idem is not None
        key = (ask.peer.key_name, header.to, header.method, header.idem)
        mark = digest(header.codec, message.body)
        found = self.memory.find(key, mark)
        ref = None
        if found is None:
            ref = entry.ref
            if ref is None:
                raise entry.unavailable()
            found = self.memory.begin(key, mark)
        self._ask_began(ask)
        if found.answer is not None:
            counters.REPLAYED.inc()
            ask.finish(found.answer)
            return
        found.waiting[ask] = None
        ask.remembered = found
        if ref is None:
            ask.timer = clock.after(max(0.0, deadline - clock.now()), self._joined_too_long, ask)
            return
        remembered = found

        def settled(promise: Promise) -> None:
            remembered.settle(self.outcome_of(promise, header.to, ref, header.codec))
            self.look_whether_done()

        found.promise = ClientPromise(ask.peer.identity, deadline=deadline, callback=settled)
        ref.request(Call(header.method, args), found.promise)

    def _ask_began(self, ask: Ask) -> None:
        ask.peer.asks[ask.key] = ask
        self.in_flight += 1
        counters.IN_FLIGHT.add(1)

    def ask_ended(self) -> None:
        """Count an answered ask; the last one ends the wait of the drain. Never switches."""
        self.in_flight -= 1
        counters.IN_FLIGHT.add(-1)
        self.look_whether_done()

    @property
    def work(self) -> int:
        """How much there is that a drain waits for: asks, told messages, and idem work whose askers are gone."""
        return self.in_flight + self.told + self.memory.orphans

    def look_whether_done(self) -> None:
        """End the wait of the drain when nothing is left to wait for. Never switches."""
        if self.all_done is not None and self.work == 0:
            self.all_done.resolve()

    def _told_is_over(self, _promise: Promise) -> None:
        self.told -= 1
        counters.TOLD.add(-1)
        self.look_whether_done()

    def _joined_too_long(self, ask: Ask) -> None:
        work = ask.remembered.promise if ask.remembered is not None else None
        ask.timer = None
        ask.finish(error_outcome(deadline_error(work is not None and work.started), ask.target))

    def _on_tell(self, peer: Peer, message: Request) -> None:
        header = message.header
        entry, exported = self._find(peer, header.to, header.method)
        if exported.streams:
            raise BadRequest(f"{header.to}.{header.method} streams: ask it with stream, a tell has no reader")
        args = _arguments(exported, message)
        if self.draining:
            raise _draining()
        ref = entry.ref
        if ref is None:
            raise entry.unavailable()
        told = Told(peer.identity, callback=self._told_is_over)
        self.told += 1
        counters.TOLD.add(1)
        ref.request(Call(header.method, args), told)
        if isinstance(told.error, Refused) and not told.started:
            raise told.error  # it did not get into the mailbox
        if message.is_answered:
            peer.send("ACK", message.id, None, None, message.envelope)

    def _on_cancel(self, peer: Peer, message: Request) -> None:
        ask = peer.asks.get(_key(message))
        if ask is not None:
            self.cancel(ask)
        elif message.is_answered:
            raise NotFound("no ask with this id is in flight on this connection")

    def _on_describe(self, peer: Peer, message: Request) -> None:
        wanted = message.header.to
        if wanted:
            entry = self.directory.find(wanted)
            described = self._describe(peer, entry) if entry is not None else None
            if described is None:
                raise self._unknown_target(peer, wanted)
            found = [described]
        else:
            all_of_them = [self._describe(peer, entry) for entry in self.directory.entries()]
            found = [described for described in all_of_them if described is not None]
        outcome = self._reply({"actors": found}, {}, message.header.codec, "the description")
        peer.send(outcome.op, message.id, outcome.header, outcome.body, message.envelope)

    def _on_credit(self, peer: Peer, message: Request) -> None:
        if message.envelope:
            raise BadRequest("a REQ socket cannot read streams, use a DEALER socket")
        if message.header.n is None:
            raise BadRequest("the header names no number of parts, give `n`")
        ask = peer.asks.get(_key(message))
        if isinstance(ask, StreamAsk):  # else the stream had ended already
            ask.give(message.header.n)

    def _on_sub(self, peer: Peer, message: Request) -> None:
        header = message.header
        _check_reads_events(message)
        if header.codec == "raw":
            raise BadRequest("events are objects, which codec raw cannot say, use json or msgpack")
        topics = Topics(header.topics)
        check_rights(peer.rights, topics)
        if self.draining:
            raise _draining()
        if len(peer.subscriptions) >= self.max_subscriptions:
            raise Overloaded(
                f"this connection has {len(peer.subscriptions)} subscriptions, at most {self.max_subscriptions} are "
                "allowed, end one or name more topics in one",
                retry_after_s=RETRY_AFTER_FULL_S,
            )
        subscription = self.feed.add(peer, message.id, topics, header.codec)
        peer.send("ACK", message.id, {"seq": self.feed.newest, "incarnation": self.identity.incarnation})
        if header.since is not None:
            self.feed.replay(subscription, header.since)

    def _on_unsub(self, peer: Peer, message: Request) -> None:
        _check_reads_events(message)
        subscription = peer.subscriptions.get(message.id)
        if subscription is None:
            raise NotFound("no subscription with this id is open on this connection")
        left = subscription.topics.without(message.header.topics) if message.header.topics else None
        if left is None:
            subscription.end()
        else:
            self.feed.change(subscription, left)
        peer.send("ACK", message.id)

    # -- finding the target

    def _find(self, peer: Peer, target: str, method: str) -> tuple[Entry, Exported]:
        if not target or not method:
            raise BadRequest("the header names no target, give `to` and `method`")
        if not peer.rights.may(target, method):
            events.publish("wire.access_denied", client=peer.key_name, target=target, method=method)
            raise Forbidden(f"the client {peer.key_name!r} may not reach {target}.{method}")
        entry = self.directory.find(target)
        if entry is None:
            raise self._unknown_target(peer, target)
        exported = entry.exports.get(method)
        if exported is None:
            known = [name for name in entry.exports if peer.rights.may(target, name)]
            raise NotFound(f"{target} exports no method {method!r}{_nearest(method, known)}", actor=target)
        return entry, exported

    def _unknown_target(self, peer: Peer, target: str) -> NotFound:
        known = [
            entry.name
            for entry in self.directory.entries()
            if any(peer.rights.may(entry.name, name) for name in entry.exports)
        ]
        return NotFound(f"there is no actor {target!r}{_nearest(target, known)}")

    def _describe(self, peer: Peer, entry: Entry) -> dict[str, Any] | None:
        methods = [
            self._description(exported) for name, exported in entry.exports.items() if peer.rights.may(entry.name, name)
        ]
        if not methods:
            return None
        return {"name": entry.name, "kind": entry.kind, "state": entry.state, "methods": methods}

    def _description(self, exported: Exported) -> dict[str, Any]:
        known = self._descriptions.get(exported)
        if known is None:
            known = self._descriptions[exported] = exported.describe()
        return known

    # -- answers

    def outcome_of(self, promise: Promise, target: str, ref: Ref | None, codec: Codec) -> Outcome:
        """Return the answer of a settled promise. Never switches."""
        try:
            error = promise.error
            if error is not None:
                return error_outcome(error, target, ref)
            value = promise.value
            if value.__class__ is WithHeader:
                return self._reply(value.value, value.header, codec, f"the result of {target}")
            return self._reply(value, {}, codec, f"the result of {target}")
        except Exception as error:  # noqa: BLE001 - the edge: code of a foreign value ran, and the ask must be answered
            _log.exception("an answer could not be made", extra={"target": target})
            return error_outcome(ExecutionError(f"the answer of {target} cannot be sent: {type(error).__name__}"))

    def part(self, item: Any, header: Mapping[str, Any], codec: Codec, target: str) -> Outcome:
        """Return one item of a stream, or the ERROR that ends the stream instead. Never switches."""
        try:
            return self._reply(item, header, codec, f"a part of {target}")
        except Exception as error:  # noqa: BLE001 - the edge: see outcome_of
            _log.exception("a part could not be made", extra={"target": target})
            return error_outcome(ExecutionError(f"a part of {target} cannot be sent: {type(error).__name__}"))

    def _reply(self, value: Any, header: Mapping[str, Any], codec: Codec, what: str) -> Outcome:
        if codec != "json":
            header = {**header, "codec": codec}
        try:
            body = encode_body(value, codec)
            head_bytes = len(msgspec.json.encode(header)) if header else 2
        except (CodecError, msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
            return error_outcome(ExecutionError(f"{what} cannot be sent: {error}"))
        if head_bytes > MAX_HEADER_BYTES:
            return error_outcome(TooLarge(f"the header of {what} has {head_bytes} bytes", started="yes"))
        if len(body) > self.max_message:
            error_body = TooLarge(
                f"{what} has {len(body)} bytes, at most {self.max_message} are sent, ask for less",
                started="yes",
                details={"size_bytes": len(body), "max_message_bytes": self.max_message},
            )
            return error_outcome(error_body)
        return Outcome("REPLY", header, body)

    def cancel(self, ask: Ask) -> None:
        """End an ask in its client's name; work that others wait for as well goes on. Never switches."""
        remembered = ask.remembered
        is_alone = remembered is None or len(remembered.waiting) == 1
        begun = ask.has_begun() if is_alone else ask.started
        error = Cancelled("the request was cancelled by its caller", started="yes" if begun else "no")
        if remembered is not None and remembered.promise is not None and len(remembered.waiting) == 1:
            remembered.promise.abandon(error)
        else:
            ask.stop(error)

    def give_up(self, ask: Ask) -> None:
        """Let go of an ask whose connection ended; with an idem key its work goes on. Never switches."""
        ask.stop(Cancelled("the connection of the caller ended", started="yes" if ask.started else "no"))

    def end_what_is_left(self, asks: list[Ask]) -> None:
        """Answer with cancelled, started as known, and give up what nobody waits for: the drain is over.

        Never switches.
        """
        self.memory.abandon_orphans(Cancelled("the daemon stops and did not wait any longer", started="unknown"))
        for ask in asks:
            error = Cancelled("the daemon stops and did not wait any longer", started="yes" if ask.started else "no")
            if ask.remembered is not None and ask.remembered.promise is not None:
                ask.remembered.promise.abandon(error)
            ask.stop(error)


def _key(message: Request) -> AskKey:
    return (message.envelope, message.id) if message.envelope else message.id


def _is_taken(peer: Peer, message: Request) -> bool:
    if peer.asks and _key(message) in peer.asks:
        return True
    return bool(peer.subscriptions) and not message.envelope and message.id in peer.subscriptions


def _check_reads_events(message: Request) -> None:
    if message.envelope:
        raise BadRequest("a REQ socket cannot read events, use a DEALER socket")


def _arguments(exported: Exported, message: Request) -> dict[str, Any]:
    codec = message.header.codec
    try:
        body = decode_body(message.body, codec)
    except CodecError as error:
        raise BadRequest(str(error)) from None
    try:
        return exported.check(body)
    except RecursionError:
        raise InvalidArguments(f"{exported.name}: the arguments are nested too deeply") from None


def _check_stream(message: Request, exported: Exported) -> None:
    header = message.header
    what = f"{header.to}.{header.method}"
    if not exported.streams:
        raise BadRequest(f"{what} does not stream, ask without stream")
    if message.envelope:
        raise BadRequest(f"{what} streams, which a REQ socket cannot read, use a DEALER socket")
    if not header.stream:
        raise BadRequest(f"{what} streams, ask with stream")
    if header.idem is not None:
        raise BadRequest("a stream is not remembered, ask without idem")


def _draining() -> Draining:
    return Draining("the daemon is stopping and takes no new work", retry_after_s=RETRY_AFTER_DRAIN_S)


def _nearest(word: str, known: list[str]) -> str:
    # bounded, because whoever floods us with wrong names makes us compare each time
    close = difflib.get_close_matches(word, known, n=1) if len(known) <= MAX_COMPARED else []
    if close:
        return f", did you mean {close[0]!r}"
    shown = ", ".join(sorted(known)[:10])
    return f", known: {shown}" if shown else ""
