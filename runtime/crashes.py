"""Crash reports: what is known of an abnormal end, as one structured record (OTP's crash report).

The text is made when somebody listens, is bounded, and every part of it that came from outside is redacted. Payloads
are never in it: of the message in hand only its kind and the names of its arguments are told.
"""

from __future__ import annotations

import hashlib
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any

from config.secret import redact
from runtime import clock
from runtime.blame import blame, message_print
from runtime.messages import Call
from runtime.reasons import Crashed, text_of

if TYPE_CHECKING:
    from runtime.ref import Ref

MAX_TRACEBACK_CHARS = 8000
MAX_TEXT_CHARS = 500
KEPT = 200

recent: deque[dict[str, Any]] = deque(maxlen=KEPT)
"""The last crash reports, oldest first."""
_last_prints: dict[str, int] = {}  # of the messages in hand at the last crash of each place


def crash_report(ref: Ref, reason: Crashed, message: Any) -> dict[str, Any]:
    """Return the record of one crash and keep it among the recent ones. Never switches."""
    error = reason.exception
    text = "".join(traceback.format_exception(error))
    record: dict[str, Any] = {
        "actor": ref.name or ref.path,
        "path": ref.path,
        "crash_id": reason.crash_id,
        "at": clock.wall(),
        "class": ref.actor_class.__name__,
        "incarnation": ref.serial,
        "reason": type(error).__name__,
        "message": redact(text_of(error))[:MAX_TEXT_CHARS],
        "traceback": redact(text)[-MAX_TRACEBACK_CHARS:],
        "fingerprint": _fingerprint(error),
        "blame": _blame(ref.path, reason, message),
        "ancestors": _ancestors(ref),
        "mailbox": ref.queued,
        "handled": ref.handled,
        "last_message": describe_message(message),
        "state": _state_digest(ref),
    }
    recent.append(record)
    return record


def _blame(path: str, reason: Crashed, message: Any) -> str | None:
    """What kind of crash it was; the same message twice in a row at the same place is poison."""
    found = blame(reason)
    now = message_print(message) if message is not None else None
    before = _last_prints.pop(path, None)
    if now is not None:
        _last_prints[path] = now
        if len(_last_prints) > KEPT:
            del _last_prints[next(iter(_last_prints))]
    return "poison_message" if found == "bug" and now is not None and now == before else found


def describe_message(message: Any) -> str:
    """Name a message without its payload; None stands for a start or a stop. Never switches."""
    if message is None:
        return "no message"
    if isinstance(message, Call):
        return f"call {message.method}({', '.join(sorted(message.args))})"
    return type(message).__name__


def _ancestors(ref: Ref) -> list[str]:
    found = []
    parent = ref.parent
    while parent is not None:
        found.append(parent.path)
        parent = parent.parent
    return found


def _fingerprint(error: BaseException) -> str:
    """Group crashes that come from the same place.

    The exception's type and the innermost frames, without line numbers.
    """
    frames = traceback.extract_tb(error.__traceback__)[-5:]
    where = "|".join(f"{frame.filename}:{frame.name}" for frame in frames)
    return hashlib.sha256(f"{type(error).__name__}|{where}".encode()).hexdigest()[:12]


def _state_digest(ref: Ref) -> dict[str, str]:
    """The types of the actor's attributes, and the values of those that its class declares inspectable."""
    actor = ref.actor
    if actor is None:
        return {}
    shown = set(ref.actor_class.inspectable)
    return {
        key: redact(repr(value))[:MAX_TEXT_CHARS] if key in shown else type(value).__name__
        for key, value in list(vars(actor).items())[:50]
        if not key.startswith("_actor")
    }
