"""Structured fields against the HTTP working group's own tests: every case of theirs runs."""

from __future__ import annotations

import base64
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.http.structured import (
    Date,
    DisplayString,
    InnerList,
    Item,
    Member,
    Token,
    parse_dictionary,
    parse_item,
    parse_list,
)
from tests.support.vectors import needs_vectors, vectors

FILES = (
    "binary", "boolean", "date", "dictionary", "display-string", "examples", "item", "list", "listlist", "number",
    "param-dict", "param-list", "param-listlist", "string", "token",
)  # fmt: skip
CASES = [case for name in FILES for case in vectors(f"structured-fields/{name}.jsonl")]


def bare(value: Any) -> Any:
    match value:
        case Token():
            return {"__type": "token", "value": str(value)}
        case DisplayString():
            return {"__type": "displaystring", "value": str(value)}
        case Date():
            return {"__type": "date", "value": value.seconds}
        case bytes():
            return {"__type": "binary", "value": base64.b32encode(value).decode()}
    return value


def written(member: Member) -> list[Any]:
    """A member as the suite writes it."""
    params = [[key, bare(value)] for key, value in member.params.items()]
    if isinstance(member, InnerList):
        return [[written(item) for item in member.items], params]
    return [bare(member.value), params]


def parsed(case: dict[str, Any]) -> Any:
    field = ", ".join(case["raw"])
    if case["header_type"] == "item":
        return written(parse_item(field))
    if case["header_type"] == "list":
        return [written(member) for member in parse_list(field)]
    return [[key, written(member)] for key, member in parse_dictionary(field).items()]


@needs_vectors
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['id']}-{case['name']}")
def test_a_field_is_read_as_the_suite_says(case: dict[str, Any]) -> None:
    try:
        found = parsed(case)
    except ValueError:
        assert case.get("must_fail") or case.get("can_fail")
    else:
        assert not case.get("must_fail"), found
        assert found == case["expected"]


@needs_vectors
def test_the_coverage_is_as_stated() -> None:
    kinds = Counter("must_fail" if case.get("must_fail") else "read" for case in CASES)
    assert (len(CASES), kinds["must_fail"]) == (155, 66)
    # What may be refused (moments and lists beyond what everybody must take) is read here too.
    assert all(parsed(case) == case["expected"] for case in CASES if case.get("can_fail"))


@given(st.text(max_size=60) | st.text('"\\:?@%();=, \t-.0123456789abAB*', max_size=60))
def test_any_text_is_a_field_or_refused(text: str) -> None:
    for parse in (parse_item, parse_list, parse_dictionary):
        try:
            parse(text)
        except ValueError:
            pass


@given(st.integers(-(10**15) + 1, 10**15 - 1), st.text("abc", min_size=1, max_size=5), st.text(' !#[]~"\\', max_size=9))
def test_what_is_written_is_read_back(number: int, key: str, text: str) -> None:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    assert parse_list(f'{number};{key}="{quoted}"') == [Item(number, {key: text})]


@pytest.mark.parametrize(
    ("field", "members"),
    [
        ("", []),
        ("1, -2.5, ?1, tok/en, :aGk=:, @7", [1, -2.5, True, Token("tok/en"), b"hi", Date(7)]),
        ('"a \\"b\\" \\\\"', ['a "b" \\']),
        ('%"f%c3%bc"', ["fü"]),
        ("  a  ,\tb ", [Token("a"), Token("b")]),
    ],
)
def test_members_are_of_the_types_that_they_are_written_as(field: str, members: list[Any]) -> None:
    found = parse_list(field)
    assert [item.value for item in found if isinstance(item, Item)] == members


@pytest.mark.parametrize(
    "field",
    [
        "a,", "a b", ",a", "a;", "a;B=1", "a; =1", "(a", "(a(b))", '"a', '"\\x"', '"ü"', "?2", ":a:b", ":*:", "@1.5",
        '%"%C3"', '%"%c3"', "1.", "1.2345", "1" * 16, "1" * 13 + ".1", "--1", "\ta", "x" * 70_000,
    ],
)  # fmt: skip
def test_a_field_that_breaks_a_rule_is_worth_nothing(field: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which rule it was is nobody's business
        parse_list(field)


def test_of_a_repeated_key_the_last_value_counts() -> None:
    assert parse_dictionary("a=1, b, a=(2 3);x") == {
        "a": InnerList([Item(2), Item(3)], {"x": True}),
        "b": Item(True),
    }
