"""An API's operations, ready to run, and one call of them on its way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import msgspec

from actors.http import fields, payload
from actors.http.batching import Batching
from actors.http.body import Format, decode
from actors.http.client import HttpClient, Request, Response
from actors.http.payload import BodyKind
from actors.http.selection import Selection
from actors.http.template import QUERY_METHODS, Filled, Template, encode_json
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
class Verdict:
    """What a response means that says more than its status: the value, and what the reply's header tells beside it."""

    value: object
    header: Mapping[str, Any]
    complete: bool
    """False keeps the answer out of the cache."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a paginated answer, and where the next one is."""

    items: list[Any]
    next_url: str | None


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation, ready to run."""

    name: str
    template: Template
    exported: Exported
    query_also: frozenset[str]
    fresh_s: float
    stale_s: float
    """How long an answer stands in after its time, unless the peer says; 0 where nothing is said about that."""
    timeout_s: float
    format: Format
    fallback: Literal["cache"] | Standing | None
    repeatable: bool
    keyed: bool
    cost: int = 1
    """What one try takes of the rate limit."""
    caches: bool = False
    """Answers are used again: for as long as the peer says, else for `fresh_s`."""
    refresh_s: float = 0.0
    """How long a stale answer is used while a newer one is asked for, unless the peer says how long it is fresh."""
    headers_of: Mapping[str, str] = field(default_factory=dict)
    """The header that carries an argument, by the argument's name."""
    body: BodyKind = "json"
    content_type: str | None = None
    select: Selection | None = None
    max_pages: int = 0
    """Answers with a stream over so many pages at most; 0: with one value."""
    shared: bool = False
    """Callers bring credentials of their own."""
    reads: bool = True
    """A request changes nothing at the peer, so it leaves what is kept as it is."""
    whole_body: str | None = None
    """The argument that is the whole JSON body."""
    encode: Callable[[Any], tuple[bytes, str]] | None = None
    """How the argument `whole_body` becomes body and content type, in place of JSON."""
    fill_with: Callable[[dict[str, Any]], Filled] | None = None
    """How the arguments fill the request, in place of the template."""
    more: Callable[[bytes, Request], Request | None] | None = None
    """The request for the rest of a list that came in part, from the body; None when it is whole."""
    accepts: frozenset[int] | None = None
    """The statuses that mean success; None: all from 200 to 299."""
    missing: Literal["error", "not_found", "false", "nothing"] = "error"
    """What a 404 means."""
    returns: Literal["value", "true", "nothing"] = "value"
    """What success means."""
    read: Callable[[bytes, str], object] | None = None
    """How a body becomes the value, in place of its content type; gets the body and how error texts name the call."""
    judge: Callable[[Response, fields.Limits, str], Verdict | None] | None = None
    """What a response means whatever its status; None leaves that to the status. Raises the typed errors."""
    batching: Batching | None = None
    """Calls are gathered and sent as one request."""

    @property
    def keeps(self) -> bool:
        """True when answers are kept, to be used again or to stand in."""
        return self.caches or self.stale_s > 0

    @property
    def may_stand_in(self) -> bool:
        """True when an older answer replaces a missing one where the peer allows it (stale-if-error)."""
        return self.stale_s > 0 or (self.caches and self.fallback is None)

    def fill(self, args: dict[str, Any]) -> Filled:
        """Return the request's moving parts; raises InvalidArguments. Never switches."""
        if self.fill_with is not None:
            return self.fill_with(args)
        return self.template.fill(args, query_also=self.query_also)

    def body_of(self, filled: Filled) -> tuple[bytes | None, str]:
        """Return body and content type of a filled template; raises InvalidArguments. Never switches."""
        if self.whole_body is not None and self.whole_body in filled.rest:
            whole = filled.rest[self.whole_body]
            if self.encode is not None:
                return self.encode(whole)
            return encode_json(whole), "application/json"
        if filled.method in QUERY_METHODS:
            return None, ""
        return payload.encode(self.body, filled.rest, self.content_type)


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
    sign: Callable[[Request], Request] | None = None
    """Makes the request that goes out of one that is ready but not signed, anew for each exchange."""
    shares_answers: bool = False
    """Other daemons keep answers in the same place, so that the one who asks for one says when none comes."""
    needs_token: bool = False
    """Requests carry a token that the token actor fetches."""

    def request(self, operation: Operation, filled: Filled, headers: Mapping[str, str]) -> Request:
        """Return what is sent for a filled template; raises InvalidArguments. Never switches."""
        query = urlencode((*filled.query, *self.secret_query), quote_via=quote)
        url = f"{self.base_url}{filled.path}{'?' if query else ''}{query}"
        body, content_type = operation.body_of(filled)
        if body is not None:
            # Only these two kinds of body say in their type what their bytes mean.
            own = "content-type" in headers and operation.body in {"json", "raw"}
            headers = headers if own else {**headers, "content-type": content_type}
        return Request(filled.method, url, headers, body)

    def with_credentials(self, url: str) -> str:
        """Return an url that the peer gave with the credentials that belong into its query. Never switches."""
        if not self.secret_query:
            return url
        parts = urlsplit(url)
        names = {name for name, _ in self.secret_query}
        pairs = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] not in names]
        return urlunsplit(parts._replace(query=urlencode([*pairs, *self.secret_query], quote_via=quote)))

    def batcher_name(self, operation: Operation) -> str:
        """Return the name of the batcher of an operation. Never switches."""
        return f"{self.name}/batcher-{operation.name}"

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
    client: str = ""
    """Whose call it is: what waits for a worker is served in turns of these."""
    keyed: bool = False
    group: str = ""
    """What a change of the same thing makes invalid."""
    authorized: bool = False
    """The caller brought credentials of its own."""
    kept: Kept | None = None
    known: Answered | None = None
    """The kept answer that the request asks about, which a 304 brings back to life."""
    refreshes: bool = False
    """Nobody waits for it: it renews a kept answer."""
    followed: bool = False
    """It has waited for another call of the same answer already, and goes on its own from now on."""

    @property
    def stops(self) -> float:
        """When work stops on the caller's account, a little earlier where a fallback must still reach it."""
        deadline = self.promise.deadline
        if deadline is None:
            return self.ends
        if self.operation.fallback is None and self.kept is None:
            return deadline
        return deadline - min(FALLBACK_RESERVE_S, max(0.0, deadline - clock.now()) * FALLBACK_SHARE)


class Answered(msgspec.Struct, array_like=True):
    """An answer as the cache keeps it: `headers` are all but those of the connection."""

    status: int
    headers: dict[str, str]
    body: bytes

    def value(self, operation: Operation, doing: str) -> object:
        """Return what the operation returns for it; raises DecodeError. Never switches."""
        if operation.returns != "value":
            return True if operation.returns == "true" else None
        if operation.read is not None:
            found = operation.read(self.body, doing)
        else:
            content_type = self.headers.get("content-type")
            found = decode(self.body, content_type, self.status, doing=doing, expected=operation.format)
        return found if operation.select is None else operation.select.of(found, doing)

    def response(self) -> Response:
        """Return it in the form in which it came. Never switches."""
        return Response(self.status, self.headers, self.body)

    def told(self, settings: Settings) -> dict[str, str]:
        """Return the headers that callers see. Never switches."""
        return {name: value for name, value in self.headers.items() if name in settings.reply_headers}


@dataclass(frozen=True, slots=True)
class NextPage:
    """Ask the front for one page; answered with a `Page`."""

    operation: Operation
    request: Request


@dataclass(frozen=True, slots=True)
class Gathered:
    """Ask the front for a batch of one operation's calls, answered as one call is; `key` is the batch's own."""

    operation: Operation
    items: tuple[Any, ...]
    key: str


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
