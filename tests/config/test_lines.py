from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from config.errors import KeyPath, dotted, parts
from config.lines import key_lines

TEXT = '''# a comment with [brackets] and key = "value"
title = "a # b"

[daemon]   # trailing
name = "x"
"quoted key" = 1
'lit.eral' = 2
dotted.key."x.y" = 3

[actors.greeter]
class = "a:b"
args = { greeting = "h]i", list = [1, { deep = true }] }
text = """
[not.a.table]
key = "no"
\\""" still inside
"""
lit = \'\'\'
[neither]
''\'\'\'
many = [
    # comment ]
    "one",
    [ 2,
      3 ],
    { four = 4 },
]

[[gateway.clients]]
name = "a"

[[gateway.clients]]
name = "b"
[gateway.clients.sub]
key = 1
'''


def test_each_key_is_found_on_its_line() -> None:
    lines = key_lines(TEXT)
    rows = TEXT.splitlines()

    def row(*path: str | int) -> str:
        return rows[lines[path] - 1].strip()

    assert row("title") == 'title = "a # b"'
    assert row("daemon") == "[daemon]   # trailing"
    assert row("daemon", "quoted key") == '"quoted key" = 1'
    assert row("daemon", "lit.eral") == "'lit.eral' = 2"
    assert row("daemon", "dotted", "key", "x.y").startswith("dotted.key")
    assert row("actors") == row("actors", "greeter") == "[actors.greeter]"
    assert row("actors", "greeter", "args", "list", 1, "deep").startswith("args = {")
    assert row("actors", "greeter", "many", 0) == '"one",'
    assert row("actors", "greeter", "many", 1, 1) == "3 ],"
    assert row("actors", "greeter", "many", 2, "four") == "{ four = 4 },"
    assert lines["gateway", "clients", 1, "name"] == lines["gateway", "clients", 0, "name"] + 3
    assert row("gateway", "clients", 1, "sub", "key") == "key = 1"


def test_what_stands_inside_strings_is_no_key() -> None:
    lines = key_lines(TEXT)
    assert ("not",) not in lines
    assert ("neither",) not in lines


def test_every_key_of_a_parsed_text_has_a_line() -> None:
    assert paths_of(tomllib.loads(TEXT)) <= set(key_lines(TEXT))


def test_a_text_that_is_not_toml_gives_lines_for_what_could_be_read() -> None:
    assert key_lines("a = 1\nb =")[("a",)] == 1


def paths_of(value: Any, path: KeyPath = ()) -> set[KeyPath]:
    found: set[KeyPath] = {path} if path else set()
    if isinstance(value, dict):
        for key, item in value.items():
            found |= paths_of(item, (*path, key))
    if isinstance(value, list):
        for index, item in enumerate(value):
            found |= paths_of(item, (*path, index))
    return found


keys = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=5)
scalars = st.one_of(
    st.integers(-5, 5), st.booleans(), st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
)
trees = st.dictionaries(
    keys,
    st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
    ),
    max_size=4,
)


def written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list):
        return "[" + ",\n  ".join(map(written, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{written(key)} = {written(item)}" for key, item in value.items()) + " }"
    return str(value)


@given(trees)
def test_every_key_of_any_text_has_its_line(tree: dict[str, Any]) -> None:
    text = "".join(f"# {index}\n{written(key)} = {written(value)}\n" for index, (key, value) in enumerate(tree.items()))
    assert tomllib.loads(text) == tree
    lines = key_lines(text)
    assert paths_of(tree) == set(lines)
    for index, key in enumerate(tree):
        assert text.splitlines()[lines[(key,)] - 2] == f"# {index}"


@given(st.lists(st.one_of(st.integers(0, 99), keys), min_size=1, max_size=5))
def test_a_written_key_path_can_be_read_back(path: list[str | int]) -> None:
    assert parts(dotted(tuple(path))) == tuple(path)
