"""Outcomes: answers ready to be sent, and how an exception becomes an ERROR that tells no secret.

A typed error is answered as it is. Anything else was a crash: the wire says that it happened and where its record is,
never the exception's text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from config.secret import redact
from regrow.protocol.codec import CodecError, encode_body
from regrow.protocol.errors import ActorDown, RegrowError
from regrow.protocol.frames import AnswerOp
from runtime.reasons import Crashed
from runtime.ref import Ref

MAX_DETAILS_BYTES: Final = 64 * 1024


class Outcome(msgspec.Struct, frozen=True):
    """An answer ready to be sent: what a REPLY or ERROR says, without the id."""

    op: AnswerOp
    header: Mapping[str, Any]
    body: bytes
    started: str = "yes"

    @property
    def size_bytes(self) -> int:
        return len(self.body)


def error_outcome(error: BaseException, target: str = "", ref: Ref | None = None) -> Outcome:
    """Return the ERROR of any exception: typed ones as they are, anything else as the crash that it was."""
    if not isinstance(error, RegrowError):
        reason = ref.reason if ref is not None else None
        crash_id = reason.crash_id if isinstance(reason, Crashed) and reason.exception is error else None
        error = _crash_answer(target, crash_id)
    body = error.to_wire()
    if target:
        body.setdefault("actor", target)
    if ref is not None:
        body.setdefault("incarnation", str(ref.serial))
    body["message"] = redact(body["message"])
    return Outcome("ERROR", {}, _error_body(body), error.started)


def _error_body(body: dict[str, Any]) -> bytes:
    """Encode the body of an ERROR: details that are too large, or that JSON cannot say, are left out."""
    details = body.pop("details", None)
    if details:
        try:
            text = redact(encode_body(details, "json").decode())
            if len(text) <= MAX_DETAILS_BYTES:
                # read again, because a masked secret may have been more than the inside of one string
                return msgspec.json.encode({**body, "details": msgspec.json.decode(text)})
        except (CodecError, msgspec.MsgspecError):
            pass
    return msgspec.json.encode(body)


def _crash_answer(target: str, crash_id: str | None) -> ActorDown:
    """Return what the wire says of a crash: that it happened and where its record is, never the exception's text."""
    where = f", `regrow why {crash_id}` shows the crash" if crash_id else ""
    return ActorDown(f"{target} crashed while it worked on the request{where}", actor=target, crash_id=crash_id)
