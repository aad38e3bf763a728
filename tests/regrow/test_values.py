"""How words on the command line become arguments."""

from __future__ import annotations

from typing import Any

import pytest

from regrow.cli.values import BadArguments, nearest, parse

TEXT: dict[str, Any] = {"type": "string"}
WHOLE: dict[str, Any] = {"type": "integer"}


def test_one_json_object_is_taken_as_it_is() -> None:
    assert parse(['{"name": "Ada", "times": 2}'], None) == {"name": "Ada", "times": 2}


def test_without_words_there_are_no_arguments() -> None:
    assert parse([], {}) == {}


def test_what_the_schema_calls_text_stays_text() -> None:
    assert parse(["name=5", "other={}"], {"name": TEXT, "other": TEXT}) == {"name": "5", "other": "{}"}


def test_everything_else_is_read_as_json() -> None:
    found = parse(["times=2", "tags=[1, 2]", "on=true"], {"times": WHOLE, "tags": {"type": "array"}, "on": {}})
    assert found == {"times": 2, "tags": [1, 2], "on": True}


def test_a_key_that_the_schema_leaves_open_takes_json_and_otherwise_text() -> None:
    assert parse(["one=1", "other=two words"], {}) == {"one": 1, "other": "two words"}


def test_null_is_null_where_text_may_be_absent() -> None:
    schema = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert parse(["name=null"], {"name": schema}) == {"name": None}
    assert parse(["name=null"], {"name": TEXT}) == {"name": "null"}


def test_a_value_may_hold_equals_signs_and_be_empty() -> None:
    assert parse(["a=b=c", "d="], {"a": TEXT, "d": TEXT}) == {"a": "b=c", "d": ""}


@pytest.mark.parametrize(
    ("words", "schema", "says"),
    [
        (["name"], {}, "'name' is neither a JSON object nor key=value"),
        (["=x"], {}, "neither a JSON object nor key=value"),
        (["a=1", "a=2"], {}, "a is given twice"),
        (["{not json"], {}, "the arguments are not JSON"),
        (["times=x"], {"times": WHOLE}, "times takes integer, 'x' is none"),
        (["times=x"], {"times": {"anyOf": [WHOLE, {"type": "null"}]}}, "times takes integer or null"),
    ],
)
def test_what_cannot_be_arguments_is_said_with_the_way_out(words: list[str], schema: Any, says: str) -> None:
    with pytest.raises(BadArguments) as caught:
        parse(words, schema)
    assert says in str(caught.value)


def test_the_nearest_word_is_found_or_none() -> None:
    assert nearest("gret", ["greet", "count"]) == "greet"
    assert nearest("zzz", ["greet", "count"]) is None
