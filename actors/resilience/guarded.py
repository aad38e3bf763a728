"""One guarded call: the loop of tries {limiter, breaker, perform, classify, outcome} within one deadline.

Runs in the actor that does the work. Parts are found by name for each message, so that a part that has just crashed is
waited for until its supervisor has brought it back, and fails no call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from actors.resilience.breaker import Permit, Settled
from actors.resilience.circuit import Granted, Outcome
from actors.resilience.classify import OwnRules, classify
from actors.resilience.limiter import Admit, GiveBack
from actors.resilience.policy import RetryPolicy
from actors.resilience.retry import Again, GiveUp, RetryBudget, decide
from regrow.protocol.errors import (
    ActorDown,
    DeadlineExceeded,
    Overloaded,
    RateLimited,
    Refused,
    RegrowError,
    Started,
    TimedOut,
    Unavailable,
)
from runtime import clock
from runtime.measure import Counter
from runtime.names import whereis

T = TypeVar("T")

RETRIES = Counter("retries_total", "tries after the first one", ("actor",))
GIVE_UPS = Counter("retry_give_ups_total", "failed calls by why no further try followed", ("actor", "reason"))
HOW_FAR: tuple[Started, ...] = ("no", "unknown", "yes")
GIVE_UP_REASONS = ("permanent", "unsafe", "spent", "deadline", "budget", "refused")

# A part that crashed is back within its supervisor's first pause; for longer nobody waits for it.
PART_PATIENCE_S = 2.0
PART_PAUSE_S = 0.02
PART_CRASHES = 5


@dataclass(frozen=True, slots=True)
class Try:
    """One try: its number (1 is the first), its limiter ticket (0 without a limiter), and the seconds it may take."""

    number: int
    ticket: int
    limit_s: float
    own_limit: bool
    """True when the integration's own time limit ends the try, False when it is the caller's deadline."""


class Guarded:
    """How one integration guards its calls; `limiter` and `breaker` are the names of their actors, None without one."""

    def __init__(
        self,
        integration: str,
        *,
        retry: RetryPolicy,
        limiter: str | None,
        breaker: str | None,
        patience_s: float,
        rules: OwnRules | None = None,
    ) -> None:
        self.integration = integration
        self.retry = retry
        self.limiter = limiter
        self.breaker = breaker
        self.patience_s = patience_s
        self.rules = OwnRules() if rules is None else rules
        self._budget = RetryBudget(retry.budget, saved=max(10.0, 3.0 * retry.retries))

    def __repr__(self) -> str:
        return f"<Guarded {self.integration}>"

    def run(
        self,
        perform: Callable[[Try], T],
        *,
        deadline: float,
        ends: float,
        try_limit_s: float | None = None,
        cost: int = 1,
        repeatable: Callable[[RegrowError], bool],
    ) -> T:
        """Perform until it succeeds, may not be repeated, or time is up. Raises the last error, whose `started` is that
        of the try that got furthest. Switches greenlets.

        `deadline` is the caller's and `ends` the integration's own limit, both on the scale of `clock.now()`; `cost` is
        what each try costs of the rate limit.
        `repeatable` says whether the request may be sent again after that error. Anything but a typed error passes
        through: the breaker then hears that nothing is known.
        """
        retries = 0
        last: RegrowError | None = None
        heard: Started = "no"
        self._budget.call()
        while True:
            ticket, permit = self._admission(min(deadline, ends), last, cost)
            started_at = clock.now()
            current = self._try(retries + 1, ticket, deadline, ends, try_limit_s)
            try:
                value = perform(current)
            except RegrowError as error:
                last = error
            except BaseException:
                self._settle(permit, "unknown", clock.now() - started_at)
                raise
            else:
                self._settle(permit, "ok", clock.now() - started_at)
                return value
            now = clock.now()
            verdict = classify(last)
            self._settle(permit, self._outcome(last, current, now - started_at), now - started_at)
            decision = decide(
                self.retry,
                retries_done=retries,
                retryable=verdict.retryable is True,
                repeatable=repeatable(last),
                retry_after_s=last.retry_after_s,
                remaining_s=min(deadline, ends) - now,
            )
            # Whichever try failed last, the caller hears of the call as a whole.
            heard = last.started = max(heard, last.started, key=HOW_FAR.index)
            if isinstance(decision, Again) and not self._budget.take(now):
                decision = GiveUp("budget")
            if isinstance(decision, GiveUp):
                GIVE_UPS.inc(self.integration, decision.why)
                raise last
            self._pause(decision)
            retries += 1
            RETRIES.inc(self.integration)

    def _pause(self, decision: Again) -> None:
        clock.sleep(decision.wait_s)

    def _admission(self, until: float, last: RegrowError | None, cost: int) -> tuple[int, Granted | None]:
        """Return ticket and permit; a refusal after a failed try is answered with that try's failure."""
        try:
            ticket = 0 if self.limiter is None else int(ask_part(self.limiter, Admit(cost), until))
            permit = self._permit(until, cost)
        except (Refused, DeadlineExceeded) as refusal:
            if last is None:
                raise
            if refusal.retry_after_s is not None:
                last.retry_after_s = max(last.retry_after_s or 0.0, refusal.retry_after_s)
            GIVE_UPS.inc(self.integration, "refused")
            raise last from refusal
        return ticket, permit

    def _permit(self, until: float, cost: int) -> Granted | None:
        if self.breaker is None:
            return None
        try:
            granted: Granted = ask_part(self.breaker, Permit(), until)
        except (Refused, DeadlineExceeded):
            # A refused call must not spend the rate limit of those that will be sent.
            tell_part(self.limiter, GiveBack(cost))
            raise
        return granted

    def _try(self, number: int, ticket: int, deadline: float, ends: float, try_limit_s: float | None) -> Try:
        now = clock.now()
        own = ends - now
        if try_limit_s is not None:
            own = min(own, try_limit_s)
        if deadline - now < own:
            return Try(number, ticket, max(deadline - now, 0.0), own_limit=False)
        return Try(number, ticket, max(own, 0.0), own_limit=True)

    def _outcome(self, error: RegrowError, current: Try, elapsed_s: float) -> Outcome:
        blame = self.rules.blame(error) or classify(error).blame
        if (
            isinstance(error, TimedOut | DeadlineExceeded)
            and not current.own_limit
            and "timeout" not in self.rules.ignore
        ):
            # A caller with a tiny deadline must not open the circuit for everybody.
            return "failed" if elapsed_s >= self.patience_s else "unknown"
        return {"peer": "failed", "nobody": "ok", "unknown": "unknown"}[blame]  # type: ignore[return-value]

    def _settle(self, permit: Granted | None, outcome: Outcome, elapsed_s: float) -> None:
        if permit is not None:
            # An outcome that is lost costs one count; a probe's place comes back with its lease.
            tell_part(self.breaker, Settled(permit, outcome, elapsed_s))


def tell_part(name: str | None, message: object) -> None:
    """Tell an actor of the same subtree something that may be lost when it is just not there. Never switches."""
    ref = None if name is None else whereis(name)
    if ref is not None:
        try:
            ref.tell(message)
        except (Overloaded, Unavailable):
            pass


def ask_part(name: str, message: object, until: float) -> Any:
    """Ask an actor of the same subtree, waiting out its restart; raises its refusals and, in the end, Unavailable.

    Switches greenlets.
    """
    patience_ends = min(until, clock.now() + PART_PATIENCE_S)
    crashes = 0
    while True:
        ref = whereis(name)
        if ref is not None:
            remaining_s = until - clock.now()
            if remaining_s <= 0:
                raise DeadlineExceeded(f"{name}: the deadline passed before it was asked", started="no", retryable=True)
            try:
                return ref.ask(message, timeout=remaining_s)
            except (Unavailable, ActorDown):
                if ref.is_alive():
                    raise
            except RegrowError:
                raise
            except Exception:
                # In process a crashing part raises its own error here; its crash must not become the caller's.
                if ref.is_alive():
                    raise
            crashes += 1
        if crashes >= PART_CRASHES or clock.now() + PART_PAUSE_S >= patience_ends:
            raise Unavailable(f"{name} is not running, come back in 1 s", actor=name, retry_after_s=1.0)
        clock.sleep(PART_PAUSE_S)


def declare(integration: str) -> None:
    """Make every series of guarded calls exist. Never switches."""
    RETRIES.declare(integration)
    for reason in GIVE_UP_REASONS:
        GIVE_UPS.declare(integration, reason)


def refused_by_peer(error: RegrowError) -> bool:
    """True when the peer certainly did not do the work, so that any request may be repeated. Never switches."""
    return error.started == "no" or isinstance(error, RateLimited)
