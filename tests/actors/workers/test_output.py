from __future__ import annotations

import pytest

from actors.workers import output
from actors.workers.output import LINE_BYTES, LINES_BURST, Lines
from runtime import clock


@pytest.fixture
def passed() -> list[str]:
    return []


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that `output` reads: change its one item."""
    now = [100.0]
    monkeypatch.setattr(clock, "now", lambda: now[0])
    return now


def test_bytes_become_lines_however_they_are_cut(passed: list[str]) -> None:
    lines = Lines(passed.append)
    for chunk in (b"on", b"e\ntwo\nthr", b"ee", b"\n"):
        lines.feed(chunk)
    assert passed == ["one", "two", "three"]


def test_a_last_line_without_an_end_is_passed_on_at_the_end(passed: list[str]) -> None:
    lines = Lines(passed.append)
    lines.feed(b"almost")
    assert not passed
    lines.end()
    assert passed == ["almost"]


def test_a_line_that_is_too_long_is_cut_and_its_rest_is_dropped(passed: list[str]) -> None:
    lines = Lines(passed.append)
    for _ in range(10):
        lines.feed(b"x" * LINE_BYTES)
    lines.feed(b"\nnext\n")
    assert passed == ["x" * LINE_BYTES + " ...", "next"]


def test_bytes_that_are_no_text_stay_readable(passed: list[str]) -> None:
    Lines(passed.append).feed(b"caf\xc3\xa9 \xff\n")
    assert passed == ["café \\xff"]


def test_lines_over_the_rate_are_counted_instead_of_passed_on(passed: list[str], at: list[float]) -> None:
    lines = Lines(passed.append)
    lines.feed(b"".join(b"%d\n" % number for number in range(1000)))
    assert len(passed) == LINES_BURST
    at[0] += 1.0
    lines.feed(b"later\n")
    assert passed[-2:] == ["(800 lines left out, more than 100 lines per second)", "later"]


def test_the_newest_lines_are_kept_whether_or_not_they_were_passed_on(passed: list[str], at: list[float]) -> None:
    lines = Lines(passed.append)
    lines.feed(b"".join(b"%d\n" % number for number in range(1000)))
    assert list(lines.last) == [str(number) for number in range(980, 1000)]


def test_lines_are_cleaned_before_anybody_sees_them(passed: list[str]) -> None:
    lines = Lines(passed.append, lambda text: text.replace("secret", "***"))
    lines.feed(b"a secret\n")
    assert passed == list(lines.last) == ["a ***"]


def test_a_flood_costs_no_more_memory_than_its_bounds(passed: list[str], at: list[float]) -> None:
    lines = Lines(passed.append)
    for _ in range(200):
        lines.feed(b"no end of line" * 5000)
    lines.end()
    assert sum(map(len, passed)) + sum(map(len, lines.last)) < 2 * (LINE_BYTES + output.KEPT_LINE_CHARS)
