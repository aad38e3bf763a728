from __future__ import annotations

import pytest

from actors.http.body import decode, excerpt
from config.secret import Secret
from regrow.protocol.errors import DecodeError


def test_json_types_become_json_values() -> None:
    assert decode(b'{"a":[1,2.5,null]}', "application/json; charset=utf-8", 200, doing="x") == {"a": [1, 2.5, None]}
    assert decode(b'{"a":1}', "application/problem+json", 200, doing="x") == {"a": 1}


def test_text_types_become_text_in_their_charset() -> None:
    assert decode("ä".encode("latin-1"), "text/plain; charset=ISO-8859-1", 200, doing="x") == "ä"
    assert decode("<p>ä".encode(), "text/html", 200, doing="x") == "<p>ä"


def test_other_types_stay_bytes() -> None:
    assert decode(b"\x89PNG", "image/png", 200, doing="x") == b"\x89PNG"


@pytest.mark.parametrize(
    ("body", "value"), [(b'{"a":1}', {"a": 1}), (b"hello", "hello"), (b"\xff\xfe\x00", b"\xff\xfe\x00")]
)
def test_a_body_without_a_type_is_what_it_looks_like(body: bytes, value: object) -> None:
    assert decode(body, None, 200, doing="x") == value


@pytest.mark.parametrize(("body", "status"), [(b"", 200), (b"", 201), (b"ignored", 204), (b"ignored", 304)])
def test_nothing_becomes_none(body: bytes, status: int) -> None:
    assert decode(body, "application/json", status, doing="x") is None


def test_the_configuration_overrides_what_the_peer_says() -> None:
    assert decode(b"[1]", "text/plain", 200, doing="x", expected="json") == [1]
    assert decode(b"[1]", "application/json", 200, doing="x", expected="text") == "[1]"
    assert decode(b"[1]", "application/json", 200, doing="x", expected="bytes") == b"[1]"


@pytest.mark.parametrize("body", [b"<html>", b'{"a":', b"\xff\xfe", b"NaN", b"[" * 100_000])
def test_a_body_that_is_not_what_it_says_is_a_typed_error_with_its_first_bytes(body: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(body, "application/json", 200, doing="api.get")
    assert str(caught.value).startswith("api.get: the answer is not valid json (status 200, ")
    assert 0 < len(caught.value.details["first_bytes"]) <= 200


def test_an_unknown_charset_is_a_typed_error() -> None:
    with pytest.raises(DecodeError, match="klingon"):
        decode(b"x", "text/plain; charset=klingon", 200, doing="x")


def test_no_secret_stands_in_the_first_bytes() -> None:
    secret = Secret("tok-very-secret-123")
    body = b"x" * 190 + secret.reveal().encode() + b" is not json"
    with pytest.raises(DecodeError) as caught:
        decode(body, "application/json", 200, doing="x")
    assert "tok-very" not in str(caught.value.details)


def test_a_small_json_error_is_excerpted_as_its_value_without_secrets() -> None:
    Secret("tok-other-secret-456")
    body = b'{"message":"bad token tok-other-secret-456"}'
    assert excerpt(body, "application/json") == {"message": "bad token ***"}


def test_a_large_error_is_excerpted_as_bounded_text() -> None:
    piece = excerpt(b"[" + b"1," * 1_000_000, "application/json")
    assert isinstance(piece, str)
    assert len(piece) == 4096
