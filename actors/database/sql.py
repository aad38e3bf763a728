"""Finding `:name` in SQL the way a database reads SQL, and nothing else in it.

A real lexer, because a colon is also half of `::type`, of `:=`, of `a[1:2]`, of a time in a string. It understands
quoted strings with doubled quotes, `E'..'` with backslashes (PostgreSQL's constants that continue on the next line
too), dollar quotes, quoted identifiers, `--` comments and `/* */` comments, which nest in PostgreSQL and do not in
SQLite.

A parameter is a colon followed by an ASCII name. Its colon must not touch a word, a literal or a closing bracket
before it (`a[i:j]` is a slice); after an operator, a comma or an opening bracket it may follow at once.

Pure functions over text: values never pass through here, so nothing that a caller sends can become SQL.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Dialect = Literal["postgresql", "sqlite"]

MAX_SQL_CHARS = 200_000

_SPACE = re.compile(r"\s+")
_LINE_COMMENT = {"postgresql": re.compile(r"--[^\n\r]*"), "sqlite": re.compile(r"--[^\n]*")}
_WORD = re.compile(r"[^\W\d][\w$]*")
_NUMBER = re.compile(r"\d[\w.]*|\.\d\w*")
_PARAMETER = re.compile(r":([A-Za-z_]\w*)")
_STRING = re.compile(r"'(?:[^']|'')*'")
_ESCAPE_STRING = re.compile(r"'(?:[^'\\]|''|\\.)*'", re.DOTALL)
_CONTINUED = re.compile(r"[ \t\f\v]*(?:--[^\n\r]*)?[\n\r](?:\s|--[^\n\r]*[\n\r])*(?=')")
_IDENTIFIER = re.compile(r'"(?:[^"]|"")*"')
_BACKTICKED = re.compile(r"`(?:[^`]|``)*`")
_BRACKETED = re.compile(r"\[[^\]]*\]")
_DOLLAR_TAG = re.compile(r"\$(?:[^\W\d]\w*)?\$")
_DOLLAR_NUMBER = re.compile(r"\$\d+")
_SQLITE_PLACEHOLDER = re.compile(r"\?\d*|[@$][^\W\d]\w*")
_COMMENT_EDGE = re.compile(r"/\*|\*/")

#: first words of statements that only read, unless a word of _WRITING stands somewhere in them
_READING = frozenset({"SELECT", "VALUES", "TABLE", "WITH", "SHOW", "EXPLAIN"})
_WRITING = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "INTO", "SHARE"})


class SqlError(ValueError):
    """The text cannot be an operation's SQL; the message names line and column and what to write instead."""


@dataclass(frozen=True, slots=True)
class Template:
    """One statement cut at its parameters: `pieces[0] names[0] pieces[1] ...`, always one piece more than names.

    `words` are the bare words of the statement in upper case and in order, without quoted names, strings and comments.
    """

    dialect: Dialect
    pieces: tuple[str, ...]
    names: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def parameters(self) -> tuple[str, ...]:
        """The distinct parameter names in order of first appearance. Never switches."""
        return tuple(dict.fromkeys(self.names))

    @property
    def reads_only(self) -> bool:
        """Whether the statement looks like one that changes no rows; functions that write are not seen.

        Never switches.
        """
        return bool(self.words) and self.words[0] in _READING and _WRITING.isdisjoint(self.words)

    def render(self, placeholder: Callable[[str], str]) -> str:
        """Put the statement together again, with `placeholder(name)` at each parameter. Never switches."""
        parts = [self.pieces[0]]
        for name, piece in zip(self.names, self.pieces[1:], strict=True):
            parts += (placeholder(name), piece)
        return "".join(parts)

    def numbered(self) -> tuple[str, tuple[str, ...]]:
        """Return the text with `$1`, `$2`..., and the name of each number; a name used twice is sent once.

        Never switches.
        """
        order = self.parameters
        number = {name: f"${index}" for index, name in enumerate(order, 1)}
        return self.render(number.__getitem__), order

    def positional(self) -> tuple[str, tuple[str, ...]]:
        """Return the text with `?` for each appearance, and the names in that order. Never switches."""
        return self.render(lambda _: "?"), self.names


def parse(sql: str, dialect: Dialect) -> Template:
    """Cut one statement at its parameters; raise `SqlError` for text that can never run. Never switches."""
    if len(sql) > MAX_SQL_CHARS:
        raise SqlError(f"statement has {len(sql)} characters, at most {MAX_SQL_CHARS} are allowed")
    return _Lexer(sql, dialect).run()


class _Lexer:
    def __init__(self, sql: str, dialect: Dialect) -> None:
        self.sql = sql
        self.dialect: Dialect = dialect
        self.postgres = dialect == "postgresql"
        self.pieces: list[str] = []
        self.names: list[str] = []
        self.words: list[str] = []
        self.piece_start = 0
        # whether the token before this place, without a space between, is a word, a literal or a closing bracket
        self.touching = False
        self.ended = False

    def run(self) -> Template:
        at, sql = 0, self.sql
        while at < len(sql):
            if (after := self._skipped(at)) > at:
                at, self.touching = after, False
                continue
            if self.ended and sql[at] != ";":
                raise self._error(at, "a second statement begins", "write one statement for each operation")
            at = self._token(at)
        if not self.words and not self.names:
            raise SqlError("statement is empty: write one SQL statement")
        self.pieces.append(sql[self.piece_start :])
        return Template(self.dialect, tuple(self.pieces), tuple(self.names), tuple(self.words))

    def _skipped(self, at: int) -> int:
        """Where the white space or the comment at `at` ends; `at` itself when there is none."""
        sql = self.sql
        if space := _SPACE.match(sql, at):
            return space.end()
        if comment := _LINE_COMMENT[self.dialect].match(sql, at):
            return comment.end()
        if not sql.startswith("/*", at):
            return at
        if not self.postgres:
            closing = sql.find("*/", at + 2)
            return len(sql) if closing < 0 else closing + 2  # SQLite lets the end of the text close a comment
        depth, end = 1, at + 2
        while depth:
            edge = _COMMENT_EDGE.search(sql, end)
            if edge is None:
                raise self._error(at, "comment is not closed", "add */")
            end = edge.end()
            depth += 1 if edge.group() == "/*" else -1
        return end

    def _token(self, at: int) -> int:
        sql, char = self.sql, self.sql[at]
        if char == ":":
            return self._colon(at)
        if char == "'":
            return self._quoted(at, _STRING, "string")
        if char == '"':
            return self._quoted(at, _IDENTIFIER, "quoted identifier")
        if word := _WORD.match(sql, at):
            return self._word(word)
        if number := _NUMBER.match(sql, at):
            self.touching = True
            return number.end()
        if char == "$" and self.postgres:
            return self._dollar(at)
        if not self.postgres:
            if char == "`":
                return self._quoted(at, _BACKTICKED, "quoted identifier")
            if char == "[":
                return self._quoted(at, _BRACKETED, "quoted identifier")
            if found := _SQLITE_PLACEHOLDER.match(sql, at):
                raise self._error(at, f"{found.group()!r} is SQLite's own placeholder", "write :name")
        if char == ";" and not self._is_block():
            self.ended = True
        self.touching = char in ")]"
        return at + 1

    def _colon(self, at: int) -> int:
        sql = self.sql
        if sql.startswith(("::", ":="), at):
            self.touching = False
            return at + 2
        found = None if self.touching else _PARAMETER.match(sql, at)
        if found is None:
            self.touching = False
            return at + 1
        name = found.group(1)
        if name.startswith("__"):
            raise self._error(at, f"parameter {name!r} begins with two underscores", "rename it")
        if not name.isascii():
            raise self._error(at, f"parameter {name!r} is not ASCII", "use letters, digits and underscores")
        self.pieces.append(sql[self.piece_start : at])
        self.names.append(name)
        self.piece_start = found.end()
        self.touching = True
        return found.end()

    def _word(self, word: re.Match[str]) -> int:
        text, end, sql = word.group(), word.end(), self.sql
        if not self.postgres and "$" in text:
            end = word.start() + text.index("$")
            text = sql[word.start() : end]
        self.touching = True
        if self.postgres and text in ("E", "e") and sql.startswith("'", end):
            end = self._quoted(end, _ESCAPE_STRING, "string")
            while more := _CONTINUED.match(sql, end):
                end = self._quoted(more.end(), _ESCAPE_STRING, "string")
            return end
        self.words.append(text.upper())
        return end

    def _dollar(self, at: int) -> int:
        sql = self.sql
        if tag := _DOLLAR_TAG.match(sql, at):
            end = sql.find(tag.group(), tag.end())
            if end < 0:
                raise self._error(at, f"dollar quote {tag.group()} is not closed", f"add {tag.group()}")
            self.touching = True
            return end + len(tag.group())
        if found := _DOLLAR_NUMBER.match(sql, at):
            raise self._error(at, f"{found.group()!r} is PostgreSQL's own placeholder", "write :name")
        self.touching = False
        return at + 1

    def _quoted(self, at: int, pattern: re.Pattern[str], what: str) -> int:
        found = pattern.match(self.sql, at)
        if found is None:
            raise self._error(at, f"{what} is not closed", "add the closing quote")
        self.touching = True
        return found.end()

    def _is_block(self) -> bool:
        # the body of a trigger or of a SQL-standard function holds statements of its own
        return self.words[:1] == ["CREATE"] and "BEGIN" in self.words

    def _error(self, at: int, fact: str, remedy: str) -> SqlError:
        line = self.sql.count("\n", 0, at) + 1
        column = at - (self.sql.rfind("\n", 0, at) + 1) + 1
        return SqlError(f"line {line} column {column}: {fact}, {remedy}")
