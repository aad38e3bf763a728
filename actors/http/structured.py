"""Structured fields (RFC 9651): how newer HTTP headers write items, lists and dictionaries; parsed strictly.

A field that breaks a rule is worth nothing as a whole (section 4.2), so every function raises ValueError for it.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import TypeAlias


class Token(str):
    """A word that stands for itself, such as gzip."""

    __slots__ = ()


class DisplayString(str):
    """A text for people, of any characters."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Date:
    """A moment in unix seconds."""

    seconds: int


Bare: TypeAlias = int | float | str | bytes | bool | Token | DisplayString | Date


@dataclass(slots=True)
class Item:
    """A value with its parameters in their order."""

    value: Bare
    params: dict[str, Bare] = field(default_factory=dict)


@dataclass(slots=True)
class InnerList:
    """Items in parentheses, with parameters of the whole."""

    items: list[Item]
    params: dict[str, Bare] = field(default_factory=dict)


Member: TypeAlias = Item | InnerList

MAX_FIELD_CHARS = 64 * 1024
MAX_INTEGER_DIGITS, MAX_WHOLE_DIGITS = 15, 12

_KEY = re.compile(r"[a-z*][a-z0-9_\-.*]*")
_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*")
_NUMBER = re.compile(r"-?([0-9]+)(?:\.([0-9]*))?")
_STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_BYTES = re.compile(r":([A-Za-z0-9+/=]*):")
_DISPLAY = re.compile(r'%"((?:[ !#$&-~]|%[0-9a-f]{2})*)"')
_ESCAPED = re.compile(r"%([0-9a-f]{2})")
_SPACES, _BLANKS = re.compile(" *"), re.compile("[ \t]*")


def parse_item(text: str) -> Item:
    """Return a field that is one item; raises ValueError. Never switches."""
    reader = _Reader(text)
    found = reader.item()
    reader.end()
    return found


def parse_list(text: str) -> list[Member]:
    """Return a field that is a list; raises ValueError. Never switches."""
    reader = _Reader(text)
    found: list[Member] = []
    while reader.more(first=not found):
        found.append(reader.member())
    return found


def parse_dictionary(text: str) -> dict[str, Member]:
    """Return a field that is a dictionary, of a repeated key the last value; raises ValueError. Never switches."""
    reader = _Reader(text)
    found: dict[str, Member] = {}
    first = True
    while reader.more(first=first):
        first = False
        key = reader.take(_KEY, "a key")[0]
        if reader.skip("="):
            member = reader.member()
        else:
            member = Item(True, reader.params())
        found[key] = member
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        if len(text) > MAX_FIELD_CHARS or not text.isascii():
            raise ValueError("too long, or not of ASCII")
        self.text = text
        self.at = _end(_SPACES, text, 0)

    def end(self) -> None:
        if _end(_SPACES, self.text, self.at) != len(self.text):
            raise ValueError(f"something follows at {self.at}")

    def more(self, *, first: bool) -> bool:
        """Tell whether another member follows, and go to it."""
        if first:
            return self.at < len(self.text)
        spaces_end = _end(_SPACES, self.text, self.at)
        if spaces_end == len(self.text):
            return False
        self.at = _end(_BLANKS, self.text, self.at)
        if not self.skip(","):
            raise ValueError(f"no comma at {self.at}")
        self.at = _end(_BLANKS, self.text, self.at)
        if self.at == len(self.text):
            raise ValueError("ends with a comma")
        return True

    def skip(self, char: str) -> bool:
        if not self.text.startswith(char, self.at):
            return False
        self.at += 1
        return True

    def take(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise ValueError(f"no {what} at {self.at}")
        self.at = found.end()
        return found

    def member(self) -> Member:
        return self.inner_list() if self.text.startswith("(", self.at) else self.item()

    def inner_list(self) -> InnerList:
        self.at += 1
        items: list[Item] = []
        while True:
            self.at = _end(_SPACES, self.text, self.at)
            if self.skip(")"):
                return InnerList(items, self.params())
            items.append(self.item())
            if not self.text.startswith((" ", ")"), self.at):
                raise ValueError(f"no space or parenthesis at {self.at}")

    def item(self) -> Item:
        return Item(self.bare(), self.params())

    def params(self) -> dict[str, Bare]:
        found: dict[str, Bare] = {}
        while self.skip(";"):
            self.at = _end(_SPACES, self.text, self.at)
            key = self.take(_KEY, "a key")[0]
            value: Bare = self.bare() if self.skip("=") else True
            found[key] = value
        return found

    def bare(self) -> Bare:
        first = self.text[self.at : self.at + 1]
        if first == '"':
            return re.sub(r"\\(.)", r"\1", self.take(_STRING, "a string")[1])
        if first == ":":
            return _octets(self.take(_BYTES, "bytes")[1])
        if first == "?":
            return self.boolean()
        if first == "@":
            self.at += 1
            seconds = self.number()
            if isinstance(seconds, float):
                raise ValueError("a date has no fraction")
            return Date(seconds)
        if first == "%":
            return _display(self.take(_DISPLAY, "a display string")[1])
        if first.isdigit() or first == "-":
            return self.number()
        return Token(self.take(_TOKEN, "a value")[0])

    def boolean(self) -> bool:
        found = self.text[self.at : self.at + 2]
        if found not in {"?0", "?1"}:
            raise ValueError(f"no boolean at {self.at}")
        self.at += 2
        return found == "?1"

    def number(self) -> int | float:
        found = self.take(_NUMBER, "a number")
        whole, fraction = found[1], found[2]
        if fraction is None:
            if len(whole) > MAX_INTEGER_DIGITS:
                raise ValueError("an integer of more than 15 digits")
            return int(found[0])
        if len(whole) > MAX_WHOLE_DIGITS or not 1 <= len(fraction) <= 3:
            raise ValueError("a decimal has 1 to 12 digits, a point and 1 to 3 digits")
        return float(found[0])


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    assert found is not None  # these patterns match nothing too
    return found.end()


def _octets(text: str) -> bytes:
    # Padding may be missing (4.2.7).
    return base64.b64decode(text + "=" * (-len(text) % 4) if "=" not in text else text, validate=True)


def _display(text: str) -> DisplayString:
    data = bytearray()
    at = 0
    for found in _ESCAPED.finditer(text):
        data += text[at : found.start()].encode() + bytes([int(found[1], 16)])
        at = found.end()
    data += text[at:].encode()
    return DisplayString(data.decode())
