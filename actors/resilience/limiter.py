"""The limiter actor: one token at once, or after a fair wait, or a refusal at once when none can come in time."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.resilience import shared
from actors.resilience.policy import OnRedisDown, RatePolicy
from actors.resilience.quota import Admitted, Lesson, Quota, QuotaRecord, Wait
from actors.resilience.shared import SharedDown, SharedQuota
from regrow.protocol.errors import Overloaded, RateLimited, Unavailable
from runtime import clock
from runtime.actor import Actor, exported
from runtime.measure import Counter, Histogram
from runtime.promise import Promise

DECISIONS = Counter("rate_limit_decisions_total", "what the limiter said to requests", ("actor", "decision"))
WAIT_SECONDS = Histogram("rate_limit_wait_seconds", "how long requests waited for the limiter", ("actor",))

DECISION_WORDS = ("admitted", "refused", "overloaded", "expired", "given_back")
# The window of an integration without a limit of its own: how long a peer's "none left" counts when it names no end.
DEFAULT_WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class Admit:
    """Ask for one token: answered with its ticket (int) before the request's deadline, or refused with RateLimited."""


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Tell that a token was not used: nothing was sent, because the circuit is open."""


@dataclass(frozen=True, slots=True)
class _Wake:
    """The limiter's own timer."""


@dataclass(slots=True)
class QuotaTable:
    """Where spent windows and learned pauses outlive their actor."""

    record: QuotaRecord = field(default_factory=QuotaRecord)
    shared: SharedQuota | None = None


@dataclass(slots=True)
class _Waiter:
    promise: Promise
    since: float


class Limiter(Actor):
    """Admission to one integration; the arithmetic is `Quota`'s, the state is the table's.

    Requests wait first in, first out, at most `queue` of them. Tell it a `Lesson` after every response.
    """

    def __init__(
        self, integration: str, policy: RatePolicy | None, table: QuotaTable, *, on_redis_down: OnRedisDown = "open"
    ) -> None:
        super().__init__()
        self._integration = integration
        self._table = table
        self._on_redis_down = on_redis_down
        self._bound = 1000 if policy is None else policy.queue
        limit = None if policy is None else policy.requests
        self._quota = Quota(limit, DEFAULT_WINDOW_S if policy is None else float(policy.window), table.record)
        self._waiters: deque[_Waiter] = deque()
        self._timer: clock.Timer | None = None
        self._admitted = DECISIONS.cell(integration, "admitted")

    def on_start(self) -> None:
        """Make the series exist."""
        declare(self._integration)

    def on_stop(self) -> None:
        """Close the connections to Redis."""
        if self._timer is not None:
            self._timer.cancel()
        shared.close_quietly(self._table.shared)

    def on_receive(self, message: object) -> int | None:
        """Answer a request for a token, or learn. Switches greenlets only when the quota is shared."""
        if isinstance(message, Admit):
            return self._admit()
        if isinstance(message, Lesson):
            self._learn(message)
            return None
        if isinstance(message, GiveBack):
            self._take_back()
            return None
        if isinstance(message, _Wake):
            self._timer = None
            self._serve()
            return None
        raise TypeError(f"the limiter of {self._integration} got a message of type {type(message).__name__}")

    @exported
    def reset(self) -> dict[str, Any]:
        """Forget what was spent and what the peer said, and let everybody go on."""
        if self._table.shared is not None:
            shared.attempt(self._table.shared.forget)
        self._quota.forget()
        self._serve()
        return dict(self.status())

    def status(self) -> Mapping[str, Any]:
        """Return what this daemon knows of the quota. Never switches."""
        now = clock.now()
        shown: dict[str, Any] = {"waiting": len(self._waiters)}
        if self._quota.limit is not None:
            shown |= {"limit": self._quota.limit, "window_s": self._quota.window_s}
        if self._table.shared is not None:
            shown["redis"] = self._table.shared.link.state
            return shown
        record = self._quota.record
        if self._quota.limit is not None:
            shown["used"] = self._quota.used(now)
        if record.ceiling is not None and now < record.ceiling_until:
            shown["peer_left"] = max(0, record.ceiling - record.issued)
        if now < record.paused_until:
            shown["paused_s"] = round(record.paused_until - now, 3)
        return shown

    def _admit(self) -> int | None:
        now = clock.now()
        self._forget_gone()
        if not self._waiters:
            decision = self._take()
            if isinstance(decision, Admitted):
                self._admitted.value += 1
                WAIT_SECONDS.observe(0.0, self._integration)
                return decision.ticket
            wait_s = decision.wait_s
        else:
            wait_s = self._wait_s(len(self._waiters) + 1)
        deadline = self.deadline
        if deadline is not None and now + wait_s >= deadline:
            raise self._refused(wait_s)
        if len(self._waiters) >= self._bound:
            DECISIONS.inc(self._integration, "overloaded")
            raise Overloaded(
                f"{self._integration}: {self._bound} calls wait for the rate limit, come back in {wait_s:.3g} s",
                actor=self._integration,
                retry_after_s=wait_s,
            )
        self._waiters.append(_Waiter(self.defer(), now))
        if self._timer is None:
            self._wake_in(wait_s)
        return None

    def _serve(self) -> None:
        """Give tokens to those who waited longest, and refuse those who can no longer be served in time."""
        while True:
            self._forget_gone()
            if not self._waiters:
                break
            try:
                decision = self._take()
            except Unavailable as error:
                self._waiters.popleft().promise.reject(error)
                continue
            if isinstance(decision, Wait):
                self._refuse_hopeless(decision.wait_s)
                if self._waiters:
                    self._wake_in(decision.wait_s)
                break
            # Redis may have made this greenlet wait and the caller may have given up meanwhile: the token is then lost.
            waiter = self._waiters.popleft()
            if waiter.promise.resolve(decision.ticket):
                self._admitted.value += 1
                WAIT_SECONDS.observe(clock.now() - waiter.since, self._integration)

    def _refuse_hopeless(self, first_wait_s: float) -> None:
        """Answer now those whose deadline lies before the next token; a deadline after it may still be met."""
        soonest = clock.now() + first_wait_s
        kept: deque[_Waiter] = deque()
        for waiter in self._waiters:
            deadline = waiter.promise.deadline
            if deadline is not None and deadline <= soonest:
                waiter.promise.reject(self._refused(first_wait_s))
            else:
                kept.append(waiter)
        self._waiters = kept

    def _forget_gone(self) -> None:
        while self._waiters and self._waiters[0].promise.done:
            self._waiters.popleft()
            DECISIONS.inc(self._integration, "expired")

    def _learn(self, lesson: Lesson) -> None:
        backend = self._table.shared
        if backend is not None:
            shared.attempt(lambda: backend.learn(lesson))
        # Its own record learns too: it takes over while Redis is down.
        self._quota.learn(clock.now(), lesson)
        if self._waiters:
            self._serve()

    def _take_back(self) -> None:
        DECISIONS.inc(self._integration, "given_back")
        backend = self._table.shared
        if backend is None:
            self._quota.give_back()
        else:
            shared.attempt(backend.give_back)
        if self._waiters:
            self._serve()

    def _take(self) -> Admitted | Wait:
        backend = self._table.shared
        if backend is not None:
            try:
                return backend.admit()
            except SharedDown as down:
                self._stand_in(down)
        return self._quota.admit(clock.now())

    def _wait_s(self, nth: int) -> float:
        backend = self._table.shared
        if backend is not None:
            try:
                return backend.wait_s(nth)
            except SharedDown as down:
                self._stand_in(down)
        return self._quota.wait_s(clock.now(), nth)

    def _stand_in(self, down: SharedDown) -> None:
        """Return when this daemon's own record may decide in place of Redis."""
        if self._on_redis_down == "closed":
            raise Unavailable(
                f"the rate limit of {self._integration} is not known while redis does not answer",
                actor=self._integration,
                retry_after_s=down.retry_after_s,
            ) from None

    def _refused(self, wait_s: float) -> RateLimited:
        DECISIONS.inc(self._integration, "refused")
        return RateLimited(
            f"the rate limit of {self._integration} has no token before the deadline, come back in {wait_s:.3g} s",
            actor=self._integration,
            retry_after_s=wait_s,
        )

    def _wake_in(self, wait_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.send_after(wait_s, _Wake())


def declare(integration: str) -> None:
    """Make every series of a limiter exist. Never switches."""
    for decision in DECISION_WORDS:
        DECISIONS.declare(integration, decision)
    WAIT_SECONDS.declare(integration)
