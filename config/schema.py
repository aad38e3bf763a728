"""The types that configuration is made of, and the daemon's own tables.

Each table is a frozen msgspec Struct; a string literal below a field is its documentation (it goes to the JSON Schema
and the reference page). Integrations bring Structs of their own made from the same types: `class Rest(Supervised,
frozen=True, kw_only=True)`. What a Struct may say beyond types:

- `Annotated[int, Meta(ge=1, le=64)]` bounds a number or a length,
- `__post_init__` may raise `Problem("...", key="retry.max")` (or an ExceptionGroup of them) for rules across keys,
- `LATER: ClassVar = {"run_in": "..."}` names keys that a later version will have, so that the error can say so.

Relative paths (`Path`, `DatabaseUrl`) start from the folder of the configuration file: the loader makes them absolute.
"""

from __future__ import annotations

import ipaddress
import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

import msgspec
from msgspec import Meta

from config.secret import Secret, redact

RESERVED_NAMES: Final = frozenset(
    {"store", "gateway", "http", "jobs", "webhooks", "actors", "integrations", "supervisors"}
)
NAME_PATTERN: Final = r"[a-z][a-z0-9_-]*"
MAX_NAME: Final = 64
CLASS_PATTERN: Final = r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*"
MAX_DURATION_S: Final = 10 * 365 * 86400.0
MAX_SIZE_BYTES: Final = 1 << 50
_BEARER: Final = re.compile(r"[!-~]+")

_UNITS_S: Final = {"d": Decimal(86400), "h": Decimal(3600), "m": Decimal(60), "s": Decimal(1), "ms": Decimal("0.001")}
_DURATION_PART: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,32})?)(ms|s|m|h|d)", re.ASCII)
_UNITS_BYTES: Final = {
    "B": 1, "kB": 1000, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4,
    "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}  # fmt: skip
_SIZE: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)", re.ASCII)


class Problem(ValueError):
    """What is wrong with a table as a whole, raised by a Struct's `__post_init__`; `key` is the dotted key to blame."""

    def __init__(self, message: str, *, key: str = "") -> None:
        super().__init__(message)
        self.key = key


def _seconds(text: str) -> float:
    total, rest, last = Decimal(0), text, len(_UNITS_S)
    units = list(_UNITS_S)
    while rest:
        part = _DURATION_PART.match(rest)
        if part is None:
            raise ValueError(_duration_hint(text))
        position = units.index(part[2])
        if last != len(units) and position <= last:
            raise ValueError("units go from large to small, each once: 1h30m")
        total += Decimal(part[1]) * _UNITS_S[part[2]]
        rest, last = rest[part.end() :], position
    if not text:
        raise ValueError("")
    return float(total)


def _duration_hint(text: str) -> str:
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return f'a number without a unit is no duration: write "{text}s" or "{text}ms"'
    if text.strip().lower() in {"inf", "infinity", "infinite", "never", "forever", "none"}:
        return "configuration has no waits without limit: write a long duration"
    return ""


def _bytes(text: str) -> int:
    if re.fullmatch(r"[0-9]{1,18}", text):
        return int(text)
    match = _SIZE.fullmatch(text)
    if match is None:
        fixed = {unit.lower(): unit for unit in ("KiB", "MiB", "GiB", "TiB", "MB", "GB", "TB")}
        loose = re.fullmatch(r"([0-9.]+)\s*([A-Za-z]+)", text)
        if loose and loose[2].lower() in fixed:
            unit = fixed[loose[2].lower()]
            binary = f' or "{loose[1]}{unit[0]}iB"' if len(unit) == 2 else ""
            raise ValueError(f'write "{loose[1]}{unit}"{binary}')
        raise ValueError("")
    size = Decimal(match[1]) * _UNITS_BYTES[match[2]]
    if size % 1:
        raise ValueError("a size is a whole number of bytes")
    return int(size)


class Duration(float):
    """A length of time in seconds, from zero to ten years; written with units: "100ms", "1.5s", "5m", "1h30m", "7d".

    A float in every computation; `str` gives the written form, and reading that gives the same float. A bare number
    is refused in configuration (seconds or milliseconds?); code may write Duration(0.1) as well as Duration("100ms").
    """

    EXPECTED: ClassVar[str] = 'a duration such as "100ms", "30s", "5m", "1h30m" or "7d"'
    PATTERN: ClassVar[str] = "^(?=.)" + "".join(rf"([0-9]+(\.[0-9]+)?{unit})?" for unit in _UNITS_S) + "$"

    def __new__(cls, value: float | str) -> Self:
        seconds = _seconds(value) if isinstance(value, str) else float(value)
        if not 0.0 <= seconds <= MAX_DURATION_S:  # refuses nan too
            raise ValueError(f"a duration is from 0s to {MAX_DURATION_S / 86400:.0f}d")
        return super().__new__(cls, seconds)

    @classmethod
    def parse(cls, value: object) -> Self:
        """From a configuration's value. Raises ValueError saying what to write instead."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            raise ValueError(f'a number without a unit is no duration: write "{value}s" or "{value}ms"')
        if not isinstance(value, str):
            raise ValueError("")
        return cls(value)

    def __str__(self) -> str:
        seconds = Decimal(float.__repr__(self))
        if 0 < seconds < 1 and (seconds * 1000) % 1 == 0:
            return f"{seconds * 1000:.0f}ms"
        written = ""
        if seconds % 1 == 0 and seconds:
            for unit in ("d", "h", "m"):
                count, seconds = divmod(seconds, _UNITS_S[unit])
                written += f"{count:.0f}{unit}" if count else ""
            return written + (f"{seconds:.0f}s" if seconds else "")
        return format(seconds.normalize() if seconds else Decimal(0), "f") + "s"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __format__(self, spec: str) -> str:
        return float(self).__format__(spec) if spec else str(self)


class PositiveDuration(Duration):
    """A Duration above zero: for timeouts and intervals, where zero would mean never or always."""

    EXPECTED: ClassVar[str] = 'a duration above zero such as "100ms", "30s", "5m", "1h30m" or "7d"'

    def __new__(cls, value: float | str) -> Self:
        duration = super().__new__(cls, value)
        if duration <= 0:
            raise ValueError("must be longer than zero")
        return duration


class Size(int):
    """A number of bytes; written "512KiB", "8MiB", "1GiB" (powers of 1024), "8MB" (powers of 1000), or a bare integer.

    An int in every computation; `str` gives the written form, and reading that gives the same int.
    """

    EXPECTED: ClassVar[str] = 'a size such as "512KiB", "8MiB", "1GiB", or a number of bytes'
    PATTERN: ClassVar[str] = r"^[0-9]+(\.[0-9]+)?(B|[kK]B|MB|GB|TB|KiB|MiB|GiB|TiB)$"

    def __new__(cls, value: int | str) -> Self:
        size = _bytes(value) if isinstance(value, str) else int(value)
        if not 0 <= size <= MAX_SIZE_BYTES:
            raise ValueError(f"a size is from 0 to {MAX_SIZE_BYTES >> 40}TiB")
        return super().__new__(cls, size)

    @classmethod
    def parse(cls, value: object) -> Self:
        """From a configuration's value. Raises ValueError saying what to write instead."""
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise ValueError("")
        return cls(value)

    def __str__(self) -> str:
        for unit in ("TiB", "GiB", "MiB", "KiB"):
            if self and int(self) % _UNITS_BYTES[unit] == 0:
                return f"{int(self) // _UNITS_BYTES[unit]}{unit}"
        return f"{int(self)}B"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __format__(self, spec: str) -> str:
        return int(self).__format__(spec) if spec else str(self)


class DatabaseUrl(Secret):
    """`postgresql://...` or `sqlite:///file` (relative to the configuration file's folder; `sqlite:////` is absolute).

    Shown without its user, password and query. A password with reserved characters is written percent-encoded.
    """

    EXPECTED: ClassVar[str] = '"postgresql://user:password@host/database" or "sqlite:///folder/file.db"'
    SCHEMES: ClassVar[frozenset[str]] = frozenset({"postgresql", "postgres", "sqlite"})
    __slots__ = ()

    @classmethod
    def parse(cls, value: object, folder: Path | None = None) -> Self:
        """From a configuration's value; a relative sqlite file is put under `folder`. Raises ValueError."""
        if not isinstance(value, str):
            raise ValueError("")
        scheme, separator, rest = value.partition("://")
        if not separator or scheme not in cls.SCHEMES:
            raise ValueError("")
        if scheme != "sqlite":
            return cls(value)
        if not rest.startswith("/") or rest == "/":
            raise ValueError("a sqlite url has three slashes before a relative file, four before an absolute one")
        file, question, query = rest[1:].partition("?")
        if file.startswith(":memory:"):
            raise ValueError("sqlite in memory would be empty for each connection and after each restart: name a file")
        return cls(f"sqlite:///{Path(folder or '.', file)}{question}{query}")

    def __str__(self) -> str:
        scheme, _, rest = self.reveal().partition("://")
        if scheme == "sqlite":
            return f"{scheme}://{rest.partition('?')[0]}"
        where = rest.partition("?")[0].rpartition("@")[2]
        return f"{scheme}://{where}"


class HostPort(str):
    """`host:port` to listen on, IPv6 in brackets; port 0 asks the system for a free one. Has `.host` and `.port`."""

    EXPECTED: ClassVar[str] = '"host:port" such as "127.0.0.1:5758" or "[::1]:5758"'
    PATTERN: ClassVar[str] = r"^.+:[0-9]{1,5}$"
    PREFIX: ClassVar[str] = ""
    host: str
    port: int

    def __new__(cls, value: str) -> Self:
        host, colon, port = value.removeprefix(cls.PREFIX).rpartition(":")
        if not value.startswith(cls.PREFIX) or not colon or not host or "/" in host:
            raise ValueError("")
        if not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ValueError("a port is a number from 0 to 65535")
        if host.startswith("[") != host.endswith("]") or (":" in host and not host.startswith("[")):
            raise ValueError("an IPv6 address stands in brackets: [::1]")
        if any(character.isspace() for character in value):
            raise ValueError("")
        self = super().__new__(cls, value)
        self.host = host[1:-1] if host.startswith("[") else host
        self.port = int(port)
        return self

    @classmethod
    def parse(cls, value: object) -> Self:
        """From a configuration's value. Raises ValueError."""
        if not isinstance(value, str):
            raise ValueError("")
        return cls(value)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it; a name other than localhost counts as reachable from elsewhere."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class TcpEndpoint(HostPort):
    """`tcp://host:port` of a ZeroMQ socket; the host may be `*`. Has `.host` and `.port`."""

    EXPECTED: ClassVar[str] = '"tcp://host:port" such as "tcp://127.0.0.1:5757"'
    PATTERN: ClassVar[str] = r"^tcp://.+:[0-9]{1,5}$"
    PREFIX: ClassVar[str] = "tcp://"


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every table is: immutable, keys by name only, unknown keys refused."""

    LATER: ClassVar[dict[str, str]] = {}

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__)
        return redact(f"{type(self).__name__}({shown})")


Jitter = Annotated[float, Meta(ge=0.0, le=1.0)]


class Backoff(Table, frozen=True, kw_only=True):
    """How the pause before a restart grows: base x 2^n up to max, each made longer or shorter by up to jitter."""

    base: PositiveDuration = PositiveDuration("100ms")
    """The first pause."""
    max: PositiveDuration = PositiveDuration("30s")
    """The longest pause."""
    jitter: Jitter = 0.25
    """The share by which a pause varies at random: 0.25 means from 75 % to 125 %."""
    reset_after: PositiveDuration = PositiveDuration("1m")
    """A child that has run for so long starts again from the first pause."""

    def __post_init__(self) -> None:
        if self.max < self.base:
            raise Problem(f"max ({self.max}) is shorter than base ({self.base})", key="max")


class Supervised(Table, frozen=True, kw_only=True):
    """The keys of every entry that has a supervisor of its own; integrations may inherit them."""

    max_restarts: Annotated[int, Meta(ge=0, le=1_000_000)] = 3
    """So many restarts within max_seconds are healed; one more and the entry's supervisor gives up."""
    max_seconds: PositiveDuration = PositiveDuration("5s")
    """The window in which restarts are counted."""
    backoff: Backoff = Backoff()
    """The pause before each restart."""
    on_give_up: Literal["park", "escalate"] = "park"
    """park: the entry is shown as failed, answers unavailable and is retried with growing pauses; escalate: its
    supervisor's failure goes up the tree, as in OTP."""
    depends_on: Annotated[list[str], Meta(max_length=100)] = []
    """Names of other entries that this one cannot work without."""
    on_dependency_down: Literal["restart", "wait"] = "restart"
    """wait: a crash or failed start that a lost connection or an open circuit caused is not counted; the actor waits
    until an entry of depends_on is back, or tries again after its backoff. restart: such a crash counts like any."""

    def needs_of_daemon(self) -> dict[str, str]:
        """Return which key of [daemon] cannot be absent, by the key of this table that needs it. Never switches."""
        return {}


class Daemon(Table, frozen=True, kw_only=True):
    """The process as a whole."""

    LATER: ClassVar[dict[str, str]] = {"store": "the durable store"}

    name: Annotated[str, Meta(min_length=1, max_length=MAX_NAME, pattern=f"^{NAME_PATTERN}$")] = "regrow"
    """The daemon's name, in its welcome to clients, in logs and in metrics."""
    state_dir: Path = Path("var")
    """The folder of everything the daemon writes: lock, ipc socket, admin token."""
    path: list[Path] = msgspec.field(default_factory=lambda: [Path()])
    """The folders in which the modules of your own actors are found."""
    drain_timeout: Duration = Duration("30s")
    """How long a drain waits for work in flight before it answers what is left with cancelled."""
    stop_timeout: PositiveDuration = PositiveDuration("30s")
    """How long the tree may take to stop once the drain is over; then the process ends at once."""
    max_deadline: PositiveDuration = PositiveDuration("1h")
    """The longest deadline that a client may ask for; a longer one is cut to this."""
    redis: Secret | None = None
    """The Redis in which limiters and breakers, and caches that say so, share with other daemons, as
    redis://[:password@]host[:port]/[database]."""

    def __post_init__(self) -> None:
        if self.redis is not None and not self.redis.reveal().startswith(("redis://", "rediss://", "unix://")):
            raise Problem("expected a url that begins with redis://, rediss:// or unix://", key="redis")


class CurveClient(Table, frozen=True, kw_only=True):
    """One client program that may connect over CURVE, and what it may reach."""

    name: Annotated[str, Meta(min_length=1, max_length=MAX_NAME, pattern=f"^{NAME_PATTERN}$")]
    """The client's name, in logs and metrics."""
    public_key: Annotated[str, Meta(pattern=r"^[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}$")]
    """The client's public key: 40 characters of Z85."""
    allow: list[Annotated[str, Meta(pattern=rf"^(\*|{NAME_PATTERN}(\.(\*|[A-Za-z_][A-Za-z0-9_]*))?)$")]] = []
    """What it may ask, tell, describe and subscribe to: "github.*", "ml.call" or "*"; nothing unless listed."""


class Curve(Table, frozen=True, kw_only=True):
    """Encryption and client keys of the tcp sockets; the ipc socket stays keyless."""

    secret_key_file: Path
    """The file with the server's secret key."""
    clients: Annotated[list[CurveClient], Meta(max_length=10_000)] = []
    """The clients that may connect; anyone else gets nothing."""

    def __post_init__(self) -> None:
        problems = [
            *_twice("name", [client.name for client in self.clients]),
            *_twice("public_key", [client.public_key for client in self.clients]),
        ]
        if problems:
            raise ExceptionGroup("clients", problems)


class Gateway(Table, frozen=True, kw_only=True):
    """Where clients connect over ZeroMQ; besides `bind` always on an ipc socket in state_dir, for its owner only."""

    bind: Annotated[list[TcpEndpoint], Meta(max_length=16)] = msgspec.field(
        default_factory=lambda: [TcpEndpoint("tcp://127.0.0.1:5757")]
    )
    """The tcp endpoints; beyond loopback they need [gateway.curve] or allow_insecure_bind."""
    max_message: Size = Size("8MiB")
    """The largest message; a larger one is refused with too_large."""
    max_clients: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    """How many clients may be connected at once."""
    max_in_flight_per_client: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    """How many asks of one client may be unanswered at once."""
    max_outbox_per_client: Size = Size("16MiB")
    """How many bytes of answers may wait for one client to read them; at least as much as max_message is allowed."""
    max_subscriptions_per_client: Annotated[int, Meta(ge=0, le=1000)] = 20
    """How many subscriptions to events one client may have at once."""
    allow_insecure_bind: bool = False
    """Permits a tcp bind beyond loopback without CURVE: anyone who reaches the port may use every actor."""
    curve: Curve | None = None
    """CURVE for the tcp endpoints; absent means none."""

    def __post_init__(self) -> None:
        problems = _twice("bind", [endpoint for endpoint in self.bind if endpoint.port], key="bind")
        if self.max_message < 1024:
            problems.append(Problem(f"max_message ({self.max_message}) is smaller than 1KiB", key="max_message"))
        if self.max_message > 1 << 30:
            problems.append(Problem(f"max_message ({self.max_message}) is larger than 1GiB", key="max_message"))
        if self.curve is None and not self.allow_insecure_bind:
            problems += [
                Problem(
                    f"{endpoint} is open to other machines without encryption or client keys: "
                    "bind to 127.0.0.1, add [gateway.curve], or say allow_insecure_bind = true",
                    key=f"bind[{index}]",
                )
                for index, endpoint in enumerate(self.bind)
                if not endpoint.is_loopback
            ]
        if problems:
            raise ExceptionGroup("gateway", problems)


class Http(Table, frozen=True, kw_only=True):
    """Metrics, the tree and health over HTTP."""

    bind: HostPort = HostPort("127.0.0.1:5758")
    """Where it listens; beyond loopback it needs read_token."""
    read_token: Secret | None = None
    """The bearer token for reading. Without it reading is open, on loopback only."""
    admin_token: Secret | None = None
    """The bearer token for changes. Without it changes need the token that the daemon writes to its state_dir."""

    def __post_init__(self) -> None:
        problems = []
        if not self.bind.is_loopback and not self.read_token:
            problems.append(
                Problem(
                    f"{self.bind} is open to other machines without a token: "
                    'bind to 127.0.0.1, or set read_token = "${REGROW_READ_TOKEN}" (and admin_token)',
                    key="bind",
                )
            )
        for key, token in (("read_token", self.read_token), ("admin_token", self.admin_token)):
            if token is not None and not _BEARER.fullmatch(token.reveal()):
                problems.append(Problem("a bearer token is one or more printable ASCII characters, no space", key=key))
        if self.read_token and self.read_token == self.admin_token:
            problems.append(Problem("the same as read_token: every reader could change things", key="admin_token"))
        if problems:
            raise ExceptionGroup("http", problems)


class ActorEntry(Supervised, frozen=True, kw_only=True):
    """An actor class of your own, started under a supervisor of its own and reachable under the table's name."""

    LATER: ClassVar[dict[str, str]] = {
        "store": "durable state of an actor",
    }

    class_: Annotated[str, Meta(pattern=f"^{CLASS_PATTERN}$", extra={"expected": '"package.module:Class"'})] = (
        msgspec.field(name="class")
    )
    """Where the class is: "package.module:Class", found in daemon.path."""
    args: dict[str, Any] = {}
    """Keyword arguments of the class's __init__, converted to their annotations."""
    restart: Literal["permanent", "transient", "temporary"] = "permanent"
    """permanent: always started again; transient: after a crash only; temporary: never."""
    shutdown: Duration | Literal["brutal_kill"] = Duration("5s")
    """How long on_stop may take before the actor is killed; brutal_kill: no orderly stop at all."""
    timeout: PositiveDuration | None = None
    """The default deadline of a request, and the time a handler may always have; absent: the class's own, 30s."""
    start_timeout: PositiveDuration = PositiveDuration("1m")
    """How long __init__ and on_start may take together; then the start has failed, and the entry is parked as one that
    gave up."""
    mailbox: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    """How many messages may wait; more are refused with overloaded. Absent: the class's own, 10000."""
    run_in: Literal["hub", "thread", "process"] = "hub"
    """Where its handlers run: on the hub; on a native thread of its own, for blocking calls of C code; in a process of
    its own, for work that needs a processor, may crash or may hang."""
    instances: Annotated[int, Meta(ge=1, le=256)] = 1
    """How many actors of this class share the work, each with a mailbox and state of its own. They are called name/0,
    name/1 and so on, and max_restarts counts for all of them together."""
    key: Annotated[str, Meta(min_length=1)] | None = None
    """The name of the argument that decides which instance is asked: calls with the same value go to the same instance,
    in order; 1, 1.0 and "1" are three values. Absent, and for calls without it: the instance with the least to do."""

    def __post_init__(self) -> None:
        if self.key is not None and self.instances == 1:
            raise Problem(f"key = {self.key!r} chooses among instances, but there is one: say instances = 2", key="key")


def _twice(what: str, values: list[str], key: str = "clients") -> list[Problem]:
    seen: dict[str, int] = {}
    problems = []
    for index, value in enumerate(values):
        first = seen.setdefault(value, index)
        if first != index:
            where = f"{key}[{index}]" if key == "bind" else f"{key}[{index}].{what}"
            problems.append(Problem(f"{value!r} is used twice: {what} of {key}[{first}] is the same", key=where))
    return problems
