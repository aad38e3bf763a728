"""Every bench runs, in a tiny mode and without its peers, and says what it measured in the agreed shape."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ("ask", "tell", "start", "restart", "memory", "ring", "broadcast", "monitor")
LASTING = ("storm", "fairness")
EDGES = ("gateway", "rest", "worker", "metrics")


def run(tmp_path: Path, *arguments: str) -> list[dict[str, Any]]:
    saved = tmp_path / "results.json"
    command = [sys.executable, "-m", "bench", *arguments, "--quick", "--json", str(saved)]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert made.returncode == 0, made.stderr
    return [json.loads(line) for line in saved.read_text().splitlines()]


def assert_shape(lines: list[dict[str, Any]], names: tuple[str, ...]) -> None:
    head, *results = lines
    assert {"machine", "cores", "python", "packages", "at"} <= head.keys()
    assert tuple(dict.fromkeys(line["bench"] for line in results)) == names
    for line in results:
        assert {"bench", "metric", "ours", "peers", "ratios", "goals", "spread", "unit"} <= line.keys()
        assert line["ours"] > 0 or line["unit"] == "ms"
        assert line["peers"].keys() == line["ratios"].keys()
        assert all(goal["met"] in (True, False, None) for goal in line["goals"])


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_each_core_bench_runs_and_reports(tmp_path: Path) -> None:
    assert_shape(run(tmp_path, *CORE, "--alone"), CORE)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", [*LASTING, *EDGES])
def test_a_bench_that_lasts_or_needs_servers_runs_and_reports(name: str, tmp_path: Path) -> None:
    assert_shape(run(tmp_path, name, "--alone"), (name,))


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.timeout(120)
def test_the_bench_of_the_database_runs_and_reports(tmp_path: Path) -> None:
    assert_shape(run(tmp_path, "database", "--alone"), ("database",))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_peer_that_is_there_gets_a_ratio_and_one_that_is_not_is_named(tmp_path: Path) -> None:
    _, *results = run(tmp_path, "ask")
    first = results[0]
    assert first["ratios"]["pykka threads"] == pytest.approx(first["ours"] / first["peers"]["pykka threads"], rel=0.01)
    assert first["peers"].keys() | first["skipped"].keys() == {
        "OTP",
        "pykka threads",
        "pykka gevent",
        "Thespian",
        "xoscar",
    }


def test_a_name_that_is_no_bench_is_told_with_those_that_are(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "speed"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert made.returncode == 2
    assert "no bench is named speed" in made.stderr and "ask" in made.stderr
