from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import Report
from config.substitute import MAX_SUBSTITUTIONS, Substituted, Unset, substitute


def substituted(text: str, **environ: str) -> tuple[Any, Report]:
    report = Report("regrow.toml")
    tree: dict[str, Any] = {"key": text}
    substitute(tree, environ, report)
    return tree["key"], report


@pytest.mark.parametrize(
    ("text", "environ", "result"),
    [
        ("${A}", {"A": "x"}, "x"),
        ("<${A}|${B}>", {"A": "x", "B": "y"}, "<x|y>"),
        ("${A:-d}", {"A": "x"}, "x"),
        ("${A:-d}", {}, "d"),
        ("${A:-d}", {"A": ""}, "d"),
        ("${A:-}", {}, ""),
        ("${A:-a:-b $c}", {}, "a:-b $c"),
        ("$${A}", {}, "${A}"),
        ("$${A}${A}", {"A": "x"}, "${A}x"),
        ("$$", {}, "$$"),
        ("$A and $", {"A": "x"}, "$A and $"),
        ("${A}", {"A": "${B} $${C}"}, "${B} $${C}"),
    ],
)
def test_references_are_replaced(text: str, environ: dict[str, str], result: str) -> None:
    value, report = substituted(text, **environ)
    assert value == result
    assert not report.errors


@pytest.mark.parametrize(("environ", "state"), [({}, "not set"), ({"TOKEN": ""}, "empty")])
def test_a_missing_or_empty_variable_is_one_error(environ: dict[str, str], state: str) -> None:
    value, report = substituted("${TOKEN}", **environ)
    assert isinstance(value, Unset)
    [error] = report.errors
    assert (error.key, error.kind, error.found) == ("key", "variable", "${TOKEN}")
    assert error.problem == f"variable TOKEN is {state}"


def test_the_nearest_variable_of_the_environment_is_named() -> None:
    _, report = substituted("${GITHUB_TOKN}", GITHUB_TOKEN="value-not-shown")
    assert report.errors[0].nearest == "GITHUB_TOKEN"
    assert "value-not-shown" not in report.errors[0].render()


def test_every_missing_variable_of_one_text_is_reported() -> None:
    _, report = substituted("${A}${B}${C:-x}")
    assert [error.found for error in report.errors] == ["${A}", "${B}"]


@pytest.mark.parametrize("text", ["${", "${}", "${1A}", "${A-B}", "${A", "${A:-${B}}", "${A:x}", "${ A }", "${Ä}"])
def test_what_is_no_reference_is_an_error(text: str) -> None:
    value, report = substituted(text, A="x", B="y")
    assert isinstance(value, Unset)
    assert report.errors[0].kind == "substitution"
    assert "$${" in str(report.errors[0].expected)


def test_a_variable_that_is_no_utf8_is_an_error() -> None:
    value, report = substituted("${A}", A="\udcff")
    assert isinstance(value, Unset)
    assert report.errors[0].problem == "variable A is no UTF-8 text"


def test_keys_are_not_substituted_and_say_so() -> None:
    report = Report("regrow.toml")
    substitute({"a": {"${KEY}": "x"}}, {"KEY": "b"}, report)
    assert report.errors[0].key == 'a."${KEY}"'


def test_what_may_be_shown_instead_hides_values_and_defaults() -> None:
    report = Report("regrow.toml")
    templates = substitute({"a": ["x", {"b": "p ${A} ${B:-secret-default} $${C}"}]}, {"A": "v"}, report)
    assert templates == {("a", 1, "b"): "p ${A} ${B:-***} $${C}"}


def test_a_text_without_variables_stays_plain() -> None:
    value, _ = substituted("$${A}")
    assert type(value) is str


def test_one_file_cannot_fill_the_registry_of_secrets() -> None:
    report = Report("regrow.toml")
    substitute({"a": ["${A}"] * (MAX_SUBSTITUTIONS + 1)}, {"A": "x"}, report)
    assert (
        report.errors[0].problem
        == f"{MAX_SUBSTITUTIONS + 1} values with variables, at most {MAX_SUBSTITUTIONS} in one file"
    )


names = st.text(string.ascii_letters + "_", min_size=1, max_size=5)
plain = st.text(st.characters(exclude_characters="$", exclude_categories=["Cs"]), max_size=6)
values = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)


@given(st.lists(st.tuples(plain, names), max_size=5), plain, st.dictionaries(names, values))
def test_a_text_is_its_parts_with_the_variables_filled_in(
    parts: list[tuple[str, str]], end: str, environ: dict[str, str]
) -> None:
    text = "".join(f"{before}${{{name}}}" for before, name in parts) + end
    value, report = substituted(text, **environ)
    missing = [name for _, name in parts if name not in environ]
    assert len(report.errors) == len(missing)
    if not missing:
        assert value == "".join(before + environ[name] for before, name in parts) + end
        assert isinstance(value, Substituted) == bool(parts)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_text_can_be_written_literally(text: str) -> None:
    value, report = substituted(text.replace("${", "$${"))
    assert not report.errors
    assert value == text
