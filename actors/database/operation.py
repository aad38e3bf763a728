"""Named operations: what the configuration says, checked and compiled once, and the binding of one call's arguments.

An operation is one statement, or several that are kept together or not at all. Two kinds answer with a stream, which
holds its connection for as long as it lasts: `stream`, a server-side cursor, and `copy_out`.

Nothing here talks to a database. `Operation.bind` is the last place that sees arguments by name: what it returns goes
to the engine as bound values, or it raises `InvalidArguments` before anything is sent.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from actors.database import sql, values
from config.schema import PositiveDuration, Size, Table
from regrow.protocol.errors import InvalidArguments, TooLarge

StatementKind = Literal["query", "one", "value", "execute"]
ConfiguredKind = Literal["query", "one", "value", "execute", "many", "stream", "copy_out", "copy_in"]
Kind = Literal["query", "one", "value", "execute", "many", "stream", "copy_out", "copy_in", "transaction"]
Isolation = Literal["read committed", "repeatable read", "serializable"]

#: the argument of a `many` operation: a list with one object of parameters for each row
ROWS = "rows"
#: the other argument of a `copy_in`: text or bytes in the statement's own format
DATA = "data"
#: the arguments of a `copy_in` in several calls: the key that the first one answered, whether more calls follow, and
#: whether it is all to be undone
COPY, MORE, UNDO = "copy", "more", "undo"
_RETURNING = frozenset({"query", "one", "value"})
_STREAMING = frozenset({"stream", "copy_out"})
#: formats of COPY in which rows cannot be given as lists of values
_FORMATTED = frozenset({"CSV", "BINARY", "FORMAT", "DELIMITER", "NULL"})
#: a raw statement must not leave anything in the session that the next caller of the connection would meet
_OF_THE_SESSION = frozenset(
    {"SET", "RESET", "LISTEN", "UNLISTEN", "PREPARE", "EXECUTE", "DEALLOCATE", "DECLARE", "FETCH", "MOVE", "CLOSE"}
    | {
        "BEGIN",
        "START",
        "COMMIT",
        "END",
        "ROLLBACK",
        "ABORT",
        "SAVEPOINT",
        "RELEASE",
        "LOCK",
        "COPY",
        "LOAD",
        "DISCARD",
    }
    | {"DO", "CALL", "PRAGMA", "ATTACH", "DETACH"}
)
_CHANGING = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE"})

Values = tuple[object, ...]


class CopyData(bytes):
    """Bytes for COPY in the statement's own format, the only value of their row."""

    __slots__ = ()


class ParameterConfig(Table, frozen=True, kw_only=True):
    """One parameter of a statement."""

    type: str = "any"
    """What values it takes: any, int, float, decimal, text, bool, date, time, timestamp, uuid, bytes (as base64), json,
    and lists of them such as "int[]". Null is always taken."""
    default: Any = msgspec.UNSET
    """What stands in for an absent argument; without it the argument is required."""
    doc: str = ""
    """A line for whoever calls the operation."""


class StatementConfig(Table, frozen=True, kw_only=True):
    """One of the statements of a transaction."""

    sql: str
    """One SQL statement; parameters of the same name in several statements have the same value."""
    kind: StatementKind = "execute"
    """What its place in the answer holds: query a list of objects, one an object or null, value the first column of
    that row, execute {rowcount}."""


class OperationConfig(Table, frozen=True, kw_only=True):
    """What is called by its name; it is one transaction: unless it succeeds, nothing of it is kept."""

    sql: str | None = None
    """One SQL statement; `:name` stands for a parameter, whose value is always bound and never becomes SQL."""
    statements: Annotated[list[str | StatementConfig], Meta(min_length=1, max_length=100)] | None = None
    """Instead of sql: several statements, run in order as one transaction and answered with a list, one item for each.
    A bare text is of kind execute, or query when it is a SELECT or has RETURNING."""
    kind: ConfiguredKind = "query"
    """query answers a list of objects; one an object or null; value the first column of that row; execute {rowcount};
    many takes `rows`, a list with one object of parameters for each row, and answers {rowcount}; stream gives one part
    for each row, through a cursor that reads no faster than its reader. PostgreSQL only: copy_out (COPY ... TO STDOUT)
    gives parts of whole lines of text (base64 text when binary), copy_in (COPY ... FROM STDIN) takes `rows`, a list of
    lists of values, or `data` in the statement's format, and answers {rowcount}; with `more = true` it answers {copy},
    a key with which the next call goes on, so that a copy of any size takes many small calls, waits for the server, and
    is kept as a whole by the first call without `more`, or not at all."""
    doc: str = ""
    """A line for whoever calls it."""
    params: Annotated[dict[str, str | ParameterConfig], Meta(max_length=1000)] = msgspec.field(default_factory=dict)
    """By parameter: a type, or a table with type, default and doc. One not listed is required and takes any value."""
    timeout: PositiveDuration | None = None
    """How long it may take, where the caller's deadline is later; of a stream: from begin to end, 1h at most."""
    read_only: bool = False
    """The database refuses writes, and the operation is repeated by itself when the connection broke while it ran."""
    isolation: Isolation | None = None
    """PostgreSQL's isolation level; absent: the server's default."""
    max_rows: Annotated[int, Meta(ge=1)] | None = None
    """In place of the integration's max_rows."""
    max_bytes: Size | None = None
    """In place of the integration's max_bytes; of a stream: the most bytes of one part."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter as calls are checked against it."""

    name: str
    type: str
    required: bool
    default: object
    doc: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One compiled operation; `text` holds the engine's placeholders, `order` the parameter of each."""

    name: str
    kind: Kind
    doc: str
    text: str
    order: tuple[str, ...]
    parameters: Mapping[str, Parameter]
    #: whether it needs BEGIN and COMMIT around it to be all or nothing
    transaction: bool
    read_only: bool
    isolation: Isolation | None
    timeout_s: float | None
    max_rows: int
    max_bytes: int
    convert: Callable[[object], object]
    first_word: str = ""
    #: the statements of a transaction, in order
    steps: tuple[Operation, ...] = ()
    #: the statement came from a client
    raw: bool = False

    @property
    def streams(self) -> bool:
        """Whether it answers with a stream. Never switches."""
        return self.kind in _STREAMING

    @property
    def takes_rows(self) -> bool:
        """Whether a `copy_in` can be given rows, not only data in its own format. Never switches."""
        return _FORMATTED.isdisjoint(self.text.upper().replace("(", " ").replace(")", " ").split())

    def bind(self, args: Mapping[str, Any]) -> list[Values]:
        """Return the values of each execution in the order of the placeholders: one, or one for each row of a `many`
        or `copy_in`, or one for each statement of a transaction.

        Raises `InvalidArguments` for unknown, missing and unfit arguments, `TooLarge` for too many rows. Never
        switches.
        """
        if self.kind == "copy_in":
            return self._bind_copy(args)
        if self.kind != "many":
            bound = self._bound(args, "")
            return [tuple([bound[name] for name in step.order]) for step in self.steps or (self,)]
        rows = args.get(ROWS)
        if len(args) != 1 or not isinstance(rows, list | tuple) or not all(isinstance(row, Mapping) for row in rows):
            raise InvalidArguments(
                f"operation {self.name} takes one argument, {ROWS}: a list with one object of parameters for each row"
            )
        self._not_too_many(rows)
        bounds = [self._bound(row, f" in row {number} of {len(rows)}") for number, row in enumerate(rows, 1)]
        return [tuple([bound[name] for name in self.order]) for bound in bounds]

    def _not_too_many(self, rows: Sequence[object]) -> None:
        if len(rows) > self.max_rows:
            raise TooLarge(
                f"operation {self.name} was given {len(rows)} rows, at most {self.max_rows} are allowed: send fewer"
            )

    def _bind_copy(self, args: Mapping[str, Any]) -> list[Values]:
        rows, data = args.get(ROWS), args.get(DATA)
        if len(args) != 1 or (rows is None) == (data is None):
            raise InvalidArguments(
                f"operation {self.name} takes one argument: {ROWS}, a list of lists of values, or {DATA}, "
                "a text or bytes in the statement's format"
            )
        if data is not None:
            if not isinstance(data, str | bytes):
                raise InvalidArguments(f"argument {DATA} of operation {self.name} must be a text or bytes")
            return [(CopyData(data.encode() if isinstance(data, str) else data),)]
        if not self.takes_rows:
            raise InvalidArguments(f"operation {self.name} names a format of its own, so it takes {DATA} only")
        if not isinstance(rows, list | tuple) or not all(isinstance(row, list | tuple) for row in rows):
            raise InvalidArguments(f"argument {ROWS} of operation {self.name} must be a list of lists of values")
        self._not_too_many(rows)
        found: list[Values] = []
        for number, row in enumerate(rows, 1):
            try:
                found.append(tuple([self.convert(value) for value in row]))
            except values.ValueRejected as expected:
                raise InvalidArguments(f"row {number} of operation {self.name} must hold {expected}") from None
        return found

    def _bound(self, args: Mapping[str, Any], where: str) -> dict[str, object]:
        unknown = [name for name in args if name not in self.parameters]
        if unknown:
            raise InvalidArguments(self._unknown(str(unknown[0]), where))
        bound: dict[str, object] = {}
        missing = []
        for name, parameter in self.parameters.items():
            if name in args:
                value = args[name]
            elif parameter.required:
                missing.append(name)
                continue
            else:
                value = parameter.default
            try:
                bound[name] = self.convert(values.convert(parameter.type, value))
            except values.ValueRejected as expected:
                raise InvalidArguments(
                    f"argument {name} of operation {self.name}{where} must be {expected}, found {type(value).__name__}",
                    details={"argument": name},
                ) from None
        if missing:
            raise InvalidArguments(
                f"operation {self.name} misses {', '.join(missing)}{where}: give all of {', '.join(self.parameters)}",
                details={"missing": missing},
            )
        return bound

    def _unknown(self, name: str, where: str) -> str:
        near = difflib.get_close_matches(name, self.parameters, 1)
        hint = f"did you mean {near[0]}" if near else f"it takes {', '.join(self.parameters) or 'none'}"
        return f"operation {self.name} has no parameter {name[:80]!r}{where}: {hint}"


def compile_operation(
    name: str, config: OperationConfig, dialect: sql.Dialect, *, max_rows: int, max_bytes: int
) -> Operation:
    """Check one operation of the configuration and compile it; raise ValueError with what to write. Never switches."""
    if (config.sql is None) == (config.statements is None):
        raise ValueError("an operation has either sql, one statement, or statements, a list of them")
    max_rows, max_bytes = config.max_rows or max_rows, int(config.max_bytes or max_bytes)
    if config.isolation is not None and dialect == "sqlite":
        raise ValueError("isolation is for PostgreSQL: every transaction of SQLite is serializable")
    if config.sql is not None:
        template = _parsed(config.sql, dialect)
        parameters = _parameters([template], config.params)
        return _compiled(name, config, template, config.kind, parameters, max_rows, max_bytes)
    if config.kind != "query":
        raise ValueError("a transaction has no kind of its own: write one for each of its statements")
    found = [StatementConfig(sql=each, kind=_kind_of(each, dialect)) if isinstance(each, str) else each
             for each in config.statements or ()]  # fmt: skip
    templates = [_parsed(each.sql, dialect) for each in found]
    parameters = _parameters(templates, config.params)
    steps = tuple(
        _compiled(name, config, template, each.kind, parameters, max_rows, max_bytes)
        for each, template in zip(found, templates, strict=True)
    )
    return replace(steps[0], kind="transaction", text="", order=(), transaction=True, first_word="", steps=steps)


def compile_raw(
    name: str, text: str, kind: StatementKind, dialect: sql.Dialect, *, read_only: bool, max_rows: int, max_bytes: int
) -> Operation:
    """Compile a statement that a client sent; raise `InvalidArguments` with what is wrong. Never switches."""
    try:
        if kind not in get_args(StatementKind):
            raise ValueError(f"kind is one of {', '.join(get_args(StatementKind))}")
        template = _parsed(text, dialect)
        if template.words[0] in _OF_THE_SESSION:
            raise ValueError(f"{template.words[0]} is not possible here: it would outlast the statement")
        if read_only and not template.reads_only:
            raise ValueError(f"only statements that read are allowed, {template.words[0]} or a word in it does not")
        config = OperationConfig(sql=text, kind=kind, read_only=read_only)
        parameters = _parameters([template], {})
        found = _compiled(name, config, template, kind, parameters, max_rows, max_bytes)
    except ValueError as error:
        raise InvalidArguments(f"operation {name}: {error}") from None
    return replace(found, raw=True)


def _parsed(text: str, dialect: sql.Dialect) -> sql.Template:
    template = sql.parse(text, dialect)
    if not template.words:
        raise ValueError("the statement has no SQL keyword: write one SQL statement")
    return template


def _kind_of(text: str, dialect: sql.Dialect) -> StatementKind:
    template = _parsed(text, dialect)
    return "query" if template.reads_only or "RETURNING" in template.words else "execute"


def _parameters(templates: list[sql.Template], config: Mapping[str, str | ParameterConfig]) -> Mapping[str, Parameter]:
    names = dict.fromkeys(name for template in templates for name in template.parameters)
    parameters = {name: _parameter(name, config.get(name, "any")) for name in names}
    for declared in config:
        if declared not in parameters:
            near = difflib.get_close_matches(declared, parameters, 1)
            hint = f"did you mean :{near[0]}" if near else "write it in the SQL or remove it from params"
            raise ValueError(f"params.{declared} is no parameter of the statement, {hint}")
    return parameters


def _compiled(
    name: str,
    config: OperationConfig,
    template: sql.Template,
    kind: Kind,
    parameters: Mapping[str, Parameter],
    max_rows: int,
    max_bytes: int,
) -> Operation:
    words, dialect = template.words, template.dialect
    _check_kind(kind, template)
    text, order = template.numbered() if dialect == "postgresql" else template.positional()
    read_only = config.read_only or kind in _STREAMING
    return Operation(
        name=name,
        kind=kind,
        doc=config.doc,
        text=text,
        order=order,
        parameters=parameters,
        transaction=(
            kind in ("many", "copy_in")
            or read_only
            or config.isolation is not None
            or (kind in _RETURNING and not template.reads_only and words[0] != "PRAGMA")
        ),
        read_only=read_only,
        isolation=config.isolation,
        timeout_s=None if config.timeout is None else float(config.timeout),
        max_rows=max_rows,
        max_bytes=max_bytes,
        convert=values.for_postgres if dialect == "postgresql" else values.for_sqlite,
        first_word=words[0],
    )


def _check_kind(kind: Kind, template: sql.Template) -> None:
    words = template.words
    if kind in _RETURNING and words[0] in _CHANGING and "RETURNING" not in words:
        raise ValueError(f"kind {kind} needs rows, and the statement gives none: add RETURNING or use execute")
    if kind == "many" and not template.names:
        raise ValueError("kind many needs at least one :parameter in the statement")
    if kind == "stream" and not (template.reads_only and words[0] in ("SELECT", "VALUES", "TABLE", "WITH")):
        raise ValueError("kind stream reads through a cursor: write a SELECT that changes nothing")
    if kind in ("copy_in", "copy_out"):
        if template.dialect == "sqlite":
            raise ValueError(f"kind {kind} is for PostgreSQL: use {'many' if kind == 'copy_in' else 'stream'}")
        place = "STDIN" if kind == "copy_in" else "STDOUT"
        if words[0] != "COPY" or place not in words:
            raise ValueError(f"kind {kind} needs a COPY statement with {place}")
        if template.names:
            raise ValueError("COPY takes no parameters: write the values into it, or use kind stream")
    elif words[0] == "COPY":
        raise ValueError("COPY needs kind copy_out or copy_in")


def _parameter(name: str, config: str | ParameterConfig) -> Parameter:
    found = ParameterConfig(type=config) if isinstance(config, str) else config
    if found.type not in values.PARAMETER_TYPES:
        near = difflib.get_close_matches(found.type, values.PARAMETER_TYPES, 1)
        hint = f"did you mean {near[0]!r}" if near else f"use one of {', '.join(values.PARAMETER_TYPES)}"
        raise ValueError(f"params.{name}: there is no type {found.type!r}, {hint}")
    required = found.default is msgspec.UNSET
    default = None if required else found.default
    try:
        values.convert(found.type, default)
    except values.ValueRejected as expected:
        raise ValueError(f"params.{name}.default must be {expected}") from None
    return Parameter(name, found.type, required, default, found.doc)
