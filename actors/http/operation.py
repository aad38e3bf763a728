"""An API's operations, ready to run, and one call of them on its way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, urlencode

import msgspec

from actors.http.body import Format, decode
from actors.http.client import HttpClient, Request
from actors.http.template import Filled, Template
from actors.resilience.guarded import Guarded
from actors.resilience.shelf import Kept
from runtime import clock
from runtime.exports import Exported
from runtime.measure import Counter, Histogram
from runtime.promise import Promise

REQUESTS = Counter("http_requests_total", "tries of requests, by how they ended", ("actor", "operation", "outcome"))
REQUEST_SECONDS = Histogram("http_request_seconds", "how long one try of a request took", ("actor", "operation"))

OUTCOMES = (
    "ok", "upstream_error", "rate_limited", "connection_error", "timeout", "deadline_exceeded", "decode_error",
    "too_large", "failed", "cancelled",
)  # fmt: skip

# So much of a caller's time is kept for the fallback, when there is one.
FALLBACK_SHARE, FALLBACK_RESERVE_S = 0.1, 0.05


@dataclass(frozen=True, slots=True)
class Standing:
    """A fixed answer that stands in for a missing one."""

    answer: Any


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation, ready to run."""

    name: str
    template: Template
    exported: Exported
    query_also: frozenset[str]
    fresh_s: float
    stale_s: float
    timeout_s: float
    format: Format
    fallback: Literal["cache"] | Standing | None
    repeatable: bool
    keyed: bool

    @property
    def keeps(self) -> bool:
        """True when answers are kept, to be used again or to stand in."""
        return self.fresh_s > 0 or self.stale_s > 0


@dataclass(frozen=True, slots=True)
class KeyRule:
    """Where an idempotency key goes, which argument brings it, and whether one is made when none is brought."""

    header: str
    argument: str
    generate: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """What front and workers of one API share; nothing of it changes."""

    name: str
    host: str
    base_url: str
    headers: Mapping[str, str]
    secret_query: tuple[tuple[str, str], ...]
    operations: Mapping[str, Operation]
    client: HttpClient
    guarded: Guarded
    try_limit_s: float | None
    remaining_header: str | None
    reset_header: str | None
    reply_headers: frozenset[str]
    key_rule: KeyRule | None
    longest_s: float
    concurrency: int
    queue: int

    def request(self, filled: Filled, headers: Mapping[str, str]) -> Request:
        """Return what is sent for a filled template. Never switches."""
        query = urlencode((*filled.query, *self.secret_query), quote_via=quote)
        url = f"{self.base_url}{filled.path}{'?' if query else ''}{query}"
        if filled.body is not None:
            headers = {"content-type": "application/json", **headers}
        return Request(filled.method, url, headers, filled.body)

    def worker_name(self, lane: int) -> str:
        """Return the name of the worker of a lane. Never switches."""
        return f"{self.name}/worker-{lane + 1}"

    def doing(self, operation: Operation) -> str:
        """Return how error texts name a call. Never switches."""
        return f"{self.name}.{operation.name}"


@dataclass(slots=True, eq=False)
class Job:
    """One call on its way; `ends` is when the integration's own time limit passes."""

    operation: Operation
    request: Request
    key: str | None
    promise: Promise
    ends: float
    keyed: bool = False
    kept: Kept | None = None
    followed: bool = False
    """It has waited for another call of the same answer already, and goes on its own from now on."""

    @property
    def stops(self) -> float:
        """When work stops on the caller's account, a little earlier where a fallback must still reach it."""
        deadline = self.promise.deadline
        if deadline is None:
            return self.ends
        if self.operation.fallback is None:
            return deadline
        return deadline - min(FALLBACK_RESERVE_S, max(0.0, deadline - clock.now()) * FALLBACK_SHARE)


class Answered(msgspec.Struct, array_like=True):
    """An answer as the cache keeps it."""

    status: int
    headers: dict[str, str]
    content_type: str | None
    body: bytes

    def value(self, operation: Operation, doing: str) -> object:
        """Return the decoded body; raises DecodeError. Never switches."""
        return decode(self.body, self.content_type, self.status, doing=doing, expected=operation.format)


@dataclass(frozen=True, slots=True)
class WorkerUp:
    """Told to the front by a worker that has just started."""

    lane: int


def declare(settings: Settings) -> None:
    """Make every series of requests exist. Never switches."""
    for operation in settings.operations.values():
        REQUEST_SECONDS.declare(settings.name, operation.name)
        for outcome in OUTCOMES:
            REQUESTS.declare(settings.name, operation.name, outcome)
