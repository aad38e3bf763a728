from __future__ import annotations

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.schema import MAX_DURATION_S, MAX_SIZE_BYTES, Duration, PositiveDuration, Size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0.0),
        ("1ms", 0.001),
        ("100ms", 0.1),
        ("1.5s", 1.5),
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("7d", 604800.0),
        ("1h30m", 5400.0),
        ("1d2h3m4s5ms", 93784.005),
        ("0.5h", 1800.0),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert Duration.parse(text) == seconds


@pytest.mark.parametrize(
    "value",
    ["", " ", "5", "5 m", "5M", "m", "-1s", "+1s", "1e3s", "1s1m", "1s1s", ".5s", "1.s", "1,5s", "five minutes", "1y",
     "٣s", "9" * 400 + "d", "3651d", 5, 5.0, True, None, [], {}],
)  # fmt: skip
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - an empty message is the loader's own wording
        Duration.parse(value)


@pytest.mark.parametrize("value", [30, 0.5, "30"])
def test_a_number_without_a_unit_is_answered_with_what_to_write(value: object) -> None:
    with pytest.raises(ValueError, match=f'write "{value}s" or "{value}ms"'):
        Duration.parse(value)


@pytest.mark.parametrize("value", ["infinity", "inf", "never"])
def test_a_wait_without_limit_is_refused_with_the_reason(value: str) -> None:
    with pytest.raises(ValueError, match="no waits without limit"):
        Duration.parse(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, MAX_DURATION_S * 2])
def test_code_cannot_make_an_unbounded_or_negative_duration(value: float) -> None:
    with pytest.raises(ValueError, match="a duration is from 0s to 3650d"):
        Duration(value)


def test_a_positive_duration_is_not_zero() -> None:
    assert PositiveDuration("1ms") == 0.001
    with pytest.raises(ValueError, match="longer than zero"):
        PositiveDuration.parse("0s")


def test_a_duration_computes_and_encodes_as_a_float() -> None:
    assert Duration("1m") * 2 == 120.0
    assert json.dumps(Duration("100ms")) == "0.1"
    assert f"{Duration('1.25s'):.1f}" == "1.2"


@given(st.floats(0.0, MAX_DURATION_S, allow_subnormal=False))
def test_a_duration_is_written_so_that_reading_gives_the_same_float(seconds: float) -> None:
    duration = Duration(seconds)
    written = str(duration)
    if re.search(r"\.[0-9]{33,}", written):  # finer than anything that is ever written
        return
    assert Duration.parse(written) == duration
    assert re.fullmatch(Duration.PATTERN, written)


@given(st.integers(0, 10 * 365 * 86400))
def test_whole_seconds_are_written_without_a_fraction(seconds: int) -> None:
    assert "." not in str(Duration(seconds))


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (0, 0),
        (1000, 1000),
        ("100B", 100),
        ("512KiB", 512 * 1024),
        ("8MiB", 8 << 20),
        ("1GiB", 1 << 30),
        ("2TiB", 2 << 40),
        ("8MB", 8_000_000),
        ("8kB", 8000),
        ("1.5KiB", 1536),
        ("4096", 4096),
    ],
)
def test_a_size_is_read(value: object, size: int) -> None:
    assert Size.parse(value) == size


@pytest.mark.parametrize(
    "value",
    [
        "",
        "MiB",
        "8 MiB",
        "8M",
        "-1",
        "-1B",
        "1e3",
        "0.5B",
        "1.0001KiB",
        "9999TiB",
        -1,
        1.5,
        1 << 60,
        True,
        None,
        [],
        {},
    ],
)
def test_what_is_no_size_is_refused(value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - an empty message is the loader's own wording
        Size.parse(value)


@pytest.mark.parametrize(
    ("value", "hint"), [("8mib", "8MiB"), ("8 MiB", "8MiB"), ("8mb", '8MB" or "8MiB'), ("1gib", "1GiB")]
)
def test_a_size_with_a_misspelt_unit_is_answered_with_the_right_one(value: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f'write "{hint}"'):
        Size.parse(value)


@given(st.integers(0, MAX_SIZE_BYTES))
def test_a_size_is_written_so_that_reading_gives_the_same_int(size: int) -> None:
    written = str(Size(size))
    assert Size.parse(written) == size
    assert re.fullmatch(Size.PATTERN, written)


def test_a_size_computes_and_encodes_as_an_int() -> None:
    assert Size("1KiB") + 1 == 1025
    assert json.dumps(Size("1KiB")) == "1024"
