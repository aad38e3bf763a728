"""The limiter actor: tokens at once, or after a fair wait, or a refusal at once when none can come in time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.resilience import shared
from actors.resilience.fair import FairQueue
from actors.resilience.policy import OnRedisDown, RatePolicy
from actors.resilience.quota import Admitted, Lesson, Quota, QuotaRecord, Wait
from actors.resilience.shared import SharedDown, SharedQuota
from regrow.protocol.errors import InvalidArguments, Overloaded, RateLimited, Unavailable
from runtime import clock
from runtime.actor import Actor, exported
from runtime.measure import Counter, Histogram
from runtime.origin import current_client
from runtime.promise import Promise

DECISIONS = Counter("rate_limit_decisions_total", "what the limiter said to requests", ("actor", "decision"))
WAIT_SECONDS = Histogram("rate_limit_wait_seconds", "how long requests waited for the limiter", ("actor",))

DECISION_WORDS = ("admitted", "refused", "overloaded", "expired", "given_back")
# The window of an integration without a limit of its own: how long a peer's "none left" counts when it names no end.
DEFAULT_WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class Admit:
    """Ask for as many tokens as a request costs: answered with its ticket (int) before the asker's deadline, or refused
    with RateLimited.
    """

    cost: int = 1


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Tell that the tokens of a request were not used: nothing was sent, because the circuit is open."""

    cost: int = 1


@dataclass(frozen=True, slots=True)
class _Wake:
    """The limiter's own timer."""


@dataclass(slots=True)
class QuotaTable:
    """Where spent windows and learned pauses outlive their actor."""

    record: QuotaRecord = field(default_factory=QuotaRecord)
    shared: SharedQuota | None = None


@dataclass(slots=True, eq=False)
class _Waiter:
    promise: Promise
    since: float
    client: str
    cost: int


class Limiter(Actor):
    """Admission to one integration; the arithmetic is `Quota`'s, the state is the table's.

    Requests wait in turns of their clients (`runtime.origin`) and first in, first out within each, at most `queue` of
    them; who is first holds up the others until its cost fits. Tell it a `Lesson` after every response.
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
        window_s = DEFAULT_WINDOW_S if policy is None else float(policy.window)
        self._quota = Quota(limit, window_s, table.record, burst=None if policy is None else policy.bucket)
        self._waiters: FairQueue[_Waiter] = FairQueue(self._bound)
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
            return self._admit(message.cost)
        if isinstance(message, Lesson):
            self._learn(message)
            return None
        if isinstance(message, GiveBack):
            self._take_back(message.cost)
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
        if self._quota.burst is not None:
            shown["burst"] = self._quota.burst
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

    def _admit(self, cost: int) -> int | None:
        largest = self._quota.largest
        if cost < 1 or (largest is not None and cost > largest):
            allowed = "at least 1" if largest is None else f"from 1 to {largest}"
            raise InvalidArguments(f"a request of {self._integration} costs {allowed}, found {cost}")
        now = clock.now()
        client = ""
        if not len(self._waiters):
            decision = self._take(cost)
            if isinstance(decision, Admitted):
                self._admitted.value += 1
                WAIT_SECONDS.observe(0.0, self._integration)
                return decision.ticket
            wait_s = decision.wait_s
        else:
            client = current_client()
            wait_s = self._wait_s(self._waiters.ahead(client) + cost)
        deadline = self.deadline
        if deadline is not None and now + wait_s >= deadline:
            raise self._refused(wait_s)
        waiter = _Waiter(self.defer(), now, client or current_client(), cost)
        waiter.promise.on_abandon = lambda: self._gave_up(waiter)
        displaced = self._waiters.put(waiter.client, waiter, cost)
        if displaced is not None:
            displaced.promise.reject(self._overloaded(wait_s))
        if self._timer is None and len(self._waiters):
            self._wake_in(wait_s)
        return None

    def _serve(self) -> None:
        """Give tokens to those whose turn it is, and refuse those who can no longer be served in time."""
        while (waiter := self._waiters.first()) is not None:
            try:
                decision = self._take(waiter.cost)
            except Unavailable as error:
                self._waiters.discard(waiter.client, waiter)
                waiter.promise.reject(error)
                continue
            if isinstance(decision, Wait):
                self._refuse_hopeless(decision.wait_s)
                if len(self._waiters):
                    self._wake_in(decision.wait_s)
                break
            if waiter.promise.done:
                # Redis made this greenlet wait, and the caller gave up meanwhile.
                self._put_back(waiter.cost)
                continue
            self._waiters.take()
            waiter.promise.resolve(decision.ticket)
            self._admitted.value += 1
            WAIT_SECONDS.observe(clock.now() - waiter.since, self._integration)

    def _refuse_hopeless(self, first_wait_s: float) -> None:
        """Answer now those whose deadline lies before the next token; a deadline after it may still be met."""
        soonest = clock.now() + first_wait_s
        for waiter in self._waiters.remove(lambda each: (each.promise.deadline or soonest + 1.0) <= soonest):
            waiter.promise.reject(self._refused(first_wait_s))

    def _gave_up(self, waiter: _Waiter) -> None:
        if self._waiters.discard(waiter.client, waiter):
            DECISIONS.inc(self._integration, "expired")

    def _learn(self, lesson: Lesson) -> None:
        backend = self._table.shared
        if backend is not None:
            shared.attempt(lambda: backend.learn(lesson))
        # Its own record learns too: it takes over while Redis is down.
        self._quota.learn(clock.now(), lesson)
        self._serve()

    def _take_back(self, cost: int) -> None:
        DECISIONS.inc(self._integration, "given_back")
        self._put_back(cost)
        self._serve()

    def _put_back(self, cost: int) -> None:
        backend = self._table.shared
        if backend is None:
            self._quota.give_back(cost)
        else:
            shared.attempt(lambda: backend.give_back(cost))

    def _take(self, cost: int) -> Admitted | Wait:
        backend = self._table.shared
        if backend is not None:
            try:
                return backend.admit(cost)
            except SharedDown as down:
                self._stand_in(down)
        return self._quota.admit(clock.now(), cost)

    def _wait_s(self, tokens: int) -> float:
        backend = self._table.shared
        if backend is not None:
            try:
                return backend.wait_s(tokens)
            except SharedDown as down:
                self._stand_in(down)
        return self._quota.wait_s(clock.now(), tokens)

    def _stand_in(self, down: SharedDown) -> None:
        """Return when this daemon's own record may decide in place of Redis."""
        if self._on_redis_down == "closed":
            raise Unavailable(
                f"the rate limit of {self._integration} is not known while redis does not answer",
                actor=self._integration,
                retry_after_s=down.retry_after_s,
            ) from None

    def _overloaded(self, wait_s: float) -> Overloaded:
        DECISIONS.inc(self._integration, "overloaded")
        return Overloaded(
            f"{self._integration}: {self._bound} calls wait for the rate limit, come back in {wait_s:.3g} s",
            actor=self._integration,
            retry_after_s=wait_s,
        )

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
