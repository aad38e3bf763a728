from __future__ import annotations

from email.parser import BytesParser
from typing import Any

import pytest

from actors.http.links import links
from actors.http.payload import encode
from actors.http.selection import Selection
from regrow.protocol.errors import DecodeError, InvalidArguments


def test_arguments_are_a_json_object() -> None:
    assert encode("json", {"title": "x", "labels": ["a"]}, None) == (
        b'{"title":"x","labels":["a"]}',
        "application/json",
    )


def test_without_arguments_there_is_no_body() -> None:
    assert encode("json", {}, None)[0] is None
    assert encode("form", {}, None)[0] is None


def test_a_value_that_json_cannot_say_is_refused() -> None:
    with pytest.raises(InvalidArguments, match="json"):
        encode("json", {"a": object()}, None)


def test_a_form_repeats_the_names_of_lists() -> None:
    body, kind = encode("form", {"amount": 5, "tag": ["a b", "c&d"], "none": None}, None)
    assert (body, kind) == (b"amount=5&tag=a+b&tag=c%26d", "application/x-www-form-urlencoded")


def parts_of(args: dict[str, Any]) -> dict[str, tuple[str | None, str, bytes]]:
    body, kind = encode("multipart", args, None)
    assert body is not None
    message = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    found = {}
    for part in message.walk():
        name = part.get_param("name", header="content-disposition")
        if isinstance(name, str):
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            found[name] = (part.get_filename(), part.get_content_type(), payload)
    return found


def test_multipart_sends_texts_bytes_and_files() -> None:
    found = parts_of(
        {
            "title": "x",
            "raw": b"\x00\xff",
            "report": {"filename": "r.csv", "content_type": "text/csv", "content": "a,b"},
            "image": {"filename": "i.png", "base64": "iVBO"},
        }
    )
    assert found == {
        "title": (None, "text/plain", b"x"),
        "raw": ("raw", "application/octet-stream", b"\x00\xff"),
        "report": ("r.csv", "text/csv", b"a,b"),
        "image": ("i.png", "application/octet-stream", b"\x89PN"),
    }


@pytest.mark.parametrize("bad", [{"filename": "a\r\nb", "content": "x"}, {"filename": "a", "content": 5}])
def test_a_file_that_is_none_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidArguments, match="argument f"):
        encode("multipart", {"f": bad}, None)


@pytest.mark.parametrize("value", ["häh", "häh".encode(), {"base64": "aMOkaA=="}])
def test_a_raw_body_is_text_bytes_or_base64(value: object) -> None:
    assert encode("raw", {"body": value}, "text/x")[0] == "häh".encode()


@pytest.mark.parametrize("args", [{}, {"body": "x", "other": 1}, {"body": 5}, {"body": {"base64": "?"}}])
def test_a_raw_body_is_one_argument_with_bytes(args: dict[str, Any]) -> None:
    with pytest.raises(InvalidArguments):
        encode("raw", args, None)


def test_a_selection_goes_down_objects_and_lists() -> None:
    assert Selection("data.items.1.name").of({"data": {"items": [{}, {"name": "x"}]}}, "api.get") == "x"


@pytest.mark.parametrize("value", [{"data": {"items": []}}, {"data": None}, [], {"data": {"items": [1, 2]}}])
def test_what_a_selection_does_not_find_is_named(value: object) -> None:
    with pytest.raises(DecodeError, match="api.get: the answer has no 'data") as caught:
        Selection("data.items.1.name").of(value, "api.get")
    assert caught.value.details["select"] == "data.items.1.name"


BASE = "https://api.example/repos/1/issues?page=1"


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ('<https://api.example/x?page=2>; rel="next"', {"next": "https://api.example/x?page=2"}),
        ('<?page=2>; rel=next, <?page=9>; rel="last"', {"next": BASE[:-1] + "2", "last": BASE[:-1] + "9"}),
        ('</a,b>; title="x, y; rel=z"; rel="prev next"', dict.fromkeys(("prev", "next"), "https://api.example/a,b")),
        ('</a>; rel="next"; rel="last"', {"next": "https://api.example/a"}),
        ('</a>; REL="Next"', {"next": "https://api.example/a"}),
        ("</a>", {}),
        ("nonsense", {}),
        ('</a>; rel="next", nonsense', {"next": "https://api.example/a"}),
        (None, {}),
    ],
)
def test_links_are_found_by_their_relation(field: str | None, found: dict[str, str]) -> None:
    assert links(field, BASE) == found
