"""What is bound and what is answered: each type of PostgreSQL and SQLite in the form that the mapping promises."""

from __future__ import annotations

import datetime as dt
import json
import math
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.database import values
from actors.database.values import ValueRejected
from tests.actors.database.conftest import StartDatabase
from tests.support.servers.postgres import PostgresDatabase

ANSWERS = [
    ("1::smallint", 1),
    ("9007199254740993::bigint", 9007199254740993),
    ("12.50::numeric", "12.50"),
    ("1e40::numeric", "1" + "0" * 40),
    ("'NaN'::numeric", "NaN"),
    ("1.5::float4", 1.5),
    ("0.1::float8", 0.1),
    ("'NaN'::float8", "NaN"),
    ("'-Infinity'::float8", "-Infinity"),
    ("true", True),
    ("NULL", None),
    ("'it''s'::text", "it's"),
    ("'a'::varchar(5)", "a"),
    ("'2026-11-21'::date", "2026-11-21"),
    ("'infinity'::date", "infinity"),
    ("'07:05:00.25'::time", "07:05:00.25"),
    ("'07:05+02'::timetz", "07:05:00+02:00"),
    ("'2026-11-21 07:05'::timestamp", "2026-11-21T07:05:00"),
    ("'2026-11-21 07:05+05:30'::timestamptz", "2026-11-21T01:35:00+00:00"),
    ("'infinity'::timestamptz", "infinity"),
    ("'0044-03-15 BC'::date", "0044-03-15 BC"),
    ("interval '1 day 2 hours'", "P1DT2H"),
    ("""'{"a": [1, null]}'::jsonb""", {"a": [1, None]}),
    ("'[1.5]'::json", [1.5]),
    ("array[1, 2, NULL]", [1, 2, None]),
    ("array[array[1], array[2]]", [[1], [2]]),
    ("array['2026-11-21'::date]", ["2026-11-21"]),
    ("array[1.50::numeric]", ["1.50"]),
    ("'{}'::text[]", []),
    ("'12345678-1234-5678-1234-567812345678'::uuid", "12345678-1234-5678-1234-567812345678"),
    ("'\\x00ff'::bytea", "AP8="),
    ("'10.0.0.1/8'::inet", "10.0.0.1/8"),
    ("int4range(1, 3)", "[1,3)"),
    ("row(1, 'a')", "(1,a)"),
    ("'ok'::pg_catalog.name", "ok"),
]


def test_each_type_of_postgres_is_answered_as_documented(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    columns = ", ".join(f"{sql} AS c{index}" for index, (sql, _) in enumerate(ANSWERS))
    database = start_database(f"{postgres_schema.url}%20-ctimezone%3DUTC", {"all": f"SELECT {columns}"})

    answer = database.ask("all")[0]

    assert [answer[f"c{index}"] for index in range(len(ANSWERS))] == [expected for _, expected in ANSWERS]
    json.dumps(answer, allow_nan=False)


def test_numeric_can_be_a_number(start_database: StartDatabase, postgres_schema: PostgresDatabase) -> None:
    operations = {"all": "SELECT 12.50::numeric AS a, 3.00::numeric AS b, 'NaN'::numeric AS c"}
    database = start_database(postgres_schema.url, operations, numeric="number")

    answer = database.ask("all")
    assert answer == [{"a": 12.5, "b": 3, "c": "NaN"}]
    assert type(answer[0]["b"]) is int, "a whole number has no fraction in JSON"


TYPED = [
    ("int", 5, "integer", 5),
    ("float", 2, "double precision", 2.0),
    ("decimal", "12.50", "numeric", "12.50"),
    ("bool", False, "boolean", False),
    ("date", "2026-11-21", "date", "2026-11-21"),
    ("time", "07:05", "time", "07:05:00"),
    ("timestamp", "2026-11-21T07:05:00+00:00", "timestamptz", "2026-11-21T07:05:00+00:00"),
    ("uuid", "12345678123456781234567812345678", "uuid", "12345678-1234-5678-1234-567812345678"),
    ("bytes", "AP8=", "bytea", "AP8="),
    ("json", {"a": ["it's", None]}, "jsonb", {"a": ["it's", None]}),
    ("json", "text", "jsonb", "text"),
    ("int[]", [1, None], "int[]", [1, None]),
    ("date[]", ["2026-11-21"], "date[]", ["2026-11-21"]),
    ("text[]", ["a,b", '"'], "text[]", ["a,b", '"']),
    ("any", {"b": 1}, "jsonb", {"b": 1}),
    ("any", "2026-11-21", "date", "2026-11-21"),
    ("any", [], "int[]", []),
]


def test_each_parameter_type_reaches_postgres(start_database: StartDatabase, postgres_schema: PostgresDatabase) -> None:
    operations = {
        f"echo_{index}": {"sql": f"SELECT :p::{kind}", "kind": "value", "params": {"p": name}}
        for index, (name, _, kind, _) in enumerate(TYPED)
    }
    database = start_database(f"{postgres_schema.url}%20-ctimezone%3DUTC", operations)

    for index, (name, value, _, expected) in enumerate(TYPED):
        assert database.ask(f"echo_{index}", p=value) == expected, name
        assert database.ask(f"echo_{index}", p=None) is None, name


def test_a_typed_parameter_decides_the_type_of_the_statement(
    start_database: StartDatabase, postgres_schema: PostgresDatabase
) -> None:
    operations = {"next_day": {"sql": "SELECT :day + 1", "kind": "value", "params": {"day": "date"}}}
    database = start_database(postgres_schema.url, operations)

    assert database.ask("next_day", day="2026-02-28") == "2026-03-01"


@pytest.mark.parametrize(
    ("type_name", "value"),
    [
        ("int", True),
        ("int", 1.5),
        ("float", "1"),
        ("bool", 1),
        ("text", 1),
        ("date", "21.11.2026"),
        ("date", dt.datetime(2026, 11, 21, tzinfo=dt.UTC)),
        ("timestamp", "soon"),
        ("time", "25:00"),
        ("uuid", "x"),
        ("bytes", "not base64!"),
        ("decimal", 1.5),
        ("decimal", "1,5"),
        ("int[]", 5),
        ("int[]", ["5"]),
        ("json", {1, 2}),
        ("json", math.nan),
    ],
)
def test_what_does_not_fit_its_type_is_refused_without_being_shown(type_name: str, value: Any) -> None:
    with pytest.raises(ValueRejected) as caught:
        values.convert(type_name, value)

    assert str(value) not in str(caught.value) or type_name == "decimal"


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, math.nan, object(), "\ud800"])
def test_what_sqlite_cannot_store_is_refused(value: Any) -> None:
    with pytest.raises(ValueRejected):
        values.for_sqlite(value)


@pytest.mark.parametrize("value", ["a\x00b", "\udfff"])
def test_what_postgres_cannot_store_is_refused(value: Any) -> None:
    with pytest.raises(ValueRejected):
        values.for_postgres(value)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (True, 1),
        (dt.date(2026, 11, 21), "2026-11-21"),
        (dt.datetime(2026, 11, 21, 7, 5, tzinfo=dt.UTC), "2026-11-21T07:05:00+00:00"),
        (Decimal("1.50"), "1.50"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ([1, dt.date(2026, 11, 21)], '[1, "2026-11-21"]'),
        ({"a": b"\x00"}, '{"a": "AA=="}'),
        (b"x", b"x"),
    ],
)
def test_sqlite_stores_what_it_has_no_type_for_as_text(value: Any, stored: Any) -> None:
    assert values.for_sqlite(value) == stored


@given(st.datetimes(timezones=st.just(dt.UTC)) | st.datetimes())
def test_a_timestamp_of_postgres_becomes_one_that_python_reads(moment: dt.datetime) -> None:
    written = moment.isoformat(sep=" ").replace("+00:00", "+00")

    assert dt.datetime.fromisoformat(values.iso_timestamp(written)) == moment


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(_JSON)
def test_the_size_of_a_value_is_never_far_below_what_json_makes_of_it(value: Any) -> None:
    written = len(json.dumps(value, ensure_ascii=False))

    assert values.size_of(value) * 6 + 30 >= written


@given(st.text(st.characters(min_codepoint=32, exclude_characters='"\\', exclude_categories=["Cs"])))
def test_a_text_counts_as_the_bytes_it_takes(text: str) -> None:
    assert values.size_of(text) == len(json.dumps(text, ensure_ascii=False).encode())
