"""`type = "rest"`: an HTTP API as declared operations, each call through cache, limiter, breaker and retries.

Read: the tables of the configuration, then `plan` (what stands in the tree). What runs is in `actors.http`: `front`
takes the calls, `worker` performs them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from actors.http import operation
from actors.http.assembly import assemble
from actors.http.batching import ITEMS, Batching
from actors.http.body import Format
from actors.http.freshness import CREDENTIALS
from actors.http.operation import KeyRule, Standing
from actors.http.payload import RAW, BodyKind
from actors.http.selection import Selection
from actors.http.tables import (
    TYPES,
    Cost,
    FallbackDefault,
    HeaderName,
    HttpApi,
    Idempotency,
    Name,
    ParamSpec,
    ParamType,
    api_problems,
    cost_problems,
)
from actors.http.template import QUERY_METHODS, Filled, Template
from actors.seam import Context, Integration, Plan
from actors.storage import rest as rest_storage
from actors.storage import s3 as s3_storage
from actors.storage.contract import METHODS, storage_exports
from config.schema import Duration, PositiveDuration, Problem, Size, Table
from runtime.exports import Exported, Param

# The daemon, not a caller's argument, says what these are.
RESERVED_HEADERS = frozenset({"connection", "content-length", "host", "te", "transfer-encoding", "upgrade"})


class BatchTable(Table, frozen=True, kw_only=True):
    """Calls of many callers sent as one request; each call's arguments are one item of it."""

    max_size: Annotated[int, Meta(ge=1, le=10_000)] = 100
    """So many items fill a batch, which then goes at once."""
    max_delay: PositiveDuration = PositiveDuration("5s")
    """The longest that an item waits for others; at most half of its caller's time."""
    max_bytes: Size = Size("1MiB")
    """The largest sum of a batch's items; a larger one goes alone."""
    queue: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """So many items at most wait or are on their way; more are refused with overloaded."""
    into: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    """The key of the body under which the list of items stands; absent: the body is the list."""
    answers: Literal["each", "all"] = "each"
    """each: the answer, or what select names of it, is a list with one place for each item, in order, and each caller
    gets its own; another number of places is a decode_error for all. all: every caller gets the whole answer."""
    error: Annotated[str, Meta(min_length=1, max_length=500)] | None = None
    """With each: the part of an item's place that is there, and not null, when the peer refused that item; its caller
    gets upstream_error."""

    def __post_init__(self) -> None:
        if self.queue < self.max_size:
            raise Problem(f"holds less than one batch of {self.max_size}", key="queue")
        if self.error is not None and self.answers == "all":
            raise Problem('with answers = "all" there are no places of items', key="error")
        if self.error is not None:
            try:
                Selection(self.error)
            except ValueError as error:
                raise Problem(str(error), key="error") from None


class OperationTable(Table, frozen=True, kw_only=True):
    """One thing that callers may ask for."""

    request: Annotated[str, Meta(min_length=1)]
    """Method and path: "GET /users/{username}". Arguments that no place takes go to the query or the body."""
    doc: str = ""
    """What DESCRIBE says about it."""
    params: dict[Name, ParamType | ParamSpec] = msgspec.field(default_factory=dict)
    """Types, defaults and docs of arguments; a bare type makes one optional, those in the path are always needed."""
    query: list[Name] = msgspec.field(default_factory=list)
    """Arguments that go to the query although the method has a body."""
    headers: dict[Name, HeaderName] = msgspec.field(default_factory=dict)
    """Arguments that go into a header: { language = "Accept-Language" }. Answers to others are then not shared."""
    body: BodyKind = "json"
    """What the arguments become: a JSON object, a form, multipart (a file is bytes, or an object of filename,
    content_type and content or base64), or raw: the argument `body` as it is."""
    content_type: Annotated[str, Meta(pattern=r"^[!-~][ -~]*$", max_length=200)] | None = None
    """The Content-Type of the body; absent: that of its kind, for raw application/octet-stream."""
    select: Annotated[str, Meta(min_length=1, max_length=500)] | None = None
    """The part of the answer that callers get: "data.items", with positions in lists as numbers."""
    paginate: Literal["link"] | None = None
    """link: answers with a stream of the items of all pages, each found by the Link header of the one before it."""
    max_pages: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    """How many pages a stream may have; more end it with too_large."""
    cache: Duration | Literal["peer"] | None = None
    """How long an answer is used again, for GET, unless the peer says; "0s" for never, "peer" for its word alone;
    absent: the integration's own."""
    stale_while_revalidate: Duration | None = None
    """How long after its time an answer is still used at once, while a newer one is asked for; absent: the
    integration's own."""
    timeout: PositiveDuration | None = None
    """The total time limit; absent: the integration's own."""
    format: Format = "auto"
    """What the body is: json, text or bytes whatever the peer says; auto believes its Content-Type."""
    fallback: Literal["cache"] | FallbackDefault | None = None
    """What stands in for a missing answer; absent: the integration's own, which reading operations alone inherit."""
    repeatable: bool = False
    """POST and PATCH only: true promises that a repeated request does no harm, so that it may be retried."""
    cost: Cost = 1
    """What each request takes of rate_limit, for peers that count some for more than one."""
    batch: BatchTable | None = None
    """Calls are gathered and sent as one request, for POST, PUT and PATCH; the idempotency key is then the batch's."""


class Rest(HttpApi, frozen=True, kw_only=True):
    """An HTTP API, one operation per thing that callers may ask for."""

    idempotency: Idempotency | None = None
    """Keys for POST and PATCH."""
    operations: dict[Name, OperationTable] = msgspec.field(default_factory=dict)
    """The operations by name."""
    storage: rest_storage.RestStorage | None = None
    """Makes it a storage: load, store, exists and delete become operations."""
    s3: s3_storage.S3Storage | None = None
    """Makes it a storage in a bucket: load, store, exists, delete and list_partitions become operations."""

    def __post_init__(self) -> None:
        problems = api_problems(self)
        for name, table in self.operations.items():
            problems += _operation_problems(name, table, self)
        if self.storage is not None and self.s3 is not None:
            problems.append(Problem("the calls of a storage are there already: give storage or s3", key="s3"))
        if self.storage is not None or self.s3 is not None:
            problems += [
                Problem("is a call of the storage: choose another name", key=f"operations.{name}")
                for name in self.operations
                if name in METHODS
            ]
        if problems:
            raise ExceptionGroup("rest", problems)


def _operation_problems(name: str, table: OperationTable, config: Rest) -> list[Problem]:
    at = f"operations.{name}"
    try:
        template = Template(table.request)
    except ValueError as error:
        return [Problem(str(error), key=f"{at}.request")]
    problems = cost_problems(at, table.cost, config.rate_limit)
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
    if table.batch is not None:
        problems += _batch_problems(at, table, template)
    return problems + _body_problems(at, table, template) + _answer_problems(at, table, template, config)


def _batch_problems(at: str, table: OperationTable, template: Template) -> list[Problem]:
    """Return what in an operation cannot be the same for all calls of a batch."""
    problems = []
    if template.method in QUERY_METHODS:
        problems.append(Problem(f"{template.method} has no body that could hold a batch", key=f"{at}.batch"))
    if template.places:
        problems.append(Problem("a batch has one path: it cannot differ between its items", key=f"{at}.request"))
    problems += [
        Problem("a batch has one: it cannot differ between its items", key=f"{at}.{key}")
        for key in ("query", "headers")
        if getattr(table, key)
    ]
    if table.body != "json" or table.content_type is not None:
        problems.append(Problem("the body of a batch is JSON", key=f"{at}.body"))
    if table.batch is not None and table.batch.answers == "each" and table.format in {"text", "bytes"}:
        problems.append(Problem("holds no list with one place for each item of a batch", key=f"{at}.format"))
    if table.fallback is not None:
        problems.append(Problem("nothing stands in for the answers of a batch", key=f"{at}.fallback"))
    return problems


def _body_problems(at: str, table: OperationTable, template: Template) -> list[Problem]:
    problems = []
    if template.method in QUERY_METHODS:
        problems += [
            Problem(f"{template.method} has no body", key=f"{at}.{key}")
            for key in ("body", "content_type")
            if getattr(table, key) not in {"json", None}
        ]
    if table.body == "multipart" and table.content_type is not None:
        problems.append(Problem("multipart brings its own, which names its boundary", key=f"{at}.content_type"))
    for argument, header in table.headers.items():
        key = f"{at}.headers.{argument}"
        if argument in {*template.places, *table.query}:
            problems.append(Problem(f"{argument!r} goes to the path or the query already", key=key))
        if header.lower() in RESERVED_HEADERS:
            problems.append(Problem(f"{header} is not an argument's to say", key=key))
    return problems


def _answer_problems(at: str, table: OperationTable, template: Template, config: Rest) -> list[Problem]:
    problems = []
    if table.select is not None:
        try:
            Selection(table.select)
        except ValueError as error:
            problems.append(Problem(str(error), key=f"{at}.select"))
    if table.stale_while_revalidate:
        kept = config.cache if table.cache is None else table.cache
        if template.method != "GET" or table.paginate is not None or not kept:
            problems.append(Problem("answers of this operation are not kept", key=f"{at}.stale_while_revalidate"))
        elif kept == "peer":
            problems.append(Problem('with cache = "peer" it is the peer\'s to say', key=f"{at}.stale_while_revalidate"))
    if table.paginate is not None:
        if template.method != "GET":
            problems.append(Problem(f"only GET has pages, this is {template.method}", key=f"{at}.paginate"))
        problems += [
            Problem("a stream is neither kept nor stood in for", key=f"{at}.{key}")
            for key in ("cache", "fallback")
            if getattr(table, key)
        ]
    return problems


def plan(name: str, config: Rest, context: Context) -> Plan:
    """Return the part of the tree that one configured API is. Never switches."""
    operations = {key: _compile_operation(key, table, config) for key, table in config.operations.items()}
    limit_s = float(config.timeout)
    if config.storage is not None:
        exports = storage_exports(lists_partitions=False)
        operations |= rest_storage.operations(config.storage, exports, limit_s)
    if config.s3 is not None:
        exports = storage_exports(lists_partitions=True)
        operations |= s3_storage.operations(config.s3, exports, limit_s)
    keys = config.idempotency
    rule = None if keys is None else KeyRule(keys.header.lower(), keys.argument, keys.generate)
    return assemble(name, config, context, operations, key_rule=rule)


def _compile_operation(name: str, table: OperationTable, config: Rest) -> operation.Operation:
    template = Template(table.request)
    fallback = table.fallback
    if fallback is None and template.method in {"GET", "HEAD"} and table.paginate is None:
        fallback = config.fallback
    if template.method != "GET" and fallback == "cache":
        fallback = None
    kept: Duration | Literal["peer"] = Duration(0)
    if template.method == "GET" and table.paginate is None:
        kept = config.cache if table.cache is None else table.cache
    writes_anew = template.method in {"POST", "PATCH"}
    headers_of = {argument: header.lower() for argument, header in table.headers.items()}
    batching = None if table.batch is None else _batching(table.batch)
    return operation.Operation(
        name=name,
        template=template,
        exported=_exported(name, table, template),
        query_also=frozenset(table.query),
        fresh_s=0.0 if kept == "peer" else float(kept),
        stale_s=float(config.max_stale) if fallback == "cache" else 0.0,
        timeout_s=float(table.timeout or config.timeout),
        format=table.format,
        fallback=Standing(fallback.default) if isinstance(fallback, FallbackDefault) else fallback,
        repeatable=table.repeatable or not writes_anew,
        keyed=config.idempotency is not None and writes_anew,
        cost=table.cost,
        caches=kept == "peer" or kept > 0,
        refresh_s=_refresh_s(kept, table, config),
        headers_of=headers_of,
        body=table.body,
        content_type=table.content_type,
        select=None if table.select is None else Selection(table.select),
        batching=batching,
        whole_body=None if batching is None else ITEMS,
        fill_with=None if batching is None else _filling(template, batching),
        max_pages=0 if table.paginate is None else table.max_pages,
        shared=not CREDENTIALS.isdisjoint(headers_of.values()),
        reads=template.method in {"GET", "HEAD", "OPTIONS"},
    )


def _batching(table: BatchTable) -> Batching:
    return Batching(
        max_size=table.max_size,
        max_delay_s=float(table.max_delay),
        max_bytes=int(table.max_bytes),
        queue=table.queue,
        into=table.into,
        answers=table.answers,
        error=None if table.error is None else Selection(table.error),
    )


def _filling(template: Template, batching: Batching) -> Callable[[dict[str, Any]], Filled]:
    return lambda args: Filled(template.method, template.path, (), {ITEMS: batching.body(args[ITEMS])})


def _refresh_s(kept: Duration | Literal["peer"], table: OperationTable, config: Rest) -> float:
    if kept == "peer":
        return 0.0
    own = table.stale_while_revalidate
    return float(config.stale_while_revalidate if own is None else own)


def _exported(name: str, table: OperationTable, template: Template) -> Exported:
    parameters: dict[str, Param] = {}
    for place in template.places:
        parameters[place] = Param(type=str | int | float | bool, required=True, doc="fills its place in the path")
    for argument, header in table.headers.items():
        parameters[argument] = Param(type=str | int | float | bool, required=False, doc=f"goes into {header}")
    if table.body == "raw":
        parameters[RAW] = Param(type=Any, doc='the whole body: text, bytes or {"base64": "..."}')
    for key, declared in table.params.items():
        spec = ParamSpec(type=declared) if isinstance(declared, str) else declared
        required = spec.required or key in template.places
        default = msgspec.UNSET if spec.default is None else spec.default
        parameters[key] = Param(type=TYPES[spec.type], required=required, default=default, doc=spec.doc)
    doc = table.doc or f"{template.method} {template.path}"
    return Exported.make(name, doc, parameters, extra=True, streams=table.paginate is not None)


INTEGRATION = Integration(type="rest", config=Rest, plan=plan)
