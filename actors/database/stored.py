"""The storage contract on tables: each asset's five statements, and what becomes of their arguments and answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from actors.database import sql
from actors.database.operation import ROWS, Operation, OperationConfig, ParameterConfig, compile_operation
from config.schema import Table
from regrow.protocol.errors import InvalidArguments, NotFound

#: the parameter that stands for the partition in an asset's statements
PARTITION = "partition"


class AssetConfig(Table, frozen=True, kw_only=True):
    """How one asset is kept in tables; `:partition` stands for the partition in each statement."""

    load: str
    """A query; its rows are what is loaded, none means not_found."""
    store: str
    """Runs once for each row of the data, all rows in one transaction; the other parameters come from the row. Made to
    replace (ON CONFLICT), it may be repeated."""
    delete: str
    """Removes the partition's rows."""
    exists: str | None = None
    """A query that gives a row when there is something. Absent: whether load would give one."""
    list_partitions: str | None = None
    """A query whose first column is the partitions, in order."""
    params: Annotated[dict[str, str | ParameterConfig], Meta(max_length=1000)] = msgspec.field(default_factory=dict)
    """By parameter: a type, or a table with type, default and doc, as for operations."""


def compile_asset(
    asset: str, config: AssetConfig, dialect: sql.Dialect, *, max_rows: int, max_bytes: int
) -> dict[tuple[str, str], Operation]:
    """Return the operations of an asset by method; raise ValueError that names the statement. Never switches."""
    load = config.load.strip().rstrip(";")
    statements = {
        "load": (load, "query"),
        "store": (config.store, "many"),
        "exists": (config.exists or f"SELECT 1 WHERE EXISTS ({load}\n)", "value"),
        "delete": (config.delete, "execute"),
    }
    if config.list_partitions is not None:
        statements["list_partitions"] = (config.list_partitions, "query")
    found = {}
    used: set[str] = set()
    for method, (text, kind) in statements.items():
        try:
            names = set(sql.parse(text, dialect).parameters)
            used |= names
            if method != "store" and (odd := names - {PARTITION}):
                raise ValueError(f"the only parameter here is :{PARTITION}, not :{min(odd)}")
            params = {name: each for name, each in config.params.items() if name in names}
            operation = OperationConfig(sql=text, kind=kind, params=params)  # type: ignore[arg-type]
            name = f"{asset}.{method}"
            found[method, asset] = compile_operation(name, operation, dialect, max_rows=max_rows, max_bytes=max_bytes)
        except ValueError as error:
            raise ValueError(f"{method}: {error}") from None
    if odd := set(config.params) - used:
        raise ValueError(f"params.{min(odd)} is no parameter of any statement")
    return found


def arguments_of(method: str, operation: Operation, args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the operation's arguments of a storage call; raises `InvalidArguments`. Never switches."""
    partition = {PARTITION: args.get(PARTITION, "")} if PARTITION in operation.parameters else {}
    if method != "store":
        return partition
    data = args.get("data")
    rows = [data] if isinstance(data, Mapping) else data
    if not isinstance(rows, list | tuple) or not all(isinstance(row, Mapping) for row in rows):
        raise InvalidArguments(f"operation {operation.name} stores rows: a list of objects, or one object")
    return {ROWS: [{**row, **partition} for row in rows]}


def finish_of(method: str, asset: str, args: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Return what makes the contract's answer of the statement's. Never switches."""

    def loaded(rows: list[Any]) -> list[Any]:
        if not rows:
            partition = str(args.get(PARTITION, ""))[:80]
            raise NotFound(f"asset {asset} has nothing stored for partition {partition!r}", started="yes")
        return rows

    finishes: dict[str, Callable[[Any], Any]] = {
        "load": loaded,
        "exists": lambda value: value is not None,
        "list_partitions": lambda rows: [str(next(iter(row.values()))) for row in rows],
    }
    return finishes.get(method, lambda _answer: None)
