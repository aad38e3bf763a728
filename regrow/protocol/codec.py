"""Codecs of bodies: json (the default), msgpack and raw.

Decoding never raises anything but `CodecError` and gives plain values (None, bool, int, float, str, bytes, list, dict;
msgpack also its timestamps). Nesting is bounded by `MAX_DEPTH` in both directions of trust: a body that only just
decodes must not overflow the stack of whoever walks it later. NaN and infinity exist in msgpack only, since JSON has
no words for them and null would be a silent lie. JSON says bytes as base64 text and dates as ISO 8601.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final, Literal

import msgspec

Codec = Literal["json", "msgpack", "raw"]
CODECS: Final[tuple[Codec, ...]] = ("json", "msgpack", "raw")
MAX_DEPTH: Final = 64

_json: Final = msgspec.json.Decoder()
_msgpack: Final = msgspec.msgpack.Decoder()
_json_encoder: Final = msgspec.json.Encoder()
_msgpack_encoder: Final = msgspec.msgpack.Encoder()

_MSGPACK_CONTAINERS: Final = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
# a 32- or 64-bit float of msgpack whose exponent is all ones, which only nan and infinity have
_MSGPACK_NOT_FINITE: Final = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]|\xca[\x7f\xff][\x80-\xff]", re.DOTALL)


class CodecError(ValueError):
    """A body that its codec cannot read, or a value that it cannot write; the text never quotes either."""


def decode_body(body: bytes | None, codec: Codec) -> Any:
    """Return the value of a body, None for an absent one; raises `CodecError` for anything that is not one value."""
    if not body:
        return None
    if codec == "raw":
        return body
    try:
        if codec == "json":
            value = _json.decode(body)
        else:
            value = _msgpack.decode(body)
    except RecursionError:
        raise _too_deep() from None
    except UnicodeDecodeError:
        raise CodecError(f"the body is no valid {codec}: a text in it is not UTF-8") from None
    except (msgspec.MsgspecError, ValueError, OverflowError, TypeError) as error:
        # TypeError: a map of msgpack whose key cannot be hashed
        raise CodecError(f"the body is no valid {codec}: {str(error)[:200].rstrip('.')}") from None
    check_depth(value, body, codec)
    return value


def encode_body(value: Any, codec: Codec) -> bytes:
    """Return the body of a value; raises `CodecError` for what the codec cannot say."""
    if codec == "raw":
        if value is None:
            return b""
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        raise CodecError(f"codec raw carries bytes only, not {type(value).__name__}, use json or msgpack")
    try:
        body = (_json_encoder if codec == "json" else _msgpack_encoder).encode(value)
    except RecursionError:
        raise _too_deep() from None
    except UnicodeEncodeError:
        raise CodecError(f"a text cannot be written as {codec}: it has lone surrogates") from None
    except (msgspec.MsgspecError, ValueError, OverflowError, TypeError, NotImplementedError) as error:
        raise CodecError(f"the value cannot be written as {codec}: {str(error)[:200].rstrip('.')}") from None
    if codec == "json" and b"null" in body and _hides_not_finite(value):
        raise CodecError("the value has a nan or infinity, which json cannot say, use codec msgpack")
    return body


def check_depth(value: Any, encoded: bytes, codec: Codec = "json") -> None:
    """Raise `CodecError` when `value`, decoded from `encoded`, is nested deeper than `MAX_DEPTH`.

    Most messages have fewer brackets than that, which a byte count tells; the walk of the others is by level, costs
    less than their decoding and never recurses.
    """
    if codec == "json":
        containers = encoded.count(b"[") + encoded.count(b"{")
    else:
        containers = len(encoded) - len(encoded.translate(None, _MSGPACK_CONTAINERS))
    if containers <= MAX_DEPTH or value.__class__ not in (list, dict):
        return
    level: list[Any] = [value]
    children: Any
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for container in level:
            if container.__class__ is dict:
                if codec != "json" and any(key.__class__ is tuple for key in container):
                    raise CodecError("the body has a map with an array as a key")
                children = container.values()
            else:
                children = container
            below += [child for child in children if child.__class__ is list or child.__class__ is dict]
        if not below:
            return
        level = below
    raise _too_deep()


def _hides_not_finite(value: Any) -> bool:
    """Tell whether a null that msgspec wrote stands for a nan or infinity.

    The msgpack form is searched first because that runs in C; only a suspicion costs a walk.
    """
    try:
        packed = _msgpack_encoder.encode(value)
    except (msgspec.MsgspecError, ValueError, OverflowError, TypeError):
        packed = None  # a type or number that json can say and msgpack cannot: only the walk can tell
    if packed is not None and not _MSGPACK_NOT_FINITE.search(packed):
        return False
    # a bounded walk is not needed: the value was just encoded, so it is finite and without cycles
    waiting: list[Any] = [msgspec.to_builtins(value)]
    while waiting:
        item = waiting.pop()
        if item.__class__ is float:
            if not math.isfinite(item):
                return True
        elif isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list | tuple | set | frozenset):
            waiting += item
    return False


def _too_deep() -> CodecError:
    return CodecError(f"the body is nested deeper than {MAX_DEPTH} levels")
