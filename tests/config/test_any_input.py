"""Whatever stands in a file: a configuration or ConfigErrors, never another exception, and never a secret in either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.errors import ConfigErrors
from config.load import MAX_DEPTH, load
from tests.config.conftest import TYPES

WORDS = st.sampled_from(
    [
        *("daemon", "gateway", "http", "actors", "integrations", "name", "path", "redis", "bind", "curve", "clients"),
        *("class", "args", "shutdown", "backoff", "type", "base_url", "auth", "bearer", "retry", "base", "fallback"),
        *("default", "headers", "tags", "workers", "operations", "request", "cache", "store", "limit", "api", "a"),
        *("secret_key_file", "public_key", "allow", "read_token", "max_message", "on_give_up", "folders", "x y", ""),
    ]
)
VALUES = st.one_of(
    st.sampled_from(
        [
            *("service", "${TOKEN}", "x${TOKEN}", "${ABSENT}", "${", "$${", "5s", "8MiB", "tcp://127.0.0.1:1", "cache"),
            *("127.0.0.1:1", "0.0.0.0:1", "redis://:${TOKEN}@h", "sqlite:///x", "postgresql://${TOKEN}@h/d", "park"),
            *("json:JSONEncoder", "json:absent", "absent:A", ":", "brutal_kill", "", "~nobody-at-all/x", "../x"),
        ]
    ),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.booleans(),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=10),
)
TREES = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5), max_leaves=25
)
TABLES = st.dictionaries(
    WORDS, st.dictionaries(WORDS, TREES | st.dictionaries(WORDS, TREES, max_size=6), max_size=6) | TREES, max_size=5
)
TOKEN = "token-of-the-environment"


def written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{written(key)} = {written(item)}" for key, item in value.items()) + " }"
    return repr(value)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(TABLES)
def test_any_table_loads_or_is_refused_and_shows_no_secret(tmp_path: Path, tables: dict[str, Any]) -> None:
    file = tmp_path / "regrow.toml"
    file.write_text("".join(f"{written(key)} = {written(value)}\n" for key, value in tables.items()))
    try:
        shown = str(load(file, TYPES, environ={"TOKEN": TOKEN}).dump())
    except ConfigErrors as refusal:
        shown = refusal.render() + str(refusal.to_json())
        placed = [error.line is not None and error.key != "" for error in refusal.errors]
    else:
        placed = [True]
    assert placed
    assert all(placed)
    assert TOKEN not in shown


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{ a = ", " }")])
@pytest.mark.parametrize("depth", [MAX_DEPTH, 300, 495, 3000])
def test_what_is_nested_too_deeply_is_refused(tmp_path: Path, opening: str, closing: str, depth: int) -> None:
    file = tmp_path / "regrow.toml"
    file.write_text("[actors.a]\nclass = 'json:JSONEncoder'\nargs.indent = " + opening * depth + "1" + closing * depth)
    with pytest.raises(ConfigErrors, match="nested") as caught:
        load(file, TYPES)
    assert [error.kind for error in caught.value.errors] == ["syntax"]
