"""How the arguments of an operation become a request: path, query, body; strict about what may stand in a path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from regrow.protocol.errors import InvalidArguments

QUERY_METHODS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})
METHODS = QUERY_METHODS | BODY_METHODS

_PLACE = re.compile(r"\{([^{}]*)\}")
# Two underscores at the beginning belong to Python.
_NAME = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_]*")
_PATH = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*")


@dataclass(frozen=True, slots=True)
class Filled:
    """A request's moving parts; `rest` are the arguments that the body is made of."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    rest: Mapping[str, Any]


class Template:
    """`GET /users/{username}`: a method and a path with places that arguments fill.

    Raises ValueError saying what is wrong with the text.
    """

    def __init__(self, text: str) -> None:
        method, _, path = text.strip().partition(" ")
        path = path.strip()
        if method not in METHODS:
            raise ValueError(f"{text!r} begins with one of {', '.join(sorted(METHODS))} and a space")
        if "?" in path or "#" in path:
            raise ValueError(f"{text!r} has a query: arguments that no place takes become the query by themselves")
        places = _PLACE.findall(path)
        for place in places:
            if not _NAME.fullmatch(place):
                raise ValueError(f"{{{place}}} in {text!r} is no argument name: letters, digits and underscores")
        if len(set(places)) != len(places):
            raise ValueError(f"{text!r} uses a place twice")
        if not _PATH.fullmatch(_PLACE.sub("x", path)):
            raise ValueError(f"{text!r} needs a path that begins with / and holds no spaces or other raw characters")
        self.method = method
        self.path = path
        self.places: tuple[str, ...] = tuple(places)

    def __repr__(self) -> str:
        return f"<Template {self.method} {self.path}>"

    def fill(self, args: Mapping[str, Any], *, query_also: frozenset[str] = frozenset()) -> Filled:
        """Return the request for these arguments; raises InvalidArguments. Never switches.

        Arguments that no place takes go to the query (GET, HEAD, DELETE, OPTIONS) or to the body (POST, PUT, PATCH);
        those named in `query_also` go to the query of any method.
        """
        path = _PLACE.sub(lambda place: _path_text(place[1], args), self.path)
        for segment in path.split("/"):
            # Peers and libraries resolve a segment of dots as a way up, so a value could leave the template's path.
            if unquote(segment) in {".", ".."}:
                raise InvalidArguments(
                    f"argument {self._named_in(segment, args)}: '.' and '..' cannot be a whole segment of the path"
                )
        rest = {name: value for name, value in args.items() if name not in self.places}
        if self.method in QUERY_METHODS:
            return Filled(self.method, path, _query(rest), {})
        query = _query({name: rest.pop(name) for name in tuple(rest) if name in query_also})
        return Filled(self.method, path, query, rest)

    def _named_in(self, segment: str, args: Mapping[str, Any]) -> str:
        return ", ".join(name for name in self.places if str(args.get(name)) and str(args[name]) in unquote(segment))


def encode_json(value: object) -> bytes:
    """Return `value` as JSON; raises InvalidArguments when JSON has no word for a part of it. Never switches."""
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidArguments(f"the arguments cannot be written as json: {type(error).__name__}") from error


def _path_text(name: str, args: Mapping[str, Any]) -> str:
    if name not in args:
        raise InvalidArguments(f"argument {name}: missing, it fills a place in the path")
    text = scalar(name, args[name])
    if not text:
        raise InvalidArguments(f"argument {name}: empty, it fills a place in the path")
    return quote(text, safe="", errors="strict")


def _query(args: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[str, str]] = []
    for name, value in args.items():
        if isinstance(value, list | tuple):
            pairs += [(name, scalar(name, item)) for item in value]
        elif value is not None:
            pairs.append((name, scalar(name, value)))
    return tuple(pairs)


def scalar(name: str, value: object) -> str:
    """Return an argument as the text that a url or a form carries; raises InvalidArguments. Never switches."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidArguments(f"argument {name}: holds half a character, which has no place in a url") from None
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    raise InvalidArguments(
        f"argument {name}: {type(value).__name__} has no place in a url, expected text, number, true, false or a date"
    )
