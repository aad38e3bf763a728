"""What an error answer says of itself in the words of RFC 9457 (application/problem+json), bounded and redacted."""

from __future__ import annotations

import codecs
import re
from typing import Any

import msgspec

from config.secret import redact

CONTENT_TYPE = "application/problem+json"
MAX_BODY_BYTES = 65536
MAX_TEXT_CHARS = 500
MAX_EXTENSIONS = 16
MAX_EXTENSION_BYTES = 512
MAX_DEPTH = 8

_TEXTS = ("type", "title", "detail", "instance")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


def problem(body: bytes, content_type: str | None) -> dict[str, Any] | None:
    """Return the members of a problem document; None when the answer is none. Never switches.

    A member of the wrong type counts as absent (3.1), `type` is about:blank when it says nothing, extensions keep their
    names. What is too large or too deep is left out.
    """
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind != CONTENT_TYPE or len(body) > MAX_BODY_BYTES:
        return None
    try:
        said = msgspec.json.decode(body.removeprefix(codecs.BOM_UTF8))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    found: dict[str, Any] = {"type": "about:blank"}
    for name in _TEXTS:
        if isinstance(value := said.get(name), str) and value.strip():
            found[name] = redact(value)[:MAX_TEXT_CHARS]
    status = said.get("status")
    if isinstance(status, int) and not isinstance(status, bool) and 100 <= status <= 599:
        found["status"] = status
    return found | _extensions(said)


def _extensions(said: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in said.items():
        if name in {*_TEXTS, "status"} or len(found) >= MAX_EXTENSIONS:
            continue
        if _NAME.fullmatch(name) is None or redact(name) != name:
            continue
        try:
            clean = redacted(value)
            if len(msgspec.json.encode(clean)) <= MAX_EXTENSION_BYTES:
                found[name] = clean
        except (ValueError, RecursionError):
            continue
    return found


def redacted(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Return a decoded JSON value with the secrets in its texts masked; raises ValueError when it is too deep.

    Decoded texts are looked at and not the body, where a secret may be written with escapes. Never switches.
    """
    if isinstance(value, str):
        return redact(value)
    if not isinstance(value, dict | list):
        return value
    if depth <= 0:
        raise ValueError("too deep")
    if isinstance(value, list):
        return [redacted(each, depth - 1) for each in value]
    return {redact(name): redacted(each, depth - 1) for name, each in value.items()}
