from __future__ import annotations

import pytest

from actors.workers.functions import AllowList, is_module, is_pattern
from regrow.protocol.errors import Forbidden, InvalidArguments


@pytest.mark.parametrize("pattern", ["statistics:mean", "a.b.c:f", "a.b:*", "m2:f_2"])
def test_a_pattern_is_a_module_and_a_name_or_a_star(pattern: str) -> None:
    assert is_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "m",
        "m:",
        ":f",
        "m:f.g",
        "m:_f",
        "_m:f",
        "a._b:f",
        "m:*x",
        "m:**",
        "*:f",
        "m f:g",
        "m:f ",
        "m:f\n",
        "m::f",
        "m:é",
    ],
)
def test_anything_else_is_no_pattern(pattern: str) -> None:
    assert not is_pattern(pattern)


def test_an_allow_list_with_a_wrong_pattern_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="no dot may stand after the colon"):
        AllowList(["os:path.join"])


def test_a_named_function_is_allowed() -> None:
    assert AllowList(["statistics:mean"]).check("statistics:mean") == "statistics:mean"


def test_a_star_allows_any_public_name_of_that_module_only() -> None:
    allowed = AllowList(["models:*"])
    assert allowed.check("models:predict") == "models:predict"
    with pytest.raises(Forbidden):
        allowed.check("models.deep:predict")


@pytest.mark.parametrize("function", ["os:system", "models:_secret", "models:*", "models:a.b", "models:__class__"])
def test_what_is_not_allowed_is_forbidden_and_told_what_is(function: str) -> None:
    with pytest.raises(Forbidden, match=r"allowed: models:\*, statistics:mean") as caught:
        AllowList(["models:*", "statistics:mean"]).check(function)
    assert caught.value.started == "no"


@pytest.mark.parametrize("function", ["models.predict", "", "a:b:c", 5, None, "m: f", "x:" + "y" * 300])
def test_what_is_no_name_of_a_function_is_an_invalid_argument(function: object) -> None:
    with pytest.raises(InvalidArguments, match='must be written "module:name"'):
        AllowList(["models:*"]).check(function)


def test_a_module_name_has_no_leading_underscore() -> None:
    assert is_module("a.b_c")
    assert not is_module("a._b")
