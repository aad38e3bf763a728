"""What is wrong with a configuration: every problem at once, each with its place, what was found and expected."""

from __future__ import annotations

import re
from typing import ClassVar

import msgspec

from config.secret import redact

KeyPath = tuple[str | int, ...]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_KEY_PART = re.compile(r"\[([0-9]+)\]|\"((?:[^\"\\]|\\.)*)\"|([^.\[\]\"]+)")


class ConfigError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One problem of one configuration file. Its texts are redacted when it is made."""

    file: str
    line: int | None = None
    key: str = ""
    kind: str
    problem: str
    found: str | None = None
    expected: str | None = None
    nearest: str | None = None
    hint: str | None = None

    def render(self) -> str:
        """The block of text for a human: place, problem, found, expected, what to do."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        lines = [f"{place}: {self.key}: {self.problem}" if self.key else f"{place}: {self.problem}"]
        if self.found is not None:
            lines.append(f"  found:    {self.found}")
        if self.expected is not None:
            lines.append(f"  expected: {self.expected}")
        if self.nearest is not None:
            lines.append(f"  nearest:  {self.nearest}")
        if self.hint is not None:
            lines.append(f"  hint:     {self.hint}")
        return "\n".join(lines)


class ConfigErrors(Exception):
    """The configuration cannot be used: `errors` has every problem found, in the file's order."""

    EXIT_STATUS: ClassVar[int] = 78

    def __init__(self, errors: list[ConfigError]) -> None:
        super().__init__(errors)
        self.errors = errors

    def __str__(self) -> str:
        return self.render()

    def render(self) -> str:
        """The text for a human: one block for each problem and a line that counts them."""
        count = len(self.errors)
        summary = f"{count} configuration problem{'' if count == 1 else 's'}, nothing was started"
        return "\n\n".join([*(error.render() for error in self.errors), summary])

    def to_json(self) -> list[dict[str, object]]:
        """The same as JSON-safe objects; keys that say nothing are left out."""
        return [msgspec.to_builtins(error) for error in self.errors]


class Report:
    """Collects the problems of one file and knows the line of each key."""

    def __init__(self, file: str, lines: dict[KeyPath, int] | None = None) -> None:
        self.file = file
        self.lines = lines or {}
        self.errors: list[ConfigError] = []

    def add(
        self,
        path: KeyPath,
        kind: str,
        problem: str,
        *,
        found: str | None = None,
        expected: str | None = None,
        nearest: str | None = None,
        hint: str | None = None,
        line: int | None = None,
    ) -> None:
        """Notes one problem; the line is that of the key, or of the nearest table around it."""
        self.errors.append(
            ConfigError(
                file=self.file,
                line=line if line is not None else self.line_of(path),
                key=dotted(path),
                kind=kind,
                problem=redact(problem),
                found=None if found is None else redact(found),
                expected=None if expected is None else redact(expected),
                nearest=nearest,
                hint=None if hint is None else redact(hint),
            )
        )

    def line_of(self, path: KeyPath) -> int | None:
        """The line of a key, else that of what contains it."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return None

    def raise_if_any(self) -> None:
        """Raises ConfigErrors when there is a problem, sorted by line."""
        if self.errors:
            raise ConfigErrors(sorted(self.errors, key=lambda error: error.line or 0))


def dotted(path: KeyPath) -> str:
    """A key path as it is written in TOML, with [index] for the items of lists."""
    written = ""
    for part in path:
        if isinstance(part, int):
            written += f"[{part}]"
            continue
        quoted = part.replace("\\", "\\\\").replace('"', '\\"')
        written += ("." if written else "") + (part if _BARE_KEY.fullmatch(part) else f'"{quoted}"')
    return written


def parts(key: str) -> KeyPath:
    """The inverse of `dotted`."""
    return tuple(
        int(index) if index else bare or re.sub(r"\\(.)", r"\1", quoted)
        for index, quoted, bare in _KEY_PART.findall(key)
    )
