"""When to try again and how long to wait first: pure decisions, no clock and no sleep."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from actors.resilience.policy import RetryPolicy

# 2^30 x the shortest base is already longer than any cap; a larger exponent would overflow into nonsense.
MAX_EXPONENT = 30


def delay_s(policy: RetryPolicy, retry: int, draw: Callable[[], float] = random.random) -> float:
    """Return the wait before retry number `retry` (1 is the first): exponential, capped, with jitter. Never switches.

    `draw` returns a number from 0 to 1.
    """
    exponent = min(max(retry, 1) - 1, MAX_EXPONENT)
    plain = min(float(policy.base) * 2.0**exponent, float(policy.max))
    return min(plain * (1.0 + policy.jitter * (2.0 * draw() - 1.0)), float(policy.max))


class RetryBudget:
    """How many retries are left: `share` of one for each call and one a second, at most `saved` of them saved up."""

    PER_S = 1.0

    def __init__(self, share: float, saved: float = 10.0) -> None:
        self.share = share
        self.saved = saved
        self._left = saved
        self._at = float("-inf")

    def __repr__(self) -> str:
        return f"<RetryBudget {self._left:.1f} left, {self.share:g} for each call>"

    def call(self) -> None:
        """Count a first try. Never switches."""
        self._left = min(self.saved, self._left + self.share)

    def take(self, now: float) -> bool:
        """Take one retry out of the budget; False when there is none. Never switches."""
        if self._at < now:
            self._left = min(self.saved, self._left + (now - self._at) * self.PER_S)
            self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


@dataclass(frozen=True, slots=True)
class Again:
    """Try again after `wait_s` seconds."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Answer with the failure at hand; `why` is one of permanent, unsafe, spent, deadline, budget."""

    why: str


def decide(
    policy: RetryPolicy,
    *,
    retries_done: int,
    retryable: bool,
    repeatable: bool,
    retry_after_s: float | None,
    remaining_s: float,
    draw: Callable[[], float] = random.random,
) -> Again | GiveUp:
    """Say whether a failed try is followed by another one. Never switches.

    `retryable`: the same request may succeed later; `repeatable`: sending it twice harms nobody; `remaining_s`: seconds
    until the deadline. A wait that would end at or after the deadline is not begun, and there is no wait after the last
    failure.
    """
    if not retryable:
        return GiveUp("permanent")
    if not repeatable:
        return GiveUp("unsafe")
    if retries_done >= policy.retries:
        return GiveUp("spent")
    wait = delay_s(policy, retries_done + 1, draw)
    if retry_after_s is not None:
        wait = max(wait, retry_after_s)
    if wait >= remaining_s:
        return GiveUp("deadline")
    return Again(wait)
