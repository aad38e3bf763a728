"""The circuit as a pure state machine: what is counted, when it opens, who may probe; time comes in as a number.

pybreaker holds the state and announces its changes: the storage below is its extension point, and the machine moves it
with the public `open`, `half_open` and `close`. Nothing is ever run through pybreaker's `call`, which would hold a lock
for as long as the guarded work lasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec
import pybreaker

from actors.resilience.policy import BreakerPolicy

State = Literal["closed", "open", "half-open"]
STATES: tuple[State, ...] = ("closed", "open", "half-open")
Outcome = Literal["ok", "failed", "unknown"]

# A caller refused for want of a probe comes back within this: a probe usually ends long before its lease.
PROBE_HINT_S = 1.0
MAX_GROWTH_EXPONENT = 20
# Shares are counted in so many slots of the window; an old slot leaves it as a whole.
SLOTS = 20


class CircuitRecord(msgspec.Struct, kw_only=True):
    """All that outlives a breaker actor: times are seconds on the clock of the table that keeps the record."""

    state: State = "closed"
    generation: int = 0
    failures: list[float] = msgspec.field(default_factory=list)
    tallies: list[list[int]] = msgspec.field(default_factory=list)
    """[slot, calls, failed, slow] for each slot of the window in which calls ended, oldest first."""
    successes: int = 0
    opened_at: float = 0.0
    until: float = 0.0
    trips: int = 0
    held: bool = False
    disabled_until: float = 0.0
    """Until then every call goes and no outcome counts."""
    probes: dict[str, float] = msgspec.field(default_factory=dict)
    probes_given: int = 0


@dataclass(frozen=True, slots=True)
class Granted:
    """A call may go; its outcome is reported with the same generation and probe."""

    generation: int
    probe: str | None = None


@dataclass(frozen=True, slots=True)
class Barred:
    """No call may go; come back after `retry_after_s` seconds."""

    state: State
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class Transition:
    """The circuit went from `old` to `new`."""

    old: State
    new: State


class WindowedStorage(pybreaker.CircuitBreakerStorage):
    """Where pybreaker keeps a circuit: failures count while they lie in the window; time is given, not the wall's."""

    def __init__(self, name: str, policy: BreakerPolicy) -> None:
        super().__init__(name)
        self.record = CircuitRecord()
        self.now = 0.0
        # While pybreaker notices a change that another daemon made, it must not clear what that daemon has counted.
        self.noticing = False
        self._policy = policy

    @property
    def state(self) -> str:
        """The state that pybreaker's objects are made from."""
        return self.record.state

    @state.setter
    def state(self, state: str) -> None:
        record = self.record
        if state == record.state:
            return
        record.state = msgspec.convert(state, State)
        # From here on, outcomes of calls that began before say nothing.
        record.generation += 1
        record.probes.clear()

    def increment_counter(self) -> None:
        """Count a failure now."""
        kept = self._in_window()
        kept.append(self.now)
        # Only the newest matter to the threshold.
        self.record.failures = kept[-self._policy.failures :]

    def reset_counter(self) -> None:
        """Forget the failures."""
        if not self.noticing:
            self.record.failures = []
            self.record.tallies = []

    def tally(self, *, failed: bool, slow: bool) -> tuple[int, int, int]:
        """Count a call that ended now; return the calls, the failed and the slow ones in the window."""
        slot = int(self.now // (self._policy.window / SLOTS))
        kept = [tally for tally in self.record.tallies if tally[0] > slot - SLOTS]
        if not kept or kept[-1][0] != slot:
            kept.append([slot, 0, 0, 0])
        kept[-1][1] += 1
        kept[-1][2] += failed
        kept[-1][3] += slow
        self.record.tallies = kept
        return sum(tally[1] for tally in kept), sum(tally[2] for tally in kept), sum(tally[3] for tally in kept)

    def increment_success_counter(self) -> None:
        """Count a probe that went well."""
        self.record.successes += 1

    def reset_success_counter(self) -> None:
        """Forget the probes that went well."""
        if not self.noticing:
            self.record.successes = 0

    @property
    def counter(self) -> int:
        """How many failures lie in the window that ends now."""
        return len(self._in_window())

    @property
    def success_counter(self) -> int:
        """How many probes went well since the circuit became half-open."""
        return self.record.successes

    @property
    def opened_at(self) -> datetime | None:
        """When the circuit last opened, in wall time reckoned back from now."""
        if self.record.state == "closed":
            return None
        return datetime.now(UTC) - timedelta(seconds=max(0.0, self.now - self.record.opened_at))

    @opened_at.setter
    def opened_at(self, datetime: datetime) -> None:
        # pybreaker offers the wall clock's time; a clock that is set back would hold the circuit open.
        self.record.opened_at = self.now

    def _in_window(self) -> list[float]:
        since = self.now - self._policy.window
        return [at for at in self.record.failures if at > since]


class _Changes(pybreaker.CircuitBreakerListener):
    """Collects what pybreaker announces."""

    def __init__(self) -> None:
        self.seen: list[Transition] = []

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        """Remember one change of state."""
        old = "closed" if old_state is None else old_state.name
        if old != new_state.name:
            self.seen.append(Transition(msgspec.convert(old, State), msgspec.convert(new_state.name, State)))


class Circuit:
    """The decisions of one circuit over a record that somebody else keeps.

    Call `adopt` with the record and the time, then one of `permit`, `settle`, `hold_open`, `close`, `disable`, `reset`;
    then keep the record again. `take_transitions` returns what changed, also what another daemon changed meanwhile.
    """

    def __init__(self, name: str, policy: BreakerPolicy, record: CircuitRecord | None = None) -> None:
        self.policy = policy
        self._storage = WindowedStorage(name, policy)
        if record is not None:
            self._storage.record = record
        self._changes = _Changes()
        self._pybreaker = self._fresh()

    def __repr__(self) -> str:
        return f"<Circuit {self._storage.name} {self.state} generation {self.record.generation}>"

    @property
    def record(self) -> CircuitRecord:
        """The record in hand."""
        return self._storage.record

    @property
    def state(self) -> State:
        """The state in the record in hand."""
        return self._storage.record.state

    def adopt(self, record: CircuitRecord, now: float) -> None:
        """Take `record` as the truth at `now` and notice what changed since. Never switches."""
        self._storage.record = record
        self._storage.now = now
        self._storage.noticing = True
        try:
            self._pybreaker.state  # noqa: B018  # reading it is how pybreaker notices a change made elsewhere
        finally:
            self._storage.noticing = False

    def discard(self, announced: State) -> None:
        """Forget what was just decided: it could not be kept. `announced` is the state last told. Never switches."""
        self._changes.seen.clear()
        self._storage.record = CircuitRecord(state=announced)
        self._pybreaker = self._fresh()

    def take_transitions(self) -> list[Transition]:
        """Return the changes since the last call, oldest first. Never switches."""
        seen, self._changes.seen = self._changes.seen, []
        return seen

    def failures(self) -> int:
        """Return how many failures lie in the window. Never switches."""
        return self._storage.counter

    def retry_after_s(self) -> float:
        """Return the seconds until an open circuit lets a probe go, 0 when it is not open. Never switches."""
        return max(0.0, self.record.until - self._storage.now) if self.record.state == "open" else 0.0

    @property
    def is_disabled(self) -> bool:
        """True while an operator has it let everything go and count nothing."""
        return self._storage.now < self.record.disabled_until

    def permit(self) -> Granted | Barred:
        """Decide whether one call may go now. Never switches."""
        record, now = self.record, self._storage.now
        if record.state == "closed":
            return Granted(record.generation)
        if record.state == "open":
            if now < record.until:
                return Barred("open", record.until - now)
            record.held = False
            self._pybreaker.half_open()
        for probe in [probe for probe, ends in record.probes.items() if ends <= now]:
            del record.probes[probe]
        if len(record.probes) >= self.policy.probes:
            return Barred("half-open", min(min(record.probes.values()) - now, PROBE_HINT_S))
        record.probes_given += 1
        probe = str(record.probes_given)
        record.probes[probe] = now + self.policy.probe_lease
        return Granted(record.generation, probe)

    def settle(self, permit: Granted, outcome: Outcome, elapsed_s: float = 0.0) -> bool:
        """Count the outcome of a granted call; False when it came too late to mean anything. Never switches."""
        record, policy = self.record, self.policy
        if permit.generation != record.generation:
            return False
        if self.is_disabled:
            return True
        slow = policy.slow_call is not None and elapsed_s >= policy.slow_call and outcome != "unknown"
        if record.state == "half-open":
            return self._settle_probe(permit.probe, "failed" if slow else outcome)
        if record.state == "closed" and outcome != "unknown" and self._is_too_much(outcome == "failed", slow):
            self._trip()
        return True

    def _is_too_much(self, failed: bool, slow: bool) -> bool:
        """Count one call and say whether the circuit has to open."""
        policy = self.policy
        if failed:
            self._storage.increment_counter()
        if policy.counts_every_call:
            calls, failures, slows = self._storage.tally(failed=failed, slow=slow)
            if calls >= policy.min_calls:
                if policy.slow_call is not None and slows >= policy.slow_ratio * calls:
                    return True
                if policy.failure_ratio is not None and failures >= policy.failure_ratio * calls:
                    return True
        return policy.failure_ratio is None and failed and self._storage.counter >= self._pybreaker.fail_max

    def hold_open(self, for_s: float) -> None:
        """Open by hand: nothing goes for `for_s` seconds, whatever outcomes say. Never switches."""
        self._pybreaker.open()
        self.record.until = self._storage.now + for_s
        self.record.held = True
        self.record.disabled_until = 0.0

    def disable(self, for_s: float) -> None:
        """Let everything go by hand for `for_s` seconds and count nothing, then begin as new. Never switches."""
        self.reset()
        self.record.disabled_until = self._storage.now + for_s

    def close(self) -> None:
        """Close by hand and forget the failures, but not how often the circuit has tripped. Never switches."""
        self._pybreaker.close()
        self._storage.reset_counter()
        self.record.held = False
        self.record.disabled_until = 0.0

    def reset(self) -> None:
        """Close by hand as if the circuit were new; outcomes of calls under way no longer count. Never switches."""
        self.close()
        self.record.trips = 0
        self.record.generation += 1

    def _settle_probe(self, probe: str | None, outcome: Outcome) -> bool:
        record = self.record
        if probe is None or record.probes.pop(probe, None) is None:
            return False
        if outcome == "failed":
            self._trip()
        elif outcome == "ok":
            self._storage.increment_success_counter()
            if self._storage.success_counter >= self.policy.probes:
                record.trips = 0
                self._pybreaker.close()
        return True

    def _trip(self) -> None:
        record = self.record
        exponent = min(record.trips, MAX_GROWTH_EXPONENT)
        record.trips += 1
        self._pybreaker.open()
        record.until = self._storage.now + min(self.policy.reset_after * 2.0**exponent, self.policy.longest_s)

    def _fresh(self) -> pybreaker.CircuitBreaker:
        return pybreaker.CircuitBreaker(
            fail_max=self.policy.failures,
            reset_timeout=self.policy.reset_after,
            success_threshold=self.policy.probes,
            listeners=[self._changes],
            state_storage=self._storage,
            name=self._storage.name,
        )
