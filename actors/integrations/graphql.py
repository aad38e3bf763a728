"""`type = "graphql"`: a GraphQL API as named operations, checked when the configuration is loaded.

Each operation is a query or mutation text; its variables are the arguments, with the types and defaults of the text.
What runs is that of every API over HTTP (`actors.http`): cache, limiter, breaker, retries. What an answer means is in
`actors.http.graphql`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from actors.http import operation
from actors.http.assembly import assemble
from actors.http.graphql import ACCEPT, NEEDS_GRAPHQL_CORE, Document, body_of, has_graphql_core, judge, parse
from actors.http.operation import Standing
from actors.http.selection import Selection
from actors.http.tables import (
    TYPES,
    Cost,
    FallbackDefault,
    HttpApi,
    Name,
    ParamSpec,
    ParamType,
    api_problems,
    cost_problems,
)
from actors.http.template import Filled, Template
from actors.seam import Context, Integration, Plan
from config.schema import Duration, PositiveDuration, Problem, Table
from runtime.exports import Exported, Param


class GraphQLOperation(Table, frozen=True, kw_only=True):
    """One query or mutation."""

    query: Annotated[str, Meta(min_length=1, max_length=1_000_000)]
    """The text, with one query or mutation; fragments may stand beside it."""
    doc: str = ""
    """What DESCRIBE says about it."""
    variables: dict[Name, ParamType | ParamSpec] = msgspec.field(default_factory=dict)
    """Types, defaults and docs of variables; those that are left out are known from the text."""
    select: Annotated[str, Meta(min_length=1, max_length=500)] | None = None
    """The part of `data` that callers get: "user.repositories.nodes"."""
    partial: Literal["return", "fail"] = "return"
    """When data and errors come together: return gives the data, with the errors in the reply's header; fail raises."""
    cache: Duration = Duration("0s")
    """How long the answer of a query is used again."""
    stale_while_revalidate: Duration | None = None
    """How long after its time an answer is still used at once, while a newer one is asked for; absent: the
    integration's own."""
    timeout: PositiveDuration | None = None
    """The total time limit; absent: the integration's own."""
    fallback: Literal["cache"] | FallbackDefault | None = None
    """What stands in for a missing answer; absent: the integration's own, which queries alone inherit."""
    repeatable: bool = False
    """Mutations only: true promises that a repeated request does no harm, so that it may be retried."""
    cost: Cost = 1
    """What each request takes of rate_limit, for peers that count some for more than one."""


class GraphQL(HttpApi, frozen=True, kw_only=True):
    """A GraphQL API; base_url is its one address. Needs regrow[graphql]."""

    schema: Path | None = None
    """The API's schema (SDL); operations are then checked against it when the configuration is loaded."""
    operations: dict[Name, GraphQLOperation] = msgspec.field(default_factory=dict)
    """The operations by name."""

    def __post_init__(self) -> None:
        if not has_graphql_core():
            raise Problem(NEEDS_GRAPHQL_CORE, key="type")
        problems = api_problems(self)
        schema: str | None = None
        if self.schema is not None:
            try:
                schema = _schema_text(self.schema)
            except ValueError as error:
                problems.append(Problem(str(error), key="schema"))
        if self.cache == "peer":
            problems.append(Problem("peers say nothing about answers to POST: write a duration", key="cache"))
        for name, table in self.operations.items():
            problems += _problems(name, table, schema)
            if table.stale_while_revalidate and not table.cache and not self.cache:
                at = f"operations.{name}.stale_while_revalidate"
                problems.append(Problem("answers of this operation are not kept", key=at))
            problems += cost_problems(f"operations.{name}", table.cost, self.rate_limit)
        if problems:
            raise ExceptionGroup("graphql", problems)


@lru_cache(maxsize=16)
def _read(file: Path, changed_ns: int) -> str:
    return file.read_text(encoding="utf-8")


def _schema_text(file: Path) -> str:
    try:
        return _read(file, file.stat().st_mtime_ns)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {type(error).__name__}") from None


def _problems(name: str, table: GraphQLOperation, schema: str | None) -> list[Problem]:
    at = f"operations.{name}"
    try:
        document = parse(table.query, schema)
    except ValueError as error:
        return [Problem(str(error), key=f"{at}.query")]
    problems = []
    for variable, declared in table.variables.items():
        spec = ParamSpec(type=declared) if isinstance(declared, str) else declared
        found = document.variables.get(variable)
        if found is None:
            known = ", ".join(sorted(document.variables)) or "none"
            problems.append(Problem(f"the query has no ${variable}, it has: {known}", key=f"{at}.variables.{variable}"))
        elif spec.type != "any" and found.types is not None and spec.type not in found.types:
            said = f"is {spec.type}, and the query says {found.written}"
            problems.append(Problem(said, key=f"{at}.variables.{variable}"))
    if table.select is not None:
        try:
            Selection(table.select)
        except ValueError as error:
            problems.append(Problem(str(error), key=f"{at}.select"))
    if document.is_mutation:
        problems += [
            Problem("only answers of queries are kept, this is a mutation", key=f"{at}.{key}")
            for key, value in (
                ("cache", table.cache),
                ("stale_while_revalidate", table.stale_while_revalidate),
                ("fallback", table.fallback == "cache"),
            )
            if value
        ]
    elif table.repeatable:
        problems.append(Problem("a query may be repeated anyway", key=f"{at}.repeatable"))
    return problems


def plan(name: str, config: GraphQL, context: Context) -> Plan:
    """Return the part of the tree that one configured API is. Never switches."""
    schema = None if config.schema is None else _schema_text(config.schema)
    operations = {key: _compile(key, table, config, schema) for key, table in config.operations.items()}
    return assemble(name, config, context, operations, accept=ACCEPT, whole_url=True)


def _compile(name: str, table: GraphQLOperation, config: GraphQL, schema: str | None) -> operation.Operation:
    document = parse(table.query, schema)
    fallback = table.fallback
    if fallback is None and not document.is_mutation:
        fallback = config.fallback
    own = table.stale_while_revalidate
    fresh = 0.0 if document.is_mutation else float(table.cache or (0.0 if config.cache == "peer" else config.cache))

    def fill(args: dict[str, Any]) -> Filled:
        return Filled("POST", "", (), {"variables": args})

    return operation.Operation(
        name=name,
        template=Template("POST /"),
        exported=_exported(name, table, document),
        query_also=frozenset(),
        fresh_s=fresh,
        stale_s=float(config.max_stale) if fallback == "cache" else 0.0,
        timeout_s=float(table.timeout or config.timeout),
        format="json",
        fallback=Standing(fallback.default) if isinstance(fallback, FallbackDefault) else fallback,
        repeatable=table.repeatable or not document.is_mutation,
        keyed=False,
        cost=table.cost,
        caches=fresh > 0,
        refresh_s=float(config.stale_while_revalidate if own is None else own),
        reads=not document.is_mutation,
        fill_with=fill,
        whole_body="variables",
        encode=lambda variables: body_of(table.query, document, variables),
        judge=judge(table.partial, None if table.select is None else Selection(table.select)),
    )


def _exported(name: str, table: GraphQLOperation, document: Document) -> Exported:
    parameters: dict[str, Param] = {}
    for key, variable in document.variables.items():
        declared = table.variables.get(key, "any")
        spec = ParamSpec(type=declared) if isinstance(declared, str) else declared
        kind: Any = TYPES[spec.type] if spec.type != "any" else variable.python
        required = spec.required or (variable.required and spec.default is None)
        if not variable.non_null:
            kind = kind | None
        default = msgspec.UNSET if spec.default is None else spec.default
        parameters[key] = Param(type=kind, required=required, default=default, doc=spec.doc)
    return Exported.make(name, table.doc or f"{document.kind} {document.name or name}", parameters)


INTEGRATION = Integration(type="graphql", config=GraphQL, plan=plan)
