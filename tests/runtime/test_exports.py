"""The check of arguments: one error that names every wrong one."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from msgspec import Meta

from config.secret import Secret
from regrow.protocol.errors import InvalidArguments
from runtime.actor import Actor, exported
from runtime.exports import MAX_WRONG_FIELDS, Exported, Param, exports_of


class Orders(Actor):
    """Takes orders."""

    @exported
    def order(self, item: str, amount: Annotated[int, Meta(ge=1, le=10)], tags: list[str], note: str = "") -> None:
        """Takes one."""


ORDER = exports_of(Orders)["order"]


def wrong(export: Exported, arguments: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidArguments) as caught:
        export.check(arguments)
    fields: dict[str, str] = caught.value.details["fields"]
    return fields


def test_every_wrong_argument_is_named_with_what_is_wrong() -> None:
    assert wrong(ORDER, {"amount": 11, "tags": ["a", 2], "note": 3, "colour": "red"}) == {
        "item": "missing",
        "amount": "Expected 'int' <= 10",
        "tags": "Expected 'str', got 'int' - at '$[1]'",
        "note": "Expected 'str', got 'int'",
        "colour": "unknown",
    }


def test_what_is_right_is_not_named() -> None:
    assert wrong(ORDER, {"item": "pen", "amount": 1, "tags": [], "note": None}) == {
        "note": "Expected 'str', got 'null'"
    }


def test_an_operation_that_takes_more_names_no_stranger() -> None:
    export = Exported.make("find", "Finds.", {"id": Param(type=int)}, extra=True)
    assert wrong(export, {"colour": "red"}) == {"id": "missing"}


def test_the_map_is_bounded_and_shows_no_secret() -> None:
    Secret("a-secret-of-the-map-123")
    fields = wrong(ORDER, {f"argument_{number}": 1 for number in range(1000)} | {"a-secret-of-the-map-123": 1})
    assert len(fields) == MAX_WRONG_FIELDS
    assert "a-secret-of-the-map-123" not in wrong(ORDER, {"a-secret-of-the-map-123": 1})
