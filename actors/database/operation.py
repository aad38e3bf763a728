"""Named operations: what the configuration says, checked and compiled once, and the binding of one call's arguments.

Nothing here talks to a database. `Operation.bind` is the last place that sees arguments by name: what it returns goes
to the engine as bound values, or it raises `InvalidArguments` before anything is sent.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from actors.database import sql, values
from config.schema import PositiveDuration, Size, Table
from regrow.protocol.errors import InvalidArguments, TooLarge

Kind = Literal["query", "one", "value", "execute", "many"]
Isolation = Literal["read committed", "repeatable read", "serializable"]

#: the argument of a `many` operation: a list with one object of parameters for each row
ROWS = "rows"
_RETURNING = frozenset({"query", "one", "value"})
_CHANGING = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE"})

Values = tuple[object, ...]


class ParameterConfig(Table, frozen=True, kw_only=True):
    """One parameter of a statement."""

    type: str = "any"
    """What values it takes: any, int, float, decimal, text, bool, date, time, timestamp, uuid, bytes (as base64), json,
    and lists of them such as "int[]". Null is always taken."""
    default: Any = msgspec.UNSET
    """What stands in for an absent argument; without it the argument is required."""
    doc: str = ""
    """A line for whoever calls the operation."""


class OperationConfig(Table, frozen=True, kw_only=True):
    """One statement, called by its name; it is one transaction: unless it succeeds, nothing of it is kept."""

    LATER: ClassVar[dict[str, str]] = {"statements": "transactions of several statements", "stream": "streamed rows"}

    sql: str
    """One SQL statement; `:name` stands for a parameter, whose value is always bound and never becomes SQL."""
    kind: Kind = "query"
    """query answers a list of objects; one an object or null; value the first column of that row; execute {rowcount};
    many takes `rows`, a list with one object of parameters for each row, and answers {rowcount}."""
    doc: str = ""
    """A line for whoever calls it."""
    params: Annotated[dict[str, str | ParameterConfig], Meta(max_length=1000)] = msgspec.field(default_factory=dict)
    """By parameter: a type, or a table with type, default and doc. One not listed is required and takes any value."""
    timeout: PositiveDuration | None = None
    """How long the statement may take, where the caller's deadline is later."""
    read_only: bool = False
    """The database refuses writes, and the operation is repeated by itself when the connection broke while it ran."""
    isolation: Isolation | None = None
    """PostgreSQL's isolation level; absent: the server's default."""
    max_rows: Annotated[int, Meta(ge=1)] | None = None
    """In place of the integration's max_rows."""
    max_bytes: Size | None = None
    """In place of the integration's max_bytes."""


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

    def bind(self, args: Mapping[str, Any]) -> list[Values]:
        """Return the values of each execution (one, or one per row of a `many`) in the order of the placeholders.

        Raises `InvalidArguments` for unknown, missing and unfit arguments, `TooLarge` for too many rows. Never
        switches.
        """
        if self.kind != "many":
            return [self._bind_one(args, "")]
        rows = args.get(ROWS)
        if len(args) != 1 or not isinstance(rows, list | tuple) or not all(isinstance(row, Mapping) for row in rows):
            raise InvalidArguments(
                f"operation {self.name} takes one argument, {ROWS}: a list with one object of parameters for each row"
            )
        if len(rows) > self.max_rows:
            raise TooLarge(
                f"operation {self.name} was given {len(rows)} rows, at most {self.max_rows} are allowed: send fewer"
            )
        return [self._bind_one(row, f" in row {number} of {len(rows)}") for number, row in enumerate(rows, 1)]

    def _bind_one(self, args: Mapping[str, Any], where: str) -> Values:
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
        return tuple([bound[name] for name in self.order])

    def _unknown(self, name: str, where: str) -> str:
        near = difflib.get_close_matches(name, self.parameters, 1)
        hint = f"did you mean {near[0]}" if near else f"it takes {', '.join(self.parameters) or 'none'}"
        return f"operation {self.name} has no parameter {name[:80]!r}{where}: {hint}"


def compile_operation(
    name: str, config: OperationConfig, dialect: sql.Dialect, *, max_rows: int, max_bytes: int
) -> Operation:
    """Check one operation of the configuration and compile it; raise ValueError with what to write. Never switches."""
    template = sql.parse(config.sql, dialect)
    if not template.words:
        raise ValueError("the statement has no SQL keyword: write one SQL statement")
    text, order = template.numbered() if dialect == "postgresql" else template.positional()
    parameters = {found: _parameter(found, config.params.get(found, "any")) for found in template.parameters}
    for declared in config.params:
        if declared not in parameters:
            near = difflib.get_close_matches(declared, parameters, 1)
            hint = f"did you mean :{near[0]}" if near else "write it in the SQL or remove it from params"
            raise ValueError(f"params.{declared} is no parameter of the statement, {hint}")
    if config.kind in _RETURNING and template.words[0] in _CHANGING and "RETURNING" not in template.words:
        raise ValueError(f"kind {config.kind} needs rows, and the statement gives none: add RETURNING or use execute")
    if config.isolation is not None and dialect == "sqlite":
        raise ValueError("isolation is for PostgreSQL: every transaction of SQLite is serializable")
    if config.kind == "many" and not parameters:
        raise ValueError("kind many needs at least one :parameter in the statement")
    return Operation(
        name=name,
        kind=config.kind,
        doc=config.doc,
        text=text,
        order=order,
        parameters=parameters,
        transaction=(
            config.kind == "many"
            or config.read_only
            or config.isolation is not None
            or (config.kind in _RETURNING and not template.reads_only and template.words[0] != "PRAGMA")
        ),
        read_only=config.read_only,
        isolation=config.isolation,
        timeout_s=None if config.timeout is None else float(config.timeout),
        max_rows=config.max_rows or max_rows,
        max_bytes=int(config.max_bytes or max_bytes),
        convert=values.for_postgres if dialect == "postgresql" else values.for_sqlite,
        first_word=template.words[0],
    )


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
