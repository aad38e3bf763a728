"""`type = "database"`: named SQL operations on PostgreSQL or SQLite, in a pool with one actor for each connection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from actors.database import sql
from actors.database.connection import Connection, ConnectionSettings
from actors.database.engine import Engine, Setup
from actors.database.operation import ROWS, Operation, OperationConfig, Parameter, compile_operation
from actors.database.pool import Pool, PoolSettings
from actors.database.postgres import PostgresEngine, PostgresSettings, conninfo_of
from actors.database.sqlite import SqliteEngine, SqliteSettings
from actors.resilience.breaker import Breaker, CircuitTable
from actors.resilience.policy import BreakerPolicy
from actors.seam import Context, Integration, Plan
from config.schema import DatabaseUrl, PositiveDuration, Problem, Size, Supervised
from config.secret import Secret
from runtime.exports import Exported, Param
from supervisors import ChildSpec

#: a file is opened by so many connections at most unless the configuration says otherwise; writers of SQLite take
#: turns anyway
SQLITE_POOL_SIZE = 4
POSTGRES_POOL_SIZE = 10
MAX_CONNECT_S = 60.0

OperationName = Annotated[str, Meta(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$", max_length=64)]


class DatabaseConfig(Supervised, frozen=True, kw_only=True):
    """A pool of connections to one database, and the statements that may be run on it."""

    LATER: ClassVar[dict[str, str]] = {
        "depends_on": "waiting for a dependency",
        "on_dependency_down": "waiting for a dependency",
        "migrations": "regrow migrate",
    }

    url: DatabaseUrl
    """postgresql://user:password@host/database (several hosts, target_session_attrs and sslmode as libpq has them) or
    sqlite:///file. Reserved characters in the password are percent-encoded, or it stands in `password`."""
    password: Secret | None = None
    """PostgreSQL's password, written as it is; instead of one in the url."""
    operations: Annotated[dict[OperationName, OperationConfig], Meta(max_length=1000)] = msgspec.field(
        default_factory=dict
    )
    """By name: each becomes a method that can be called."""
    setup: Annotated[list[str], Meta(max_length=1000)] = msgspec.field(default_factory=list)
    """Statements without parameters that run in one transaction after each start of the daemon, before the first
    connection is used, such as CREATE TABLE IF NOT EXISTS; they must do no harm when they run again."""
    pool_size: Annotated[int, Meta(ge=1, le=500)] | None = None
    """The most connections at once. Absent: 10 for PostgreSQL, 4 for SQLite."""
    min_size: Annotated[int, Meta(ge=0, le=500)] = 1
    """So many connections are opened at the start and kept open; the others open when they are needed."""
    timeout: PositiveDuration = PositiveDuration("30s")
    """The default deadline of an operation; at a deadline the statement is cut off at the server."""
    queue: Annotated[int, Meta(ge=0, le=1_000_000)] = 1000
    """How many callers may wait for a connection; more are refused with overloaded."""
    queue_timeout: PositiveDuration = PositiveDuration("5s")
    """How long a caller waits for a connection before it is refused with overloaded."""
    connect_timeout: PositiveDuration = PositiveDuration("5s")
    """How long connecting may take."""
    silence: PositiveDuration = PositiveDuration("30s")
    """A server of which nothing is heard for so long while data is on its way to it is given up (tcp_user_timeout)."""
    max_lifetime: PositiveDuration = PositiveDuration("1h")
    """An idle connection of this age (10 % less or not) is replaced."""
    max_idle: PositiveDuration = PositiveDuration("10m")
    """A connection beyond min_size that was idle for so long is closed."""
    check_interval: PositiveDuration = PositiveDuration("30s")
    """How often idle connections are asked for a sign of life."""
    retries: Annotated[int, Meta(ge=0, le=100)] = 2
    """How often an operation is tried again after a serialization failure or a deadlock, which undid all of it."""
    max_rows: Annotated[int, Meta(ge=1, le=10_000_000)] = 10_000
    """The most rows of an answer or of a `many`; more are refused with too_large."""
    max_bytes: Size = Size("7MiB")
    """The most bytes of an answer; more are refused with too_large. Keep it below the gateway's max_message."""
    numeric: Literal["string", "number"] = "string"
    """How PostgreSQL's numeric is answered: as text with every digit, or as the nearest number."""
    prepare: bool = True
    """Whether PostgreSQL is asked to keep the plans of repeated statements; false for poolers that cannot."""
    synchronous: Literal["full", "normal"] = "full"
    """SQLite: full survives a power loss, normal may then lose the last transactions and writes much faster."""
    breaker: BreakerPolicy | None = BreakerPolicy(reset_after=PositiveDuration("2s"))
    """When a database that cannot be reached is no longer tried for a while; errors of statements do not count."""

    def __post_init__(self) -> None:
        problems: list[Exception] = []
        if self.is_sqlite:
            if "?" in self.url.reveal():
                problems.append(Problem("a sqlite url has no options: remove what follows the ?", key="url"))
            if self.password is not None:
                problems.append(Problem("sqlite has no password", key="password"))
        else:
            try:
                conninfo_of(self.url)
            except ValueError as error:
                problems.append(Problem(str(error), key="url"))
        if self.min_size > self.size:
            problems.append(
                Problem(f"min_size ({self.min_size}) is larger than pool_size ({self.size})", key="min_size")
            )
        if self.connect_timeout > MAX_CONNECT_S:
            problems.append(Problem(f"connect_timeout is longer than {MAX_CONNECT_S:g} s", key="connect_timeout"))
        for index, statement in enumerate(self.setup):
            try:
                if sql.parse(statement, self.dialect).names:
                    raise ValueError("a setup statement takes no parameters, write the values into it")
            except ValueError as error:
                problems.append(Problem(str(error), key=f"setup[{index}]"))
        for name in self.operations:
            try:
                self.operation(name)
            except ValueError as error:
                problems.append(Problem(str(error), key=f"operations.{name}.sql"))
        if problems:
            raise ExceptionGroup("database", problems)

    @property
    def is_sqlite(self) -> bool:
        """Whether the url names a file."""
        return self.url.reveal().startswith("sqlite:")

    @property
    def dialect(self) -> sql.Dialect:
        """Whose SQL the statements are."""
        return "sqlite" if self.is_sqlite else "postgresql"

    @property
    def size(self) -> int:
        """The most connections at once."""
        return self.pool_size or (SQLITE_POOL_SIZE if self.is_sqlite else POSTGRES_POOL_SIZE)

    def operation(self, name: str) -> Operation:
        """Compile one operation; raise ValueError with what to write. Never switches."""
        config = self.operations[name]
        return compile_operation(name, config, self.dialect, max_rows=self.max_rows, max_bytes=int(self.max_bytes))


def plan(name: str, config: Any, context: Context) -> Plan:
    """Plan the pool's part of the tree: its breaker, its connections, then the front under the pool's own name.

    Never switches.
    """
    found: DatabaseConfig = config
    operations = {each: found.operation(each) for each in found.operations}
    exports = {each: _exported(operation) for each, operation in operations.items()}
    circuit = CircuitTable()
    connections = ConnectionSettings(
        pool=name,
        engine=_engine(name, found, context),
        min_size=found.min_size,
        connect_timeout_s=float(found.connect_timeout),
        max_lifetime_s=float(found.max_lifetime),
        max_idle_s=float(found.max_idle),
        check_interval_s=float(found.check_interval),
        retries=found.retries,
        circuit=circuit,
    )
    front = PoolSettings(
        name=name,
        operations=operations,
        exports=exports,
        size=found.size,
        timeout_s=float(found.timeout),
        queue=found.queue,
        queue_timeout_s=float(found.queue_timeout),
    )
    children = []
    if found.breaker is not None:
        arguments = {"integration": name, "policy": found.breaker, "table": circuit}
        children.append(ChildSpec(id="breaker", start=Breaker, kwargs=arguments, name=f"{name}/breaker"))
    for index in range(1, found.size + 1):
        arguments = {"settings": connections, "index": index}
        part = front.connection_name(index)
        children.append(ChildSpec(id=f"connection-{index}", start=Connection, kwargs=arguments, name=part))
    children.append(ChildSpec(id="front", start=Pool, kwargs={"settings": front}, name=name))
    return Plan(children, exports, front.timeout_s)


class _NewEngine:
    """Makes the engine of one connection."""

    def __init__(self, settings: PostgresSettings | SqliteSettings) -> None:
        self.settings = settings

    def __call__(self) -> Engine:
        if isinstance(self.settings, SqliteSettings):
            return SqliteEngine(self.settings)
        return PostgresEngine(self.settings)


def _engine(name: str, config: DatabaseConfig, context: Context) -> _NewEngine:
    if config.is_sqlite:
        path = context.config_dir / Path(config.url.reveal().removeprefix("sqlite:///"))
        return _NewEngine(SqliteSettings(path, Setup(tuple(config.setup)), config.synchronous))
    return _NewEngine(
        PostgresSettings(
            url=config.url,
            password=config.password,
            application_name=f"regrow/{context.daemon_name}/{name}",
            connect_timeout_s=float(config.connect_timeout),
            silence_s=float(config.silence),
            setup=Setup(tuple(config.setup)),
            numeric=config.numeric,
            prepare=config.prepare,
        )
    )


_SCHEMA_TYPES: dict[str, Any] = {
    "any": Any,
    "json": Any,
    "int": int,
    "float": float,
    "bool": bool,
    "text": str,
    "decimal": Annotated[str, Meta(description="a decimal number")] | int,
    "date": Annotated[str, Meta(extra_json_schema={"format": "date"})],
    "time": Annotated[str, Meta(extra_json_schema={"format": "time"})],
    "timestamp": Annotated[str, Meta(extra_json_schema={"format": "date-time"})],
    "uuid": Annotated[str, Meta(extra_json_schema={"format": "uuid"})],
    "bytes": Any,
}


def _exported(operation: Operation) -> Exported:
    doc = operation.doc or f"{operation.kind} of {operation.name}"
    if operation.kind == "many":
        row = {name: parameter.type for name, parameter in operation.parameters.items()}
        about = "one object for each row: " + ", ".join(f"{name} ({kind})" for name, kind in row.items())
        return Exported.make(operation.name, doc, {ROWS: Param(type=list[dict[str, Any]], doc=about)})
    return Exported.make(operation.name, doc, {name: _param(each) for name, each in operation.parameters.items()})


def _param(parameter: Parameter) -> Param:
    kind = _schema_type(parameter.type)
    return Param(type=kind, required=parameter.required, default=msgspec.UNSET, doc=parameter.doc)


def _schema_type(name: str) -> Any:
    if name.endswith("[]"):
        return list[_schema_type(name[:-2])] | None  # type: ignore[misc]  # built at run time from the configuration
    kind = _SCHEMA_TYPES[name]
    return Any if kind is Any else kind | None


INTEGRATION = Integration("database", DatabaseConfig, plan)
