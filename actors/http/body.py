"""How a response's bytes become a value: by content type, strictly, with no secret in the text of a failure."""

from __future__ import annotations

import codecs
from typing import Literal

import msgspec

from actors.http.problem import redacted
from config.secret import redact
from regrow.protocol.errors import DecodeError

Format = Literal["auto", "json", "text", "bytes"]

FIRST_BYTES = 200
EXCERPT_BYTES = 4096
# No error says more than this deep what went wrong.
MAX_DEPTH = 64
_EMPTY_STATUSES = frozenset({204, 205, 304})


def decode(body: bytes, content_type: str | None, status: int, *, doing: str, expected: Format = "auto") -> object:
    """Return the value of a body; None for an empty one. Raises DecodeError with its first bytes. Never switches.

    JSON types give JSON values, text types a str, everything else bytes; `expected` overrides the peer's word.
    """
    if status in _EMPTY_STATUSES or not body:
        return None
    kind, charset = _split(content_type)
    if expected == "bytes":
        return body
    if expected == "json" or (expected == "auto" and _is_json(kind)):
        return _json(body, doing, content_type, status)
    if expected == "text" or kind.startswith("text/") or kind in {"application/xml", "application/javascript"}:
        return _text(body, charset, doing, content_type, status)
    if not kind:
        return _guess(body)
    return body


def excerpt(body: bytes, content_type: str | None) -> object:
    """Return a bounded, redacted piece of an error's body: small JSON as its value, else text. Never switches."""
    kind, _ = _split(content_type)
    if len(body) <= EXCERPT_BYTES and _is_json(kind):
        try:
            return redacted(msgspec.json.decode(body.removeprefix(codecs.BOM_UTF8)), MAX_DEPTH)
        except (msgspec.DecodeError, ValueError, RecursionError):
            pass
    return redact(body[: EXCERPT_BYTES * 2].decode("utf-8", "replace"))[:EXCERPT_BYTES]


def _split(content_type: str | None) -> tuple[str, str | None]:
    kind, *parameters = (content_type or "").split(";")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return kind.strip().lower(), value.strip().strip('"')
    return kind.strip().lower(), None


def _is_json(kind: str) -> bool:
    return kind in {"application/json", "text/json"} or kind.endswith("+json")


def _json(body: bytes, doing: str, content_type: str | None, status: int) -> object:
    try:
        value: object = msgspec.json.decode(body.removeprefix(codecs.BOM_UTF8))
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise _undecodable(body, "valid json", doing, content_type, status) from None
    return value


def _text(body: bytes, charset: str | None, doing: str, content_type: str | None, status: int) -> str:
    try:
        return body.decode(charset or "utf-8")
    except (LookupError, UnicodeError, ValueError):
        raise _undecodable(body, f"text in {charset or 'utf-8'}", doing, content_type, status) from None


def _guess(body: bytes) -> object:
    try:
        value: object = msgspec.json.decode(body.removeprefix(codecs.BOM_UTF8))
    except (msgspec.DecodeError, ValueError, RecursionError):
        pass
    else:
        return value
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body


def _undecodable(body: bytes, what: str, doing: str, content_type: str | None, status: int) -> DecodeError:
    # Cut after masking: a secret that is cut in two is no longer found.
    first = redact(body[: FIRST_BYTES * 4].decode("utf-8", "backslashreplace"))[:FIRST_BYTES]
    return DecodeError(
        f"{doing}: the answer is not {redact(what)} (status {status}, {len(body)} bytes)",
        details={"status": status, "content_type": redact(content_type or "")[:200], "first_bytes": first},
    )
