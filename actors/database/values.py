"""What goes into a statement and what comes out of it, as values that JSON can carry.

Into it: null, booleans, numbers, texts, and whatever a declared parameter type makes of them. A list is an array
(PostgreSQL) or JSON text (SQLite), an object is JSON text, bytes (MessagePack only) stay bytes. Null is accepted for
every parameter, as in SQL.

Out of it, for both engines:

| database | JSON |
| --- | --- |
| integers | number; above 2^53 a client that reads numbers as floats loses digits |
| real, double precision | number; `"NaN"`, `"Infinity"`, `"-Infinity"` as texts |
| numeric | text with every digit, `"12.50"`; with `numeric = "number"` the nearest number |
| text, enums, inet, ranges and every type not named here | text, as the database writes it |
| boolean | true, false (SQLite stores 1 and 0) |
| date, time | ISO 8601 text: `"2026-11-21"`, `"07:05:00"` |
| timestamp | `"2026-11-21T07:05:00"`; with time zone `"2026-11-21T07:05:00+00:00"`; `"infinity"` stays |
| interval | ISO 8601 duration: `"P1DT2H"` |
| json, jsonb | the value itself (SQLite stores JSON as text and answers with text) |
| arrays | array of the element's form |
| uuid | text |
| bytea, BLOB | base64 text |

Pure functions. Error texts never hold the value.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
import math
import re
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

Numeric = Literal["string", "number"]
NUMERIC_FORMS = ("string", "number")

_TIMESTAMP = re.compile(r"(\d{4,6}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?)(?:([+-]\d\d)(:\d\d(?::\d\d)?)?)?\Z")
_INT64 = range(-(2**63), 2**63)


class ValueRejected(ValueError):
    """A parameter's value cannot be bound; the message says what was expected and never what was found."""


def iso_timestamp(text: str) -> str:
    """Turn PostgreSQL's ISO output into ISO 8601 proper; `infinity` and years before Christ stay. Never switches."""
    found = _TIMESTAMP.match(text)
    if found is None:
        return text
    day, time, hours, minutes = found.groups()
    return f"{day}T{time}" if hours is None else f"{day}T{time}{hours}{minutes or ':00'}"


def number_of(text: str) -> int | float | str:
    """Return the nearest JSON number of a decimal text; NaN and infinities stay texts. Never switches."""
    value = Decimal(text)
    if not value.is_finite():
        return text
    return int(value) if value == value.to_integral_value() else float(value)


def float_of(value: float) -> float | str:
    """Return the float itself when JSON can carry it, else its name. Never switches."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def base64_of(data: bytes | memoryview) -> str:
    """Return the bytes as standard base64 with padding. Never switches."""
    return base64.b64encode(data).decode("ascii")


def size_of(value: object) -> int:
    """Estimate the bytes a value takes in an answer: exact enough for a bound, cheap enough for each cell.

    Never switches.
    """
    if type(value) is str:
        return (len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))) + 2
    if isinstance(value, list):
        return 2 + sum(map(size_of, value))
    if isinstance(value, dict):
        return 2 + sum(len(str(key)) + 4 + size_of(item) for key, item in value.items())
    return 8


def _integer(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueRejected("an integer")


def _float(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise ValueRejected("a number")


def _decimal(value: object) -> Decimal:
    if isinstance(value, Decimal | str | int) and not isinstance(value, bool):
        try:
            return Decimal(value)
        except InvalidOperation:
            pass
    raise ValueRejected('a decimal number as text such as "12.50", or an integer')


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueRejected("a text")


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueRejected("true or false")


def _date(value: object) -> dt.date:
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return value
    if isinstance(value, str):
        try:
            return dt.date.fromisoformat(value)
        except ValueError:
            pass
    raise ValueRejected('an ISO 8601 date such as "2026-11-21"')


def _time(value: object) -> dt.time:
    if isinstance(value, dt.time):
        return value
    if isinstance(value, str):
        try:
            return dt.time.fromisoformat(value)
        except ValueError:
            pass
    raise ValueRejected('an ISO 8601 time such as "07:05:00"')


def _timestamp(value: object) -> dt.datetime:
    if isinstance(value, dt.datetime):
        return value
    if isinstance(value, str):
        try:
            return dt.datetime.fromisoformat(value)
        except ValueError:
            pass
    raise ValueRejected('an ISO 8601 timestamp such as "2026-11-21T07:05:00+00:00"')


def _uuid(value: object) -> uuid.UUID:
    if isinstance(value, uuid.UUID):
        return value
    if isinstance(value, str):
        try:
            return uuid.UUID(value)
        except ValueError:
            pass
    raise ValueRejected("a UUID")


def _bytes(value: object) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            pass
    raise ValueRejected("base64 text")


class JsonText(str):
    """JSON already written as text: bound as it is, whatever the declared element types around it."""

    __slots__ = ()


def _json(value: object) -> JsonText:
    try:
        return JsonText(json.dumps(value, ensure_ascii=False, allow_nan=False))
    except (TypeError, ValueError):
        raise ValueRejected("a value that JSON can carry") from None


_TYPES: dict[str, Callable[[object], object]] = {
    "int": _integer,
    "float": _float,
    "decimal": _decimal,
    "text": _text,
    "bool": _boolean,
    "date": _date,
    "time": _time,
    "timestamp": _timestamp,
    "uuid": _uuid,
    "bytes": _bytes,
    "json": _json,
}

#: the words a parameter's `type` may be; `int[]` and so on are lists of them
PARAMETER_TYPES = ("any", *_TYPES, *(f"{name}[]" for name in _TYPES if name != "json"))


def convert(type_name: str, value: object) -> object:
    """Return what to bind for a value of a declared type; raise `ValueRejected` naming what was expected.

    Never switches.
    """
    if value is None:
        return None
    if type_name == "any":
        return value
    if type_name.endswith("[]"):
        if not isinstance(value, list | tuple):
            raise ValueRejected(f"a list of {type_name[:-2]}")
        element = _TYPES[type_name[:-2]]
        return [None if item is None else element(item) for item in value]
    return _TYPES[type_name](value)


def for_postgres(value: object) -> object:
    """Return what psycopg is given: objects become JSON text, whose type the statement decides. Never switches."""
    if isinstance(value, str):
        if "\x00" in value:
            raise ValueRejected("a text without the character NUL, which PostgreSQL cannot store")
        _encodable(value)
        return str(value) if type(value) is not str else value
    if isinstance(value, Mapping):
        return for_postgres(_json(value))
    if isinstance(value, list | tuple):
        if any(isinstance(item, Mapping) for item in value):
            return for_postgres(_json(value))
        return [for_postgres(item) for item in value]
    return value


def for_sqlite(value: object) -> int | float | str | bytes | None:
    """Return what SQLite can store: dates and decimals become texts, lists and objects JSON. Never switches."""
    if value is None:
        return None
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        if value not in _INT64:
            raise ValueRejected("an integer of at most 64 bits")
        return value
    if isinstance(value, float):
        if math.isnan(value):
            raise ValueRejected("a number, which NaN is not for SQLite")
        return value
    if isinstance(value, str):
        _encodable(value)
        return str(value) if type(value) is not str else value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, Mapping | list | tuple):
        return for_sqlite(_json(_plain(value)))
    if isinstance(value, Decimal | uuid.UUID):
        return str(value)
    raise ValueRejected("null, a boolean, number, text, list or object")


def _plain(value: Any) -> Any:
    """The elements of a typed list as JSON has them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, bytes):
        return base64_of(value)
    return value


def _encodable(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueRejected("a text of whole Unicode characters, without lone surrogates") from None
