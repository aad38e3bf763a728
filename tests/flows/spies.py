"""Spies on the functions that the README's tables of the two paths name: each call is noted, and then made."""

from __future__ import annotations

import functools
import importlib
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.tour.readme import section

PACKAGES = ("regrow", "runtime", "supervisors", "actors", "config")

Row = tuple[str, tuple[str, ...]]
"""What a row says, and the functions that it names, as "module:Class.method" or "module:function"."""


def table(heading: str, title: str = "The two paths") -> list[Row]:
    """Return the rows of a table of functions in a section; `heading` is the line above it."""
    text = section(title).partition(f"\n{heading}\n\n")[2].partition("\n\n")[0]
    rows: list[Row] = []
    for said, where in re.findall(r"^\| ([^|]*) \| ([^|]*`) \|$", text, re.MULTILINE):
        functions, _, files = where.rpartition(" in ")
        names = re.findall(r"`([^`]+)`", functions)
        paths = re.findall(r"`([^`]+)\.py`", files)
        modules = [path.replace("/", ".") for path in paths]
        rows.append((said, tuple(f"{modules[min(n, len(modules) - 1)]}:{name}" for n, name in enumerate(names))))
    assert rows, f"README.md has no table under {heading!r}"
    return rows


class Spies:
    """Notes the calls of functions in their order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.calls: list[str] = []

    def watch(self, function: str) -> None:
        """Note every later call of this function, whoever has imported it."""
        module_name, _, path = function.partition(":")
        module = importlib.import_module(module_name)
        owner_name, _, name = path.rpartition(".")
        if owner_name:
            owner = getattr(module, owner_name)
            original = owner.__dict__[name]
            noting: Any
            if isinstance(original, property):
                assert original.fget is not None
                noting = property(self._noting(function, original.fget))
            else:
                noting = self._noting(function, original)
            self._monkeypatch.setattr(owner, name, noting)
            return
        original = getattr(module, name)
        noting = self._noting(function, original)
        for imported in [each for key, each in sys.modules.items() if key.split(".")[0] in PACKAGES]:
            for attribute, value in list(vars(imported).items()):
                if value is original:
                    self._monkeypatch.setattr(imported, attribute, noting)
                elif isinstance(value, dict):  # a table of functions
                    for key in [key for key, held in value.items() if held is original]:
                        self._monkeypatch.setitem(value, key, noting)

    def _noting(self, function: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def noting(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(function)
            return original(*args, **kwargs)

        return noting

    def forget(self) -> None:
        self.calls.clear()

    def first_calls(self) -> list[str]:
        """Return every function called so far once, in the order of the first calls."""
        return list(dict.fromkeys(self.calls))


def functions_of(rows: list[Row]) -> list[str]:
    return [function for _, functions in rows for function in functions]
