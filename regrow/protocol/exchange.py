"""What clients send and what they make of the answers; shared by the blocking and the asyncio client, and pure.

The daemon answers at the deadline, so a client waits `GRACE_S` longer than that before it gives up by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from regrow.protocol.codec import CODECS, Codec, CodecError, decode_body, encode_body
from regrow.protocol.errors import (
    BadRequest,
    ConnectionFailed,
    DeadlineExceeded,
    DecodeError,
    InvalidArguments,
    RegrowError,
    TooLarge,
    error_from_wire,
)
from regrow.protocol.frames import (
    MAX_CREDIT,
    PROTOCOL,
    VERSIONS,
    Answer,
    Rejected,
    RequestHeader,
    RequestOp,
    decode_answer,
    encode,
)

DEFAULT_ENDPOINT: Final = "tcp://127.0.0.1:5757"
DEFAULT_CONNECT_TIMEOUT_S: Final = 5.0
GRACE_S: Final = 1.0
#: how long a client waits for an answer to a message without deadline (PING, DESCRIBE, TELL with ack)
CONTROL_TIMEOUT_S: Final = 10.0
#: parts of a stream that may be under way before the first was read
DEFAULT_CREDIT: Final = 100
#: the limit of a wait for a daemon that did not tell its own
MAX_DEADLINE_S: Final = 3600.0

#: ZMTP heartbeats: a silent link is lost after IVL + TIMEOUT, whatever the daemon's hub does
HEARTBEAT_IVL_MS: Final = 2000
HEARTBEAT_TIMEOUT_MS: Final = 6000


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to an ask: its value, and the header with what the target added (rest: status, headers)."""

    value: Any
    header: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened in the daemon: its number there, topic, unix time in seconds, and what is told of it."""

    seq: int
    topic: str
    at: float
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Gap:
    """Events went missing here, `lost` of them at most; None: nobody knows how many. `seq` is the last of them."""

    lost: int | None
    seq: int


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a daemon says of itself; `incarnation` changes with each of its starts."""

    server: str = ""
    version: str = ""
    incarnation: str = ""
    limits: Mapping[str, Any] = field(default_factory=dict)
    heartbeat_ms: float | None = None
    http: str | None = None

    @property
    def max_message_bytes(self) -> int | None:
        limit = self.limits.get("max_message_bytes")
        return limit if isinstance(limit, int) else None

    @property
    def max_deadline_s(self) -> float:
        limit = self.limits.get("max_deadline_ms")
        return limit / 1000 if isinstance(limit, int | float) and limit > 0 else MAX_DEADLINE_S

    @classmethod
    def of(cls, answer: Answer) -> Welcome:
        """Read a WELCOME; keys that are missing or of another type keep their defaults."""
        header = answer.header
        texts = {key: str(header.get(key) or "") for key in ("server", "version", "incarnation")}
        limits = header.get("limits")
        heartbeat_ms, http = header.get("heartbeat_ms"), header.get("http")
        return cls(
            **texts,
            limits=limits if isinstance(limits, dict) else {},
            heartbeat_ms=heartbeat_ms if isinstance(heartbeat_ms, int | float) else None,
            http=http if isinstance(http, str) else None,
        )


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One request, complete but for its id; made once and, with an `idem` key, sent again over another connection."""

    op: RequestOp
    header: RequestHeader
    body: bytes | None = None

    def frames(self, id: bytes, welcome: Welcome | None = None) -> list[bytes]:
        """Return what to send; raises `TooLarge` for a size that the daemon would refuse, or cut the connection for."""
        frames = encode(self.op, id, self.header, self.body)
        limit = welcome.max_message_bytes if welcome is not None else None
        size = sum(map(len, frames))
        if limit is not None and size > limit:
            raise TooLarge(
                f"the message has {size} bytes, the daemon takes at most {limit}",
                details={"size_bytes": size, "max_message_bytes": limit},
            )
        return frames


def hello(client: str) -> Outgoing:
    """Return a HELLO."""
    return Outgoing("HELLO", RequestHeader(client=client, versions=list(VERSIONS)))


def ask(
    target: str,
    method: str,
    args: Mapping[str, Any] | bytes | None,
    *,
    timeout_s: float | None,
    codec: Codec,
    idem: str | None = None,
    trace: str | None = None,
    credit: int | None = None,
) -> Outgoing:
    """Return an ASK, a streaming one when `credit` says how many parts may come at first.

    Raises `InvalidArguments` for what cannot be encoded, ValueError for a timeout that is none.
    """
    header = RequestHeader(
        to=target,
        method=method,
        codec=codec,
        deadline_ms=_milliseconds(timeout_s),
        idem=idem,
        trace=trace,
        stream=credit is not None,
        credit=credit,
    )
    return Outgoing("ASK", header, _arguments(args, codec))


def tell(target: str, method: str, args: Mapping[str, Any] | bytes | None, *, codec: Codec, ack: bool) -> Outgoing:
    """Return a TELL; raises `InvalidArguments` for what cannot be encoded."""
    return Outgoing("TELL", RequestHeader(to=target, method=method, codec=codec, ack=ack), _arguments(args, codec))


def describe(target: str | None) -> Outgoing:
    """Return a DESCRIBE of one actor or of all that this client may reach."""
    return Outgoing("DESCRIBE", RequestHeader(to=target or ""))


def credit(parts: int) -> Outgoing:
    """Return a CREDIT: so many more parts may come."""
    return Outgoing("CREDIT", RequestHeader(n=parts))


def check_credit(parts: int) -> int:
    """Return the credit of a stream; raises ValueError for one that could never go on."""
    if not 1 <= parts <= MAX_CREDIT:
        raise ValueError(f"credit is {parts}, expected 1 to {MAX_CREDIT} parts")
    return parts


class Position:
    """How far a subscription has come: what it needs to go on where it was over another connection."""

    def __init__(self, topics: Sequence[str], since: int | None) -> None:
        self.topics = [topics] if isinstance(topics, str) else list(topics)
        if not self.topics:
            raise ValueError('no topics were given, name some such as "breaker.*", or "*" for all')
        if since is not None and since < 0:
            raise ValueError(f"since is {since}, expected the number of an event")
        self.seq = since
        self.incarnation = ""

    def outgoing(self, welcome: Welcome) -> Outgoing:
        """Return the SUB for this daemon: the events of another run of it are all new."""
        seq = self.seq if self.incarnation in {"", welcome.incarnation} else 0
        return Outgoing("SUB", RequestHeader(topics=self.topics, since=seq))

    def accepted(self, answer: Answer, welcome: Welcome) -> Gap | None:
        """Take the ACK; return the gap when this is another run of the daemon. Raises the typed error of an ERROR."""
        outcome(answer)
        newest = answer.header.get("seq")
        is_other = self.incarnation not in {"", welcome.incarnation}
        self.incarnation = welcome.incarnation
        if is_other:
            self.seq = 0
            return Gap(None, 0)
        if self.seq is None:
            self.seq = newest if isinstance(newest, int) else 0
        return None

    def heard(self, answer: Answer) -> Event | Gap | None:
        """Return what an EVENT or GAP says, None for anything else; raises the typed error of an ERROR."""
        if answer.op not in {"EVENT", "GAP", "ERROR"}:
            return None
        fields = outcome(answer).value
        header = answer.header
        seq = header.get("seq")
        self.seq = seq if isinstance(seq, int) else self.seq or 0
        if answer.op == "GAP":
            lost = header.get("lost")
            return Gap(lost if isinstance(lost, int) else None, self.seq)
        at = header.get("at")
        return Event(
            self.seq,
            str(header.get("topic", "")),
            float(at) if isinstance(at, int | float) else 0.0,
            fields if isinstance(fields, dict) else {},
        )


UNSUB: Final = Outgoing("UNSUB", RequestHeader())
PING: Final = Outgoing("PING", RequestHeader())
CANCEL: Final = Outgoing("CANCEL", RequestHeader())


def read(frames: list[bytes]) -> Answer | None:
    """Return the daemon's message, None for frames that are none (they answer nothing of ours)."""
    found = decode_answer(frames)
    return None if isinstance(found, Rejected) else found


def outcome(answer: Answer) -> Reply:
    """Return the reply or raise the typed error that the answer carries."""
    if answer.op == "ERROR":
        raise _error(answer)
    codec = answer.header.get("codec", "json")
    try:
        if codec not in CODECS:
            raise CodecError(f"the answer has codec {codec!r:.40}, known are {', '.join(CODECS)}")
        value = decode_body(answer.body, codec)
    except CodecError as error:
        raise DecodeError(f"the daemon's {answer.op} cannot be read: {error}") from None
    return Reply(value, answer.header)


def _error(answer: Answer) -> RegrowError:
    try:
        body = decode_body(answer.body, "json")
    except CodecError as error:
        return DecodeError(f"the daemon's ERROR cannot be read: {error}", started="unknown")
    if not isinstance(body, dict):
        return DecodeError("the daemon's ERROR cannot be read: its body is no object", started="unknown")
    return error_from_wire(body)


def wait_s(outgoing: Outgoing, welcome: Welcome) -> float:
    """Return how long to wait for the answer: never without limit."""
    if outgoing.op != "ASK":
        return CONTROL_TIMEOUT_S
    if outgoing.header.deadline_ms is None:
        return welcome.max_deadline_s + GRACE_S
    return min(outgoing.header.deadline_ms / 1000, welcome.max_deadline_s) + GRACE_S


def unreachable(endpoint: str, waited_s: float) -> ConnectionFailed:
    """Return the error of a connection that could not be made."""
    return ConnectionFailed(
        f"cannot reach a daemon at {endpoint}: no connection within {waited_s:.3g} s, is it running there",
        started="no",
        details={"endpoint": endpoint},
    )


def link_lost(endpoint: str) -> ConnectionFailed:
    """Return the error of a connection that ended while a request was under way."""
    return ConnectionFailed(
        f"the connection to {endpoint} was lost before the answer came, the request may have been carried out",
        started="unknown",
        details={"endpoint": endpoint},
    )


def no_answer(endpoint: str, waited_s: float) -> DeadlineExceeded:
    """Return the error of a daemon that lives (its link does) but did not answer in time."""
    return DeadlineExceeded(f"no answer from {endpoint} within {waited_s:.3g} s", started="unknown")


def check_version(answer: Answer) -> Welcome:
    """Return the WELCOME; raises `BadRequest` for a peer that speaks something else."""
    outcome(answer)  # an ERROR raises here
    if answer.op != "WELCOME":
        raise BadRequest(f"the peer answered {answer.op} to HELLO, it does not speak {PROTOCOL.decode()}")
    return Welcome.of(answer)


def _milliseconds(timeout_s: float | None) -> float | None:
    if timeout_s is None:
        return None
    if not (timeout_s > 0 and math.isfinite(timeout_s)):
        raise ValueError(f"timeout is {timeout_s}, expected seconds above 0, or None for the target's own")
    return timeout_s * 1000


def _arguments(args: Mapping[str, Any] | bytes | None, codec: Codec) -> bytes | None:
    if args is None:
        return None
    try:
        return encode_body(args, codec)
    except CodecError as error:
        raise InvalidArguments(f"the arguments cannot be sent: {error}") from None
