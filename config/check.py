"""Checks a parsed table against a Struct, key by key, and says everything that is wrong with it.

msgspec stops at the first mistake and allows no type of ours in a union, so the walk over tables, lists and unions is
done here; msgspec judges the plain values at the leaves (numbers, texts, bounds, patterns).
"""

from __future__ import annotations

import datetime as dt
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from config.errors import KeyPath, Report, parts
from config.schema import DatabaseUrl, Problem
from config.secret import Secret, redact, register
from config.substitute import Substituted, Unset

LONGEST_SHOWN = 60
_LISTS: Final = (list, tuple, set, frozenset, Sequence)
_DATES: Final = (dt.datetime, dt.date, dt.time)


class Invalid:
    """The result of a value that was reported."""


INVALID: Final = Invalid()


class Checker:
    """Turns parsed tables into Structs; what does not fit goes to the report."""

    def __init__(self, report: Report, folder: Path) -> None:
        self.report = report
        self.folder = folder

    def table(self, cls: type[msgspec.Struct], data: object, path: KeyPath) -> Any:
        """An instance of the Struct, or INVALID."""
        if not isinstance(data, dict):
            self._wrong(cls, data, path)
            return INVALID
        fields = {field.encode_name: field for field in msgspec.structs.fields(cls)}
        values: dict[str, Any] = {}
        is_valid = True
        for key, value in data.items():
            field = fields.get(key)
            if field is None:
                self._unknown(cls, key, list(fields), path)
                is_valid = False
                continue
            values[field.name] = self.value(field.type, value, (*path, key))
            is_valid = is_valid and values[field.name] is not INVALID
        for key, field in fields.items():
            if field.required and key not in data:
                self.report.add((*path, key), "missing_key", "this key is required", expected=describe(field.type))
                is_valid = False
                continue
            if key not in data:
                default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
                values[field.name] = self._placed(default)
        return self._make(cls, values, path) if is_valid else INVALID

    def value(self, kind: Any, value: Any, path: KeyPath) -> Any:
        """The value as the type wants it, or INVALID."""
        if isinstance(value, Unset):
            return INVALID
        bare, bounds = bare_type(kind)
        origin = get_origin(bare)
        if bare is Any or bare is object:
            return self._plain(value)
        if origin in (Union, types.UnionType):
            return self._union(kind, bare, value, path)
        if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
            return self.table(bare, value, path)
        if origin in _LISTS or bare in _LISTS:
            return self._list(kind, bare, bounds, value, path)
        if origin in (dict, Mapping) or bare in (dict, Mapping):
            return self._dict(kind, bare, bounds, value, path)
        return self._leaf(kind, bare, value, path)

    def _union(self, kind: Any, bare: Any, value: Any, path: KeyPath) -> Any:
        members = [member for member in get_args(bare) if member is not types.NoneType]
        if len(members) == 1:
            return self.value(members[0], value, path)
        attempts = []
        for member in members:
            attempt = Checker(Report(self.report.file, self.report.lines), self.folder)
            result = attempt.value(member, value, path)
            if not attempt.report.errors:
                return result
            attempts.append((member, attempt.report.errors))
        # A table that fits no member is judged by the one member it can have meant, which gives the exact key.
        tables = [(member, errors) for member, errors in attempts if _is_table(member)]
        if isinstance(value, dict) and tables:
            meant = max(tables, key=lambda pair: len(_keys(pair[0]) & set(value)))
            self.report.errors += meant[1]
            return INVALID
        hints = [error.hint for _, errors in attempts for error in errors if error.hint]
        self._wrong(kind, value, path, hint=hints[0] if hints else None)
        return INVALID

    def _list(self, kind: Any, bare: Any, bounds: list[Meta], value: Any, path: KeyPath) -> Any:
        if not isinstance(value, list):
            hint = None
            if isinstance(value, Substituted):
                hint = 'a variable gives one text: put it into the list, ["${NAME}"]'
            elif self._fits(item_type(bare), value):
                hint = "put it into a list: [...]"
            self._wrong(kind, value, path, hint=hint)
            return INVALID
        items = [self.value(item_type(bare), item, (*path, index)) for index, item in enumerate(value)]
        is_valid = self._counted(len(items), bounds, path)
        if not is_valid or any(item is INVALID for item in items):
            return INVALID
        made = get_origin(bare) or bare
        return items if made in (list, Sequence) else made(items)

    def _counted(self, count: int, bounds: list[Meta], path: KeyPath) -> bool:
        for meta in bounds:
            if meta.max_length is not None and count > meta.max_length:
                self._rule(path, f"{count} items, at most {meta.max_length} are allowed")
                return False
            if meta.min_length is not None and count < meta.min_length:
                self._rule(path, f"{count} items, at least {meta.min_length} are needed")
                return False
        return True

    def _dict(self, kind: Any, bare: Any, bounds: list[Meta], value: Any, path: KeyPath) -> Any:
        if not isinstance(value, dict):
            self._wrong(kind, value, path)
            return INVALID
        key_kind, item_kind = get_args(bare) or (str, Any)
        is_valid = self._counted(len(value), bounds, path)
        made = {}
        for key, item in value.items():
            if not self._fits(key_kind, key):
                self.report.add(
                    (*path, key),
                    "name",
                    "this name is not allowed here",
                    found=_quoted(key),
                    expected=describe(key_kind),
                )
                is_valid = False
            made[key] = self.value(item_kind, item, (*path, key))
            is_valid = is_valid and made[key] is not INVALID
        return made if is_valid else INVALID

    def _leaf(self, kind: Any, bare: Any, value: Any, path: KeyPath) -> Any:
        try:
            made = self._convert(kind, bare, value)
        except Problem as problem:
            self._wrong(kind, value, path, hint=str(problem))
        except ValueError as error:
            if isinstance(error, msgspec.ValidationError):
                self._wrong(kind, value, path, hint=self._loose_hint(kind, bare, value))
            else:
                self._wrong(kind, value, path, hint=str(error) or None)
        else:
            if isinstance(value, Substituted) and (isinstance(made, Secret) or bare is str):
                value.register()
            if isinstance(made, Secret):
                _pin(made)
            return made
        return INVALID

    def _convert(self, kind: Any, bare: Any, value: Any) -> Any:
        text = str(value) if isinstance(value, Substituted) else value
        if bare is Path:
            return self._path(text)
        if bare is Secret:
            if not isinstance(text, str):
                raise ValueError("")
            return Secret(text)
        parse = getattr(bare, "parse", None)
        if callable(parse):
            if issubclass(bare, Secret):
                return parse(text, self.folder)
            if isinstance(value, Substituted) and issubclass(bare, int) and text.isdecimal():
                return parse(int(text))
            return parse(text)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("configuration has no infinity and no nan")
        made = msgspec.convert(text, kind, strict=not isinstance(value, Substituted))
        if isinstance(made, float) and not math.isfinite(made):
            raise ValueError("configuration has no infinity and no nan")
        return made

    def _path(self, value: object) -> Path:
        if not isinstance(value, str) or not value or "\0" in value:
            raise ValueError("")
        path = Path(value)
        try:
            path = path.expanduser()
        except RuntimeError:
            raise ValueError("there is no such user's home") from None
        return self._absolute(path)

    def _absolute(self, path: Path) -> Path:
        """The path under the configuration's folder, without `..` that every message would have to show."""
        placed = self.folder / path
        return placed.resolve() if ".." in placed.parts else placed

    def _plain(self, value: Any) -> Any:
        """The value of a key that accepts anything: ordinary texts, whose secrets are known to redact."""
        if isinstance(value, Substituted):
            value.register()
            return str(value)
        if isinstance(value, Unset):
            return INVALID
        if isinstance(value, dict):
            made = {key: self._plain(item) for key, item in value.items()}
            return INVALID if any(item is INVALID for item in made.values()) else made
        if isinstance(value, list):
            items = [self._plain(item) for item in value]
            return INVALID if any(item is INVALID for item in items) else items
        return value

    def _make(self, cls: type[msgspec.Struct], values: dict[str, Any], path: KeyPath) -> Any:
        try:
            return cls(**values)
        except ExceptionGroup as group:
            for error in group.exceptions:
                self._refused(error, path)
        except (ValueError, TypeError) as error:
            self._refused(error, path)
        return INVALID

    def _refused(self, error: Exception, path: KeyPath) -> None:
        key = parts(error.key) if isinstance(error, Problem) else ()
        self._rule((*path, *key), str(error))

    def _placed(self, default: Any) -> Any:
        """A default, with its relative paths under the configuration's folder as if they had been written there."""
        if isinstance(default, Path):
            return self._absolute(default)
        if isinstance(default, DatabaseUrl):
            return type(default).parse(default.reveal(), self.folder)
        if isinstance(default, list):
            return [self._placed(item) for item in default]
        if isinstance(default, msgspec.Struct):
            fields = [field.name for field in msgspec.structs.fields(default)]
            return msgspec.structs.replace(default, **{name: self._placed(getattr(default, name)) for name in fields})
        return default

    def _fits(self, kind: Any, value: Any) -> bool:
        attempt = Checker(Report(self.report.file), self.folder)
        attempt.value(kind, value, ())
        return not attempt.report.errors

    def _loose_hint(self, kind: Any, bare: Any, value: Any) -> str | None:
        """What to write when the right value stands in the wrong type, such as a number in quotes."""
        if isinstance(value, str) and not isinstance(value, Substituted) and bare in (int, float, bool):
            try:
                msgspec.convert(value, kind, strict=False)
            except msgspec.ValidationError:
                return None
            return f"write it without quotes: {value}"
        if bare is str and isinstance(value, (int, float, *_DATES)):
            return "write it in quotes"
        return None

    def _rule(self, path: KeyPath, problem: str) -> None:
        self.report.add(path, "rule", problem)

    def _wrong(self, kind: Any, value: Any, path: KeyPath, *, hint: str | None = None) -> None:
        choices = [choice for choice in _literals(kind) if isinstance(choice, str)]
        nearest = difflib.get_close_matches(value, choices, n=1) if isinstance(value, str) else []
        self.report.add(
            path,
            "wrong_value",
            "this value does not fit",
            found=found(value, is_hidden=holds_secret(kind)),
            expected=describe(kind),
            nearest=_quoted(nearest[0]) if nearest and not isinstance(value, Substituted) else None,
            hint=hint,
        )

    def _unknown(self, cls: type[msgspec.Struct], key: str, known: list[str], path: KeyPath) -> None:
        later: dict[str, str] = getattr(cls, "LATER", {})
        if key in later:
            self.report.add(
                (*path, key), "later", f"this version does not have this key yet ({later[key]})", hint="leave it out"
            )
            return
        self.unknown_key((*path, key), known, hint=_belongs(cls, key))

    def unknown_key(self, path: KeyPath, known: Sequence[str], *, hint: str | None = None) -> None:
        """Reports a key that its table does not have."""
        nearest = difflib.get_close_matches(str(path[-1]), known, n=1)
        self.report.add(
            path,
            "unknown_key",
            "there is no such key",
            found=str(path[-1])[:LONGEST_SHOWN],
            expected=f"one of {', '.join(known)}" if known else "no key at all",
            nearest=nearest[0] if nearest else None,
            hint=hint,
        )


def describe(kind: Any) -> str:
    """What a key expects, in words."""
    bare, bounds = bare_type(kind)
    for meta in bounds:
        if meta.extra and "expected" in meta.extra:
            return str(meta.extra["expected"])
    origin = get_origin(bare)
    if origin in (Union, types.UnionType):
        members = [describe(member) for member in get_args(bare) if member is not types.NoneType]
        return ", or ".join(members)
    if origin is Literal:
        choices = [_quoted(choice) if isinstance(choice, str) else _written(choice) for choice in get_args(bare)]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
        keys = [field.encode_name for field in msgspec.structs.fields(bare)]
        return f"a table with the key{'' if len(keys) == 1 else 's'} {', '.join(keys)}"
    if origin in _LISTS or bare in _LISTS:
        item = item_type(bare)
        return "a list" if item in (Any, object) else f"a list, each item {describe(item)}"
    if origin in (dict, Mapping) or bare in (dict, Mapping):
        item = (get_args(bare) or (str, Any))[1]
        return "a table" if item in (Any, object) else f"a table, each value {describe(item)}"
    return _PLAIN.get(bare, str(getattr(bare, "EXPECTED", "a value"))) + _bounds(bounds, is_text=bare is str)


def found(value: Any, *, is_hidden: bool = False) -> str:
    """A value as an error may show it: never one that came from a variable or stands where a secret may stand."""
    if isinstance(value, Substituted):
        return f"{_quoted(value.template)}, whose value is not shown"
    if isinstance(value, dict):
        return f"a table of {', '.join(map(str, list(value)[:10]))}" if value else "an empty table"
    if isinstance(value, list):
        return f"a list of {len(value)} item{'' if len(value) == 1 else 's'}"
    if isinstance(value, str):
        return f"a text of {len(value)} characters, not shown" if is_hidden else f"{_quoted(redact(value))} (a text)"
    if isinstance(value, bool):
        return f"{_written(value)} (a boolean)"
    if isinstance(value, (int, float)):
        return "a number, not shown" if is_hidden else f"{_written(value)} (a number)"
    return f"{_written(value)} (a date or time)" if isinstance(value, _DATES) else type(value).__name__


def holds_secret(kind: Any, seen: frozenset[Any] = frozenset()) -> bool:
    """Whether a secret may stand in a value of this type, so that even a misplaced value is not shown."""
    bare, _ = bare_type(kind)
    if isinstance(bare, type):
        if issubclass(bare, Secret):
            return True
        if issubclass(bare, msgspec.Struct) and bare not in seen:
            return any(holds_secret(field.type, seen | {bare}) for field in msgspec.structs.fields(bare))
    return any(holds_secret(member, seen) for member in get_args(bare) if get_origin(bare) is not Literal)


_PLAIN: Final[dict[Any, str]] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    bytes: "a text in base64",
    Path: "a path (relative ones start from the configuration file's folder)",
    Secret: 'a text, best given as "${NAME}"',
    dt.datetime: "a date and time",
    dt.date: "a date",
    dt.time: "a time of day",
}


def _bounds(bounds: list[Meta], *, is_text: bool) -> str:
    written = ""
    for meta in bounds:
        low, high = meta.ge, meta.le
        if low is not None and high is not None:
            written += f" from {low} to {high}"
        elif low is not None or high is not None:
            written += f" of at least {low}" if low is not None else f" of at most {high}"
        written += f" above {meta.gt}" if meta.gt is not None else ""
        written += f" below {meta.lt}" if meta.lt is not None else ""
        if is_text and meta.max_length is not None:
            written += f" of {meta.min_length or 0} to {meta.max_length} characters"
        elif is_text and meta.min_length:
            written += f" of at least {meta.min_length} character{'' if meta.min_length == 1 else 's'}"
        written += f" that matches {meta.pattern}" if meta.pattern is not None else ""
    return written


def bare_type(kind: Any) -> tuple[Any, list[Meta]]:
    """A type without its annotations, and those of them that bound it."""
    bounds: list[Meta] = []
    while True:
        if get_origin(kind) is Annotated:
            bounds += [meta for meta in kind.__metadata__ if isinstance(meta, Meta)]
            kind = kind.__origin__
        elif isinstance(kind, typing.NewType):
            kind = kind.__supertype__
        else:
            return kind, bounds


def item_type(bare: Any) -> Any:
    """The type of the items of a list type."""
    arguments = [argument for argument in get_args(bare) if argument is not Ellipsis]
    return arguments[0] if arguments else Any


def _is_table(kind: Any) -> bool:
    bare, _ = bare_type(kind)
    is_struct = isinstance(bare, type) and issubclass(bare, msgspec.Struct)
    return is_struct or (get_origin(bare) or bare) in (dict, Mapping)


def _keys(kind: Any) -> set[str]:
    bare, _ = bare_type(kind)
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
        return {field.encode_name for field in msgspec.structs.fields(bare)}
    return set()


def _literals(kind: Any) -> list[object]:
    bare, _ = bare_type(kind)
    if get_origin(bare) is Literal:
        return list(get_args(bare))
    if get_origin(bare) in (Union, types.UnionType):
        return [choice for member in get_args(bare) for choice in _literals(member)]
    return []


def _belongs(cls: type[msgspec.Struct], key: str) -> str | None:
    """Where a key belongs that stands one table too high."""
    for field in msgspec.structs.fields(cls):
        bare, _ = bare_type(field.type)
        for member in (bare, *get_args(bare)):
            if isinstance(member, type) and issubclass(member, msgspec.Struct) and key in _keys(member):
                return f"it belongs into {field.encode_name} = {{ {key} = ... }}"
    return None


def _pin(secret: Secret) -> None:
    """Keeps a secret of the configuration known to redact, and the password inside a url by itself too."""
    value = secret.reveal()
    register(value, pinned=True)
    scheme, separator, rest = value.partition("://")
    if separator and scheme.isidentifier():
        credentials = rest.partition("/")[0].rpartition("@")[0]
        password = credentials.partition(":")[2]
        register(password, pinned=True)


def _quoted(text: str) -> str:
    shown = text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."
    return '"' + shown.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)[:LONGEST_SHOWN]
