"""How the command line's arguments become the arguments of a method.

One JSON object, or `key=value` typed by its schema.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec


class BadArguments(ValueError):
    """The arguments on the command line do not make an object; the text says what to write."""


def parse(words: Sequence[str], properties: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the arguments object; `properties` are the method's from DESCRIBE, None when they are not known."""
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        try:
            body = msgspec.json.decode(words[0])
        except msgspec.DecodeError as error:
            raise BadArguments(f"the arguments are not JSON: {error}") from None
        if not isinstance(body, dict):
            raise BadArguments("the arguments must be a JSON object")
        return body
    made: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise BadArguments(f"{word!r} is neither a JSON object nor key=value")
        if key in made:
            raise BadArguments(f"{key} is given twice")
        made[key] = value_of(key, text, properties)
    return made


def value_of(key: str, text: str, properties: Mapping[str, Any] | None) -> Any:
    """Return one value, as the schema's type where it names one: text stays text, everything else is read as JSON."""
    schema = (properties or {}).get(key)
    kinds = _kinds(schema)
    if kinds and kinds <= {"string", "null"}:
        return None if text == "null" and "null" in kinds else text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        if kinds and "string" not in kinds:
            wanted = " or ".join(sorted(kinds))
            raise BadArguments(f"{key} takes {wanted}, {text!r} is none, write it as JSON") from None
        return text


def _kinds(schema: Any) -> set[str]:
    """The JSON types that a schema allows; empty when it allows any."""
    if not isinstance(schema, Mapping):
        return set()
    found = schema.get("type")
    kinds = {found} if isinstance(found, str) else set(found) if isinstance(found, list) else set()
    for branch in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        below = _kinds(branch)
        if not below:
            return set()
        kinds |= below
    if "enum" in schema and not kinds:
        kinds = {"string"} if all(isinstance(word, str) for word in schema["enum"]) else set()
    return kinds


def nearest(word: str, known: Sequence[str]) -> str | None:
    """Return the known word that is nearest to a mistyped one."""
    found = difflib.get_close_matches(word, known, n=1)
    return found[0] if found else None
