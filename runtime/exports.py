"""Exports: the methods that the outside may call, with their arguments' types taken from the annotations.

Arguments are checked by msgspec against a struct made once per method, before the actor sees them. Operations declared
in the configuration get the same shape from `Exported.make`.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import msgspec

from config.secret import redact
from regrow.protocol.errors import InvalidArguments

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "_regrow_exported"

MAX_WRONG_FIELDS = 50
MAX_FIELD_CHARS = 200
MAX_NAME_CHARS = 100


@dataclass(frozen=True)
class Param:
    """One argument of a declared operation; without `required` its `default` is passed on when it is absent."""

    type: Any = Any
    required: bool = True
    default: Any = msgspec.UNSET
    doc: str = ""


def exported(method: F) -> F:
    """Let the outside call this annotated method; its first docstring line describes it."""
    setattr(method, _MARK, True)
    return method


class Exported:
    """One callable method: `name`, `doc`, the check of its arguments and their JSON Schema."""

    def __init__(
        self,
        name: str,
        doc: str,
        arguments: type[msgspec.Struct],
        *,
        extra: bool = False,
        returns: Any = Any,
        streams: bool = False,
    ) -> None:
        self.name = name
        self.doc = doc
        self.extra = extra
        self.returns = returns
        self.streams = streams
        self._arguments = arguments
        self._fields = {field.name: field for field in msgspec.structs.fields(arguments)}

    @classmethod
    def make(
        cls, name: str, doc: str, parameters: Mapping[str, Param], *, extra: bool = False, streams: bool = False
    ) -> Exported:
        """Build the export of an operation that the configuration declares.

        `extra` lets other arguments pass unchecked; `streams` says that it answers with a stream.
        """
        fields: list[Any] = []
        for key, param in parameters.items():
            kind = typing.Annotated[param.type, msgspec.Meta(description=param.doc)] if param.doc else param.type
            fields.append((key, kind) if param.required else (key, kind | msgspec.UnsetType, param.default))
        struct = msgspec.defstruct(f"{name}_arguments", fields, kw_only=True, forbid_unknown_fields=not extra)
        return cls(name, doc, struct, extra=extra, streams=streams)

    @classmethod
    def of_method(cls, name: str, method: Callable[..., Any]) -> Exported:
        """Build the export of an annotated method; raises TypeError for what the wire cannot name."""
        hints = typing.get_type_hints(method, include_extras=True)
        fields: list[Any] = []
        for parameter in list(inspect.signature(method).parameters.values())[1:]:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise TypeError(f"{method.__qualname__} is exported, so each argument needs a name, not {parameter}")
            hint = hints.get(parameter.name, Any)
            if parameter.default is parameter.empty:
                fields.append((parameter.name, hint))
            else:
                fields.append((parameter.name, hint | msgspec.UnsetType, msgspec.UNSET))
        struct = msgspec.defstruct(f"{name}_arguments", fields, kw_only=True, forbid_unknown_fields=True)
        streams = inspect.isgeneratorfunction(method)
        return cls(name, inspect.getdoc(method) or "", struct, returns=hints.get("return", Any), streams=streams)

    def check(self, body: Any) -> dict[str, Any]:
        """Return the arguments by name, converted to their types. Never switches.

        Raises `InvalidArguments`, whose details name every wrong argument in `fields` and say what is wrong with it.
        """
        if body is None:
            body = {}
        if not isinstance(body, Mapping):
            raise InvalidArguments(
                f"{self.name} takes its arguments as an object by name, not as {type(body).__name__}"
            )
        try:
            struct = msgspec.convert(body, self._arguments)
        except msgspec.ValidationError as error:
            raise InvalidArguments(
                f"{self.name}: {_readable(str(error))}, it takes {self._signature()}",
                details={"fields": self._wrong_fields(body)},
            ) from None
        known = {key: value for key in self._fields if (value := getattr(struct, key)) is not msgspec.UNSET}
        if self.extra:
            known.update({key: value for key, value in body.items() if key not in self._fields})
        return known

    def _wrong_fields(self, body: Mapping[str, Any]) -> dict[str, str]:
        """Say what is wrong with each argument, where the check itself stops at the first one."""
        found: dict[str, str] = {}
        for key, declared in self._fields.items():
            if key not in body:
                if declared.required:
                    found[key] = "missing"
                continue
            try:
                msgspec.convert(body[key], declared.type)
            except msgspec.ValidationError as error:
                found[key] = redact(_readable(str(error)))[:MAX_FIELD_CHARS]
        if not self.extra:
            found |= {redact(str(key))[:MAX_NAME_CHARS]: "unknown" for key in body if key not in self._fields}
        return dict(islice(found.items(), MAX_WRONG_FIELDS))

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the arguments object. Never switches."""
        try:
            schema, parts = msgspec.json.schema_components([self._arguments], ref_template="#/$defs/{name}")
        except TypeError:  # a type that JSON Schema cannot say
            return {"type": "object", "properties": {key: {} for key in self._fields}}
        body = dict(parts.pop(self._arguments.__name__, schema[0]))
        body.pop("title", None)
        body["additionalProperties"] = self.extra
        if parts:
            body["$defs"] = parts
        return body

    def describe(self) -> dict[str, Any]:
        """Return what DESCRIBE tells of this method. Never switches."""
        described = {"name": self.name, "doc": self.doc, "arguments": self.schema()}
        return {**described, "streams": True} if self.streams else described

    def _signature(self) -> str:
        parts = [key if field.required else f"[{key}]" for key, field in self._fields.items()]
        if self.extra:
            parts.append("...")
        return ", ".join(parts) or "no arguments"

    def __repr__(self) -> str:
        return f"<Exported {self.name}({self._signature()})>"


def _readable(text: str) -> str:
    return (
        text.replace("Object missing", "missing").replace("Object contains", "contains").replace("`", "'").rstrip(".")
    )


@functools.cache
def exports_of(actor_class: type) -> Mapping[str, Exported]:
    """Return the exported methods of an actor class by name. Never switches."""
    found: dict[str, Exported] = {}
    for name in dir(actor_class):
        if name.startswith("_"):
            continue
        method = inspect.getattr_static(actor_class, name)
        if getattr(method, _MARK, False):
            found[name] = Exported.of_method(name, getattr(actor_class, name))
    return found
