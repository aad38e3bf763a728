"""The breaker actor: hands out permits and takes outcomes; never runs anything itself, so it never holds anybody up."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from actors.resilience import shared
from actors.resilience.circuit import STATES, Barred, Circuit, CircuitRecord, Granted, Outcome, State, Transition
from actors.resilience.policy import BreakerPolicy, OnRedisDown
from actors.resilience.shared import Loaded, SharedCircuit, SharedDown
from regrow.protocol.errors import CircuitOpen, Overloaded, Unavailable
from runtime import clock, events
from runtime.actor import Actor, exported
from runtime.measure import Counter, Gauge
from runtime.names import whereis

T = TypeVar("T")

BREAKER_STATE = Gauge("breaker_state", "1 for the state that the circuit is in", ("actor", "state"))
TRANSITIONS = Counter("breaker_transitions_total", "changes of a state, by the new one", ("actor", "state"))
REFUSALS = Counter("breaker_refusals_total", "calls that an open or probing circuit refused", ("actor",))
OUTCOMES = Counter("breaker_outcomes_total", "outcomes of permitted calls, late ones ignored", ("actor", "outcome"))

LONGEST_HOLD_S = 24 * 3600.0
# So many daemons may save the same circuit at once before one of them gives up.
SAVE_TRIES = 20
SAVE_PAUSE_S = 0.001

_TOPICS: dict[State, str] = {
    "open": "breaker.opened",
    "half-open": "breaker.half_opened",
    "closed": "breaker.closed",
}


@dataclass(frozen=True, slots=True)
class Permit:
    """Ask whether one call may go now: answered with `Granted`, or refused with CircuitOpen."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Tell how a granted call ended; `unknown` means that it says nothing about the peer."""

    permit: Granted
    outcome: Outcome
    elapsed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class CircuitChanged:
    """Told to the integration's front: the circuit's new state and how long an open one stays so.

    `certain` is False for a shared circuit, which another daemon may close without anybody here being told.
    """

    state: State
    retry_after_s: float
    certain: bool


@dataclass(frozen=True, slots=True)
class _Enable:
    """The breaker's own timer: the time for which it was disabled may be over."""


@dataclass(slots=True)
class CircuitTable:
    """Where circuits outlive their actor: made with the tree, owned by nobody who can crash."""

    record: CircuitRecord = field(default_factory=CircuitRecord)
    shared: SharedCircuit | None = None


class Breaker(Actor):
    """One circuit; the rules are `Circuit`'s, the state is the table's.

    `integration` names it in metrics, events and errors. `front`, when there is one, is told of every change.
    """

    def __init__(
        self,
        integration: str,
        policy: BreakerPolicy,
        table: CircuitTable,
        *,
        on_redis_down: OnRedisDown = "open",
        front: str | None = None,
    ) -> None:
        super().__init__()
        self._integration = integration
        self._policy = policy
        self._table = table
        self._on_redis_down = on_redis_down
        self._front = front
        self._circuit = Circuit(integration, policy, table.record)
        self._announced: State = table.record.state
        self._disabled = False
        self._enabling: clock.Timer | None = None

    def on_start(self) -> None:
        """Show the state that outlived the last incarnation."""
        declare(self._integration)
        self._show(self._announced)
        # Its predecessor has told already that it is disabled.
        self._disabled = self._disabled_s() > 0
        self._enable_later()

    def on_stop(self) -> None:
        """Close the connections to Redis."""
        if self._enabling is not None:
            self._enabling.cancel()
        shared.close_quietly(self._table.shared)

    def on_receive(self, message: object) -> Granted | None:
        """Answer a permit request, or take an outcome. Switches greenlets only when the circuit is shared."""
        if isinstance(message, Permit):
            return self._permit()
        if isinstance(message, Settled):
            self._settle(message)
            return None
        if isinstance(message, _Enable):
            self._look_whether_disabled()
            return None
        raise TypeError(f"the breaker of {self._integration} got a message of type {type(message).__name__}")

    @exported
    def open(self, for_s: Annotated[float, Meta(gt=0, le=LONGEST_HOLD_S)] = 3600.0) -> dict[str, Any]:
        """Hold the circuit open by hand for `for_s` seconds, one hour unless told otherwise."""
        self._decide(lambda: self._circuit.hold_open(for_s))
        return dict(self.status())

    @exported
    def close(self) -> dict[str, Any]:
        """Close the circuit by hand; it opens again by itself when failures come."""
        self._decide(self._circuit.close)
        return dict(self.status())

    @exported
    def disable(self, for_s: Annotated[float, Meta(gt=0, le=LONGEST_HOLD_S)] = 3600.0) -> dict[str, Any]:
        """Let every call go for `for_s` seconds, one hour unless told otherwise, whatever their outcomes are."""
        self._decide(lambda: self._circuit.disable(for_s))
        self._enable_later()
        return dict(self.status())

    @exported
    def reset(self) -> dict[str, Any]:
        """Close the circuit by hand and forget everything, as if it were new."""
        self._decide(self._circuit.reset)
        return dict(self.status())

    def status(self) -> Mapping[str, Any]:
        """Return the circuit as last seen. Never switches."""
        circuit, shared_circuit = self._circuit, self._table.shared
        shown: dict[str, Any] = {
            "circuit": circuit.state,
            "failures": circuit.failures(),
            "threshold": self._policy.failures,
            "window_s": float(self._policy.window),
            "generation": circuit.record.generation,
            "held": circuit.record.held,
        }
        if circuit.state == "open":
            shown["retry_after_s"] = round(circuit.retry_after_s(), 3)
        if (left_s := self._disabled_s()) > 0:
            shown["disabled_s"] = round(left_s, 3)
        if shared_circuit is not None:
            shown["redis"] = shared_circuit.link.state
        return shown

    def _permit(self) -> Granted:
        if self._table.shared is None:
            return self._granted()
        promise = self.defer()
        granted = self._granted()
        if not promise.resolve(granted) and granted.probe is not None:
            # The caller gave up while Redis was asked: the probe's place must not wait for its lease to end.
            self._decide(lambda: self._circuit.settle(granted, "unknown"))
        return granted

    def _granted(self) -> Granted:
        decision = self._decide(self._circuit.permit)
        if isinstance(decision, Granted):
            return decision
        REFUSALS.inc(self._integration)
        raise refusal(self._integration, decision)

    def _settle(self, message: Settled) -> None:
        permit, outcome = message.permit, message.outcome
        if changes_nothing(self._policy, permit, outcome):
            count_settled(self._integration, self._circuit.record, permit, outcome)
            return
        try:
            counted = self._decide(lambda: self._circuit.settle(permit, outcome, message.elapsed_s))
        except (Unavailable, Overloaded):
            return
        OUTCOMES.inc(self._integration, outcome if counted else "late")

    def _decide(self, action: Callable[[], T]) -> T:
        """Run one action of the circuit on the newest record and keep what it changed."""
        backend = self._table.shared
        if backend is None:
            return self._decide_here(action)
        try:
            for attempt in range(SAVE_TRIES):
                if attempt:
                    # Daemons that keep step with one another would lose to the same one every time.
                    clock.sleep(random.random() * SAVE_PAUSE_S * attempt)
                loaded = backend.load()
                before = shared.snapshot(loaded.record)
                self._circuit.adopt(loaded.record, loaded.now)
                result = action()
                if not shared.changed(before, self._circuit.record) or backend.save(loaded):
                    self._mirror(loaded)
                    self._announce()
                    return result
                self._circuit.discard(self._announced)
        except SharedDown as down:
            self._circuit.discard(self._announced)
            if self._on_redis_down == "open":
                return self._decide_here(action)
            raise Unavailable(
                f"the circuit of {self._integration} is not known while redis does not answer",
                actor=self._integration,
                retry_after_s=down.retry_after_s,
            ) from None
        raise Overloaded(
            f"the circuit of {self._integration} changed {SAVE_TRIES} times while it was saved",
            actor=self._integration,
            retry_after_s=0.1,
        )

    def _decide_here(self, action: Callable[[], T]) -> T:
        self._circuit.adopt(self._table.record, clock.now())
        result = action()
        self._announce()
        return result

    def _mirror(self, loaded: Loaded) -> None:
        """Keep what Redis says also here, in this daemon's time, so that an outage of Redis closes no open circuit."""
        record, shift = self._circuit.record, clock.now() - loaded.now
        self._table.record = msgspec.structs.replace(
            record,
            failures=[at + shift for at in record.failures],
            opened_at=record.opened_at + shift,
            until=record.until + shift,
            disabled_until=record.disabled_until + shift if record.disabled_until else 0.0,
            tallies=[],
            probes={probe: ends + shift for probe, ends in record.probes.items()},
        )

    def _announce(self) -> None:
        for change in self._circuit.take_transitions():
            self._announced = change.new
            self._tell_everybody(change)
        self._look_whether_disabled()

    def _disabled_s(self) -> float:
        """Return how long it still lets everything go."""
        return max(0.0, self._table.record.disabled_until - clock.now())

    def _look_whether_disabled(self) -> None:
        left_s = self._disabled_s()
        if (left_s > 0) != self._disabled:
            self._disabled = left_s > 0
            if self._disabled:
                events.publish("breaker.disabled", actor=self._integration, for_s=round(left_s, 3))
            else:
                events.publish("breaker.enabled", actor=self._integration)
            self._enable_later()

    def _enable_later(self) -> None:
        if self._enabling is not None:
            self._enabling.cancel()
        self._enabling = self.send_after(self._disabled_s(), _Enable()) if self._disabled else None

    def _tell_everybody(self, change: Transition) -> None:
        TRANSITIONS.inc(self._integration, change.new)
        self._show(change.new)
        retry_after_s = self._circuit.retry_after_s()
        fields: dict[str, Any] = {"previous": change.old}
        if change.new == "open":
            fields |= {"retry_after_s": round(retry_after_s, 3), "held": self._circuit.record.held}
        events.publish(_TOPICS[change.new], actor=self._integration, **fields)
        front = None if self._front is None else whereis(self._front)
        if front is not None:
            # Beyond the bound of its mailbox: a front that is overloaded needs to hear this most.
            front.post(CircuitChanged(change.new, retry_after_s, certain=self._table.shared is None))

    def _show(self, state: State) -> None:
        for other in STATES:
            BREAKER_STATE.set(1.0 if other == state else 0.0, self._integration, other)


def refusal(integration: str, barred: Barred) -> CircuitOpen:
    """Return the error of a call that the circuit refuses. Never switches."""
    why = "is open" if barred.state == "open" else "is half-open and its probes are under way"
    return CircuitOpen(
        f"the circuit of {integration} {why}, come back in {barred.retry_after_s:.3g} s",
        actor=integration,
        retry_after_s=barred.retry_after_s,
    )


def changes_nothing(policy: BreakerPolicy, permit: Granted, outcome: Outcome) -> bool:
    """Tell whether an outcome is only to be counted: the common case, which nobody need look up or be asked for.

    Never switches.
    """
    return permit.probe is None and (outcome == "unknown" or (outcome == "ok" and not policy.counts_every_call))


def count_settled(integration: str, record: CircuitRecord, permit: Granted, outcome: Outcome) -> None:
    """Count an outcome that changes nothing, in the breaker or in place of its message. Never switches."""
    OUTCOMES.inc(integration, outcome if permit.generation == record.generation else "late")


def declare(integration: str) -> None:
    """Make every series of a breaker exist. Never switches."""
    for state in STATES:
        BREAKER_STATE.declare(integration, state)
        TRANSITIONS.declare(integration, state)
    for outcome in ("ok", "failed", "unknown", "late"):
        OUTCOMES.declare(integration, outcome)
    REFUSALS.declare(integration)
