"""Frames: the messages of the wire protocol RG1, decoded strictly and encoded plainly.

A message is `[envelope..., empty frame] | "RG1" | op | id | header | body`. The envelope is what a REQ socket (one
empty frame) or a device in between puts in front; it is given back unchanged with every answer. `decode_request` and
`decode_answer` are total: any list of byte strings gives a message or a `Rejected`, never an exception.

Read: limits, ops, the header of requests, the three messages, decoding, encoding. This module is pure and a leaf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from regrow.protocol.codec import Codec, CodecError, check_depth
from regrow.protocol.errors import BadRequest, Invalid, TooLarge

PROTOCOL: Final = b"RG1"
VERSIONS: Final = ("RG1",)

MAX_ID_BYTES: Final = 64
MAX_HEADER_BYTES: Final = 16 * 1024
MAX_NAME_CHARS: Final = 255
MAX_IDEM_CHARS: Final = 200
MAX_TRACE_CHARS: Final = 512
MAX_TOPICS: Final = 100
MAX_CREDIT: Final = 1_000_000
MAX_ENVELOPE_FRAMES: Final = 4
MAX_ENVELOPE_FRAME_BYTES: Final = 255

RequestOp = Literal["HELLO", "PING", "ASK", "TELL", "CANCEL", "CREDIT", "DESCRIBE", "SUB", "UNSUB"]
AnswerOp = Literal["WELCOME", "PONG", "REPLY", "ERROR", "PART", "END", "ACK", "EVENT", "GAP", "BYE"]

#: what a client may send
REQUEST_OPS: Final[dict[bytes, RequestOp]] = {
    b"HELLO": "HELLO",
    b"PING": "PING",
    b"ASK": "ASK",
    b"TELL": "TELL",
    b"CANCEL": "CANCEL",
    b"CREDIT": "CREDIT",
    b"DESCRIBE": "DESCRIBE",
    b"SUB": "SUB",
    b"UNSUB": "UNSUB",
}
#: what a daemon may send
ANSWER_OPS: Final[dict[bytes, AnswerOp]] = {
    b"WELCOME": "WELCOME",
    b"PONG": "PONG",
    b"REPLY": "REPLY",
    b"ERROR": "ERROR",
    b"PART": "PART",
    b"END": "END",
    b"ACK": "ACK",
    b"EVENT": "EVENT",
    b"GAP": "GAP",
    b"BYE": "BYE",
}
#: answers after which nothing more comes for the id of a request
TERMINAL_OPS: Final = frozenset({"WELCOME", "PONG", "REPLY", "ERROR", "END", "ACK"})
#: messages that the daemon starts itself; their id is a subscription's or empty
UNASKED_OPS: Final = frozenset({"EVENT", "GAP", "BYE"})


class RequestHeader(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The header keys of requests; keys that are not listed are ignored, so that newer clients can talk to us."""

    to: Annotated[str, Meta(max_length=MAX_NAME_CHARS)] = ""
    method: Annotated[str, Meta(max_length=MAX_NAME_CHARS)] = ""
    codec: Codec = "json"
    deadline_ms: Annotated[float, Meta(gt=0)] | None = None
    idem: Annotated[str, Meta(min_length=1, max_length=MAX_IDEM_CHARS)] | None = None
    trace: Annotated[str, Meta(max_length=MAX_TRACE_CHARS)] | None = None
    ack: bool = False
    stream: bool = False
    credit: Annotated[int, Meta(ge=0, le=MAX_CREDIT)] | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CREDIT)] | None = None
    topics: Annotated[list[Annotated[str, Meta(max_length=MAX_NAME_CHARS)]], Meta(max_length=MAX_TOPICS)] = []
    since: Annotated[int, Meta(ge=0)] | None = None
    client: Annotated[str, Meta(max_length=MAX_NAME_CHARS)] = ""
    versions: Annotated[list[str], Meta(max_length=16)] = []


class Request(msgspec.Struct, frozen=True):
    """One message of a client; `body` is None when it is absent or empty."""

    op: RequestOp
    id: bytes
    header: RequestHeader
    body: bytes | None
    envelope: tuple[bytes, ...] = ()

    @property
    def is_answered(self) -> bool:
        """Tell whether it gets an answer of its own: always for a REQ socket, which cannot go on without one."""
        if self.envelope:
            return True
        if self.op == "TELL":
            return self.header.ack
        return self.op not in {"CANCEL", "CREDIT"}

    def __repr__(self) -> str:
        size = len(self.body or b"")
        return f"<Request {self.op} {self.id!r} to {self.header.to}.{self.header.method}, {size} bytes>"


class Answer(msgspec.Struct, frozen=True):
    """One message of a daemon; `body` is None when it is absent or empty."""

    op: AnswerOp
    id: bytes
    header: dict[str, Any]
    body: bytes | None

    def __repr__(self) -> str:
        return f"<Answer {self.op} {self.id!r}, {len(self.body or b'')} bytes>"


class Rejected(msgspec.Struct, frozen=True):
    """What is answered to frames that are no message: `id` and `op` as far as they could be read, else empty."""

    error: Invalid
    id: bytes = b""
    op: str = ""
    envelope: tuple[bytes, ...] = ()


_NO_HEADER: Final = RequestHeader()
_request_header: Final = msgspec.json.Decoder(RequestHeader)
_answer_header: Final = msgspec.json.Decoder(dict[str, Any])


def decode_request(frames: list[bytes], max_message_bytes: int) -> Request | Rejected:
    """Return the client's message, or what to answer instead; frames are without the routing id. Never raises."""
    start = _envelope_length(frames)
    envelope = tuple(frames[:start])
    found = _split(frames, start)
    if isinstance(found, Rejected):
        return found
    op_frame, request_id, header_frame, body = found
    op = REQUEST_OPS.get(op_frame)
    if op is None:
        meant = " (a daemon sends it, a client does not)" if op_frame in ANSWER_OPS else ""
        known = ", ".join(REQUEST_OPS.values())
        return Rejected(
            BadRequest(f"unknown op {_shown(op_frame)}{meant}, known ops: {known}"), request_id, "", envelope
        )
    if sum(map(len, frames)) > max_message_bytes:
        return Rejected(_too_large(frames, max_message_bytes), request_id, op, envelope)
    if not header_frame:
        return Request(op, request_id, _NO_HEADER, body, envelope)
    try:
        header = _request_header.decode(header_frame)
    except RecursionError:
        return Rejected(BadRequest("the header is nested too deeply"), request_id, op, envelope)
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        return Rejected(BadRequest(f"the header is no valid JSON object: {_reason(error)}"), request_id, op, envelope)
    return Request(op, request_id, header, body, envelope)


def decode_answer(frames: list[bytes]) -> Answer | Rejected:
    """Return the daemon's message, or why it is none. Never raises."""
    start = _envelope_length(frames)
    found = _split(frames, start, empty_id=True)
    if isinstance(found, Rejected):
        return found
    op_frame, answer_id, header_frame, body = found
    op = ANSWER_OPS.get(op_frame)
    if op is None:
        return Rejected(BadRequest(f"unknown op {_shown(op_frame)} in an answer"), answer_id)
    header: dict[str, Any] = {}
    if header_frame:
        try:
            header = _answer_header.decode(header_frame)
            check_depth(header, header_frame)
        except (RecursionError, CodecError):
            return Rejected(BadRequest("the header is nested too deeply"), answer_id, op)
        except (msgspec.MsgspecError, ValueError, OverflowError) as error:
            return Rejected(BadRequest(f"the header is no valid JSON object: {_reason(error)}"), answer_id, op)
    return Answer(op, answer_id, header, body)


def encode(
    op: RequestOp | AnswerOp,
    id: bytes,
    header: Mapping[str, Any] | RequestHeader | None = None,
    body: bytes | None = None,
    envelope: Sequence[bytes] = (),
) -> list[bytes]:
    """Return the frames of a message; the header frame is always a JSON object, the body frame always there.

    Raises TypeError or ValueError for a header that JSON cannot say.
    """
    head = msgspec.json.encode(header) if header else b"{}"
    return [*envelope, PROTOCOL, op.encode(), id, head, body or b""]


def _envelope_length(frames: list[bytes]) -> int:
    """How many frames the envelope has: a leading empty one (REQ), or all up to an empty one before the protocol."""
    if not frames or frames[0] == PROTOCOL:
        return 0
    if not frames[0]:
        return 1
    for index, frame in enumerate(frames[: MAX_ENVELOPE_FRAMES + 1]):
        if not frame:
            # without this test an empty header would make an envelope of a message in another version
            return index + 1 if frames[index + 1 : index + 2] == [PROTOCOL] else 0
        if frame == PROTOCOL or len(frame) > MAX_ENVELOPE_FRAME_BYTES:
            return 0
    return 0


def _split(
    frames: list[bytes], start: int, *, empty_id: bool = False
) -> tuple[bytes, bytes, bytes, bytes | None] | Rejected:
    """Return op, id, header and body, or a `Rejected` with the id when it can be read."""
    envelope = tuple(frames[:start])
    count = len(frames) - start
    message_id = frames[start + 2] if count > 2 else b""
    readable = message_id if len(message_id) <= MAX_ID_BYTES else b""
    if count and frames[start] != PROTOCOL:
        error = BadRequest(f"the message begins with {_shown(frames[start])}, expected the protocol version 'RG1'")
        return Rejected(error, readable if frames[start][:2] == b"RG" else b"", "", envelope)
    if not 4 <= count <= 5:
        error = BadRequest(
            f"the message has {count} frames, expected 5 (RG1, op, id, header, body) or 4 without a body"
        )
        return Rejected(error, readable, "", envelope)
    if len(message_id) > MAX_ID_BYTES or not (message_id or empty_id):
        return Rejected(
            BadRequest(f"the id has {len(message_id)} bytes, expected 1 to {MAX_ID_BYTES}"), b"", "", envelope
        )
    header = frames[start + 3]
    if len(header) > MAX_HEADER_BYTES:
        error = BadRequest(f"the header has {len(header)} bytes, at most {MAX_HEADER_BYTES} are allowed")
        return Rejected(error, message_id, "", envelope)
    return frames[start + 1], message_id, header, (frames[start + 4] or None) if count == 5 else None


def _too_large(frames: list[bytes], max_message_bytes: int) -> TooLarge:
    size = sum(map(len, frames))
    return TooLarge(
        f"the message has {size} bytes, at most {max_message_bytes} are allowed, "
        "send less or raise gateway.max_message",
        details={"size_bytes": size, "max_message_bytes": max_message_bytes},
    )


def _shown(frame: bytes) -> str:
    text = repr(frame[:16])[1:]
    return f"{text}..." if len(frame) > 16 else text


def _reason(error: Exception) -> str:
    # msgspec names paths and types, never values; a UnicodeDecodeError would quote bytes
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)[:200].rstrip(".")
