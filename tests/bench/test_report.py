"""What is made of the figures: medians, spreads, goals, the table and the plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bench import report
from bench.question import Goal, Metric, times_faster
from bench.rounds import Result, Spread

HEAD = {
    "machine": "a machine",
    "cores": 2,
    "system": "Linux",
    "python": "3.11",
    "otp": "25",
    "packages": {},
    "at": "2026-11-21",
}


def result_of(ours: float, theirs: float, *goals: Goal, unit: str = "us") -> dict[str, Any]:
    metric = Metric("us", "ask", unit, goals=goals)
    result = Result("ask", "1 asker", metric, Spread(ours, ours, ours), rounds=5)
    result.peers["OTP"] = Spread(theirs, theirs, theirs)
    result.ratios["OTP"] = Spread(ours / theirs, ours / theirs, ours / theirs)
    return report.line_of(result)


def test_a_spread_is_the_median_and_the_middle_half() -> None:
    assert Spread.of([5.0, 1.0, 2.0, 3.0, 4.0, 100.0, 2.5]) == Spread(3.0, 2.0, 5.0)


def test_a_spread_of_few_values_is_their_range() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [
        (Goal("OTP", at_most=1.3), 1.3, True),
        (Goal("OTP", at_most=1.3), 1.31, False),
        (Goal("raw", at_least=0.5), 0.5, True),
        (Goal("raw", at_least=0.5), 0.49, False),
        (times_faster("pykka", 10), 0.1, True),
        (times_faster("pykka", 10), 0.11, False),
    ],
)
def test_a_goal_is_met_at_its_bound_and_missed_beyond_it(goal: Goal, value: float, met: bool) -> None:
    assert goal.met(value) is met


def test_a_goal_of_a_peer_that_was_not_there_is_neither_met_nor_missed() -> None:
    line = result_of(1.0, 2.0, Goal("Thespian", at_most=0.5))
    assert line["goals"] == [{"of": "Thespian", "at_most": 0.5, "met": None}]
    assert report.unmet([line]) == []


def test_missed_goals_are_listed() -> None:
    assert report.unmet([result_of(3.0, 2.0, Goal("OTP", at_most=1.3))]) == ["ask, 1 asker: ask at most 1.3 x of OTP"]


def test_the_table_says_ratio_goal_and_both_figures() -> None:
    table = report.table(HEAD, [result_of(1.0, 10.0, times_faster("OTP", 6))])
    row = table.splitlines()[-1]
    assert row == (
        "| ask | ask, 1 asker | OTP | 10.0 times faster [0.1 to 0.1] | at least 6 times faster | met | 1 us | 10 us |"
    )


def test_a_second_run_replaces_only_the_benches_that_it_measured(tmp_path: Path) -> None:
    saved = tmp_path / "results.json"
    old = result_of(9.0, 9.0)
    report.save(saved, [HEAD, old, {**old, "bench": "tell"}])
    merged = report.merged(saved, [HEAD, result_of(1.0, 2.0)], ["ask", "tell"])
    assert [(line["bench"], line["ours"]) for line in merged[1:]] == [("ask", 1.0), ("tell", 9.0)]


def test_rendering_writes_a_table_and_a_plot_of_each_bench(tmp_path: Path) -> None:
    saved = tmp_path / "results.json"
    report.save(saved, [HEAD, result_of(1.0, 2.0), result_of(1.0, 500.0)])
    report.render(saved, tmp_path)
    assert "| ask |" in (tmp_path / "table.md").read_text()
    assert "bench/results/ask.svg" in (tmp_path / "section.md").read_text()
    plot = ET.parse(tmp_path / "ask.svg").getroot()
    bars = [float(bar.attrib["width"]) for bar in plot.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert len(bars) == 4
    assert bars[1] == pytest.approx(2 * bars[0])  # from zero when the figures are near
    assert bars[2] < bars[3] < 500 * bars[2]  # logarithmic when they are not


def test_the_saved_lines_are_json_one_a_line(tmp_path: Path) -> None:
    saved = tmp_path / "results.json"
    report.save(saved, [HEAD, result_of(1.0, 2.0)])
    assert [json.loads(line).get("bench") for line in saved.read_text().splitlines()] == [None, "ask"]


def test_the_section_counts_goals_and_leaves_out_figures_without_one() -> None:
    lines = [result_of(1.0, 10.0, times_faster("OTP", 6), Goal("OTP", at_least=1)), result_of(7.0, 7.0)]
    section = report.section(HEAD, lines)
    assert "1 of 2 goals are met" in section
    assert "7 us" not in section
