"""What the shipped files promise about time, at a clock in the test's hand: kept answers, circuits, limits, pauses."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import gevent
import pytest

from actors.integrations import INTEGRATIONS
from config.load import load
from regrow.protocol.errors import CircuitOpen, ConnectionFailed, RateLimited, UpstreamError
from regrow.testing.clock import ManualClock
from tests.actors.rest.conftest import outcome
from tests.actors.rest.test_examples import ENVIRON, EXAMPLES, Ship, shipped
from tests.support.http_peer import HttpPeer

__all__ = ["shipped"]


@pytest.fixture
def manual() -> Iterator[ManualClock]:
    with ManualClock() as clock:
        yield clock


def test_github_is_asked_as_carefully_as_its_documentation_asks() -> None:
    config = load(EXAMPLES / "github.toml", INTEGRATIONS, is_actor=lambda _: True, environ=ENVIRON)
    github = config.integrations["github"].config
    assert github.timeout == 30.0
    assert (github.retry.retries, github.retry.base, github.retry.jitter) == (3, 0.1, 0.25)
    breaker = github.breaker
    assert (breaker.failures, breaker.window, breaker.reset_after, breaker.probes) == (5, 60.0, 30.0, 1)
    limit = github.rate_limit
    assert (limit.requests, limit.window, limit.header) == (5000, 3600.0, "X-RateLimit-Remaining")
    assert github.operations["get_user"].cache == 300.0
    assert github.operations["get_rate_limit"].cache == 0.0


def test_a_user_is_kept_for_five_minutes_and_the_rate_limit_not_at_all(
    manual: ManualClock, shipped: Ship, http_peer: HttpPeer
) -> None:
    http_peer.reply("*", json={"login": "octocat"})
    made = shipped("github.toml", "github", GITHUB_API_URL=http_peer.url)
    for wait_s, requests in ((0, 1), (299, 1), (2, 2)):
        manual.advance(wait_s)
        made.call("get_user", username="octocat")
        assert http_peer.count("GET /users/octocat") == requests
    for number in (1, 2):
        made.call("get_rate_limit")
        assert http_peer.count("GET /rate_limit") == number


def test_five_failures_within_a_minute_leave_github_alone_for_half_a_minute(
    manual: ManualClock, shipped: Ship, http_peer: HttpPeer
) -> None:
    http_peer.reply("*", status=500)
    made = shipped("github.toml", "github", GITHUB_API_URL=http_peer.url)

    def fail() -> None:
        with pytest.raises(UpstreamError):
            made.call("create_issue", owner="o", repo="r", title="x")

    for _ in range(4):
        fail()
    manual.advance(61)
    for _ in range(4):
        fail()
    assert http_peer.count() == 8, "failures of more than a minute ago counted"
    fail()
    for wait_s, left_s in ((0, 30.0), (29, 1.0)):
        manual.advance(wait_s)
        with pytest.raises(CircuitOpen) as refused:
            made.call("create_issue", owner="o", repo="r", title="x")
        assert refused.value.retry_after_s == pytest.approx(left_s)
    assert http_peer.count() == 9
    manual.advance(1.01)
    http_peer.reply("*", status=201, json={"number": 1})
    assert made.call("create_issue", owner="o", repo="r", title="x") == {"number": 1}


def test_three_retries_follow_a_failure_after_pauses_that_double(
    manual: ManualClock, shipped: Ship, http_peer: HttpPeer
) -> None:
    http_peer.reply("*", status=503)
    made = shipped("github.toml", "github", GITHUB_API_URL=http_peer.url)
    call = made.begin("get_user", username="octocat")
    for number, pause_s in ((1, 0.1), (2, 0.2), (3, 0.4)):
        http_peer.wait_for_requests(number)
        _await_pause(manual)
        manual.advance(pause_s * 0.74)
        assert http_peer.count() == number, "came before its pause was over"
        manual.advance(pause_s * 0.52 + 0.05)
    http_peer.wait_for_requests(4)
    error = outcome(call)
    assert isinstance(error, UpstreamError)
    assert (error.status, http_peer.count()) == (503, 4)


def _await_pause(manual: ManualClock) -> None:
    """Return once the worker sleeps until its next try: the socket brings it there, which is no matter of time."""
    with gevent.Timeout(10.0, AssertionError("no pause has begun")):
        while not any("sleep" in repr(timer) for timer in manual.pending()):
            gevent.sleep(0.001)


def test_what_github_says_is_left_is_obeyed_until_its_window_ends(
    manual: ManualClock, shipped: Ship, http_peer: HttpPeer
) -> None:
    said = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{manual.wall() + 40:.0f}", "Date": "no date"}
    http_peer.reply("*", json={}, headers=said)
    made = shipped("github.toml", "github", GITHUB_API_URL=http_peer.url)
    made.call("get_rate_limit")
    with pytest.raises(RateLimited) as refused:
        made.call("create_issue", timeout=5.0, owner="o", repo="r", title="x")
    assert (refused.value.started, http_peer.count()) == ("no", 1)
    assert refused.value.retry_after_s == pytest.approx(40, abs=1)
    # What reads is answered by what stands in meanwhile.
    assert made.full("get_rate_limit", timeout=5.0).header["fallback"] == "cache"
    manual.advance(41)
    assert "fallback" not in made.full("get_rate_limit", timeout=5.0).header
    assert http_peer.count() == 2


def test_the_weather_is_kept_for_ten_minutes_and_all_else_for_fifteen(
    manual: ManualClock, shipped: Ship, http_peer: HttpPeer
) -> None:
    http_peer.reply("*", json={"name": "London"})
    made = shipped("weather.toml", "weather", OPENWEATHER_API_URL=http_peer.url)
    for operation, path, kept_s in (("get_current", "/weather", 600), ("get_forecast", "/forecast", 900)):
        for wait_s, requests in ((0, 1), (kept_s - 1, 1), (2, 2)):
            manual.advance(wait_s)
            made.call(operation, q="London")
            assert http_peer.count(f"GET {path}") == requests


def test_yesterdays_weather_stands_in_while_the_api_is_down_and_while_its_circuit_is_open(
    manual: ManualClock, shipped: Ship, http_peer: HttpPeer
) -> None:
    http_peer.reply("*", json={"name": "London"})
    made = shipped("weather.toml", "weather", OPENWEATHER_API_URL=http_peer.url)
    made.call("get_current", q="London")
    manual.advance(3600)
    http_peer.stop()
    words = []
    for _ in range(10):
        answer = made.full("get_current", timeout=0.05, q="London")
        assert answer.value == {"name": "London"}
        assert (answer.header["cache"], answer.header["fallback"]) == ("stale", "cache")
        words.append(answer.header["error"])
    assert words[-1] == "circuit_open"
    assert set(words) <= {"connection_error", "circuit_open", "deadline_exceeded"}
    with pytest.raises((ConnectionFailed, CircuitOpen)):
        made.call("get_current", timeout=0.05, q="Paris")


#: by file, the variables that it reads
NAMES = {
    "github.toml": {"GITHUB_TOKEN"},
    "github_graphql.toml": {"GITHUB_TOKEN"},
    "weather.toml": {"OPENWEATHER_API_KEY"},
    "stripe.toml": {"STRIPE_API_URL", "STRIPE_SECRET_KEY"},
    "s3.toml": {"S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"},
    "shared_limits.toml": {"REDIS_URL"},
}


@pytest.mark.parametrize("file", NAMES)
def test_a_shipped_file_takes_its_secrets_and_addresses_from_the_usual_variables(file: str) -> None:
    read = set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)", (EXAMPLES / file).read_text()))
    assert read >= NAMES[file]
    assert not {name for name in read if name in os.environ and name.startswith("REGROW_")}


def test_the_region_is_us_east_1_unless_it_is_said() -> None:
    def region(environ: dict[str, str]) -> str:
        loaded = load(
            EXAMPLES / "s3.toml",
            INTEGRATIONS,
            is_actor=lambda _: True,
            environ={**ENVIRON, "S3_ENDPOINT_URL": "http://127.0.0.1:1", **environ},
        )
        found: str = loaded.integrations["assets"].config.auth.aws_signature_v4.region
        return found

    assert (region({}), region({"AWS_REGION": "eu-west-1"})) == ("us-east-1", "eu-west-1")
