"""The kinds of keys that a Struct of an integration may declare, beyond those of the daemon's own tables."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from config.errors import ConfigErrors
from config.load import load_table
from config.schema import DatabaseUrl, Duration, Table
from config.secret import Secret

Name = Annotated[str, Meta(pattern="^[a-z]+$")]


class Inner(Table, frozen=True, kw_only=True):
    file: Path = Path("inner.txt")


class Other(Table, frozen=True, kw_only=True):
    width: int
    height: int = 0


class Kinds(Table, frozen=True, kw_only=True):
    named: Annotated[dict[Name, Duration], Meta(max_length=2)] = msgspec.field(default_factory=dict)
    some: Annotated[list[int], Meta(min_length=1)] = msgspec.field(default_factory=lambda: [1])
    pair: tuple[int, ...] = ()
    unique: frozenset[str] = frozenset()
    day: dt.date | None = None
    level: Literal[1, 2] = 1
    count: int | Literal["auto"] = "auto"
    shape: Inner | Other | None = None
    open: list[Any] = msgspec.field(default_factory=list)
    tokens: dict[str, Secret] = msgspec.field(default_factory=dict)
    inner: Inner = Inner()
    store: DatabaseUrl = msgspec.field(default_factory=lambda: DatabaseUrl("sqlite:///kinds.db"))
    renamed: int = msgspec.field(name="re-named", default=0)

    def __post_init__(self) -> None:
        if self.renamed == 13:
            raise ValueError("13 is no good")


def kinds(**data: Any) -> Kinds:
    return load_table(Kinds, data, Path("/etc/shop"), environ={"N": "7"})


@pytest.mark.parametrize(
    ("key", "value", "made"),
    [
        ("named", {"a": "1s"}, {"a": 1.0}),
        ("pair", [1, 2], (1, 2)),
        ("unique", ["a", "a"], frozenset({"a"})),
        ("day", dt.date(2026, 1, 2), dt.date(2026, 1, 2)),
        ("day", "2026-01-02", dt.date(2026, 1, 2)),
        ("level", 2, 2),
        ("count", 5, 5),
        ("count", "auto", "auto"),
        ("count", "${N}", 7),
        ("shape", {"file": "x"}, Inner(file=Path("/etc/shop/x"))),
        ("shape", {"width": 1}, Other(width=1)),
        ("open", [1, "a", {"b": "${N}"}], [1, "a", {"b": "7"}]),
        ("tokens", {"a": "token-a"}, {"a": Secret("token-a")}),
    ],
)
def test_a_value_is_made(key: str, value: Any, made: Any) -> None:
    assert getattr(kinds(**{key: value}), key) == made


def test_defaults_start_from_the_folder_of_the_file_too() -> None:
    assert kinds().inner.file == Path("/etc/shop/inner.txt")
    assert kinds().store.reveal() == "sqlite:////etc/shop/kinds.db"


@pytest.mark.parametrize(
    ("key", "value", "blamed", "problem"),
    [
        ("named", {"A": "1s"}, "named.A", "this name is not allowed here"),
        ("named", {"a": "1s", "b": "1s", "c": "1s"}, "named", "3 items, at most 2 are allowed"),
        ("named", "x", "named", "this value does not fit"),
        ("some", [], "some", "0 items, at least 1 are needed"),
        ("pair", ["x"], "pair[0]", "this value does not fit"),
        ("day", "tomorrow", "day", "this value does not fit"),
        ("level", 3, "level", "this value does not fit"),
        ("count", "atuo", "count", "this value does not fit"),
        ("shape", {"width": "x"}, "shape.width", "this value does not fit"),
        ("shape", 5, "shape", "this value does not fit"),
        ("tokens", {"a": 5}, "tokens.a", "this value does not fit"),
        ("inner", {"file": "~no-such-user-here/x"}, "inner.file", "this value does not fit"),
        ("inner", {"file": "a\0b"}, "inner.file", "this value does not fit"),
        ("re-named", 13, "", "13 is no good"),
    ],
)
def test_a_value_is_refused(key: str, value: Any, blamed: str, problem: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        kinds(**{key: value})
    assert [(error.key, error.problem) for error in caught.value.errors] == [(blamed, problem)]


def test_a_misplaced_secret_is_not_shown() -> None:
    with pytest.raises(ConfigErrors) as caught:
        kinds(tokens="literal-token")
    assert "literal-token" not in caught.value.render()


def test_what_is_checked_is_not_changed() -> None:
    data = {"open": ["${N}"]}
    kinds(**data)
    assert data == {"open": ["${N}"]}
