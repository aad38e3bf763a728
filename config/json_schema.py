"""The JSON Schema (2020-12) of the whole configuration file, made from the Structs that check it: `regrow schema`.

For editors and for the reference page. The order of the Structs' fields is kept, so that two runs give the same text.
"""

from __future__ import annotations

import ast
import datetime as dt
import inspect
import itertools
import textwrap
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin

import msgspec

from config.check import bare_type, item_type
from config.load import IntegrationType
from config.schema import MAX_NAME, NAME_PATTERN, RESERVED_NAMES, ActorEntry, Daemon, Duration, Gateway, Http, Size
from config.secret import Secret

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
# What a value may be instead of its own type: a text with a variable, substituted before types are checked.
VARIABLE: Final[dict[str, Any]] = {"type": "string", "pattern": r"\$\{"}


def json_schema(integrations: Mapping[str, IntegrationType]) -> dict[str, Any]:
    """The schema of a file with these types of integrations, as a JSON-safe object."""
    made = _Schema()
    name = {
        "pattern": f"^{NAME_PATTERN}$",
        "maxLength": MAX_NAME,
        "not": {"enum": sorted(RESERVED_NAMES)},
    }
    entries = []
    for word, integration in integrations.items():
        table = made.struct(integration.config)
        table = {
            **table,
            "properties": {"type": {"const": word}, **table["properties"]},
            "required": ["type", *table.get("required", [])],
        }
        made.definitions[f"integration.{word}"] = table
        entries.append((word, {"$ref": f"#/$defs/integration.{word}"}))
    # if/then instead of oneOf: an editor then shows the mistake in the one table that was meant.
    integration_table: dict[str, Any] = {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": list(integrations), "description": "What kind of integration it is."}},
    }
    if entries:
        integration_table["allOf"] = [
            {"if": {"required": ["type"], "properties": {"type": {"const": word}}}, "then": reference}
            for word, reference in entries
        ]
    return {
        "$schema": DIALECT,
        "title": "regrow.toml",
        "description": "The configuration of a regrow daemon.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "daemon": made.reference(Daemon),
            "gateway": made.reference(Gateway),
            "http": made.reference(Http),
            "actors": {
                "type": "object",
                "description": "Your own actors, by name.",
                "propertyNames": name,
                "additionalProperties": made.reference(ActorEntry),
            },
            "integrations": {
                "type": "object",
                "description": "What the daemon talks to, by name.",
                "propertyNames": name,
                "additionalProperties": integration_table,
            },
        },
        "$defs": {key: made.definitions[key] for key in sorted(made.definitions)},
    }


class _Schema:
    def __init__(self) -> None:
        self.definitions: dict[str, dict[str, Any]] = {}

    def reference(self, cls: type[msgspec.Struct]) -> dict[str, Any]:
        key = f"{cls.__module__}.{cls.__qualname__}"
        if key not in self.definitions:
            self.definitions[key] = {}  # known before its fields are, so that a table may contain its own kind
            self.definitions[key] = self.struct(cls)
        return {"$ref": f"#/$defs/{key}"}

    def struct(self, cls: type[msgspec.Struct]) -> dict[str, Any]:
        docs = _field_docs(cls)
        properties = {}
        required = []
        for field in msgspec.structs.fields(cls):
            schema = self.value(field.type)
            doc = docs.get(field.name)
            if doc:
                schema = {**schema, "description": doc}
            if field.required:
                required.append(field.encode_name)
            else:
                default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
                if default not in (None, msgspec.UNSET) and not isinstance(default, (msgspec.Struct, Secret)):
                    schema = {**schema, "default": _plain(default)}
            properties[field.encode_name] = schema
        table: dict[str, Any] = {"type": "object", "properties": properties}
        if doc := _doc(cls):
            table["description"] = doc
        if required:
            table["required"] = required
        if cls.__struct_config__.forbid_unknown_fields:
            table["additionalProperties"] = False
        return table

    def value(self, kind: Any) -> dict[str, Any]:
        bare, bounds = bare_type(kind)
        origin = get_origin(bare)
        bounded: dict[str, Any] = {}
        for meta in bounds:
            for name, keyword in _BOUNDS.items():
                if getattr(meta, name) is not None:
                    bounded[_for_lists(keyword, bare) if name.endswith("_length") else keyword] = getattr(meta, name)
            for name in ("title", "description", "examples"):
                if getattr(meta, name) is not None:
                    bounded[name] = getattr(meta, name)
            bounded |= meta.extra_json_schema or {}
        if bare is Any or bare is object:
            return bounded
        if origin in (Union, types.UnionType):
            members = [self.value(member) for member in get_args(bare) if member is not types.NoneType]
            return {**(members[0] if len(members) == 1 else {"anyOf": members}), **bounded}
        if origin is Literal:
            return {"anyOf": [{"enum": list(get_args(bare)), **bounded}, VARIABLE]}
        if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
            return {**self.reference(bare), **bounded}
        if (origin or bare) in (dict, Mapping):
            item = (get_args(bare) or (str, Any))[1]
            inner = self.value(item)
            return {"type": "object", **({"additionalProperties": inner} if inner else {}), **bounded}
        if (origin or bare) in _LIST_TYPES:
            return {"type": "array", "items": self.value(item_type(bare)), **bounded}
        return self.leaf(bare, bounded)

    def leaf(self, bare: Any, bounded: dict[str, Any]) -> dict[str, Any]:
        if bare is str or (isinstance(bare, type) and issubclass(bare, (Secret, Path))):
            schema = {"type": "string"}
            if "pattern" in bounded:
                return {"anyOf": [{**schema, **bounded}, VARIABLE]}
            return {**schema, **bounded}
        own: dict[str, Any] = {}
        if bare in _SCALARS:
            own = {"type": _SCALARS[bare]}
        elif bare in _DATES:
            own = {"type": "string", "format": _DATES[bare]}
        elif isinstance(bare, type):
            return {**self.written(bare), **bounded}
        return {"anyOf": [{**own, **bounded}, VARIABLE]}

    def written(self, cls: type) -> dict[str, Any]:
        """A type of ours with a written form, such as Duration: described once, referred to everywhere."""
        own: dict[str, Any] = {"type": "string"}
        if pattern := getattr(cls, "PATTERN", None):
            own["pattern"] = pattern
        forms = [own, {"type": "integer", "minimum": 0}, VARIABLE] if issubclass(cls, Size) else [own, VARIABLE]
        key = f"{cls.__module__}.{cls.__qualname__}"
        self.definitions[key] = {"title": str(getattr(cls, "EXPECTED", cls.__name__)), "anyOf": forms}
        return {"$ref": f"#/$defs/{key}"}


_LIST_TYPES: Final = (list, tuple, set, frozenset)
_SCALARS: Final[dict[Any, str]] = {int: "integer", float: "number", bool: "boolean"}
_DATES: Final[dict[Any, str]] = {dt.datetime: "date-time", dt.date: "date", dt.time: "time"}
_BOUNDS: Final = {
    "ge": "minimum",
    "le": "maximum",
    "gt": "exclusiveMinimum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "min_length": "minLength",
    "max_length": "maxLength",
    "pattern": "pattern",
}


def _for_lists(keyword: str, bare: Any) -> str:
    origin = get_origin(bare) or bare
    if origin in _LIST_TYPES:
        return keyword.replace("Length", "Items")
    return keyword.replace("Length", "Properties") if origin in (dict, Mapping) else keyword


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if value is None or (isinstance(value, (bool, int, float)) and not isinstance(value, (Duration, Size))):
        return value
    return str(value)


def _doc(cls: type) -> str:
    return " ".join((cls.__dict__.get("__doc__") or "").split())


def _field_docs(cls: type[msgspec.Struct]) -> dict[str, str]:
    """The string literals below the fields, of the class and of those it inherits from."""
    docs: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if not issubclass(owner, msgspec.Struct) or owner is msgspec.Struct:
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
        except (OSError, TypeError, SyntaxError):  # a Struct made at run time, or a program without its sources
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for field, below in itertools.pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            ):
                docs[field.target.id] = " ".join(below.value.value.split())
    return docs
