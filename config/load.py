"""Finds, reads and checks the configuration file; the result is complete and correct, or `ConfigErrors` tells it all.

The order: find -> parse -> substitute -> check each table -> import the user's classes -> fit their arguments. A step
goes on past its mistakes wherever it can, so that one run reports them all.
"""

from __future__ import annotations

import copy
import difflib
import os
import re
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, cast

import msgspec

from config.check import INVALID, Checker, found
from config.classes import arguments_of, fit_args, import_class
from config.errors import ConfigErrors, KeyPath, Report
from config.lines import key_lines
from config.schema import (
    CLASS_PATTERN,
    MAX_NAME,
    NAME_PATTERN,
    RESERVED_NAMES,
    ActorEntry,
    Daemon,
    Duration,
    Gateway,
    Http,
    Size,
    Supervised,
)
from config.secret import Secret, redact
from config.substitute import Unset, substitute

T = TypeVar("T", bound=msgspec.Struct)

FILE_NAME: Final = "regrow.toml"
MAX_FILE_BYTES: Final = 4 << 20
MAX_DEPTH: Final = 64
TABLES: Final = ("daemon", "gateway", "http", "actors", "integrations")
# Tables that later versions will have: an error about one says so.
LATER: Final = {"jobs": "durable jobs", "webhooks": "webhook deliveries", "store": "the durable store"}
_SYNTAX_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class IntegrationType(Protocol):
    """What the loader needs to know of an integration: the Struct of its table."""

    @property
    def config(self) -> type[msgspec.Struct]:
        """The Struct, without the key `type`."""


class IntegrationEntry(msgspec.Struct, frozen=True):
    """One table of `[integrations.*]`: its type and its checked configuration."""

    type: str
    config: Any

    def __repr__(self) -> str:
        return f"IntegrationEntry({self.type!r}, {redact(repr(self.config))})"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A checked configuration: its paths are absolute, `classes` has the imported class of each entry of actors."""

    file: Path
    daemon: Daemon
    gateway: Gateway
    http: Http
    actors: dict[str, ActorEntry]
    integrations: dict[str, IntegrationEntry]
    classes: dict[str, type]
    templates: dict[KeyPath, str]

    @property
    def folder(self) -> Path:
        """The folder of the file, from which relative paths start."""
        return self.file.parent

    def dump(self) -> dict[str, Any]:
        """Everything in effect, defaults included, as JSON-safe values without any secret.

        A value that came from variables is shown as it stands in the file: "${NAME}".
        """
        tables: dict[str, Any] = {
            name: self._dump(getattr(self, name), (name,)) for name in ("daemon", "gateway", "http")
        }
        tables["actors"] = {name: self._dump(entry, ("actors", name)) for name, entry in self.actors.items()}
        tables["integrations"] = {
            name: {"type": entry.type, **self._dump(entry.config, ("integrations", name))}
            for name, entry in self.integrations.items()
        }
        return tables

    def _dump(self, value: Any, path: KeyPath) -> Any:
        if path in self.templates:
            return redact(self.templates[path])
        if isinstance(value, msgspec.Struct):
            fields = msgspec.structs.fields(value)
            return {
                field.encode_name: self._dump(getattr(value, field.name), (*path, field.encode_name))
                for field in fields
            }
        if isinstance(value, dict):
            return {str(key): self._dump(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._dump(item, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, Secret):
            return str(value)
        if value is None or (isinstance(value, (bool, int, float)) and not isinstance(value, (Duration, Size))):
            return value
        return redact(str(value))

    def __repr__(self) -> str:
        return f"Config({str(self.file)!r}, actors={list(self.actors)}, integrations={list(self.integrations)})"


def find(explicit: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """The configuration file: the one given, else REGROW_CONFIG, else ./regrow.toml. Raises ConfigErrors."""
    environ = os.environ if environ is None else environ
    if explicit is not None:
        path, source = Path(explicit), "--config"
    elif environ.get("REGROW_CONFIG"):
        path, source = Path(environ["REGROW_CONFIG"]), "REGROW_CONFIG"
    else:
        path, source = Path(FILE_NAME), "the current folder"
    path = Path.cwd() / path.expanduser()
    if path.is_file():
        return path
    report = Report(str(path))
    if path.is_dir():
        report.add((), "not_found", "this is a folder", expected="a file", hint=f"name the file: {path / FILE_NAME}")
    else:
        report.add(
            (),
            "not_found",
            f"there is no such file (looked for because of {source})",
            expected="a configuration file, by --config, by REGROW_CONFIG or as ./regrow.toml",
            hint="`regrow init FOLDER` writes one to begin with",
        )
    raise ConfigErrors(report.errors)


def load(
    path: Path,
    integrations: Mapping[str, IntegrationType],
    *,
    is_actor: Callable[[object], bool] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Reads and checks a file. Raises ConfigErrors with everything that is wrong.

    Imports the user's actor classes, for which `daemon.path` is appended to `sys.path`, and stays there when the file
    is good. `is_actor` says whether a class is an actor, and may raise TypeError or ValueError with the reason why it
    cannot be used; without it any class will do. Blocks on the file system.
    """
    file = Path.cwd() / path
    text = _read(file)
    tree = _parse(file, text)
    report = Report(str(file), key_lines(text))
    if (deepest := _too_deep(tree)) is not None:
        report.add(deepest, "syntax", f"lists or tables are nested more than {MAX_DEPTH} deep")
        report.raise_if_any()
    templates = substitute(tree, os.environ if environ is None else environ, report)
    checker = Checker(report, file.parent)
    known: list[str] = list(TABLES)
    for name, value in tree.items():
        if name in LATER:
            report.add(
                (name,), "later", f"this version does not have this table yet ({LATER[name]})", hint="leave it out"
            )
        elif name not in TABLES:
            checker.unknown_key((name,), known, hint=_misplaced(name, value, integrations))
    daemon = checker.table(Daemon, tree.get("daemon", {}), ("daemon",))
    gateway = checker.table(Gateway, tree.get("gateway", {}), ("gateway",))
    http = checker.table(Http, tree.get("http", {}), ("http",))
    actor_tables = _entries(tree.get("actors", {}), ("actors",), "actor", checker)
    actors = {name: checker.table(ActorEntry, table, ("actors", name)) for name, table in actor_tables.items()}
    entries = _integrations(tree.get("integrations", {}), integrations, checker)
    _needs_of_daemon(entries, daemon, report)
    _names_once(tree, report)
    _dependencies({**actor_tables, **_tables(tree.get("integrations"))}, report)
    folders = _folders(tree.get("daemon"), file.parent, checker)
    classes = {} if folders is None else _classes(actor_tables, actors, folders, is_actor, checker)
    if gateway is not INVALID and gateway.curve is not None and not gateway.curve.secret_key_file.is_file():
        report.add(
            ("gateway", "curve", "secret_key_file"),
            "missing_file",
            "there is no such file",
            found=str(gateway.curve.secret_key_file),
            expected="the file with the server's secret key, which `regrow keys server` makes",
        )
    report.raise_if_any()
    return Config(
        file=file, daemon=daemon, gateway=gateway, http=http, actors=actors, integrations=entries, classes=classes,
        templates=templates,
    )  # fmt: skip


def load_table(cls: type[T], data: Mapping[str, Any], folder: Path, *, environ: Mapping[str, str] | None = None) -> T:
    """One table by itself, checked and converted as in a file of that folder. Raises ConfigErrors."""
    report = Report(str(folder / FILE_NAME))
    tree = copy.deepcopy(dict(data))
    substitute(tree, os.environ if environ is None else environ, report)
    made = Checker(report, folder).table(cls, tree, ())
    report.raise_if_any()
    return cast(T, made)


def _read(file: Path) -> str:
    report = Report(str(file))
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        report.add((), "unreadable", f"the file cannot be read: {error.strerror or type(error).__name__}")
        raise ConfigErrors(report.errors) from None
    if len(content) > MAX_FILE_BYTES:
        report.add((), "unreadable", f"the file is larger than {MAX_FILE_BYTES >> 20} MiB")
        raise ConfigErrors(report.errors)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        report.add((), "unreadable", "the file is not UTF-8", found=f"byte 0x{content[error.start]:02x}", line=line)
        raise ConfigErrors(report.errors) from None


def _parse(file: Path, text: str) -> dict[str, Any]:
    report = Report(str(file))
    try:
        return tomllib.loads(text)
    except RecursionError:
        report.add((), "syntax", "lists or tables are nested too deeply")
    except ValueError as error:  # TOMLDecodeError, and int()'s own refusal of thousands of digits
        message = str(error)
        place = _SYNTAX_PLACE.search(message)
        line = None
        if place is not None:
            message = message[: place.start()]
            line = int(place[1]) if place[1] else text.count("\n") + 1
        twice = re.fullmatch(r"Cannot declare (\(.*\)) twice", message)
        if twice or message == "Cannot overwrite a value":
            report.add((), "name_twice", "this name is used twice", found=twice[1] if twice else None, line=line)
        else:
            report.add((), "syntax", f"this is no TOML: {message[:1].lower()}{message[1:]}", line=line)
    raise ConfigErrors(report.errors)


def _too_deep(tree: dict[str, Any]) -> KeyPath | None:
    """The first key below which more levels follow than the checks go down."""
    level: list[tuple[KeyPath, Any]] = [((), tree)]
    for _ in range(MAX_DEPTH):
        below: list[tuple[KeyPath, Any]] = []
        for path, value in level:
            if isinstance(value, dict):
                below += [((*path, key), item) for key, item in value.items()]
            elif isinstance(value, list):
                below += [((*path, index), item) for index, item in enumerate(value)]
        level = below
    return level[0][0][:8] if level else None


def _entries(tables: Any, path: KeyPath, what: str, checker: Checker) -> dict[str, dict[str, Any]]:
    """The named tables of `[actors]` or `[integrations]` whose names are good."""
    report = checker.report
    if isinstance(tables, Unset):
        return {}
    if not isinstance(tables, dict):
        report.add(
            path, "wrong_value", "this value does not fit", found=found(tables), expected=f"tables [{path[0]}.NAME]"
        )
        return {}
    good = {}
    for name, table in tables.items():
        if not re.fullmatch(NAME_PATTERN, name, re.ASCII) or len(name) > MAX_NAME:
            near = re.sub(r"[^a-z0-9_-]+", "_", name.lower()).lstrip("_-0123456789")[:MAX_NAME]
            report.add(
                (*path, name),
                "name",
                f"this is no name for an {what}",
                found=name[:MAX_NAME],
                expected=f"a lower-case letter, then letters, digits, _ or -, at most {MAX_NAME} in all",
                nearest=near or None,
            )
        if name in RESERVED_NAMES:
            report.add(
                (*path, name),
                "name",
                "this name is reserved for a part of the daemon",
                found=name,
                expected=f"another one, such as my_{name}",
            )
        if isinstance(table, dict):
            good[name] = table
        elif not isinstance(table, Unset):
            report.add(
                (*path, name),
                "wrong_value",
                "this value does not fit",
                found=found(table, is_hidden=True),
                expected=f"a table [{path[0]}.{name}]",
            )
    return good


def _integrations(tables: Any, types: Mapping[str, IntegrationType], checker: Checker) -> dict[str, Any]:
    made = {}
    for name, table in _entries(tables, ("integrations",), "integration", checker).items():
        path = ("integrations", name)
        kind = table.get("type")
        known = ", ".join(f'"{known}"' for known in types)
        if kind is None:
            checker.report.add((*path, "type"), "missing_key", "this key is required", expected=f"one of {known}")
        elif isinstance(kind, Unset):
            continue
        elif not isinstance(kind, str) or kind not in types:
            nearest = difflib.get_close_matches(str(kind), list(types), n=1)
            checker.report.add(
                (*path, "type"),
                "unknown_type",
                "there is no such type of integration",
                found=found(kind),
                expected=f"one of {known}",
                nearest=f'"{nearest[0]}"' if nearest else None,
            )
        else:
            rest = {key: value for key, value in table.items() if key != "type"}
            made[name] = IntegrationEntry(str(kind), checker.table(types[kind].config, rest, path))
    return made


def _folders(table: Any, folder: Path, checker: Checker) -> list[Path] | None:
    """The folders of daemon.path, also when another key of its table is wrong; None when there is no telling."""
    written = table.get("path", ["."]) if isinstance(table, dict) else ["."]
    attempt = Checker(Report(checker.report.file), folder)
    folders = attempt.value(list[Path], written, ("daemon", "path"))
    if folders is INVALID:
        return None  # reported by the check of the table
    made: list[Path] = list(folders)
    for index, each in enumerate(made):
        if not each.is_dir():
            checker.report.add(
                ("daemon", "path", index), "missing_file", "there is no such folder", found=str(each),
                expected="a folder with modules",
            )  # fmt: skip
    return made


def _tables(value: Any) -> dict[str, Any]:
    return {name: table for name, table in value.items() if isinstance(table, dict)} if isinstance(value, dict) else {}


def _dependencies(tables: dict[str, dict[str, Any]], report: Report) -> None:
    """Each name in a depends_on is another entry."""
    for name, table in tables.items():
        wanted = table.get("depends_on")
        if not isinstance(wanted, list):
            continue
        for index, other in enumerate(wanted):
            if isinstance(other, str) and (other not in tables or other == name):
                group = "integrations" if "type" in table else "actors"
                near = difflib.get_close_matches(other, [known for known in tables if known != name], n=1)
                report.add(
                    (group, name, "depends_on", index),
                    "unknown_name",
                    "an entry cannot depend on itself" if other == name else "there is no such entry",
                    found=repr(other),
                    expected="the name of another actor or integration",
                    nearest=near[0] if near else None,
                )


def _needs_of_daemon(entries: dict[str, IntegrationEntry], daemon: Any, report: Report) -> None:
    """What an entry needs of the daemon is there."""
    for name, entry in entries.items():
        if daemon is INVALID or not isinstance(entry.config, Supervised):
            continue
        for key, needed in entry.config.needs_of_daemon().items():
            if getattr(daemon, needed) is None:
                report.add(
                    ("integrations", name, key),
                    "missing_key",
                    f"this needs {needed} in [daemon]",
                    found=repr(getattr(entry.config, key)),
                    expected=f"{needed} in [daemon], or another {key}",
                )


def _names_once(tree: dict[str, Any], report: Report) -> None:
    """Actors and integrations share one space of names: both are targets of messages."""
    actors, integrations = tree.get("actors"), tree.get("integrations")
    if not isinstance(actors, dict) or not isinstance(integrations, dict):
        return
    for name in integrations:
        if name in actors:
            line = report.line_of(("actors", name))
            where = f" (line {line})" if line else ""
            report.add(
                ("integrations", name),
                "name_twice",
                "this name is used twice",
                found=f"actors.{name}{where} and integrations.{name}",
                expected="a name of its own for each: messages are sent to it by name",
            )


def _classes(
    tables: dict[str, dict[str, Any]],
    actors: dict[str, Any],
    folders: Sequence[Path],
    is_actor: Callable[[object], bool] | None,
    checker: Checker,
) -> dict[str, type]:
    """Imports each actor's class, also where another key of its table is wrong, and fits its arguments, in place."""
    classes: dict[str, type] = {}
    before = list(sys.path)
    # Appended, not prepended: a module of the user's never replaces one of Python's own or of the daemon's.
    sys.path += [str(folder) for folder in folders if str(folder) not in sys.path]
    for name, table in tables.items():
        path, spec, args = ("actors", name), table.get("class"), table.get("args", {})
        if not isinstance(spec, str) or not re.fullmatch(CLASS_PATTERN, spec):
            continue  # reported by the check of the table
        cls = import_class(str(spec), folders, is_actor, (*path, "class"), checker.report)
        if cls is None or not isinstance(args, dict):
            continue
        classes[name] = cls
        if table.get("instances", 1) != 1:
            _check_key(cls, table.get("key"), (*path, "key"), checker.report)
        fitted = fit_args(cls, args, (*path, "args"), checker)
        if fitted is not None and actors[name] is not INVALID:
            actors[name] = msgspec.structs.replace(actors[name], args=fitted)
    if checker.report.errors:
        sys.path[:] = before
    return classes


def _check_key(cls: type, key: Any, path: KeyPath, report: Report) -> None:
    known = arguments_of(cls)
    if isinstance(key, str) and key and key not in known:
        report.add(
            path,
            "key",
            f"no method of {cls.__name__} takes an argument {key}",
            found=key,
            expected="the name of an argument",
            nearest=next(iter(difflib.get_close_matches(key, known, n=1)), None),
        )


def _misplaced(name: str, value: Any, types: Mapping[str, IntegrationType]) -> str | None:
    if isinstance(value, dict) and value.get("type") in list(types):
        return f"an integration is written [integrations.{name}]"
    if isinstance(value, dict) and "class" in value:
        return f"an actor is written [actors.{name}]"
    return None
