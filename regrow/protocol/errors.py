"""The typed errors: one class per code of the wire, grouped by who must act.

A `Refused` request never started and is safe to repeat, an `Invalid` one must be changed by its caller, a `Failed` one
may have happened. `started` says which of the three is known to be true of this very request. Any other exception that
leaves a handler is a crash and is answered with `ActorDown`.

This module is a leaf: servers raise these classes and clients rebuild them from the wire without importing gevent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

Started = Literal["no", "yes", "unknown"]
Retryable = bool | Literal["unknown"]

MAX_MESSAGE_CHARS = 2000
MAX_RETRY_AFTER_MS = 10**12


class RegrowError(Exception):
    """The root of every typed error.

    `code` is the wire's word for the class. `started` tells whether the work began, `retryable` whether the same
    request may succeed later, `retry_after_s` (seconds) when to come back. `details` is JSON-safe and never holds a
    secret.
    """

    code: ClassVar[str] = "error"
    default_started: ClassVar[Started] = "unknown"
    default_retryable: ClassVar[Retryable] = "unknown"

    def __init__(
        self,
        message: str = "",
        *,
        started: Started | None = None,
        retryable: Retryable | None = None,
        retry_after_s: float | None = None,
        actor: str | None = None,
        incarnation: str | None = None,
        crash_id: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.started: Started = self.default_started if started is None else started
        self.retryable: Retryable = self.default_retryable if retryable is None else retryable
        self.retry_after_s = retry_after_s
        self.actor = actor
        self.incarnation = incarnation
        self.crash_id = crash_id
        self.details: dict[str, Any] = dict(details or {})

    def __str__(self) -> str:
        return self.message or self.code

    def __repr__(self) -> str:
        parts = [repr(self.message), f"started={self.started!r}"]
        if self.retry_after_s is not None:
            parts.append(f"retry_after_s={self.retry_after_s:.3g}")
        if self.actor is not None:
            parts.append(f"actor={self.actor!r}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def to_wire(self) -> dict[str, Any]:
        """Return the body of an ERROR message: JSON-safe, without absent fields."""
        body: dict[str, Any] = {
            "code": self.code,
            "message": str(self)[:MAX_MESSAGE_CHARS],
            "retryable": self.retryable,
            "started": self.started,
        }
        if self.retry_after_s is not None:
            body["retry_after_ms"] = max(0, round(self.retry_after_s * 1000))
        for key in ("actor", "incarnation", "crash_id"):
            value = getattr(self, key)
            if value is not None:
                body[key] = value
        if self.details:
            body["details"] = self.details
        return body


class Refused(RegrowError):
    """The request never started and is safe to repeat, usually after `retry_after_s` seconds."""

    code = "refused"
    default_started: ClassVar[Started] = "no"
    default_retryable: ClassVar[Retryable] = True


class Overloaded(Refused):
    """A bounded place (mailbox, pool, queue, client allowance) is full."""

    code = "overloaded"


class RateLimited(Refused):
    """The rate limit has no token before the deadline; `started` is yes when it was the peer who said so (429)."""

    code = "rate_limited"


class CircuitOpen(Refused):
    """The breaker is open: the dependency is known to fail."""

    code = "circuit_open"


class Unavailable(Refused):
    """The target exists but is restarting, parked, or died while this request was queued."""

    code = "unavailable"


class Draining(Refused):
    """The daemon is stopping and takes no new work."""

    code = "draining"


class Invalid(RegrowError):
    """The request is wrong and must be changed by its caller."""

    code = "invalid"
    default_started: ClassVar[Started] = "no"
    default_retryable: ClassVar[Retryable] = False


class BadRequest(Invalid):
    """The message does not follow the wire protocol."""

    code = "bad_request"


class NotFound(Invalid):
    """There is no such actor, method or stored thing."""

    code = "not_found"


class InvalidArguments(Invalid):
    """The arguments do not fit the method's annotations."""

    code = "invalid_arguments"


class Unauthorized(Invalid):
    """The caller is not known."""

    code = "unauthorized"


class Forbidden(Invalid):
    """The caller is known and may not do this."""

    code = "forbidden"


class Conflict(Invalid):
    """The request contradicts another one, by its id or its idempotency key."""

    code = "conflict"


class TooLarge(Invalid):
    """A message, argument or result is over its size limit."""

    code = "too_large"


class Failed(RegrowError):
    """The work may have happened."""

    code = "failed"
    default_started: ClassVar[Started] = "yes"


class UpstreamError(Failed):
    """The peer answered with an error: `status` (HTTP) and a bounded piece of its body."""

    code = "upstream_error"

    def __init__(self, message: str = "", *, status: int | None = None, body: Any = None, **kwargs: Any) -> None:
        details = dict(kwargs.pop("details", None) or {})
        if status is not None:
            details.setdefault("status", status)
        if body is not None:
            details.setdefault("body", body)
        super().__init__(message, details=details, **kwargs)
        self.status: int | None = details.get("status")
        self.body: Any = details.get("body")


class ConnectionFailed(Failed):
    """The connection could not be made or was lost; `started` is unknown when a request was on its way."""

    code = "connection_error"
    default_started: ClassVar[Started] = "unknown"
    default_retryable: ClassVar[Retryable] = True


class TimedOut(Failed):
    """A time limit of the integration itself passed (the caller's own is `DeadlineExceeded`)."""

    code = "timeout"
    default_retryable: ClassVar[Retryable] = True


class DeadlineExceeded(Failed):
    """The caller's deadline passed; `started` is no when the request expired before work began."""

    code = "deadline_exceeded"
    default_started: ClassVar[Started] = "unknown"


class ActorDown(Failed):
    """The actor died while it worked on this request."""

    code = "actor_down"


class Cancelled(Failed):
    """The request was cancelled by its caller or by a drain."""

    code = "cancelled"
    default_retryable: ClassVar[Retryable] = False


class DatabaseError(Failed):
    """The database refused or failed the statement; details carry its `sqlstate` when it has one."""

    code = "database_error"


class ExecutionError(Failed):
    """A worker's function raised; details carry `type`, `message` and a bounded `traceback`."""

    code = "execution_error"
    default_retryable: ClassVar[Retryable] = False


class DecodeError(Failed):
    """A peer's answer could not be decoded; details carry its first bytes."""

    code = "decode_error"
    default_retryable: ClassVar[Retryable] = False


def _concrete(root: type[RegrowError]) -> dict[str, type[RegrowError]]:
    found: dict[str, type[RegrowError]] = {}
    for child in root.__subclasses__():
        found[child.code] = child
        found.update(_concrete(child))
    return found


ERRORS: dict[str, type[RegrowError]] = _concrete(RegrowError)


def error_from_wire(body: Mapping[str, Any]) -> RegrowError:
    """Rebuild the typed error of an ERROR body; unknown codes become `Failed` so that newer daemons stay readable.

    A field of the wrong type counts as absent: whatever a peer sends, an error comes out.
    """
    code = str(body.get("code", ""))
    cls = ERRORS.get(code, Failed)
    started = body.get("started")
    retryable = body.get("retryable")
    details = body.get("details")
    message = str(body.get("message", ""))
    return cls(
        message if code in ERRORS else f"{code}: {message}",
        started=started if started in ("no", "yes", "unknown") else None,
        retryable=retryable if isinstance(retryable, bool) or retryable == "unknown" else None,
        retry_after_s=_seconds(body.get("retry_after_ms")),
        actor=_text(body.get("actor")),
        incarnation=_text(body.get("incarnation")),
        crash_id=_text(body.get("crash_id")),
        details=details if isinstance(details, Mapping) else None,
    )


def _seconds(milliseconds: object) -> float | None:
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return None
    return milliseconds / 1000 if 0 <= milliseconds <= MAX_RETRY_AFTER_MS else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
