from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.resilience.policy import RetryPolicy
from actors.resilience.retry import Again, GiveUp, RetryBudget, decide, delay_s
from config.schema import PositiveDuration

STEADY = RetryPolicy(jitter=0.0)


def middle() -> float:
    return 0.5


def ask(
    retries_done: int,
    *,
    retryable: bool = True,
    repeatable: bool = True,
    retry_after_s: float | None = None,
    remaining_s: float = 3600.0,
) -> Again | GiveUp:
    return decide(
        STEADY,
        retries_done=retries_done,
        retryable=retryable,
        repeatable=repeatable,
        retry_after_s=retry_after_s,
        remaining_s=remaining_s,
        draw=middle,
    )


def test_delays_double_from_the_base() -> None:
    assert [delay_s(STEADY, retry) for retry in (1, 2, 3)] == [0.1, 0.2, 0.4]


def test_delays_stop_growing_at_the_cap() -> None:
    assert delay_s(STEADY, 50) == 10.0


def test_an_absurd_retry_number_does_not_overflow() -> None:
    assert delay_s(STEADY, 10**9) == 10.0


@given(retry=st.integers(1, 10_000), draw=st.floats(0, 1), jitter=st.floats(0, 1))
def test_jitter_stays_within_its_share_and_below_the_cap(retry: int, draw: float, jitter: float) -> None:
    plain = delay_s(STEADY, retry)
    delay = delay_s(RetryPolicy(jitter=jitter), retry, lambda: draw)
    assert plain * (1 - jitter) - 1e-9 <= delay <= min(plain * (1 + jitter), 10.0) + 1e-9


def test_three_retries_follow_the_first_try_and_no_wait_follows_the_last_one() -> None:
    assert [ask(done) for done in range(4)] == [Again(0.1), Again(0.2), Again(0.4), GiveUp("spent")]


def test_a_permanent_failure_is_not_repeated() -> None:
    assert ask(0, retryable=False) == GiveUp("permanent")


def test_what_is_not_safe_to_repeat_is_not_repeated() -> None:
    assert ask(0, repeatable=False) == GiveUp("unsafe")


def test_a_longer_retry_after_replaces_the_wait() -> None:
    assert ask(0, retry_after_s=7.0) == Again(7.0)


def test_a_shorter_retry_after_does_not_shorten_the_wait() -> None:
    assert ask(2, retry_after_s=0.0) == Again(0.4)


@pytest.mark.parametrize("retry_after_s", [None, 5.0])
def test_a_wait_that_ends_at_the_deadline_is_not_begun(retry_after_s: float | None) -> None:
    assert ask(0, retry_after_s=retry_after_s, remaining_s=retry_after_s or 0.1) == GiveUp("deadline")


@given(
    retries=st.integers(0, 20),
    remaining_s=st.floats(0, 100),
    after=st.none() | st.floats(0, 100),
    done=st.integers(0, 30),
)
def test_no_decision_ever_waits_beyond_the_deadline_or_the_number_of_retries(
    retries: int, remaining_s: float, after: float | None, done: int
) -> None:
    policy = RetryPolicy(retries=retries, base=PositiveDuration(0.5), max=PositiveDuration(60.0))
    decision = decide(
        policy, retries_done=done, retryable=True, repeatable=True, retry_after_s=after, remaining_s=remaining_s
    )
    if isinstance(decision, Again):
        assert decision.wait_s < remaining_s
        assert done < retries
        assert after is None or decision.wait_s >= after


def test_retries_are_a_share_of_the_calls_however_many_fail() -> None:
    budget = RetryBudget(0.2)
    retries = 0
    for _ in range(1000):
        budget.call()
        retries += budget.take(now=0.0)
    assert 200 <= retries <= 211


def test_a_quiet_integration_may_always_retry_once_a_second() -> None:
    budget = RetryBudget(0.0)
    assert sum(budget.take(0.0) for _ in range(100)) == 10
    assert [budget.take(now) for now in (0.5, 1.5, 2.5, 2.6)] == [False, True, True, False]
