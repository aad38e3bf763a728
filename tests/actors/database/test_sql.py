"""The lexer: parameters are found where PostgreSQL and SQLite would see them, and nowhere else."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.database.sql import Dialect, SqlError, Template, parse

UNTOUCHED = [
    ("a cast", "SELECT x::date, '1'::int"),
    ("a string", "SELECT ':name', 'it''s :name'"),
    ("a quoted identifier", 'SELECT ":name", "a"":b" FROM t'),
    ("a line comment", "SELECT 1 -- :name\n"),
    ("a block comment", "SELECT 1 /* :name */"),
    ("a slice", "SELECT a[1:2], a[i:j], a[f(1):g(2)], (a)[b[1]:c]"),
    ("an assignment", "SELECT f(x := 1)"),
    ("a number after a colon", "SELECT 'x' || y :1"),
    ("a percent sign", "SELECT 'a' LIKE '%' AND 5 % 3 = 2"),
]
UNTOUCHED_IN_POSTGRES = [
    ("a backslash string", r"SELECT E'it\'s :name', e'\\', 'plain\'"),
    ("a backslash string that goes on in the next line", "SELECT E'a\\''\n  'b\\':name'"),
    ("a backslash string that goes on after a comment", "SELECT E'a' -- why\n 'b\\':name'"),
    ("a dollar quote", "SELECT $$it's :name$$, $tag$ :a $$ :b $tag$"),
    ("a nested comment", "SELECT 1 /* a /* :b */ :c */"),
    ("JSON operators", "SELECT a ? 'b', a ?| array['b'], a #>> '{c}', a @> '{}', a -> 0"),
    ("an identifier with dollars", "SELECT a$b$c FROM a$b$c"),
    ("a Unicode string", r"SELECT U&'\0041:name\'"),
]


@pytest.mark.parametrize(("what", "text"), UNTOUCHED + UNTOUCHED_IN_POSTGRES)
def test_postgres_sees_no_parameter_in(what: str, text: str) -> None:
    assert parse(text, "postgresql").names == ()


@pytest.mark.parametrize(("what", "text"), [case for case in UNTOUCHED if case[0] != "a slice"])
def test_sqlite_sees_no_parameter_in(what: str, text: str) -> None:
    assert parse(text, "sqlite").names == ()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("SELECT :a", ["a"]),
        ("SELECT :a::int, :b ::text", ["a", "b"]),
        ("SELECT f(x := :a)", ["a"]),
        ("WHERE a=:a AND b>=:b OR c<>:a", ["a", "b", "a"]),
        ("VALUES (:a,:b , :c_1)", ["a", "b", "c_1"]),
        ("SELECT t[:lo], t[1: :hi]", ["lo", "hi"]),
        ("SELECT 'it''s' || :a || E'\\':no' || $q$:no$q$ || :b", ["a", "b"]),
        ("SELECT /* :no */ :a -- :no", ["a"]),
        ("SELECT - :a", ["a"]),
        ("SELECT CASE WHEN :a THEN 1 END", ["a"]),
    ],
)
def test_parameters_are_found(text: str, names: list[str]) -> None:
    assert parse(text, "postgresql").names == tuple(names)


def test_a_parameter_used_twice_is_sent_once_to_postgres_and_twice_to_sqlite() -> None:
    text = "SELECT :a, :b, :a"

    assert parse(text, "postgresql").numbered() == ("SELECT $1, $2, $1", ("a", "b"))
    assert parse(text, "sqlite").positional() == ("SELECT ?, ?, ?", ("a", "b", "a"))


def test_a_comment_does_not_nest_in_sqlite() -> None:
    assert parse("SELECT /* a /* b */ :c", "sqlite").names == ("c",)


def test_sqlite_knows_brackets_and_backticks_as_quotes() -> None:
    assert parse("SELECT [:a], `:b`, :c", "sqlite").names == ("c",)


def test_a_trailing_semicolon_is_allowed() -> None:
    assert parse("SELECT :a ; -- done", "postgresql").names == ("a",)


@pytest.mark.parametrize(
    ("dialect", "text", "message"),
    [
        ("postgresql", "SELECT 'a", "line 1 column 8: string is not closed"),
        ("postgresql", "SELECT\n  $x$ a", "line 2 column 3: dollar quote $x$ is not closed"),
        ("postgresql", "SELECT /* /* */", "comment is not closed"),
        ("postgresql", "SELECT $1", "'$1' is PostgreSQL's own placeholder, write :name"),
        ("sqlite", "SELECT ?", "'?' is SQLite's own placeholder"),
        ("sqlite", "SELECT ?2", "'?2' is SQLite's own placeholder"),
        ("sqlite", "SELECT @a", "'@a' is SQLite's own placeholder"),
        ("postgresql", "SELECT 1; DROP TABLE t", "line 1 column 11: a second statement begins"),
        ("postgresql", " -- nothing", "statement is empty"),
        ("sqlite", "SELECT :__a", "parameter '__a' begins with two underscores, rename it"),
        ("postgresql", "SELECT :naïve", "parameter 'naïve' is not ASCII"),
    ],
)
def test_text_that_can_never_run_is_refused_with_its_place(dialect: Dialect, text: str, message: str) -> None:
    with pytest.raises(SqlError, match=re.escape(message)):
        parse(text, dialect)


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("SELECT 1", True),
        ("WITH x AS (SELECT 1) SELECT * FROM x", True),
        ("WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", False),
        ("SELECT * FROM t FOR UPDATE", False),
        ("INSERT INTO t VALUES (1)", False),
        ("SELECT 'DELETE', \"UPDATE\" -- INSERT", True),
        ("VACUUM", False),
    ],
)
def test_a_statement_is_known_to_read_only(text: str, reads: bool) -> None:
    assert parse(text, "postgresql").reads_only is reads


def test_the_body_of_a_trigger_may_hold_statements() -> None:
    text = "CREATE TRIGGER x AFTER INSERT ON t BEGIN UPDATE t SET a = 1; DELETE FROM u; END"

    assert parse(text, "sqlite").names == ()


# -- properties: a statement is put together from pieces of which it is known whether they are parameters

_INNER = st.text(st.sampled_from("ab :;'\"$-/*\\\n"), max_size=8)
_NAME = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True)
_POSTGRES_LITERALS = st.one_of(
    _INNER.map(lambda text: "'" + text.replace("'", "''") + "'"),
    # what follows keeps it from going on in a string on the next line, which would be read with escapes too
    _INNER.map(lambda text: "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'||1"),
    _INNER.map(lambda text: '"' + text.replace('"', '""') + 'x"'),
    _INNER.map(lambda text: "$q$" + text.replace("$", "") + "$q$"),
    _INNER.map(lambda text: "--" + text.replace("\n", "") + "\n"),
    _INNER.map(lambda text: "/* " + text.replace("/", "").replace("*", "") + " /* :x */ */"),
    st.sampled_from(["::", ":=", "a", "1", "(", ")", ",", "[", "]", "%", "?", "->>", "\n"]),
)
_PIECES = st.lists(st.one_of(_NAME.map(lambda name: ":" + name), _POSTGRES_LITERALS), min_size=1, max_size=12)


def _is_parameter(piece: str) -> bool:
    return piece[0] == ":" and piece not in ("::", ":=")


def test_a_string_with_escapes_that_goes_on_in_the_next_line_has_escapes_there_too() -> None:
    assert parse("SELECT E'' --\n '\\' :a', :b", "postgresql").names == ("b",)


@given(_PIECES)
@example([":a", "$q$'$q$", ":b"])
def test_exactly_the_parameters_of_any_statement_are_found(pieces: list[str]) -> None:
    template = parse("SELECT " + " ".join(pieces), "postgresql")

    assert list(template.names) == [piece[1:] for piece in pieces if _is_parameter(piece)]


@given(_PIECES)
def test_a_statement_put_together_again_is_the_same_text(pieces: list[str]) -> None:
    text = "SELECT " + " ".join(pieces)

    assert parse(text, "postgresql").render(lambda name: ":" + name) == text


@given(st.text(max_size=40), st.sampled_from(["postgresql", "sqlite"]))
def test_any_text_is_either_a_statement_or_refused(text: str, dialect: Dialect) -> None:
    try:
        template: Template = parse(text, dialect)
    except SqlError:
        return
    assert template.render(lambda name: ":" + name) == text


def test_a_long_statement_takes_time_in_proportion() -> None:
    parse("SELECT '" + "''" * 60_000 + "'" + " + :a" * 10_000, "postgresql")
    with pytest.raises(SqlError, match="not closed"):
        parse("SELECT '" + "''" * 90_000, "postgresql")
    with pytest.raises(SqlError, match="characters"):
        parse("x" * 300_000, "postgresql")
