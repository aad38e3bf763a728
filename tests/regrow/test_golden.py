"""The golden frames are data, not made by our code: encoder, decoder and PROTOCOL.md must all agree with them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from regrow import conform
from regrow.protocol import codec, errors, frames
from regrow.protocol.frames import Answer, Rejected, Request, RequestHeader, decode_answer, decode_request, encode

FOLDER = Path(__file__).parent / "golden"
PROTOCOL = (Path(__file__).parents[2] / "PROTOCOL.md").read_text()
GOLDEN: list[dict[str, Any]] = [json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))]
LIMIT = 1 << 20
#: requests that another implementation may write in a way that ours does not
NOT_OURS = {"unknown-header-key", "four-frames"}


def of(direction: str) -> list[Any]:
    return [pytest.param(one, id=one["name"]) for one in GOLDEN if one["direction"] == direction]


def frames_of(golden: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(frame) for frame in golden["frames"]]


def envelope_of(golden: dict[str, Any]) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(frame) for frame in golden["meaning"]["envelope"])


def body_of(meaning: dict[str, Any]) -> bytes | None:
    return None if meaning["body"] is None else bytes.fromhex(meaning["body"])


@pytest.mark.parametrize("golden", of("request"))
def test_a_golden_request_is_read_as_it_is_meant(golden: dict[str, Any]) -> None:
    meaning = golden["meaning"]
    found = decode_request(frames_of(golden), LIMIT)
    assert isinstance(found, Request), found
    assert (found.op, found.id, found.body) == (meaning["op"], bytes.fromhex(meaning["id"]), body_of(meaning))
    assert msgspec.to_builtins(found.header) == {"codec": "json"} | meaning["header"] or (
        msgspec.to_builtins(found.header) == meaning["header"]
    )
    assert found.envelope == envelope_of(golden)
    if "value" in meaning:
        assert codec.decode_body(found.body, found.header.codec) == meaning["value"]


@pytest.mark.parametrize("golden", [p for p in of("request") if p.id not in NOT_OURS])
def test_a_golden_request_is_written_byte_for_byte(golden: dict[str, Any]) -> None:
    meaning = golden["meaning"]
    written = encode(
        meaning["op"], bytes.fromhex(meaning["id"]), meaning["header"], body_of(meaning), envelope_of(golden)
    )
    assert written == frames_of(golden)


@pytest.mark.parametrize("golden", [p for p in of("request") if p.id not in NOT_OURS])
def test_our_clients_header_says_the_same(golden: dict[str, Any]) -> None:
    meaning = golden["meaning"]
    header = msgspec.convert(meaning["header"], RequestHeader)
    written = encode(meaning["op"], bytes.fromhex(meaning["id"]), header, body_of(meaning), envelope_of(golden))
    assert json.loads(written[-2]) == meaning["header"]


@pytest.mark.parametrize("golden", of("answer"))
def test_a_golden_answer_is_read_and_written_as_it_is_meant(golden: dict[str, Any]) -> None:
    meaning = golden["meaning"]
    found = decode_answer(frames_of(golden))
    assert found == Answer(meaning["op"], bytes.fromhex(meaning["id"]), meaning["header"], body_of(meaning))
    assert encode(found.op, found.id, found.header, found.body, envelope_of(golden)) == frames_of(golden)
    if "value" in meaning:
        assert codec.decode_body(found.body, meaning["header"].get("codec", "json")) == meaning["value"]


@pytest.mark.parametrize("golden", [p for p in of("answer") if p.id.startswith("error")])
def test_a_golden_error_is_rebuilt_as_its_class_and_said_again_the_same(golden: dict[str, Any]) -> None:
    body = golden["meaning"]["value"]
    error = errors.error_from_wire(body)
    assert type(error) is errors.ERRORS[body["code"]]
    assert error.to_wire() == body


@pytest.mark.parametrize("golden", of("rejected"))
def test_golden_bytes_that_are_no_message_are_rejected_with_the_id_that_can_be_read(golden: dict[str, Any]) -> None:
    meaning = golden["meaning"]
    found = decode_request(frames_of(golden), meaning["max_message_bytes"])
    assert isinstance(found, Rejected)
    assert (found.error.code, found.id) == (meaning["code"], bytes.fromhex(meaning["id"]))
    assert found.envelope == envelope_of(golden)


def test_every_op_has_a_golden_message() -> None:
    ops = {one["meaning"]["op"] for one in GOLDEN if one["direction"] != "rejected"}
    assert ops == {*frames.REQUEST_OPS.values(), *frames.ANSWER_OPS.values()}


# -- the page


def hex_blocks() -> dict[str, list[str]]:
    found = re.findall(r"^```hex ([a-z0-9-]+)\n(.*?)^```", PROTOCOL, re.MULTILINE | re.DOTALL)
    return {name: [line.partition("#")[0].replace(" ", "") for line in text.splitlines()] for name, text in found}


def test_the_hex_in_the_page_is_that_of_the_golden_messages() -> None:
    by_name = {one["name"]: one["frames"] for one in GOLDEN}
    blocks = hex_blocks()
    assert len(blocks) >= 5
    for name, lines in blocks.items():
        assert lines == by_name[name], name


def test_the_page_names_every_op_header_key_error_code_and_limit() -> None:
    quoted = set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PROTOCOL, flags=re.DOTALL)))
    words = {word for text in quoted for word in re.findall(r"[A-Za-z0-9_.]+", text)}
    concrete = {code for code in errors.ERRORS if code not in ("refused", "invalid", "failed")}
    wanted = {*frames.REQUEST_OPS.values(), *frames.ANSWER_OPS.values(), *RequestHeader.__struct_fields__, *concrete}
    assert wanted - words == set()
    for limit in (
        frames.MAX_ID_BYTES, frames.MAX_HEADER_BYTES, frames.MAX_NAME_CHARS, frames.MAX_IDEM_CHARS,
        frames.MAX_TRACE_CHARS, frames.MAX_TOPICS, frames.MAX_CREDIT, codec.MAX_DEPTH,
        frames.MAX_ENVELOPE_FRAMES, frames.MAX_ENVELOPE_FRAME_BYTES,
    ):  # fmt: skip
        assert re.search(rf"\b{limit:_}\b|\b{limit}\b|\b{limit:,}\b", PROTOCOL), limit


def test_every_rule_that_a_check_names_is_on_the_page() -> None:
    rules = set(re.findall(r"^\*\*(R\d+)", PROTOCOL, re.MULTILINE))
    assert {rule for rule, _check in conform.CHECKS.values()} <= rules
