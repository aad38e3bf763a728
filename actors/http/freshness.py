"""What RFC 9111 says about a response: may it be kept, for how long is it fresh, and how it is asked for again.

Pure decisions, no clock and no storage. A cache is private while all callers act as the one user whom the integration's
own credentials name, and shared for operations whose callers bring credentials of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

# RFC 9111, 1.2.2: larger numbers count as this one.
MAX_SECONDS = 2**31

# RFC 9110, 7.6.1 and RFC 9111, 3.1: these speak of one connection, not of the answer.
HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authentication-info", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
# What a 304 says about these is about itself, not about the body that was kept.
_OF_THE_BODY = frozenset({"content-encoding", "content-length", "content-range", "content-type"})

# Request headers by which a caller takes caching into its own hands, and such a call neither uses nor fills the cache.
CALLERS_OWN_RULES = frozenset(
    {
        "cache-control", "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "pragma",
        "range",
    }
)  # fmt: skip
CREDENTIALS = frozenset({"authorization", "cookie"})

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_DIRECTIVE = re.compile(rf'\s*({_TOKEN})\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^,]*)))?\s*(?:,|$)|[^,]*(?:,|$)')
_DIGITS = re.compile(r"[0-9]+")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH = "|".join(_MONTHS)
_IMF = re.compile(rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d\d) ({_MONTH}) (\d{{4}}) (\d\d):(\d\d):(\d\d) GMT", re.ASCII)
_RFC850 = re.compile(
    rf"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (\d\d)-({_MONTH})-(\d\d) (\d\d):(\d\d):(\d\d) GMT", re.ASCII
)
_ASCTIME = re.compile(rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) ({_MONTH}) ([ \d]\d) (\d\d):(\d\d):(\d\d) (\d{{4}})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms an answer may be kept: seconds from now, and the age that it came with."""

    fresh_s: float
    stand_in_s: float | None
    """How long it may stand in for a failure once it is stale (RFC 5861); None leaves that to the operator."""
    refresh_s: float | None
    """How long it may be used once it is stale, while a newer one is asked for (RFC 5861); None: the operator's."""
    age_s: float
    explicit: bool
    """True when the peer said how long the answer is fresh."""


def directives(value: str | None) -> dict[str, str]:
    """Return the directives of a Cache-Control field by lower-case name; of one said twice, the first. Never switches.

    What is inside of a quoted string is no directive, and a part that cannot be read is left out.
    """
    found: dict[str, str] = {}
    at = 0
    text = value or ""
    while at < len(text):
        match = _DIRECTIVE.match(text, at)
        if match is None or match.end() == at:
            break
        at = match.end()
        if match[1]:
            quoted, plain = match[2], match[3]
            said = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else (plain or "").rstrip()
            found.setdefault(match[1].lower(), said)
    return found


def seconds(text: str | None) -> int | None:
    """Return delta-seconds (RFC 9111, 1.2.2), None for anything else. Never switches."""
    if text is None or not _DIGITS.fullmatch(text):
        return None
    return min(int(text[:18] if len(text) < 19 else "9" * 18), MAX_SECONDS)


def moment(text: str | None, wall: float) -> float | None:
    """Return an HTTP date as unix time, None for anything but the three forms of RFC 9110. Never switches."""
    if text is None:
        return None
    try:
        if match := _IMF.fullmatch(text):
            day, month, year, *clock_time = match.groups()
        elif match := _RFC850.fullmatch(text):
            day, month, year, *clock_time = match.groups()
            century = datetime.fromtimestamp(wall, UTC).year // 100 * 100
            whole = century + int(year)
            # Two digits that seem to be more than 50 years ahead are of the past (RFC 9110, 5.6.7).
            year = str(whole - 100 if whole > datetime.fromtimestamp(wall, UTC).year + 50 else whole)
        elif match := _ASCTIME.fullmatch(text):
            month, day, *clock_time, year = match.groups()
        else:
            return None
        hour, minute, second = (int(part) for part in clock_time)
        at = datetime(int(year), _MONTHS.index(month) + 1, int(day), hour, minute, min(second, 59), tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    return at.timestamp()


def terms(
    headers: Mapping[str, str], *, wall: float, took_s: float, ttl_s: float, shared: bool, authorized: bool
) -> Terms | None:
    """Say on what terms a 200 may be kept (RFC 9111, 3 and 4.2), None when it may not. Never switches.

    `headers` has lower-case names; `wall` is the unix time of arrival and `took_s` how long the exchange took; `ttl_s`
    is for peers that say nothing. `authorized`: the caller brought the request's credentials.
    """
    said = directives(headers.get("cache-control"))
    if "no-store" in said or headers.get("vary", "").strip() == "*" or "*" in _names(headers.get("vary")):
        return None
    if shared and "private" in said:
        return None
    if shared and authorized and not {"public", "s-maxage", "must-revalidate"} & said.keys():
        return None
    age_s = _age(headers, wall, took_s)
    lifetime_s = _lifetime(headers, said, wall, shared)
    explicit = lifetime_s is not None
    if "no-cache" in said:
        fresh_s = 0.0
        explicit = True
    elif lifetime_s is None:
        fresh_s = ttl_s
    else:
        fresh_s = max(0.0, lifetime_s - age_s)
    stand_in_s, refresh_s = (_stale(said, shared, name) for name in ("stale-if-error", "stale-while-revalidate"))
    if refresh_s is None and explicit:
        # Who says how long an answer is fresh, and no more, allows no use beyond that (RFC 9111, 4.2.4).
        refresh_s = 0.0
    return Terms(fresh_s, stand_in_s, refresh_s, age_s if explicit else 0.0, explicit)


def _age(headers: Mapping[str, str], wall: float, took_s: float) -> float:
    """RFC 9111, 4.2.3; of several Age values the first counts, and one that is no number is as good as none."""
    said = seconds((headers.get("age") or "").split(",")[0].strip()) or 0
    date = moment(headers.get("date"), wall)
    apparent = 0.0 if date is None else max(0.0, wall - date)
    # Dates count whole seconds: a response that left in the same second is not older than its way here.
    if apparent < 1.0:
        apparent = 0.0
    return max(apparent, float(said) + (took_s if said else 0.0))


def _lifetime(headers: Mapping[str, str], said: Mapping[str, str], wall: float, shared: bool) -> float | None:
    """RFC 9111, 4.2.1; what is there and cannot be read counts as stale."""
    for name in ("s-maxage", "max-age") if shared else ("max-age",):
        if name in said:
            return float(seconds(said[name]) or 0)
    expires = headers.get("expires")
    if expires is None:
        return None
    ends = moment(expires, wall)
    if ends is None:
        return 0.0
    date = moment(headers.get("date"), wall)
    return max(0.0, ends - (wall if date is None else date))


def _stale(said: Mapping[str, str], shared: bool, allowance: str) -> float | None:
    if {"must-revalidate", "no-cache"} & said.keys():
        return 0.0
    if shared and {"proxy-revalidate", "s-maxage"} & said.keys():
        return 0.0
    limit = seconds(said.get(allowance))
    return None if limit is None else float(limit)


def _names(value: str | None) -> frozenset[str]:
    return frozenset(name.strip().lower() for name in (value or "").split(",") if name.strip())


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return what is kept of a response's headers: all but those of the connection. Never switches."""
    without = HOP_BY_HOP | _names(headers.get("connection"))
    return {name: value for name, value in headers.items() if name not in without}


def conditions(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the request headers that ask whether a kept response still holds; empty without a validator.

    Never switches.
    """
    found = {}
    if etag := headers.get("etag"):
        found["if-none-match"] = etag
    if modified := headers.get("last-modified"):
        found["if-modified-since"] = modified
    return found


def is_same(kept: Mapping[str, str], answer: Mapping[str, str]) -> bool:
    """Tell whether a 304 speaks of the kept response, by its entity tag if it has one. Never switches."""
    tag, other = kept.get("etag"), answer.get("etag")
    return tag is None or other is None or tag.removeprefix("W/") == other.removeprefix("W/")


def refreshed(kept: Mapping[str, str], answer: Mapping[str, str]) -> dict[str, str]:
    """Return the kept headers as a 304 renews them (RFC 9111, 3.2). Never switches."""
    news = {name: value for name, value in kept_headers(answer).items() if name not in _OF_THE_BODY}
    return {**{name: value for name, value in kept.items() if name != "age"}, **news}
