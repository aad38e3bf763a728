"""Secrets: values that must never reach a log, a tree, a metric, a crash record, an error or a dump.

Two defences. A `Secret` does not show its value by itself, whatever prints it. And because a revealed value travels on
(into a header, a driver, a foreign exception's text), every secret is registered here, and `redact` takes it out of any
text that is about to leave for others.
"""

from __future__ import annotations

import hmac
import json
import urllib.parse
from typing import Any, NoReturn

MASK = "***"

# A text is searched only for values that can be told from ordinary words: masking every "a" or "443" would destroy logs
# and protect nothing. Shorter values are still masked where their place is known (Secret, configuration dumps).
SHORTEST_SEARCHED = 4
LONGEST_PLAIN_NUMBER = 5
HARMLESS = frozenset({"localhost", "127.0.0.1", "0.0.0.0", "true", "false", "null", "none", "True", "False", "None"})

# Bounds of the registry. Values from configuration and values made in code are counted apart, so that code that makes
# a Secret per message pushes out its own older ones and never those of the configuration.
MAX_PINNED = 4096
MAX_TRANSIENT = 4096

# Each value with its spellings; and all spellings in one tuple, made anew when a value came or went.
_pinned: dict[str, tuple[str, ...]] = {}
_transient: dict[str, tuple[str, ...]] = {}
_searched: tuple[str, ...] = ()
_stale = False


class Secret:
    """A text that only `reveal` shows.

    `str`, `repr`, formatting and logging give a mask; json and msgspec refuse it; pickling raises TypeError. Equality
    takes the same time wherever the values differ. Making one registers the value for `redact`. Never switches.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError(f"a secret is made from a text, found {type(value).__name__}")
        self.__value = value
        register(value)

    def reveal(self) -> str:
        """The value itself, for the one call that needs it. Never switches."""
        return self.__value

    def __str__(self) -> str:
        return MASK

    def __repr__(self) -> str:
        return f"{type(self).__name__}('{MASK}')"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __bool__(self) -> bool:
        return bool(self.__value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        mine, others = (secret.reveal().encode("utf-8", "surrogatepass") for secret in (self, other))
        return hmac.compare_digest(mine, others)

    def __hash__(self) -> int:
        return hash((Secret, self.__value))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is never pickled: pass it by name and read it where it is used")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a secret has no state to show")


def register(value: str, *, pinned: bool = False) -> None:
    """Makes `redact` know a value, in all the spellings it is likely to appear in.

    Pinned values (configuration) are forgotten only for newer pinned ones. Call it for what is derived from a secret
    and does not contain it literally, such as a Basic header. Never switches.
    """
    global _stale
    if not _is_searched(value):
        return
    values, limit = (_pinned, MAX_PINNED) if pinned else (_transient, MAX_TRANSIENT)
    spellings = values.pop(value, None)
    if spellings is None:
        spellings = _spellings(value)
        _stale = True
    values[value] = spellings  # behind all others: the newest
    while len(values) > limit:
        del values[next(iter(values))]
        _stale = True


def redact(text: str) -> str:
    """The text with every registered secret masked, overlapping ones included. Never switches."""
    global _searched, _stale
    if _stale:
        _stale = False
        _searched = tuple({each for spellings in [*_pinned.values(), *_transient.values()] for each in spellings})
    # One search per spelling takes a tenth of the time of one regular expression of all (1 to 1000 secrets in 200 B).
    found = [each for each in _searched if each in text]
    if not found:
        return text
    spans = []
    for each in found:
        start = text.find(each)
        while start >= 0:
            spans.append((start, start + len(each)))
            start = text.find(each, start + 1)
    spans.sort()
    parts: list[str] = []
    written_to = 0
    mask_from, mask_to = spans[0]
    for start, end in spans:
        if start > mask_to:  # else it overlaps or touches the one before: one mask for both
            parts += (text[written_to:mask_from], MASK)
            written_to, mask_from = mask_to, start
        mask_to = max(mask_to, end)
    parts += (text[written_to:mask_from], MASK, text[mask_to:])
    return "".join(parts)


def forget_all() -> None:
    """Empties the registry: for tests only, each of which must not see another's secrets. Never switches."""
    global _searched, _stale
    _pinned.clear()
    _transient.clear()
    _searched = ()
    _stale = False


def _is_searched(value: str) -> bool:
    if len(value) < SHORTEST_SEARCHED or value in HARMLESS:
        return False
    return not (value.isdecimal() and len(value) <= LONGEST_PLAIN_NUMBER)


def _spellings(value: str) -> tuple[str, ...]:
    """How a value may look inside a URL, a JSON text, a Python repr; and a key file's lines, which loggers split."""
    found = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    try:
        found |= {urllib.parse.quote(value, safe=""), urllib.parse.quote(value), urllib.parse.quote_plus(value)}
    except UnicodeEncodeError:
        pass  # lone surrogates (bytes of an environment variable that are no UTF-8) have no URL spelling
    stripped = value.strip()
    if _is_searched(stripped):
        found.add(stripped)
    if "\n" in stripped:
        found.update(line.strip() for line in stripped.splitlines() if len(line.strip()) >= 16)
    return tuple(found)
