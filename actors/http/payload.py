"""How the arguments of an operation become a request body: JSON, a form, parts with files, or bytes as they are."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlencode

from urllib3.fields import RequestField
from urllib3.filepost import encode_multipart_formdata

from actors.http.template import encode_json, scalar
from regrow.protocol.errors import InvalidArguments

BodyKind = Literal["json", "form", "multipart", "raw"]

#: the argument that is the whole body of a raw request
RAW = "body"


def encode(kind: BodyKind, args: Mapping[str, Any], content_type: str | None) -> tuple[bytes | None, str]:
    """Return the body of these arguments and its content type; raises InvalidArguments. Never switches."""
    if kind == "raw":
        return _raw(args), content_type or "application/octet-stream"
    if not args:
        return None, ""
    if kind == "json":
        return encode_json(dict(args)), content_type or "application/json"
    if kind == "form":
        pairs = [(name, scalar(name, each)) for name, value in args.items() for each in _several(value)]
        return urlencode(pairs).encode(), content_type or "application/x-www-form-urlencoded"
    # Not part of any content: 128 bits at random.
    boundary = secrets.token_hex(16)
    parts = [_part(name, each) for name, value in args.items() for each in _several(value)]
    body, found_type = encode_multipart_formdata(parts, boundary)
    return body, found_type


def content(name: str, value: object) -> bytes:
    """Return the bytes of an argument: bytes, a text, or an object with base64; raises InvalidArguments.

    Never switches.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise InvalidArguments(f"argument {name}: holds half a character, which has no bytes") from None
    if isinstance(value, Mapping) and isinstance(value.get("base64"), str):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except (binascii.Error, ValueError):
            raise InvalidArguments(f"argument {name}: its base64 is not valid") from None
    raise InvalidArguments(
        f'argument {name}: {type(value).__name__} has no bytes, expected text, bytes or {{"base64": "..."}}'
    )


def _raw(args: Mapping[str, Any]) -> bytes:
    strangers = sorted(args.keys() - {RAW})
    if strangers:
        raise InvalidArguments(
            f"argument {strangers[0]}: the body is raw and holds {RAW!r} alone, others go to the path or the query"
        )
    if RAW not in args:
        raise InvalidArguments(f"argument {RAW}: missing, it is the whole request body")
    return content(RAW, args[RAW])


def _several(value: object) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    return [] if value is None else [value]


def _part(name: str, value: object) -> RequestField:
    if isinstance(value, Mapping):
        file_name = value.get("filename", name)
        kind = value.get("content_type", "application/octet-stream")
        if not all(isinstance(text, str) and text.isprintable() for text in (file_name, kind)):
            raise InvalidArguments(f"argument {name}: filename and content_type are texts without line breaks")
        data = content(name, value if "base64" in value else value.get("content"))
        part = RequestField(name, data, filename=file_name)
        part.make_multipart(content_type=kind)
        return part
    if isinstance(value, bytes | bytearray | memoryview):
        part = RequestField(name, bytes(value), filename=name)
        part.make_multipart(content_type="application/octet-stream")
        return part
    part = RequestField(name, scalar(name, value).encode())
    part.make_multipart()
    return part
