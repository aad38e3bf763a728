"""The one place that says what a failure means: for a retry, for the breaker and for the caller.

`normaliser` makes the typed errors that are classified here out of everything else.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from regrow.protocol.errors import (
    Cancelled,
    ConnectionFailed,
    DeadlineExceeded,
    DecodeError,
    Failed,
    Invalid,
    RateLimited,
    Refused,
    RegrowError,
    Retryable,
    TimedOut,
    UpstreamError,
)

Blame = Literal["peer", "nobody", "unknown"]

RETRYABLE_STATUSES = frozenset({408, 421, 425, 429})
# The peer cannot do this at all; asking again changes nothing.
PERMANENT_5XX = frozenset({501, 505, 506, 508, 510, 511})

# A spent budget looks like a rate limit and is none: no waiting clears it.
PERMANENT_REFUSALS = frozenset(
    {
        "billing_hard_limit_reached",
        "credit_balance_exhausted",
        "enforced_spend_limit_reached",
        "insufficient_quota",
    }
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a failure means.

    `retryable`: may the same request succeed later. `blame`: `peer` counts as a failure in the breaker, `nobody` proves
    that the peer lives, `unknown` says nothing about it (our own limits, a caller that gave up).
    """

    retryable: Retryable
    blame: Blame


@dataclass(frozen=True, slots=True)
class OwnRules:
    """What a configuration says of single statuses and error codes, which goes before the general verdict."""

    count: frozenset[int | str] = frozenset()
    ignore: frozenset[int | str] = frozenset()

    def blame(self, error: RegrowError) -> Blame | None:
        """Return whose fault the configuration says it is, by status before code; None when it says nothing.

        Never switches.
        """
        status = getattr(error, "status", None) or error.details.get("status")
        for word in (status, error.code):
            if word in self.ignore:
                return "unknown"
            if word in self.count:
                return "peer"
        return None


def status_verdict(status: int) -> Verdict:
    """Classify an HTTP status of 300 or more. Never switches."""
    if status >= 500:
        return Verdict(status not in PERMANENT_5XX, "peer")
    return Verdict(status in RETRYABLE_STATUSES, "nobody")


def classify(error: BaseException) -> Verdict:
    """Say what `error` means; errors nobody knows are retryable=unknown and count against the peer. Never switches."""
    if isinstance(error, RegrowError):
        return _classify_ours(error)
    if isinstance(error, socket.gaierror | ConnectionError | TimeoutError):
        return Verdict(True, "peer")
    if isinstance(error, PermissionError):
        return Verdict(False, "unknown")
    return Verdict("unknown", "peer" if isinstance(error, Exception) else "unknown")


def is_permanent_refusal(body: object) -> bool:
    """True when the body of a 429 says that waiting will not help (a spend limit, no credit). Never switches."""
    error = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(error, Mapping):
        return False
    details = error.get("details")
    words = [error.get("code"), error.get("type"), details.get("error_code") if isinstance(details, Mapping) else None]
    return any(isinstance(word, str) and word in PERMANENT_REFUSALS for word in words)


def means_unavailable(error: RegrowError) -> bool:
    """True when the peer cannot be asked now, so that something may stand in for it. Never switches.

    A wrong request stays wrong, and so does one that the peer refuses.
    """
    if isinstance(error, UpstreamError):
        return error.status is None or error.status >= 500
    return isinstance(error, Refused | ConnectionFailed | TimedOut | DeadlineExceeded | DecodeError)


def _classify_ours(error: RegrowError) -> Verdict:
    if isinstance(error, UpstreamError) and error.status is not None:
        verdict = status_verdict(error.status)
        return verdict if error.retryable == "unknown" else Verdict(error.retryable, verdict.blame)
    if isinstance(error, RateLimited):
        return Verdict(error.retryable, "nobody" if error.started == "yes" else "unknown")
    if isinstance(error, ConnectionFailed | TimedOut):
        return Verdict(error.retryable, "peer")
    if isinstance(error, DecodeError):
        return Verdict(error.retryable, "peer")
    if isinstance(error, DeadlineExceeded | Cancelled):
        return Verdict(False, "unknown")
    if isinstance(error, Invalid):
        return Verdict(False, "nobody" if error.started == "yes" else "unknown")
    if isinstance(error, Refused):
        return Verdict(error.retryable, "unknown")
    if isinstance(error, Failed):
        return Verdict(error.retryable, "peer")
    return Verdict("unknown", "unknown")
