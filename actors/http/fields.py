"""What response headers say about patience: Retry-After, how many requests are left, when the peer's window ends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeGuard

from actors.http.structured import Item, parse_dictionary, parse_list

# However absurd the value, nobody waits for longer on a peer's word.
MAX_WAIT_S = 6 * 3600.0

# The unit of a policy that counts requests, which is also that of one that names none.
REQUESTS = "requests"

_DIGITS = re.compile(r"[0-9]{1,18}")
_DECIMAL = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,9})?")
_GO_DURATION = re.compile(r"(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9}(?:\.[0-9]{1,9})?)s)?(?:([0-9]{1,9})ms)?")

# A reset above this is a moment (unix time), below it a number of seconds; above the second one it counts milliseconds.
_MOMENT = 1e9
_MOMENT_MS = 1e12


@dataclass(frozen=True, slots=True)
class Limits:
    """What the peer said about its own limit; None where it said nothing."""

    remaining: int | None = None
    reset_s: float | None = None
    retry_after_s: float | None = None


def peer_now(headers: Mapping[str, str], wall: float) -> float:
    """Return the peer's own idea of now (unix seconds) from its Date header, else `wall`. Never switches.

    Moments that a peer names are counted from its own clock, so a skewed clock on either side does no harm.
    """
    date = headers.get("date")
    moment = None if date is None else _http_date(date)
    return wall if moment is None else moment


def retry_after_s(value: str | None, now: float) -> float | None:
    """Return the seconds that a Retry-After field asks for (RFC 9110, 10.2.3), None when it is absent or not valid.

    `now` is unix time. A date that has passed gives 0; no value gives more than six hours. Never switches.
    """
    if value is None:
        return None
    text = value.strip(" \t")
    if _DIGITS.fullmatch(text):
        return min(float(text), MAX_WAIT_S)
    moment = _http_date(text)
    return None if moment is None else min(max(0.0, moment - now), MAX_WAIT_S)


def reset_s(value: str | None, now: float) -> float | None:
    """Return the seconds until a peer's window ends, None when the field says nothing that can be read. Never switches.

    Peers disagree: seconds from now, unix seconds, unix milliseconds, RFC 3339, HTTP dates and "6m0s" are all in use.
    """
    if value is None:
        return None
    text = value.strip(" \t")
    seconds: float | None
    if _DECIMAL.fullmatch(text):
        number = float(text)
        seconds = number if number < _MOMENT else (number / 1000 if number >= _MOMENT_MS else number) - now
    elif text and (match := _GO_DURATION.fullmatch(text)):
        hours, minutes, whole, millis = (float(part or 0) for part in match.groups())
        seconds = hours * 3600 + minutes * 60 + whole + millis / 1000
    else:
        moment = _rfc3339(text) or _http_date(text)
        seconds = None if moment is None else moment - now
    return None if seconds is None else min(max(0.0, seconds), MAX_WAIT_S)


def limits(
    headers: Mapping[str, str], wall: float, *, remaining_header: str | None, reset_header: str | None
) -> Limits:
    """Read the peer's limit out of response headers (lower-case names). Never switches.

    Without a name of its own for what remains these are the standard fields: the IETF's RateLimit with RateLimit-Policy
    that say all at once (`"burst";r=50;t=30`, the scarcest member counts), else RateLimit-Remaining and
    RateLimit-Reset. A header that is named may have either form. A structured field that breaks a rule says nothing.
    """
    now = peer_now(headers, wall)
    after = retry_after_s(headers.get("retry-after"), now)
    if remaining_header is not None:
        name = remaining_header.lower()
        reset_name = (reset_header or re.sub("remaining", "reset", name)).lower()
    else:
        name = "ratelimit" if "ratelimit" in headers else "ratelimit-remaining"
        reset_name = "ratelimit-reset"
    value = headers.get(name)
    if value is None:
        return Limits(retry_after_s=after)
    if _DIGITS.fullmatch(value.strip(" \t")):
        reset = reset_s(headers.get(reset_name), now) if reset_name != name else None
        return Limits(int(value), reset, after)
    remaining, reset = _scarcest(value, headers.get("ratelimit-policy", ""))
    if remaining is None:
        return Limits(retry_after_s=after)
    return Limits(remaining, reset if reset is not None else reset_s(headers.get(reset_name), now), after)


def _scarcest(value: str, policies: str) -> tuple[int | None, float | None]:
    """Return what the scarcest policy that counts requests has left, and the seconds until that ends."""
    best: tuple[int | None, float | None] = (None, None)
    windows = _windows(policies)
    for policy, params in _policies(value):
        left, ends = params.get("r", params.get("remaining")), params.get("t", params.get("reset"))
        window = windows.get(policy, 0)
        if not _is_count(left) or (best[0] is not None and left >= best[0]) or window is None:
            continue
        # What names no end ends at the latest when its window does.
        until = ends if _is_count(ends) else window or None
        best = left, None if until is None else min(float(until), MAX_WAIT_S)
    return best


def _windows(policies: str) -> dict[str, int | None]:
    """Return the window in seconds of each policy (0: it names none), None for those that count something else."""
    try:
        members = parse_list(policies)
    except ValueError:
        return {}
    windows: dict[str, int | None] = {}
    for member in members:
        window = member.params.get("w")
        if isinstance(member, Item) and isinstance(member.value, str):
            counts_requests = member.params.get("qu", REQUESTS) == REQUESTS
            windows[member.value] = (window if _is_count(window) else 0) if counts_requests else None
    return windows


def _policies(value: str) -> list[tuple[str, Mapping[str, object]]]:
    # The older drafts wrote one dictionary `limit=10, remaining=5, reset=3` where the newer ones write a list with a
    # member for each policy.
    try:
        members = parse_list(value)
    except ValueError:
        members = []
    if any("r" in member.params for member in members):
        return [(str(member.value) if isinstance(member, Item) else "", member.params) for member in members]
    try:
        words = parse_dictionary(value)
    except ValueError:
        return []
    return [("", {key: member.value for key, member in words.items() if isinstance(member, Item)})]


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _http_date(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return _unix(moment)


def _rfc3339(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return _unix(moment)


def _unix(moment: datetime) -> float | None:
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
