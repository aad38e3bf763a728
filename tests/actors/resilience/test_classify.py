from __future__ import annotations

import socket

import pytest

from actors.resilience.classify import OwnRules, Verdict, classify, is_permanent_refusal, means_unavailable
from regrow.protocol.errors import (
    CircuitOpen,
    ConnectionFailed,
    DeadlineExceeded,
    DecodeError,
    InvalidArguments,
    NotFound,
    RateLimited,
    RegrowError,
    TimedOut,
    TooLarge,
    UpstreamError,
)


@pytest.mark.parametrize(
    ("error", "retryable", "blame"),
    [
        (UpstreamError(status=500), True, "peer"),
        (UpstreamError(status=503), True, "peer"),
        (UpstreamError(status=501), False, "peer"),
        (UpstreamError(status=404), False, "nobody"),
        (UpstreamError(status=401), False, "nobody"),
        (UpstreamError(status=408), True, "nobody"),
        (UpstreamError(status=302, retryable=False), False, "nobody"),
        (RateLimited(started="yes"), True, "nobody"),
        (RateLimited(started="yes", retryable=False), False, "nobody"),
        (RateLimited(), True, "unknown"),
        (ConnectionFailed(), True, "peer"),
        (ConnectionFailed(retryable=False), False, "peer"),
        (TimedOut(), True, "peer"),
        (DecodeError(), False, "peer"),
        (DeadlineExceeded(), False, "unknown"),
        (CircuitOpen(), True, "unknown"),
        (InvalidArguments(), False, "unknown"),
        (socket.gaierror(), True, "peer"),
        (ConnectionRefusedError(), True, "peer"),
        (TimeoutError(), True, "peer"),
        (PermissionError(), False, "unknown"),
        (KeyError("x"), "unknown", "peer"),
        (KeyboardInterrupt(), "unknown", "unknown"),
    ],
)
def test_a_failure_means_the_same_everywhere(error: BaseException, retryable: object, blame: str) -> None:
    assert classify(error) == Verdict(retryable, blame)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}}},
        {"error": {"code": "credit_balance_exhausted", "message": "no credit"}},
        {"error": {"type": "insufficient_quota"}},
    ],
)
def test_a_spent_budget_is_no_rate_limit_that_waiting_clears(body: object) -> None:
    assert is_permanent_refusal(body)


@pytest.mark.parametrize("body", [None, "slow down", [], {"error": "x"}, {"error": {"code": "rate_limit_exceeded"}}])
def test_other_refusals_are_cleared_by_waiting(body: object) -> None:
    assert not is_permanent_refusal(body)


@pytest.mark.parametrize(
    ("error", "stands_in"),
    [
        (CircuitOpen(), True),
        (ConnectionFailed(), True),
        (UpstreamError(status=502), True),
        (UpstreamError(status=404), False),
        (NotFound(), False),
        (InvalidArguments(), False),
    ],
)
def test_only_an_unavailable_peer_is_stood_in_for(error: RegrowError, stands_in: bool) -> None:
    assert means_unavailable(error) is stands_in


def test_a_configuration_says_which_statuses_and_codes_count_and_which_say_nothing() -> None:
    rules = OwnRules(frozenset({429, "too_large"}), frozenset({503, "timeout", "upstream_error"}))
    said = {
        UpstreamError("x", status=503): "unknown",
        UpstreamError("x", status=500): "unknown",
        UpstreamError("x", status=429): "peer",
        RateLimited("x", started="yes", details={"status": 429}): "peer",
        RateLimited("x", started="yes", details={"status": 403}): None,
        TimedOut("x"): "unknown",
        TooLarge("x"): "peer",
        DecodeError("x"): None,
    }
    assert [rules.blame(error) for error in said] == list(said.values())
