"""Which functions a pool may call: the patterns of the configuration, checked without importing anything.

`module:name` allows one function, `module:*` the public functions that the module itself defines (the child looks,
after the import). Nothing with a leading underscore, nothing dotted after the colon: no path leads through an object.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from regrow.protocol.errors import Forbidden, InvalidArguments

_MODULE = r"[A-Za-z]\w*(?:\.[A-Za-z]\w*)*"
_PATTERN = re.compile(rf"{_MODULE}:(?:[A-Za-z]\w*|\*)", re.ASCII)
_FUNCTION = re.compile(r"[^\s:]+:[^\s:]+")
_MODULE_NAME = re.compile(_MODULE, re.ASCII)
MAX_NAME_CHARS = 200
MAX_REMEMBERED = 1000


class AllowList:
    """The allowed functions of one pool. Never switches."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(dict.fromkeys(patterns))
        wrong = [pattern for pattern in self.patterns if not _PATTERN.fullmatch(pattern)]
        if wrong:
            raise ValueError(f"{pattern_error(wrong[0])}")
        self._exact = frozenset(self.patterns)
        self._passed: set[str] = set()  # bounded, because with a star callers choose the names

    def check(self, function: object) -> str:
        """Return the function's name; raises InvalidArguments or Forbidden. Never switches."""
        if function.__class__ is str and function in self._passed:
            return function
        name = self._checked(function)
        if len(self._passed) < MAX_REMEMBERED:
            self._passed.add(name)
        return name

    def _checked(self, function: object) -> str:
        if not isinstance(function, str) or len(function) > MAX_NAME_CHARS or not _FUNCTION.fullmatch(function):
            shown = repr(function)[:MAX_NAME_CHARS] if isinstance(function, str) else f"a {type(function).__name__}"
            raise InvalidArguments(f'function must be written "module:name", found {shown}; allowed: {self}')
        module, _, name = function.partition(":")
        if function in self._exact and name != "*":
            return function
        if f"{module}:*" in self._exact and _PATTERN.fullmatch(function) and name != "*":
            return function
        raise Forbidden(f"function {function} is not allowed; allowed: {self}")

    def __str__(self) -> str:
        return ", ".join(self.patterns)

    def __repr__(self) -> str:
        return f"<AllowList {self}>"


def pattern_error(pattern: str) -> str:
    """Return what is wrong with a pattern that is not one. Never switches."""
    _, colon, name = pattern.partition(":")
    if not colon:
        hint = "nothing stands after the module"
    elif "." in name:
        hint = "no dot may stand after the colon"
    elif name.startswith("_") or any(part.startswith("_") for part in pattern.split(".")):
        hint = "names with a leading underscore cannot be called"
    else:
        hint = "it is no module and name"
    return f'function pattern {pattern!r} is not "module:name" or "module:*": {hint}'


def is_pattern(text: str) -> bool:
    """Tell whether this is `module:name` or `module:*`. Never switches."""
    return _PATTERN.fullmatch(text) is not None


def is_module(text: str) -> bool:
    """Tell whether this is the dotted name of a module. Never switches."""
    return _MODULE_NAME.fullmatch(text) is not None
