"""Every recorded trace of OTP's supervisor, replayed: on virtual time, and on the time of the wall."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from tests.otp.replay import main, replay

DATA = Path(__file__).parent / "data"
SCENARIOS = [
    pytest.param(scenario, id=scenario["name"])
    for file in sorted(DATA.glob("*.json"))
    for scenario in json.loads(file.read_text(encoding="utf-8"))
]


def test_no_recorded_scenario_is_left_out() -> None:
    assert len(SCENARIOS) == 386


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_does_what_otp_did(scenario: Mapping[str, Any]) -> None:
    assert replay(scenario) == scenario["expect"]


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_does_what_otp_did_on_the_real_clock(scenario: Mapping[str, Any]) -> None:
    assert replay(scenario, real_clock=True) == scenario["expect"]


def test_prints_what_was_seen_in_the_format_of_the_files() -> None:
    file = DATA / "signals.json"
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert main([str(file)]) == 0
    expected = [{"name": s["name"], "expect": s["expect"]} for s in json.loads(file.read_text(encoding="utf-8"))]
    assert json.loads(printed.getvalue()) == expected
