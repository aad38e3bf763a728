"""Telemetry of external calls: start, stop, exception, and the window behind the status."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from config.secret import forget_all, register
from regrow.protocol.errors import ConnectionFailed
from regrow.testing import ManualClock
from runtime import telemetry
from runtime.telemetry import KEPT, WINDOW_S, CallEvent


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    telemetry.forget("api")
    telemetry.detach("test")


def test_a_span_reports_start_and_stop_with_its_duration() -> None:
    seen: list[CallEvent] = []
    telemetry.attach("test", seen.append)
    with ManualClock() as clock, telemetry.span("api", "get"):
        clock.advance(1.5)
    assert [(event.kind, event.outcome, event.duration_s) for event in seen] == [
        ("start", None, None),
        ("stop", "ok", pytest.approx(1.5)),
    ]


def test_a_span_reports_an_exception_and_lets_it_go_on() -> None:
    seen: list[CallEvent] = []
    telemetry.attach("test", seen.append)
    with pytest.raises(ConnectionFailed), telemetry.span("api", "get"):
        raise ConnectionFailed("api: refused")
    assert (seen[-1].kind, seen[-1].outcome, seen[-1].error) == (
        "exception",
        "connection_error",
        "connection_error: api: refused",
    )


def test_a_listener_id_is_used_once_and_can_be_freed() -> None:
    telemetry.attach("test", lambda event: None)
    with pytest.raises(ValueError, match="attached already"):
        telemetry.attach("test", lambda event: None)
    assert telemetry.detach("test") is True
    assert telemetry.detach("test") is False


def test_a_broken_listener_is_removed_and_harms_no_call() -> None:
    telemetry.attach("test", lambda event: 1 // 0)
    with telemetry.span("api", "get"):
        pass
    assert telemetry.detach("test") is False
    assert telemetry.window("api").figures()["calls"] == 1


def test_the_window_forgets_what_is_old_and_is_bounded() -> None:
    with ManualClock() as clock:
        for _ in range(KEPT + 50):
            telemetry.ended("api", "get", 0.1)
        assert telemetry.window("api").figures()["calls"] == KEPT
        clock.advance(WINDOW_S + 1)
        assert telemetry.window("api").figures() == {
            "calls": 0,
            "success_rate": None,
            "latency_p50": None,
            "latency_p99": None,
        }


def test_no_secret_is_in_the_last_error() -> None:
    register("hunter2-secret")
    try:
        telemetry.ended("api", "get", 0.1, RuntimeError("token hunter2-secret refused"))
    finally:
        forget_all()
    last = telemetry.window("api").last_error
    assert last is not None
    assert "hunter2" not in last
