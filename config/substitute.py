"""`${NAME}` and `${NAME:-default}` in the texts of a parsed configuration, and `$${` for a literal `${`.

It happens after parsing, so that no variable's content can add keys or break a quote; what a variable brings is never
searched for further variables.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from config.errors import KeyPath, Report
from config.secret import MASK, register

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

# One file cannot push its own secrets out of the registry of what `redact` masks.
MAX_SUBSTITUTIONS = 2000


class Substituted(str):
    """A text that came, wholly or in part, from variables: `template` is what may be shown instead of it."""

    __slots__ = ("template", "values")
    template: str
    values: tuple[str, ...]

    def register(self) -> None:
        """Makes `redact` mask what the variables brought."""
        for value in self.values:
            register(value, pinned=True)


class Unset:
    """Stands for a text whose variable is missing: reported once, where the variable is named, and nowhere else."""


UNSET = Unset()


def substitute(tree: dict[str, Any], environ: Mapping[str, str], report: Report) -> dict[KeyPath, str]:
    """Replaces the references in all texts of the tree, in place; returns key path -> template of what was replaced."""
    templates: dict[KeyPath, str] = {}

    def walk(value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            for key, item in value.items():
                if "${" in key:
                    report.add((*path, key), "substitution", "variables are substituted in values, not in keys")
                value[key] = walk(item, (*path, key))
        elif isinstance(value, list):
            value[:] = [walk(item, (*path, index)) for index, item in enumerate(value)]
        elif isinstance(value, str) and "${" in value:
            replaced = _replace(value, path, environ, report)
            if isinstance(replaced, Substituted):
                templates[path] = replaced.template
            return replaced
        return value

    walk(tree, ())
    if len(templates) > MAX_SUBSTITUTIONS:
        report.add(
            (), "substitution", f"{len(templates)} values with variables, at most {MAX_SUBSTITUTIONS} in one file"
        )
    return templates


def _replace(text: str, path: KeyPath, environ: Mapping[str, str], report: Report) -> str | Unset:
    written: list[str] = []
    shown: list[str] = []
    values: list[str] = []
    is_complete = True
    end = 0
    for match in _REFERENCE.finditer(text):
        between = text[end : match.start()]
        end = match.end()
        written.append(between)
        shown.append(between)
        if match[0] == "$${":
            written.append("${")
            shown.append("$${")
            continue
        name, has_default, default = match[1].partition(":-")
        if not match[2] or not _NAME.fullmatch(name) or "${" in default:
            report.add(
                path,
                "substitution",
                "this is no variable",
                found="${" + name[:40],
                expected="${NAME} or ${NAME:-default} (the default without a brace); $${ for a literal ${",
            )
            is_complete = False
            continue
        value = environ.get(name, "") or default
        if not value and not has_default:
            report.add(
                path,
                "variable",
                f"variable {name} is {'empty' if name in environ else 'not set'}",
                found=f"${{{name}}}",
                expected=f"the environment to have {name}",
                nearest=_nearest(name, environ),
                hint=f"set it, or write ${{{name}:-default}}",
            )
            is_complete = False
            continue
        if not _is_unicode(value):
            report.add(path, "variable", f"variable {name} is no UTF-8 text", found=f"${{{name}}}")
            is_complete = False
            continue
        written.append(value)
        shown.append(f"${{{name}:-{MASK}}}" if has_default else f"${{{name}}}")
        values.append(value)
    if not is_complete:
        return UNSET
    written.append(text[end:])
    shown.append(text[end:])
    if not values:
        return "".join(written)
    replaced = Substituted("".join(written))
    replaced.template = "".join(shown)
    replaced.values = tuple(values)
    return replaced


def _is_unicode(value: str) -> bool:
    """Whether it came as UTF-8: other bytes of the environment are carried as lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _nearest(name: str, environ: Mapping[str, str]) -> str | None:
    close = difflib.get_close_matches(name, list(environ), n=1, cutoff=0.8)
    return close[0] if close else None
