from __future__ import annotations

import pytest

from actors.http.fields import Limits, limits, peer_now, reset_s, retry_after_s

NOW = 1_559_559_600.0  # Mon, 03 Jun 2019 11:00:00 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("\t42 ", 42.0),
        ("Mon, 03 Jun 2019 11:30:12 GMT", 1812.0),
        ("Monday, 03-Jun-19 11:30:12 GMT", 1812.0),
        ("Mon Jun  3 11:30:12 2019", 1812.0),
        ("Mon, 03 Jun 2019 10:00:00 GMT", 0.0),
        ("999999999999999", 21600.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 21600.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float) -> None:
    assert retry_after_s(value, NOW) == seconds


@pytest.mark.parametrize("value", ["", "-1", "+1", "1.5", "soon", "٣", "9" * 40, "Mon, 99 Jun 2019 11:00:00 GMT"])
def test_a_retry_after_that_is_neither_is_as_good_as_none(value: str) -> None:
    assert retry_after_s(value, NOW) is None


def test_no_retry_after_is_none() -> None:
    assert retry_after_s(None, NOW) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30.0),
        (f"{NOW + 90:.0f}", 90.0),
        (f"{(NOW + 90) * 1000:.0f}", 90.0),
        ("2019-06-03T11:01:00Z", 60.0),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("250ms", 0.25),
        (f"{NOW - 90:.0f}", 0.0),
    ],
)
def test_the_end_of_a_window_is_read_in_every_form_in_use(value: str, seconds: float) -> None:
    assert reset_s(value, NOW) == seconds


@pytest.mark.parametrize("value", [None, "", "later", "-5"])
def test_an_end_that_cannot_be_read_is_none(value: str | None) -> None:
    assert reset_s(value, NOW) is None


def test_moments_count_from_the_peers_own_clock() -> None:
    assert peer_now({"date": "Mon, 03 Jun 2019 11:00:00 GMT"}, wall=5.0) == NOW
    assert peer_now({"date": "yesterday"}, wall=5.0) == 5.0


def test_github_says_what_is_left_and_when_its_window_ends() -> None:
    headers = {
        "date": "Mon, 03 Jun 2019 11:00:00 GMT",
        "x-ratelimit-remaining": "17",
        "x-ratelimit-reset": f"{NOW + 600:.0f}",
    }
    said = limits(headers, 0.0, remaining_header="X-RateLimit-Remaining", reset_header=None)
    assert said == Limits(remaining=17, reset_s=600.0)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('"default";r=50;t=30', Limits(50, 30.0)),
        ('"burst";r=2;t=10, "daily";r=900;t=3600', Limits(2, 10.0)),
        ("limit=100, remaining=40, reset=12", Limits(40, 12.0)),
        ("remaining=7", Limits(7)),
        ('"burst";r=2;t="soon"', Limits(2)),
        ('"a";r=-1;t=3, "b";r=4', Limits(4)),
        ('"r=0;t=30"', Limits()),
        ('"default";r=50;t=30;', Limits()),
        ("remaining=1 reset=3", Limits()),
        ("nonsense", Limits()),
    ],
)
def test_the_ratelimit_field_says_both_at_once(value: str, said: Limits) -> None:
    assert limits({"ratelimit": value}, NOW, remaining_header="RateLimit", reset_header=None) == said


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ('"default";q=100;w=60', Limits(50, 60.0)),
        ('"default";q=100;w=60;qu="requests"', Limits(50, 60.0)),
        ('"default";q=100', Limits(50)),
        ('"other";q=100;w=60', Limits(50)),
        ('"default";q=100;w=60;qu="content-bytes"', Limits()),
        ("is nothing, really;", Limits(50)),
    ],
)
def test_the_policy_says_what_is_counted_and_at_the_latest_when_it_ends(policy: str, said: Limits) -> None:
    headers = {"ratelimit": '"default";r=50', "ratelimit-policy": policy}
    assert limits(headers, NOW, remaining_header=None, reset_header=None) == said


def test_a_scarce_number_of_bytes_is_not_taken_for_one_of_requests() -> None:
    headers = {
        "ratelimit": '"bytes";r=0;t=5, "calls";r=9;t=30',
        "ratelimit-policy": '"bytes";q=65536;qu="content-bytes";w=10, "calls";q=100;w=60',
    }
    assert limits(headers, NOW, remaining_header=None, reset_header=None) == Limits(9, 30.0)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"ratelimit": '"default";r=50;t=30'}, Limits(50, 30.0)),
        ({"ratelimit": "limit=100, remaining=50, reset=30"}, Limits(50, 30.0)),
        ({"ratelimit-limit": "100", "ratelimit-remaining": "50", "ratelimit-reset": "30"}, Limits(50, 30.0)),
        ({"ratelimit": '"default";r=50;t=30', "ratelimit-remaining": "1"}, Limits(50, 30.0)),
        ({"ratelimit-remaining": "many"}, Limits()),
    ],
)
def test_the_standard_fields_are_read_without_being_named(headers: dict[str, str], said: Limits) -> None:
    assert limits(headers, NOW, remaining_header=None, reset_header=None) == said


def test_a_header_that_is_no_standard_is_read_only_when_it_is_named() -> None:
    headers = {"x-ratelimit-remaining": "0", "retry-after": "3"}
    assert limits(headers, NOW, remaining_header=None, reset_header=None) == Limits(retry_after_s=3.0)
