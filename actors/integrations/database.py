"""`type = "database"`: named SQL operations on PostgreSQL or SQLite, in a pool with one actor for each connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from actors.database import sql
from actors.database.connection import Connection, ConnectionSettings
from actors.database.engine import Engine, Setup
from actors.database.listener import Listener, ListenerSettings
from actors.database.migrations import (
    Migration,
    PostgresMigrations,
    SqliteMigrations,
    apply_pending,
    open_postgres,
    open_sqlite,
    pending,
    read_folder,
)
from actors.database.operation import (
    COPY,
    DATA,
    MORE,
    ROWS,
    UNDO,
    Operation,
    OperationConfig,
    Parameter,
    StatementKind,
    compile_operation,
    compile_raw,
)
from actors.database.pool import RAW, Pool, PoolSettings
from actors.database.postgres import PostgresEngine, PostgresSettings
from actors.database.postgres_login import PostgresLogin, conninfo_of
from actors.database.sqlite import SqliteEngine, SqliteSettings
from actors.database.stored import AssetConfig, compile_asset
from actors.resilience.breaker import Breaker, CircuitTable
from actors.resilience.policy import BreakerPolicy
from actors.seam import Context, Integration, Plan
from actors.storage.contract import METHODS, storage_exports
from config.schema import DatabaseUrl, PositiveDuration, Problem, Size, Supervised
from config.secret import Secret
from runtime.exports import Exported, Param
from supervisors import ChildSpec

#: a file is opened by so many connections at most unless the configuration says otherwise; writers of SQLite take
#: turns anyway
SQLITE_POOL_SIZE = 4
POSTGRES_POOL_SIZE = 10
MAX_CONNECT_S = 60.0

AssetName = Annotated[str, Meta(pattern=r"^[a-zA-Z_][a-zA-Z0-9_.-]*$", max_length=64)]
Channel = Annotated[str, Meta(pattern=r"^[^\x00]+$", min_length=1, max_length=63)]
OperationName = Annotated[str, Meta(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$", max_length=64)]


class DatabaseConfig(Supervised, frozen=True, kw_only=True):
    """A pool of connections to one database, and the statements that may be run on it."""

    url: DatabaseUrl
    """postgresql://user:password@host/database (several hosts, target_session_attrs and sslmode as libpq has them) or
    sqlite:///file. Reserved characters in the password are percent-encoded, or it stands in `password`."""
    password: Secret | None = None
    """PostgreSQL's password, written as it is; instead of one in the url."""
    password_file: Path | None = None
    """A file with PostgreSQL's password alone, instead of `password`: read anew for each connection, so that a password
    may change without a restart; a refused login is repeated when the file has changed meanwhile."""
    operations: Annotated[dict[OperationName, OperationConfig], Meta(max_length=1000)] = msgspec.field(
        default_factory=dict
    )
    """By name: each becomes a method that can be called."""
    setup: Annotated[list[str], Meta(max_length=1000)] = msgspec.field(default_factory=list)
    """Statements without parameters that run in one transaction after each start of the daemon, before the first
    connection is used, such as CREATE TABLE IF NOT EXISTS; they must do no harm when they run again."""
    teardown: Annotated[list[str], Meta(max_length=100)] = msgspec.field(default_factory=list)
    """Statements without parameters that run one by one when the daemon stops in the orderly way, for 3s at most."""
    health_check: str | None = None
    """A statement without parameters that must succeed on each idle connection every check_interval; one on which it
    fails is replaced. Absent: an empty statement, which any server answers that works."""
    storage: Annotated[dict[AssetName, AssetConfig], Meta(max_length=1000)] = msgspec.field(default_factory=dict)
    """By asset: with at least one, load, store, exists, delete and list_partitions can be called, as on every storage:
    {asset, partition} and for store {asset, data, partition}."""
    allow_sql: Literal["none", "read_only", "all"] = "none"
    """Whether clients may call `sql` with {statement, params, kind}: none; read_only: what reads, in a transaction that
    the database keeps from writing; all: whatever the database's user may do, for clients that are trusted with it."""
    listen: Annotated[list[Channel], Meta(max_length=100)] = msgspec.field(default_factory=list)
    """PostgreSQL's channels whose notifications become events database.notified {actor, channel, payload}, over one
    connection beside the pool."""
    migrations: Path | None = None
    """The folder of numbered .sql files (0001_users.sql) that `regrow migrate` applies in order, each once."""
    stream_idle: PositiveDuration = PositiveDuration("1m")
    """A stream that its reader does not read for so long is ended, and its connection serves others."""
    pool_size: Annotated[int, Meta(ge=1, le=500)] | None = None
    """The most connections at once. Absent: 10 for PostgreSQL, 4 for SQLite."""
    min_size: Annotated[int, Meta(ge=0, le=500)] = 1
    """So many connections are opened at the start and kept open; the others open when they are needed."""
    timeout: PositiveDuration = PositiveDuration("30s")
    """The default deadline of an operation; at a deadline the statement is cut off at the server."""
    queue: Annotated[int, Meta(ge=0, le=1_000_000)] = 1000
    """How many callers may wait for a connection, in turns of their clients; more are refused with overloaded, those of
    the client with most of them first."""
    queue_timeout: PositiveDuration = PositiveDuration("5s")
    """How long a caller waits for a connection before it is refused with overloaded."""
    connect_timeout: PositiveDuration = PositiveDuration("5s")
    """How long connecting to a host of the url may take."""
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
        problems = [*self._connection_problems(), *self._statement_problems()]
        if problems:
            raise ExceptionGroup("database", problems)

    def _connection_problems(self) -> Iterator[Problem]:
        if self.is_sqlite:
            if "?" in self.url.reveal():
                yield Problem("a sqlite url has no options: remove what follows the ?", key="url")
            for key in ("password", "password_file"):
                if getattr(self, key) is not None:
                    yield Problem("sqlite has no password", key=key)
            if self.listen:
                yield Problem("sqlite has no channels to listen to", key="listen")
        else:
            try:
                conninfo_of(self.url)
            except ValueError as error:
                yield Problem(str(error), key="url")
        if self.password is not None and self.password_file is not None:
            yield Problem("give password or password_file, not both", key="password_file")
        if self.min_size > self.size:
            yield Problem(f"min_size ({self.min_size}) is larger than pool_size ({self.size})", key="min_size")
        if self.connect_timeout > MAX_CONNECT_S:
            yield Problem(f"connect_timeout is longer than {MAX_CONNECT_S:g} s", key="connect_timeout")

    def _statement_problems(self) -> Iterator[Problem]:
        fixed = {f"setup[{index}]": each for index, each in enumerate(self.setup)}
        fixed |= {f"teardown[{index}]": each for index, each in enumerate(self.teardown)}
        if self.health_check is not None:
            fixed["health_check"] = self.health_check
        for key, statement in fixed.items():
            try:
                if sql.parse(statement, self.dialect).names:
                    what = key.partition("[")[0]
                    raise ValueError(f"a {what} statement takes no parameters, write the values into it")
            except ValueError as error:
                yield Problem(str(error), key=key)
        taken = set(METHODS) if self.storage else set()
        if self.allow_sql != "none":
            taken.add(RAW)
        for name, operation in self.operations.items():
            try:
                if name in taken:
                    raise ValueError(f"{name} is a method already, of storage or of allow_sql: choose another name")
                self.operation(name)
            except ValueError as error:
                key = "sql" if operation.sql is not None else "statements"
                yield Problem(str(error), key=f"operations.{name}.{key}")
        for asset in self.storage:
            try:
                self.asset(asset)
            except ValueError as error:
                yield Problem(str(error), key=f"storage.{asset}")

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

    def asset(self, name: str) -> dict[tuple[str, str], Operation]:
        """Compile the operations of one asset; raise ValueError with what to write. Never switches."""
        limits = {"max_rows": self.max_rows, "max_bytes": int(self.max_bytes)}
        return compile_asset(name, self.storage[name], self.dialect, **limits)

    def statement(self, name: str, text: str) -> Operation:
        """Compile a statement of the configuration that is no operation. Never switches."""
        config = OperationConfig(sql=text, kind="execute")
        return compile_operation(name, config, self.dialect, max_rows=self.max_rows, max_bytes=int(self.max_bytes))

    def raw(self, text: str, kind: StatementKind) -> Operation:
        """Compile a client's statement; raise `InvalidArguments`. Never switches."""
        return compile_raw(
            RAW, text, kind, self.dialect,
            read_only=self.allow_sql == "read_only", max_rows=self.max_rows, max_bytes=int(self.max_bytes),
        )  # fmt: skip


def plan(name: str, config: Any, context: Context) -> Plan:
    """Plan the pool's part of the tree: its breaker, its connections, then the front under the pool's own name.

    Never switches.
    """
    found: DatabaseConfig = config
    operations = {each: found.operation(each) for each in found.operations}
    exports = {each: _exported(operation) for each, operation in operations.items()}
    storage = {key: operation for asset in found.storage for key, operation in found.asset(asset).items()}
    if storage:
        exports |= storage_exports(lists_partitions=any(method == "list_partitions" for method, _asset in storage))
    if found.allow_sql != "none":
        exports[RAW] = _raw_exported(found.allow_sql)
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
        stream_idle_s=float(found.stream_idle),
        teardown=tuple(found.statement("teardown", each) for each in found.teardown),
        writes=not found.is_sqlite and conninfo_of(found.url).get("target_session_attrs") in ("read-write", "primary"),
        health_check=None if found.health_check is None else found.statement("health_check", found.health_check),
        circuit=circuit,
        breaker=found.breaker,
    )
    front = PoolSettings(
        name=name,
        operations=operations,
        exports=exports,
        size=found.size,
        timeout_s=float(found.timeout),
        queue=found.queue,
        queue_timeout_s=float(found.queue_timeout),
        raw=None if found.allow_sql == "none" else found.raw,
        storage=storage,
    )
    children = []
    if found.breaker is not None:
        arguments = {"integration": name, "policy": found.breaker, "table": circuit}
        children.append(ChildSpec(id="breaker", start=Breaker, kwargs=arguments, name=f"{name}/breaker"))
    for index in range(1, found.size + 1):
        arguments = {"settings": connections, "index": index}
        part = front.connection_name(index)
        children.append(ChildSpec(id=f"connection-{index}", start=Connection, kwargs=arguments, name=part))
    if found.listen:
        listener = ListenerSettings(
            pool=name,
            engine=partial(PostgresEngine, PostgresSettings(_login(f"{name}/listener", found, context))),
            channels=tuple(dict.fromkeys(found.listen)),
            connect_timeout_s=float(found.connect_timeout),
            check_interval_s=float(found.check_interval),
        )
        arguments = {"settings": listener}
        children.append(ChildSpec(id="listener", start=Listener, kwargs=arguments, name=f"{name}/listener"))
    children.append(ChildSpec(id="front", start=Pool, kwargs={"settings": front}, name=name))
    return Plan(children, exports, front.timeout_s)


def migrate(
    name: str, config: DatabaseConfig, context: Context, *, dry_run: bool, tell: Callable[[Migration], object]
) -> int:
    """Apply the pending migrations of a database, or with `dry_run` only tell of them; return how many there were.

    Raises `MigrationError`. Switches greenlets.
    """
    assert config.migrations is not None
    migrations = read_folder(config.migrations)
    opened: AbstractContextManager[PostgresMigrations | SqliteMigrations]
    if config.is_sqlite:
        path = _sqlite_path(config, context)
        if dry_run and not path.exists():  # a look makes no file
            for migration in migrations:
                tell(migration)
            return len(migrations)
        opened = open_sqlite(path)
    else:
        opened = open_postgres(_login(f"{name}/migrate", config, context), float(config.connect_timeout))
    with opened as database:
        if not dry_run:
            return apply_pending(database, migrations, tell)
        left = pending(migrations, database.applied())
        for migration in left:
            tell(migration)
        return len(left)


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
        return _NewEngine(SqliteSettings(_sqlite_path(config, context), Setup(tuple(config.setup)), config.synchronous))
    settings = PostgresSettings(
        _login(name, config, context),
        setup=Setup(tuple(config.setup)),
        numeric=config.numeric,
        prepare=config.prepare,
    )
    return _NewEngine(settings)


def _sqlite_path(config: DatabaseConfig, context: Context) -> Path:
    return context.config_dir / Path(config.url.reveal().removeprefix("sqlite:///"))


def _login(name: str, config: DatabaseConfig, context: Context) -> PostgresLogin:
    return PostgresLogin(
        url=config.url,
        application_name=f"regrow/{context.daemon_name}/{name}",
        password=config.password,
        password_file=config.password_file,
        connect_timeout_s=float(config.connect_timeout),
        silence_s=float(config.silence),
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
    if operation.kind == "copy_in":
        rows = Param(type=list[list[Any]], required=False, doc="a list of values for each row")
        data = Param(required=False, doc="text or bytes in the statement's format, instead of rows")
        several = {
            MORE: Param(type=bool, required=False, doc="more calls follow: {copy} is answered, nothing is kept yet"),
            COPY: Param(type=str, required=False, doc="the key of a copy that this call goes on with"),
            UNDO: Param(type=bool, required=False, doc="with copy: nothing of it is kept"),
        }
        given = {ROWS: rows, DATA: data} if operation.takes_rows else {DATA: data}
        return Exported.make(operation.name, doc, given | several)
    parameters = {name: _param(each) for name, each in operation.parameters.items()}
    return Exported.make(operation.name, doc, parameters, streams=operation.streams)


def _raw_exported(allowed: str) -> Exported:
    about = "Run one SQL statement that reads" if allowed == "read_only" else "Run one SQL statement"
    parameters = {
        "statement": Param(type=str, doc="the statement; `:name` stands for a parameter"),
        "params": Param(type=dict[str, Any], required=False, doc="the parameters by name"),
        "kind": Param(type=StatementKind, required=False, doc="what it answers, as for operations"),
    }
    return Exported.make(RAW, f"{about}, answered as its kind says.", parameters)


def _param(parameter: Parameter) -> Param:
    kind = _schema_type(parameter.type)
    return Param(type=kind, required=parameter.required, default=msgspec.UNSET, doc=parameter.doc)


def _schema_type(name: str) -> Any:
    if name.endswith("[]"):
        return list[_schema_type(name[:-2])] | None  # type: ignore[misc]  # built at run time from the configuration
    kind = _SCHEMA_TYPES[name]
    return Any if kind is Any else kind | None


INTEGRATION = Integration("database", DatabaseConfig, plan)
