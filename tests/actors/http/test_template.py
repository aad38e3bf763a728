from __future__ import annotations

from datetime import date
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.http.template import Filled, Template
from regrow.protocol.errors import InvalidArguments


def test_arguments_fill_places_and_the_rest_goes_to_the_query_of_a_get() -> None:
    filled = Template("GET /users/{username}/repos").fill({"username": "ada", "page": 2, "all": True, "since": None})
    assert filled == Filled("GET", "/users/ada/repos", (("page", "2"), ("all", "true")), {})


def test_what_is_left_goes_to_the_body_of_a_post() -> None:
    filled = Template("POST /repos/{owner}/issues").fill({"owner": "ada", "title": "x", "labels": ["a"]})
    assert filled == Filled("POST", "/repos/ada/issues", (), {"title": "x", "labels": ["a"]})


def test_named_arguments_go_to_the_query_of_a_post_too() -> None:
    filled = Template("POST /things").fill({"dry": True, "a": 1}, query_also=frozenset({"dry"}))
    assert (filled.query, filled.rest) == ((("dry", "true"),), {"a": 1})


def test_lists_repeat_their_name_and_dates_are_iso() -> None:
    filled = Template("DELETE /data/{day}").fill({"day": date(2025, 1, 15), "id": [1, 2]})
    assert (filled.path, filled.query) == ("/data/2025-01-15", (("id", "1"), ("id", "2")))


@pytest.mark.parametrize(
    ("value", "path"),
    [("a/b", "/x/a%2Fb"), ("a b?c#d%", "/x/a%20b%3Fc%23d%25"), ("ä", "/x/%C3%A4"), ("..a", "/x/..a"), (7, "/x/7")],
)
def test_a_value_never_leaves_its_place_in_the_path(value: Any, path: str) -> None:
    assert Template("GET /x/{v}").fill({"v": value}).path == path


@pytest.mark.parametrize("value", [".", "..", "", None, ["a"], {"a": 1}, b"x", "\ud800"])
def test_a_value_that_no_segment_can_be_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArguments, match="argument v"):
        Template("GET /x/{v}").fill({"v": value})


def test_two_places_cannot_make_up_a_segment_of_dots_together() -> None:
    with pytest.raises(InvalidArguments, match="whole segment"):
        Template("GET /x/{a}{b}").fill({"a": ".", "b": "."})


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(InvalidArguments, match="argument username: missing"):
        Template("GET /users/{username}").fill({})


def test_a_value_without_a_place_in_a_url_is_refused() -> None:
    with pytest.raises(InvalidArguments, match="argument filter: dict"):
        Template("GET /x").fill({"filter": {"a": 1}})


@pytest.mark.parametrize(
    "text",
    [
        "FETCH /x", "GET x", "GET", "GET /x?y=1", "GET /x#y", "GET /{a b}", "GET /{a}/{a}", "GET /{}", "GET /{__x}",
        "GET /ä", "get /x", "GET /a b",
    ],
)  # fmt: skip
def test_a_request_line_that_makes_no_sense_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ValueError, match="'"):
        Template(text)


@given(value=st.text(min_size=1).filter(lambda text: text not in {".", ".."}))
def test_any_text_comes_back_out_of_its_segment(value: str) -> None:
    try:
        path = Template("GET /users/{v}/repos").fill({"v": value}).path
    except InvalidArguments:
        assert any("\ud800" <= character <= "\udfff" for character in value)
        return
    assert path.isascii()
    segments = path.split("/")
    assert len(segments) == 4
    assert unquote(segments[2]) == value
