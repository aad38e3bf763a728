"""A storage in a bucket of S3 or of anything that speaks like it: one object for each partition of an asset."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from msgspec import Meta

from actors.http import fields
from actors.http.body import excerpt
from actors.http.client import Request, Response
from actors.http.operation import Operation, Verdict
from actors.http.payload import content
from actors.http.template import Filled, Template, encode_json
from config.schema import Problem, Table
from regrow.protocol.errors import DecodeError, InvalidArguments, UpstreamError
from runtime.exports import Exported

MAX_OBJECT_KEY_BYTES = 1024
_TYPES = {"json": "application/json", "text": "text/plain; charset=utf-8", "bytes": "application/octet-stream"}


class S3Storage(Table, frozen=True, kw_only=True):
    """Where the objects are: prefix, then the asset, a slash, the partition and the suffix."""

    bucket: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    """The bucket."""
    prefix: Annotated[str, Meta(max_length=500)] = ""
    """What every key begins with, such as "assets/"."""
    suffix: Annotated[str, Meta(max_length=50)] = ""
    """What every key ends with, such as ".json"."""
    format: Literal["json", "text", "bytes"] = "json"
    """How the data is kept in an object."""

    def __post_init__(self) -> None:
        if self.prefix.startswith("/"):
            raise Problem("begins with a slash, which keys do not", key="prefix")


def operations(table: S3Storage, exports: Mapping[str, Exported], timeout_s: float) -> dict[str, Operation]:
    """Return the operations that the contract's calls are. Never switches."""

    def made(name: str, method: str, accepts: frozenset[int], **more: Any) -> Operation:
        def fill(args: dict[str, Any]) -> Filled:
            path = f"/{table.bucket}/{_path(table, args['asset'], args['partition'])}"
            return Filled(method, path, (), {"data": args["data"]} if "data" in args else {})

        more = {"fill_with": fill, "template": Template(f"{method} /{table.bucket}"), "judge": _judge, **more}
        return Operation(
            name=name,
            exported=exports[name],
            query_also=frozenset(),
            fresh_s=0.0,
            stale_s=0.0,
            timeout_s=timeout_s,
            format=table.format,
            fallback=None,
            repeatable=True,
            keyed=False,
            reads=method in {"GET", "HEAD"},
            accepts=accepts,
            **more,
        )

    def encode(data: Any) -> tuple[bytes, str]:
        found = encode_json(data) if table.format == "json" else content("data", data)
        return found, _TYPES[table.format]

    def listing(args: dict[str, Any]) -> Filled:
        query = (("list-type", "2"), ("prefix", f"{table.prefix}{args['asset']}/"))
        return Filled("GET", f"/{table.bucket}", query, {})

    def partitions(body: bytes, doing: str) -> list[str]:
        return _partitions(table, body, doing)

    ok = frozenset({200})
    return {
        "load": made("load", "GET", ok, missing="not_found"),
        "store": made("store", "PUT", ok, whole_body="data", encode=encode, returns="nothing"),
        "exists": made("exists", "HEAD", ok, missing="false", returns="true"),
        "delete": made("delete", "DELETE", frozenset({200, 204}), missing="nothing", returns="nothing"),
        "list_partitions": made("list_partitions", "GET", ok, fill_with=listing, read=partitions, more=_more),
    }


def _path(table: S3Storage, asset: str, partition: str) -> str:
    key = f"{table.prefix}{asset}/{partition}{table.suffix}"
    if not asset:
        raise InvalidArguments("argument asset: empty, it begins the key of the object")
    if any(segment in {".", ".."} for segment in key.split("/")) or "//" in key or not key.isprintable():
        # What a library or a proxy on the way would read as another path.
        raise InvalidArguments("arguments asset, partition: no '.', '..' or empty segment, no control characters")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidArguments("arguments asset, partition: hold half a character, which no key has") from None
    if size > MAX_OBJECT_KEY_BYTES:
        raise InvalidArguments(f"arguments asset, partition: a key of {size} bytes, at most {MAX_OBJECT_KEY_BYTES}")
    return quote(key, safe="/")


def _judge(response: Response, limits: fields.Limits, doing: str) -> Verdict | None:
    # Without this a wrong bucket would look like a storage that is empty.
    if response.status == 404 and b"<Code>NoSuchBucket</Code>" in response.body:
        body = excerpt(response.body, response.headers.get("content-type"))
        raise UpstreamError(f"{doing}: there is no such bucket", status=404, body=body, retryable=False)
    return None


def _listing(body: bytes, doing: str) -> ET.Element:
    # No listing has either, and both make a small text large.
    if b"<!DOCTYPE" not in body and b"<!ENTITY" not in body:
        try:
            return ET.fromstring(body)
        except ET.ParseError:
            pass
    raise DecodeError(f"{doing}: the listing is not valid xml ({len(body)} bytes)")


def _text(element: ET.Element, name: str) -> str:
    for child in element:
        if child.tag.rpartition("}")[2] == name:
            return child.text or ""
    return ""


def _partitions(table: S3Storage, body: bytes, doing: str) -> list[str]:
    listing = _listing(body, doing)
    prefix = _text(listing, "Prefix")
    keys = [_text(each, "Key") for each in listing if each.tag.rpartition("}")[2] == "Contents"]
    return [
        key[len(prefix) : len(key) - len(table.suffix)]
        for key in keys
        if key.startswith(prefix) and key.endswith(table.suffix)
    ]


def _more(body: bytes, request: Request) -> Request | None:
    listing = _listing(body, "list_partitions")
    token = _text(listing, "NextContinuationToken")
    if _text(listing, "IsTruncated") != "true" or not token:
        return None
    parts = urlsplit(request.url)
    pairs = [pair for pair in parse_qsl(parts.query) if pair[0] != "continuation-token"]
    query = urlencode([*pairs, ("continuation-token", token)], quote_via=quote)
    return replace(request, url=urlunsplit(parts._replace(query=query)))
