from __future__ import annotations

import base64
import datetime as dt
import decimal
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.protocol.codec import CODECS, MAX_DEPTH, Codec, CodecError, decode_body, encode_body

FINITE = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(), below, max_size=4),
    max_leaves=12,
)


def nested(depth: int, leaf: Any = 1) -> Any:
    for level in range(depth):
        leaf = [leaf] if level % 2 else {"a": leaf}
    return leaf


@given(PLAIN)
def test_plain_values_survive_json_and_msgpack(value: Any) -> None:
    for codec in ("json", "msgpack"):
        assert decode_body(encode_body(value, codec), codec) == value


@given(st.binary(max_size=200), st.sampled_from(CODECS))
def test_any_bytes_decode_or_raise_a_codec_error(body: bytes, codec: Codec) -> None:
    try:
        decode_body(body, codec)
    except CodecError:
        pass


@given(st.binary())
def test_bytes_survive_raw(value: bytes) -> None:
    assert decode_body(encode_body(value, "raw"), "raw") == (value or None)


@pytest.mark.parametrize("codec", CODECS)
def test_an_absent_body_is_none(codec: Codec) -> None:
    assert decode_body(None, codec) is None
    assert decode_body(b"", codec) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("shape", [lambda v: v, lambda v: [1, [v]], lambda v: {"a": {"b": (None, v)}}])
def test_json_refuses_what_is_not_finite_instead_of_writing_null(value: float, shape: Any) -> None:
    with pytest.raises(CodecError, match="use codec msgpack"):
        encode_body(shape(value), "json")


def test_json_refuses_nan_beside_what_msgpack_cannot_say() -> None:
    with pytest.raises(CodecError, match="nan or infinity"):
        encode_body([2**70, math.nan], "json")


@pytest.mark.parametrize(
    "value",
    [None, [None], {"a": None, "b": 1.5}, [b"\xcb\x7f\xf0", None], [b"\xca\x7f\x80", None], [2**70, None], "null"],
)
def test_json_writes_true_nulls(value: Any) -> None:
    assert b"null" in encode_body(value, "json")


def test_nan_passes_in_msgpack() -> None:
    assert math.isnan(decode_body(encode_body([math.nan], "msgpack"), "msgpack")[0])


@pytest.mark.parametrize("body", [b"NaN", b"[Infinity]", b"-Infinity"])
def test_json_bodies_with_nan_are_refused(body: bytes) -> None:
    with pytest.raises(CodecError):
        decode_body(body, "json")


@pytest.mark.parametrize("codec", ["json", "msgpack"])
def test_nesting_is_bounded_on_the_level(codec: Codec) -> None:
    assert decode_body(encode_body(nested(MAX_DEPTH), codec), codec) == nested(MAX_DEPTH)
    with pytest.raises(CodecError, match="deeper than 64 levels"):
        decode_body(encode_body(nested(MAX_DEPTH + 1), codec), codec)


@pytest.mark.parametrize(("codec", "body"), [("json", b"[" * 100_000), ("msgpack", b"\x91" * 100_000 + b"\xc0")])
def test_abysmal_nesting_is_refused_without_overflowing_the_stack(codec: Codec, body: bytes) -> None:
    with pytest.raises(CodecError):
        decode_body(body, codec)


def test_brackets_in_texts_are_not_nesting() -> None:
    assert decode_body(msgspec.json.encode(["[" * 1000]), "json") == ["[" * 1000]


def test_many_siblings_are_not_nesting() -> None:
    assert len(decode_body(b"[" + b",".join([b"[]"] * 1000) + b"]", "json")) == 1000


def test_too_deep_a_value_is_refused_when_encoding() -> None:
    with pytest.raises(CodecError, match="nested deeper"):
        encode_body(nested(100_000), "json")


@pytest.mark.parametrize("codec", ["json", "msgpack"])
@pytest.mark.parametrize("value", [object(), lambda: 1, {"a": object()}, "\ud800", {1: {2: object}}])
def test_values_without_words_are_refused(codec: Codec, value: Any) -> None:
    with pytest.raises(CodecError):
        encode_body(value, codec)


@pytest.mark.parametrize("value", ["text", 1, [b"x"]])
def test_raw_carries_bytes_only(value: Any) -> None:
    with pytest.raises(CodecError, match="raw carries bytes only"):
        encode_body(value, "raw")


def test_json_says_bytes_dates_and_decimals_as_text() -> None:
    day = dt.date(2026, 11, 21)
    body = encode_body({"b": b"\x00\xff", "d": day, "n": decimal.Decimal("1.10")}, "json")
    assert decode_body(body, "json") == {"b": base64.b64encode(b"\x00\xff").decode(), "d": "2026-11-21", "n": "1.10"}


def test_an_error_never_quotes_the_body() -> None:
    with pytest.raises(CodecError) as caught:
        decode_body(b'{"password": geheim}', "json")
    assert "geheim" not in str(caught.value)


def test_a_msgpack_map_with_a_key_that_cannot_be_hashed_is_refused() -> None:
    with pytest.raises(CodecError):
        decode_body(b"\x81\x81\x01\x01\x01", "msgpack")


def test_deep_nesting_hidden_in_the_keys_of_a_map_is_refused() -> None:
    with pytest.raises(CodecError, match="array as a key"):
        decode_body(b"\x81" + b"\x91" * 100 + b"\x01\x01", "msgpack")
