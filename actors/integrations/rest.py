"""`type = "rest"`: an HTTP API as declared operations, each call through cache, limiter, breaker and retries.

Read: the tables of the configuration, then `plan` (what stands in the tree). What runs is in `actors.http`: `front`
takes the calls, `worker` performs them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from actors.http import front, operation
from actors.http.body import Format
from actors.http.client import HttpClient, host_and_port
from actors.http.front import Front, InFlight
from actors.http.operation import KeyRule, Settings, Standing
from actors.http.template import QUERY_METHODS, Template
from actors.http.worker import Worker
from actors.resilience import breaker, cache, guarded, limiter
from actors.resilience.breaker import Breaker, CircuitTable
from actors.resilience.cache import Cache
from actors.resilience.guarded import Guarded
from actors.resilience.limiter import DEFAULT_WINDOW_S, Limiter, QuotaTable
from actors.resilience.policy import BreakerPolicy, OnRedisDown, RatePolicy, RetryPolicy
from actors.resilience.shared import RedisLink, SharedCircuit, SharedQuota, shared_key
from actors.resilience.shelf import Shelf
from actors.seam import Context, Integration, Plan
from config.schema import Duration, PositiveDuration, Problem, Size, Supervised, Table
from config.secret import Secret, register
from runtime.exports import Exported, Param
from supervisors import ChildSpec

# The daemon's own default deadline lies behind the integration's time limit by this much, so that a caller that names
# no deadline hears what happened and not merely that time is up.
ANSWER_MARGIN_S = 1.0
# A call counts its time from its arrival at the front, so a worker that exceeds this is stuck.
WORKER_MARGIN_S = 10.0

_TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "array": list[Any],
    "object": dict[str, Any],
    "any": Any,
}
ParamType = Literal["string", "integer", "number", "boolean", "array", "object", "any"]
HeaderName = Annotated[str, Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", max_length=100)]
Name = Annotated[str, Meta(pattern=r"^(?!__)[A-Za-z_][A-Za-z0-9_]*$", max_length=64)]


class Basic(Table, frozen=True, kw_only=True):
    """A user name and a password, sent as a Basic header."""

    username: str
    """The user name."""
    password: Secret
    """The password."""


class Auth(Table, frozen=True, kw_only=True):
    """How requests prove who sends them: one of bearer, api_key and basic."""

    LATER: ClassVar[dict[str, str]] = {"aws_signature_v4": "signed requests", "oauth2": "client credentials"}

    bearer: Secret | None = None
    """A token, sent as a Bearer header."""
    api_key: Secret | None = None
    """A key, sent in the query parameter or header that the next keys name."""
    query: Annotated[str, Meta(min_length=1)] | None = None
    """The query parameter that carries api_key."""
    header: HeaderName | None = None
    """The header that carries api_key."""
    basic: Basic | None = None
    """A user name and a password."""

    def __post_init__(self) -> None:
        given = [key for key in ("bearer", "api_key", "basic") if getattr(self, key) is not None]
        if len(given) != 1:
            raise Problem(f"one of bearer, api_key and basic is needed, found {' and '.join(given) or 'none'}")
        places = [key for key in ("query", "header") if getattr(self, key) is not None]
        if self.api_key is not None and len(places) != 1:
            raise Problem("api_key needs either query or header, which say where it goes", key="api_key")
        if self.api_key is None and places:
            raise Problem("says where api_key goes, and there is no api_key", key=places[0])
        for key in ("bearer", "api_key"):
            secret = getattr(self, key)
            if secret is not None and not _fits_header(secret.reveal()):
                raise Problem("holds a line break or a character that no header carries", key=key)


class FallbackDefault(Table, frozen=True, kw_only=True):
    """A fixed answer."""

    default: Any
    """What callers get while there is no real answer."""


class ParamSpec(Table, frozen=True, kw_only=True):
    """One argument of an operation."""

    type: ParamType = "any"
    """What it must be."""
    required: bool = False
    """A call without it is refused before anything is sent."""
    default: Any = None
    """What is sent when the caller leaves it out; absent: nothing."""
    doc: str = ""
    """What DESCRIBE says about it."""

    def __post_init__(self) -> None:
        if self.required and self.default is not None:
            raise Problem("a required argument has no default", key="default")


class Idempotency(Table, frozen=True, kw_only=True):
    """A key that lets the peer recognise a repeated request, so that POST and PATCH may be retried."""

    header: HeaderName = "Idempotency-Key"
    """The header that carries it."""
    generate: bool = True
    """Make a key for each call that brings none, before its first try; all its tries carry the same."""
    argument: Name = "idempotency_key"
    """The argument by which a caller brings a key of its own; it is not sent as anything else."""


class OperationTable(Table, frozen=True, kw_only=True):
    """One thing that callers may ask for."""

    LATER: ClassVar[dict[str, str]] = {
        "pages": "pagination",
        "select": "a part of the response",
        "multipart": "uploads",
    }

    request: Annotated[str, Meta(min_length=1)]
    """Method and path: "GET /users/{username}". Arguments that no place takes go to the query or the JSON body."""
    doc: str = ""
    """What DESCRIBE says about it."""
    params: dict[Name, ParamType | ParamSpec] = msgspec.field(default_factory=dict)
    """Types, defaults and docs of arguments; a bare type makes one optional, those in the path are always needed."""
    query: list[Name] = msgspec.field(default_factory=list)
    """Arguments that go to the query although the method has a body."""
    cache: Duration | None = None
    """How long an answer is used again, for GET; "0s" for never; absent: the integration's own."""
    timeout: PositiveDuration | None = None
    """The total time limit; absent: the integration's own."""
    format: Format = "auto"
    """What the body is: json, text or bytes whatever the peer says; auto believes its Content-Type."""
    fallback: Literal["cache"] | FallbackDefault | None = None
    """What stands in for a missing answer; absent: the integration's own, which reading operations alone inherit."""
    repeatable: bool = False
    """POST and PATCH only: true promises that a repeated request does no harm, so that it may be retried."""


class Rest(Supervised, frozen=True, kw_only=True):
    """An HTTP API, one operation per thing that callers may ask for."""

    LATER: ClassVar[dict[str, str]] = {
        "proxy": "proxies",
        "tls": "own certificates",
        "depends_on": "waiting for a dependency",
        "on_dependency_down": "waiting for a dependency",
    }

    base_url: Annotated[str, Meta(min_length=1)]
    """Where every path of an operation is added to: "https://api.github.com"."""
    headers: dict[HeaderName, str] = msgspec.field(default_factory=dict)
    """Headers of every request."""
    auth: Auth | None = None
    """How requests prove who sends them."""
    timeout: PositiveDuration = PositiveDuration("30s")
    """The total time limit of a call: waiting, all tries and pauses. A caller's shorter deadline wins."""
    try_timeout: PositiveDuration | None = None
    """The time limit of each try, so that a hanging one leaves time for the next; absent: all that is left."""
    connect_timeout: PositiveDuration = PositiveDuration("5s")
    """How long connecting may take."""
    retry: RetryPolicy = RetryPolicy()
    """How failed tries are repeated."""
    breaker: BreakerPolicy = BreakerPolicy()
    """When calls are refused because the peer is known to fail."""
    rate_limit: RatePolicy | None = None
    """How many requests go; absent: only what the peer says in Retry-After counts."""
    concurrency: Annotated[int, Meta(ge=1, le=1000)] = 25
    """How many calls run at once."""
    queue: Annotated[int, Meta(ge=0, le=1_000_000)] = 1000
    """How many calls wait for one of them; more are refused with overloaded."""
    max_response: Size = Size("8MiB")
    """The largest response body, decompressed; a larger one is too_large."""
    max_redirects: Annotated[int, Meta(ge=0, le=20)] = 5
    """How many redirects are followed; 0 makes each an upstream_error. Another host gets none of our headers."""
    fallback: Literal["cache"] | FallbackDefault | None = None
    """What stands in while the peer is unavailable: cache (an older answer) or { default = ... }; reading only."""
    cache: Duration = Duration("0s")
    """How long answers of GET operations are used again, unless the operation says otherwise; "0s": not at all."""
    cache_size: Size = Size("16MiB")
    """The bound of kept answers; the least recently used make room."""
    max_stale: Duration = Duration("1d")
    """How long after its time an answer may still stand in, with fallback = "cache"."""
    idempotency: Idempotency | None = None
    """Keys for POST and PATCH."""
    reply_headers: list[HeaderName] = msgspec.field(
        default_factory=lambda: ["content-type", "etag", "last-modified", "link", "location", "x-request-id"]
    )
    """The response headers that callers see in the reply's header."""
    on_redis_down: OnRedisDown = "open"
    """With [daemon] redis, while it does not answer: open goes on with this daemon's own window and circuit, closed
    refuses with unavailable."""
    operations: dict[Name, OperationTable] = msgspec.field(default_factory=dict)
    """The operations by name."""

    def __post_init__(self) -> None:
        problems = [*_url_problems(self.base_url), *_header_problems(self.headers)]
        for name, table in self.operations.items():
            problems += _operation_problems(name, table, self)
        if problems:
            raise ExceptionGroup("rest", problems)


def _url_problems(base_url: str) -> list[Problem]:
    try:
        parts = urlsplit(base_url)
        _ = parts.port
    except ValueError:
        return [Problem("is no url", key="base_url")]
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return [Problem("begins with http:// or https:// and a host", key="base_url")]
    if parts.username is not None or parts.password is not None:
        return [Problem("holds a user name or password: write auth = { basic = ... }", key="base_url")]
    if parts.query or parts.fragment:
        return [Problem("has a query or fragment, which belongs to the operations", key="base_url")]
    return []


def _fits_header(value: str) -> bool:
    return value.isprintable() and value.isascii()


def _header_problems(headers: Mapping[str, str]) -> list[Problem]:
    return [
        Problem("holds a line break or a character that no header carries", key=f"headers.{name}")
        for name, value in headers.items()
        if not _fits_header(value)
    ]


def _operation_problems(name: str, table: OperationTable, config: Rest) -> list[Problem]:
    at = f"operations.{name}"
    try:
        template = Template(table.request)
    except ValueError as error:
        return [Problem(str(error), key=f"{at}.request")]
    problems = []
    if table.cache and template.method != "GET":
        problems.append(Problem(f"only answers of GET are kept, this is {template.method}", key=f"{at}.cache"))
    if table.fallback == "cache" and template.method != "GET":
        problems.append(Problem(f"only answers of GET are kept, this is {template.method}", key=f"{at}.fallback"))
    if table.repeatable and template.method not in {"POST", "PATCH"}:
        problems.append(Problem(f"{template.method} may be repeated anyway", key=f"{at}.repeatable"))
    if table.query and template.method in QUERY_METHODS:
        problems.append(Problem(f"arguments of {template.method} go to the query anyway", key=f"{at}.query"))
    problems += [
        Problem(f"{place!r} fills a place in the path and cannot go to the query too", key=f"{at}.query")
        for place in template.places
        if place in table.query
    ]
    if config.idempotency is not None and config.idempotency.argument in {*template.places, *table.params}:
        problems.append(Problem(f"takes {config.idempotency.argument!r}, the argument of idempotency", key=at))
    return problems


def plan(name: str, config: Rest, context: Context) -> Plan:
    """Return the part of the tree that one configured API is. Never switches."""
    settings = _compile(name, config)
    circuit, quota, shelf = CircuitTable(), QuotaTable(), Shelf(config.cache_size)
    if context.redis_url is not None:
        _share(name, config, context.redis_url, circuit, quota)
    timeout_s = settings.longest_s + ANSWER_MARGIN_S
    down = {"on_redis_down": config.on_redis_down}
    children = [
        ChildSpec(id="cache", start=Cache, args=(name, shelf), name=f"{name}/cache"),
        ChildSpec(
            id="limiter", start=Limiter, args=(name, config.rate_limit, quota), kwargs=down, name=f"{name}/limiter"
        ),
        ChildSpec(
            id="breaker",
            start=Breaker,
            args=(name, config.breaker, circuit),
            kwargs={**down, "front": name},
            name=f"{name}/breaker",
        ),
        *(
            ChildSpec(
                id=f"worker-{lane + 1}",
                start=Worker,
                args=(settings, lane),
                name=settings.worker_name(lane),
                # The front stops first and ends what is under way; a worker has nothing of its own to put in order.
                shutdown="brutal_kill",
                timeout_s=settings.longest_s + WORKER_MARGIN_S,
            )
            for lane in range(config.concurrency)
        ),
        ChildSpec(id="front", start=Front, args=(settings, InFlight()), name=name, timeout_s=timeout_s),
    ]
    exports = {each.name: each.exported for each in settings.operations.values()}
    return Plan(children=children, exports=exports, timeout_s=timeout_s)


def _share(name: str, config: Rest, url: Secret, circuit: CircuitTable, quota: QuotaTable) -> None:
    """Have circuit and quota kept in Redis, for every daemon that has this name at this address."""
    rate = config.rate_limit
    circuit.shared = SharedCircuit(RedisLink(url, name), shared_key(name, config.base_url, "circuit"))
    quota.shared = SharedQuota(
        RedisLink(url, name),
        shared_key(name, config.base_url, "quota"),
        None if rate is None else rate.requests,
        DEFAULT_WINDOW_S if rate is None else float(rate.window),
    )


def _compile(name: str, config: Rest) -> Settings:
    auth_headers, secret_query = _credentials(config.auth)
    own_headers = {key.lower(): value for key, value in config.headers.items()}
    operations = {key: _compile_operation(key, table, config) for key, table in config.operations.items()}
    rate, keys = config.rate_limit, config.idempotency
    settings = Settings(
        name=name,
        host=host_and_port(config.base_url),
        base_url=config.base_url.rstrip("/"),
        headers={"accept": "application/json, */*;q=0.5", **own_headers, **auth_headers},
        secret_query=secret_query,
        operations=operations,
        client=HttpClient(
            pool=config.concurrency,
            connect_timeout_s=config.connect_timeout,
            max_response_bytes=config.max_response,
            max_redirects=config.max_redirects,
        ),
        guarded=Guarded(
            name,
            retry=config.retry,
            limiter=f"{name}/limiter",
            breaker=f"{name}/breaker",
            patience_s=config.breaker.patience,
        ),
        try_limit_s=config.try_timeout,
        remaining_header=None if rate is None else rate.header,
        reset_header=None if rate is None else rate.reset_header,
        reply_headers=frozenset(header.lower() for header in config.reply_headers),
        key_rule=None if keys is None else KeyRule(keys.header.lower(), keys.argument, keys.generate),
        longest_s=max([float(config.timeout), *(each.timeout_s for each in operations.values())]),
        concurrency=config.concurrency,
        queue=config.queue,
    )
    for part in (breaker, limiter, cache, guarded, front):
        part.declare(name)
    operation.declare(settings)
    return settings


def _compile_operation(name: str, table: OperationTable, config: Rest) -> operation.Operation:
    template = Template(table.request)
    fallback = table.fallback
    if fallback is None and template.method in {"GET", "HEAD"}:
        fallback = config.fallback
    if template.method != "GET" and fallback == "cache":
        fallback = None
    fresh_s = 0.0
    if template.method == "GET":
        fresh_s = float(config.cache if table.cache is None else table.cache)
    writes_anew = template.method in {"POST", "PATCH"}
    return operation.Operation(
        name=name,
        template=template,
        exported=_exported(name, table, template),
        query_also=frozenset(table.query),
        fresh_s=fresh_s,
        stale_s=float(config.max_stale) if fallback == "cache" else 0.0,
        timeout_s=float(table.timeout or config.timeout),
        format=table.format,
        fallback=Standing(fallback.default) if isinstance(fallback, FallbackDefault) else fallback,
        repeatable=table.repeatable or not writes_anew,
        keyed=config.idempotency is not None and writes_anew,
    )


def _exported(name: str, table: OperationTable, template: Template) -> Exported:
    parameters: dict[str, Param] = {}
    for place in template.places:
        parameters[place] = Param(type=str | int | float | bool, required=True, doc="fills its place in the path")
    for key, declared in table.params.items():
        spec = ParamSpec(type=declared) if isinstance(declared, str) else declared
        required = spec.required or key in template.places
        default = msgspec.UNSET if spec.default is None else spec.default
        parameters[key] = Param(type=_TYPES[spec.type], required=required, default=default, doc=spec.doc)
    return Exported.make(name, table.doc or f"{template.method} {template.path}", parameters, extra=True)


def _credentials(auth: Auth | None) -> tuple[dict[str, str], tuple[tuple[str, str], ...]]:
    """Return the headers and the query parameters that carry the credentials."""
    if auth is None:
        return {}, ()
    if auth.bearer is not None:
        return {"authorization": f"Bearer {auth.bearer.reveal()}"}, ()
    if auth.basic is not None:
        pair = f"{auth.basic.username}:{auth.basic.password.reveal()}"
        token = base64.b64encode(pair.encode()).decode()
        register(token, pinned=True)
        return {"authorization": f"Basic {token}"}, ()
    key = auth.api_key.reveal() if auth.api_key is not None else ""
    if auth.header is not None:
        return {auth.header.lower(): key}, ()
    return {}, ((auth.query or "", key),)


INTEGRATION = Integration(type="rest", config=Rest, plan=plan)
