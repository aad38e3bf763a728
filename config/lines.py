"""Where each key of a TOML text stands: the parser of the standard library does not tell.

The text has been parsed already, so it is known to be valid TOML: this scan only has to find keys, not to judge.
"""

from __future__ import annotations

import bisect
import re
import tomllib

from config.errors import KeyPath

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)+")
_KEY = re.compile(r"""[ \t]*("(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)[ \t]*""")
_STRING = re.compile(
    r"""
    \"\"\"(?:[^\\]|\\.)*?\"{3,5}(?!\")
    | '''.*?'{3,5}(?!')
    | "(?:[^"\\\n]|\\.)*"
    | '[^'\n]*'
    """,
    re.DOTALL | re.VERBOSE,
)
_BARE_VALUE = re.compile(r"[^,\]}#\n]*")


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line (from 1) of every key, table and list item of a valid TOML text; what cannot be found is left out."""
    scan = _Scan(text)
    try:
        scan.document()
    except (IndexError, AttributeError, RecursionError):
        pass  # a line number is a courtesy: without it the key path still names the place
    return scan.lines


class _Scan:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.newlines = [match.start() for match in re.finditer("\n", text)]
        self.lines: dict[KeyPath, int] = {}
        self.last_index: dict[KeyPath, int] = {}

    def document(self) -> None:
        table: KeyPath = ()
        while self.skip_blank():
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)

    def header(self) -> KeyPath:
        start = self.at
        is_array = self.text.startswith("[[", self.at)
        self.at += 2 if is_array else 1
        names = self.keys()
        self.at += 2 if is_array else 1
        path: KeyPath = ()
        for position, name in enumerate(names):
            path = (*path, name)
            is_last = position == len(names) - 1
            if is_last and is_array:
                self.last_index[path] = self.last_index.get(path, -1) + 1
                self.note(path, start)
            if path in self.last_index:
                path = (*path, self.last_index[path])
            self.note(path, start)
        return path

    def pair(self, table: KeyPath) -> None:
        start = self.at
        path = table
        for name in self.keys():
            path = (*path, name)
            self.note(path, start)
        self.at += 1  # the equals sign
        self.value(path)

    def keys(self) -> list[str]:
        names = []
        while True:
            match = _KEY.match(self.text, self.at)
            assert match is not None
            self.at = match.end()
            written = match[1]
            names.append(_unquoted(written) if written[0] in "\"'" else written)
            if self.text[self.at] != ".":
                return names
            self.at += 1

    def value(self, path: KeyPath) -> None:
        self.skip_blank()
        match self.text[self.at]:
            case '"' | "'":
                self.at = _match_end(_STRING, self.text, self.at)
            case "[":
                self.items(path, "]")
            case "{":
                self.items(path, "}")
            case _:
                self.at = _match_end(_BARE_VALUE, self.text, self.at)

    def items(self, path: KeyPath, closing: str) -> None:
        self.at += 1
        index = 0
        while True:
            self.skip_blank()
            if self.text[self.at] == closing:
                self.at += 1
                return
            if self.text[self.at] == ",":
                self.at += 1
                continue
            if closing == "}":
                self.pair(path)
            else:
                self.note((*path, index), self.at)
                self.value((*path, index))
                index += 1

    def skip_blank(self) -> bool:
        match = _BLANK.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
        return self.at < len(self.text)

    def note(self, path: KeyPath, offset: int) -> None:
        self.lines.setdefault(path, bisect.bisect_left(self.newlines, offset) + 1)


def _match_end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    assert match is not None
    return match.end()


def _unquoted(written: str) -> str:
    return str(tomllib.loads(f"key = {written}")["key"])
