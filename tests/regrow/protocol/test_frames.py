from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from regrow.protocol import frames as wire
from regrow.protocol.errors import BadRequest, TooLarge
from regrow.protocol.frames import Answer, Rejected, Request, RequestHeader, decode_answer, decode_request, encode

LIMIT = 1 << 20

IDS = st.binary(min_size=1, max_size=wire.MAX_ID_BYTES)
NAMES = st.text(max_size=20)
HEADERS = st.builds(
    RequestHeader,
    to=NAMES,
    method=NAMES,
    codec=st.sampled_from(["json", "msgpack", "raw"]),
    deadline_ms=st.none() | st.floats(min_value=0.001, max_value=1e9),
    idem=st.none() | st.text(min_size=1, max_size=20),
    ack=st.booleans(),
    stream=st.booleans(),
    credit=st.none() | st.integers(0, wire.MAX_CREDIT),
    topics=st.lists(NAMES, max_size=3),
    since=st.none() | st.integers(0, 2**53),
)
REQUESTS = st.sampled_from(sorted(wire.REQUEST_OPS))
ANSWERS = st.sampled_from(sorted(wire.ANSWER_OPS))
ENVELOPES = st.sampled_from([(), (b"",), (b"x", b"")])
DEEP = [b"[" * 5000, b'{"a":' * 3000]
# near misses reach deeper into the decoder than pure noise does
PIECES = (
    st.binary(max_size=40)
    | st.sampled_from([b"", b"RG1", b"RG2", b"ASK", b"REPLY", b"1", b"{}", b"null", b'{"to":1}', b'{"to":"a"}'])
    | st.sampled_from(
        [b"\xff", b"[" * 5000, b'{"a":' * 3000, b'{"deadline_ms":1e999}', b'{"codec":"yaml"}', b"x" * 300]
    )
)


def rejected(frames: list[bytes]) -> Rejected:
    found = decode_request(frames, LIMIT)
    assert isinstance(found, Rejected), found
    return found


@given(st.lists(PIECES, max_size=9))
@example([b"RG1", b"ASK", b"1", b'{"x":' + b"[" * 8000])
@example([b"RG1", b"ASK", b"1", b'{"n":' + b"9" * 5000 + b"}"])
def test_any_frames_decode_to_a_message_or_a_rejection(frames: list[bytes]) -> None:
    for found in (decode_request(frames, LIMIT), decode_answer(frames)):
        assert isinstance(found, Request | Answer | Rejected)
        if isinstance(found, Rejected):
            assert isinstance(found.error, BadRequest | TooLarge)
            assert msgspec.json.encode(found.error.to_wire())


@given(
    st.sampled_from(sorted(wire.REQUEST_OPS)),
    IDS,
    HEADERS,
    st.binary(max_size=50),
    st.sampled_from([(), (b"",), (b"x", b"")]),
)
def test_a_request_comes_back_as_it_was_encoded(
    op: bytes, id: bytes, header: RequestHeader, body: bytes, envelope: tuple[bytes, ...]
) -> None:
    found = decode_request(encode(wire.REQUEST_OPS[op], id, header, body, envelope), LIMIT)
    assert found == Request(wire.REQUEST_OPS[op], id, header, body or None, envelope)


@given(
    st.sampled_from(sorted(wire.ANSWER_OPS)), IDS | st.just(b""), st.dictionaries(NAMES, NAMES), st.binary(max_size=50)
)
def test_an_answer_comes_back_as_it_was_encoded(op: bytes, id: bytes, header: dict[str, str], body: bytes) -> None:
    found = decode_answer(encode(wire.ANSWER_OPS[op], id, header, body))
    assert found == Answer(wire.ANSWER_OPS[op], id, header, body or None)


def test_the_header_may_be_empty_and_the_body_absent() -> None:
    assert decode_request([b"RG1", b"PING", b"7", b""], LIMIT) == Request("PING", b"7", RequestHeader(), None)


def test_unknown_header_keys_are_ignored() -> None:
    found = decode_request([b"RG1", b"PING", b"7", b'{"new_in_rg1_later":[1,2]}'], LIMIT)
    assert isinstance(found, Request)


@pytest.mark.parametrize(
    ("frames", "word"),
    [
        ([], "0 frames"),
        ([b"RG1"], "1 frames"),
        ([b"RG1", b"ASK", b"id-7", b"{}", b"", b"more"], "6 frames"),
        ([b"RG9", b"ASK", b"id-7", b"{}"], "expected the protocol version 'RG1'"),
        ([b"RG9", b"ASK", b"id-7", b"", b"{}"], "expected the protocol version 'RG1'"),
        ([b"RG1", b"SHOUT", b"id-7", b"{}"], "unknown op 'SHOUT'"),
        ([b"RG1", b"REPLY", b"id-7", b"{}"], "a daemon sends it"),
        ([b"RG1", b"ASK", b"", b"{}"], "id has 0 bytes"),
        ([b"RG1", b"ASK", b"i" * 65, b"{}"], "id has 65 bytes"),
        ([b"RG1", b"ASK", b"id-7", b"{"], "no valid JSON object"),
        ([b"RG1", b"ASK", b"id-7", b"[]"], "no valid JSON object"),
        ([b"RG1", b"ASK", b"id-7", b'{"to":"\xff"}'], "not UTF-8"),
        ([b"RG1", b"ASK", b"id-7", b'{"to":7}'], "$.to"),
        ([b"RG1", b"ASK", b"id-7", b'{"deadline_ms":0}'], "$.deadline_ms"),
        ([b"RG1", b"ASK", b"id-7", b'{"deadline_ms":1e999}'], "out of range"),
        ([b"RG1", b"ASK", b"id-7", b'{"deadline_ms":NaN}'], "no valid JSON object"),
        ([b"RG1", b"ASK", b"id-7", b'{"codec":"pickle"}'], "$.codec"),
        ([b"RG1", b"ASK", b"id-7", b'{"idem":""}'], "$.idem"),
        ([b"RG1", b"ASK", b"id-7", b" " * 20_000], "header has 20000 bytes"),
        ([b"RG1", b"ASK", b"id-7", b'{"x":' + b"[" * 9000], "nested too deeply"),
    ],
)
def test_what_is_wrong_with_a_message_is_named(frames: list[bytes], word: str) -> None:
    error = rejected(frames).error
    assert word in str(error)
    assert error.code == "bad_request"
    assert error.started == "no"


@pytest.mark.parametrize(
    "frames",
    [
        [b"RG1", b"SHOUT", b"id-7", b"{}"],
        [b"RG1", b"ASK", b"id-7", b"nonsense"],
        [b"RG2", b"ASK", b"id-7", b"{}"],
        [b"RG1", b"ASK", b"id-7"],
        [b"", b"RG1", b"ASK", b"id-7", b"{}", b"", b"", b""],
    ],
)
def test_a_rejection_carries_the_id_when_it_could_be_read(frames: list[bytes]) -> None:
    assert rejected(frames).id == b"id-7"


@pytest.mark.parametrize("envelope", [(b"",), (b"\x00abc", b""), (b"a", b"b", b"c", b"")])
def test_the_envelope_of_a_req_socket_or_a_device_is_kept_for_the_answer(envelope: tuple[bytes, ...]) -> None:
    found = decode_request([*envelope, b"RG1", b"PING", b"1", b"{}"], LIMIT)
    assert isinstance(found, Request)
    assert found.envelope == envelope


def test_garbage_of_a_req_socket_keeps_its_envelope() -> None:
    assert rejected([b"", b"hello"]).envelope == (b"",)


def test_a_message_above_the_limit_is_too_large_and_says_by_how_much() -> None:
    found = decode_request([b"RG1", b"ASK", b"id-7", b"{}", b"x" * 2000], 1024)
    assert isinstance(found, Rejected)
    assert isinstance(found.error, TooLarge)
    assert found.id == b"id-7"
    assert found.error.details == {"size_bytes": 2012, "max_message_bytes": 1024}


def test_a_message_at_the_limit_passes() -> None:
    frames = [b"RG1", b"ASK", b"7", b"{}", b"x" * 100]
    assert isinstance(decode_request(frames, sum(map(len, frames))), Request)


def test_an_answer_with_a_deeply_nested_header_is_rejected() -> None:
    found = decode_answer([b"RG1", b"REPLY", b"7", b'{"a":' + b"[" * 200 + b"]" * 200 + b"}"])
    assert isinstance(found, Rejected)
    assert "nested too deeply" in str(found.error)


def test_an_error_text_never_quotes_the_body() -> None:
    found = decode_request([b"RG1", b"ASK", b"7", b'{"to":"geheim","deadline_ms":"geheim"}', b"geheim"], LIMIT)
    assert isinstance(found, Rejected)
    assert "geheim" not in str(found.error)
