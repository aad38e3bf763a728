from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.resilience.circuit import Barred, Circuit, CircuitRecord, Granted, Outcome, Transition
from actors.resilience.policy import BreakerPolicy
from config.schema import PositiveDuration


def policy(failures: int = 5, probes: int = 1, lease_s: float = 60.0) -> BreakerPolicy:
    return BreakerPolicy(
        failures=failures,
        window=PositiveDuration(60.0),
        reset_after=PositiveDuration(30.0),
        max_reset_after=PositiveDuration(100.0),
        probes=probes,
        probe_lease=PositiveDuration(lease_s),
    )


class Bench:
    """A circuit with a clock of its own; every step adopts the record first, as the actor does."""

    def __init__(self, rules: BreakerPolicy | None = None) -> None:
        self.now = 1000.0
        self.record = CircuitRecord()
        self.circuit = Circuit("github", rules or policy(), self.record)

    def permit(self) -> Granted | Barred:
        self.circuit.adopt(self.record, self.now)
        return self.circuit.permit()

    def granted(self) -> Granted:
        permit = self.permit()
        assert isinstance(permit, Granted)
        return permit

    def settle(self, permit: Granted, outcome: Outcome, elapsed_s: float = 0.0) -> bool:
        self.circuit.adopt(self.record, self.now)
        return self.circuit.settle(permit, outcome, elapsed_s)

    def call(self, outcome: Outcome, elapsed_s: float = 0.0) -> None:
        self.settle(self.granted(), outcome, elapsed_s)

    def trip(self) -> None:
        while self.circuit.state == "closed":
            self.call("failed")


def test_a_closed_circuit_grants_every_call() -> None:
    bench = Bench()
    assert [bench.granted().probe for _ in range(100)] == [None] * 100


def test_five_failures_open_it_and_the_refusal_says_when_to_come_back() -> None:
    bench = Bench()
    for _ in range(5):
        bench.call("failed")
    bench.now += 10
    assert bench.permit() == Barred("open", 20.0)


def test_four_failures_and_a_success_and_four_failures_within_the_window_open_it() -> None:
    # Failures count in the window, not in a row: a peer that fails eight calls of nine is failing.
    bench = Bench()
    outcomes: list[Outcome] = ["failed", "failed", "failed", "failed", "ok", "failed"]
    for outcome in outcomes:
        bench.call(outcome)
    assert bench.circuit.state == "open"


def test_failures_that_left_the_window_do_not_count() -> None:
    bench = Bench()
    for _ in range(50):
        bench.call("failed")
        bench.now += 15.1
    assert bench.circuit.state == "closed"


def test_outcomes_that_say_nothing_about_the_peer_do_not_count() -> None:
    bench = Bench()
    for _ in range(50):
        bench.call("unknown")
    assert bench.circuit.state == "closed"


def test_after_its_time_one_probe_may_go_and_the_others_are_refused() -> None:
    bench = Bench()
    bench.trip()
    bench.now += 30
    assert bench.granted().probe is not None
    barred = bench.permit()
    assert isinstance(barred, Barred)
    assert barred.state == "half-open"
    assert 0 < barred.retry_after_s <= 1.0


def test_a_hundred_callers_at_a_half_open_circuit_get_as_many_probes_as_configured() -> None:
    bench = Bench(policy(probes=3))
    bench.trip()
    bench.now += 30
    assert sum(isinstance(bench.permit(), Granted) for _ in range(100)) == 3


def test_a_probe_that_goes_well_closes_it() -> None:
    bench = Bench()
    bench.trip()
    bench.now += 30
    bench.call("ok")
    assert bench.circuit.state == "closed"
    assert bench.circuit.failures() == 0


def test_as_many_probes_as_configured_must_go_well() -> None:
    bench = Bench(policy(probes=2))
    bench.trip()
    bench.now += 30
    states = []
    for _ in range(2):
        bench.call("ok")
        states.append(bench.circuit.state)
    assert states == ["half-open", "closed"]


def test_failed_probes_open_it_for_twice_as_long_up_to_the_cap() -> None:
    bench = Bench()
    bench.trip()
    waits = []
    for _ in range(4):
        waits.append(bench.circuit.retry_after_s())
        bench.now += waits[-1]
        bench.call("failed")
    assert waits == [30.0, 60.0, 100.0, 100.0]


def test_a_success_brings_the_open_time_back_to_its_beginning() -> None:
    bench = Bench()
    bench.trip()
    bench.now += 30
    bench.call("failed")
    bench.now += 60
    bench.call("ok")
    bench.trip()
    assert bench.circuit.retry_after_s() == 30.0


def test_a_probe_whose_lease_ran_out_gives_its_place_back_and_its_outcome_is_ignored() -> None:
    bench = Bench(policy(lease_s=10.0))
    bench.trip()
    bench.now += 30
    lost = bench.granted()
    bench.now += 10
    second = bench.granted()
    assert not bench.settle(lost, "failed")
    assert bench.settle(second, "ok")
    assert bench.circuit.state == "closed"


def test_a_probe_that_learned_nothing_gives_its_place_back() -> None:
    bench = Bench()
    bench.trip()
    bench.now += 30
    bench.call("unknown")
    assert isinstance(bench.permit(), Granted)


@pytest.mark.parametrize("outcome", ["ok", "failed"])
def test_outcomes_of_calls_from_before_the_circuit_opened_are_ignored(outcome: Outcome) -> None:
    bench = Bench()
    late = bench.granted()
    bench.trip()
    bench.now += 30
    bench.granted()
    assert not bench.settle(late, outcome)
    assert bench.circuit.state == "half-open"


def test_held_open_by_hand_it_stays_so_for_as_long_as_was_said() -> None:
    bench = Bench()
    bench.circuit.adopt(bench.record, bench.now)
    bench.circuit.hold_open(500.0)
    bench.now += 499
    assert bench.permit() == Barred("open", 1.0)
    bench.now += 1
    assert isinstance(bench.permit(), Granted)


def test_closed_by_hand_it_grants_again_with_no_failures_left() -> None:
    bench = Bench()
    bench.trip()
    bench.circuit.adopt(bench.record, bench.now)
    bench.circuit.close()
    assert bench.granted().probe is None
    assert bench.circuit.failures() == 0


def test_after_a_reset_calls_under_way_no_longer_count() -> None:
    bench = Bench()
    under_way = [bench.granted() for _ in range(5)]
    bench.circuit.reset()
    assert [bench.settle(permit, "failed") for permit in under_way] == [False] * 5
    assert bench.circuit.state == "closed"


def test_disabled_it_grants_everything_and_counts_nothing_until_its_time_is_over() -> None:
    bench = Bench()
    bench.trip()
    before = Granted(bench.record.generation)
    bench.circuit.disable(100.0)
    assert not bench.settle(before, "failed")
    for _ in range(50):
        bench.call("failed", 60.0)
    assert (bench.circuit.state, bench.circuit.failures()) == ("closed", 0)
    bench.now += 100.0
    for _ in range(4):
        bench.call("failed")
    assert bench.circuit.state == "closed"
    bench.call("failed")
    assert bench.permit() == Barred("open", 30.0)


@pytest.mark.parametrize("how", ["close", "reset", "open"])
def test_a_disabled_circuit_counts_again_as_soon_as_it_is_turned_by_hand(how: str) -> None:
    bench = Bench()
    bench.circuit.adopt(bench.record, bench.now)
    bench.circuit.disable(100.0)
    if how == "open":
        bench.circuit.hold_open(10.0)
        assert bench.permit() == Barred("open", 10.0)
    else:
        getattr(bench.circuit, how)()
        bench.trip()
    assert bench.circuit.state == "open"


def test_every_change_is_announced_once_and_in_order() -> None:
    bench = Bench()
    bench.trip()
    bench.now += 30
    bench.call("ok")
    assert bench.circuit.take_transitions() == [
        Transition("closed", "open"),
        Transition("open", "half-open"),
        Transition("half-open", "closed"),
    ]
    assert bench.circuit.take_transitions() == []


def test_an_open_circuit_survives_the_machine_that_opened_it() -> None:
    bench = Bench()
    bench.trip()
    heir = Circuit("github", policy(), bench.record)
    heir.adopt(bench.record, bench.now + 1)
    assert heir.permit() == Barred("open", 29.0)
    assert heir.take_transitions() == []


def test_a_change_that_another_daemon_made_is_announced_and_loses_none_of_its_failures() -> None:
    here, there = Bench(), Bench()
    there.trip()
    there.now += 30
    there.call("ok")
    there.call("failed")
    opened = Bench()
    opened.trip()
    here.circuit.adopt(opened.record, here.now)
    here.circuit.adopt(there.record, there.now)
    assert here.circuit.take_transitions() == [Transition("closed", "open"), Transition("open", "closed")]
    assert here.circuit.failures() == 1


def test_what_could_not_be_kept_is_not_announced() -> None:
    bench = Bench()
    bench.trip()
    bench.circuit.discard("closed")
    assert bench.circuit.take_transitions() == []
    bench.circuit.adopt(bench.record, bench.now)
    assert bench.circuit.take_transitions() == [Transition("closed", "open")]


def test_the_wall_clock_has_no_say_in_when_a_circuit_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.trip()
    monkeypatch.setattr("time.time", lambda: 0.0)
    bench.now += 30
    assert isinstance(bench.permit(), Granted)


BY_SHARE = BreakerPolicy(failure_ratio=0.5, min_calls=10, window=PositiveDuration(60.0))
BY_SLOWNESS = BreakerPolicy(slow_call=PositiveDuration(2.0), slow_ratio=0.5, min_calls=4)


def test_by_share_a_few_failures_among_many_calls_do_not_open_it() -> None:
    bench = Bench(BY_SHARE)
    for number in range(1000):
        bench.call("failed" if number % 3 == 0 else "ok")
    assert bench.circuit.state == "closed"


def test_by_share_half_of_the_calls_failing_open_it_once_there_are_enough() -> None:
    bench = Bench(BY_SHARE)
    states = []
    for outcome in [*["failed"] * 9, "ok"]:
        bench.call(outcome)  # type: ignore[arg-type]
        states.append(bench.circuit.state)
    assert states == ["closed"] * 9 + ["open"]


def test_by_share_calls_that_left_the_window_do_not_count() -> None:
    bench = Bench(BY_SHARE)
    for _ in range(9):
        bench.call("failed")
    bench.now += 61
    for _ in range(9):
        bench.call("ok")
    bench.call("failed")
    assert bench.circuit.state == "closed"


def test_slow_calls_open_it_though_none_failed() -> None:
    bench = Bench(BY_SLOWNESS)
    states = []
    for elapsed_s in (0.1, 0.1, 2.0, 5.0):
        bench.call("ok", elapsed_s)
        states.append(bench.circuit.state)
    assert states == ["closed"] * 3 + ["open"]


def test_a_slow_probe_is_a_failed_one() -> None:
    bench = Bench(BY_SLOWNESS)
    for _ in range(4):
        bench.call("ok", 3.0)
    bench.now += 30
    bench.call("ok", 3.0)
    assert bench.circuit.state == "open"


def test_counting_shares_takes_a_bounded_memory() -> None:
    bench = Bench(BreakerPolicy(failure_ratio=1.0, min_calls=1_000_000))
    for _ in range(2000):
        bench.now += 0.2
        bench.call("failed")
    assert len(bench.record.tallies) <= 21
    assert len(bench.record.failures) <= 5


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["call", "wait", "hold", "close", "reset", "disable"]), st.integers(0, 10), st.floats(0, 200)
    ),
    max_size=60,
)


@given(steps=STEPS, probes=st.integers(1, 3), failures=st.integers(1, 4))
def test_whatever_happens_the_rules_hold(steps: list[tuple[str, int, float]], probes: int, failures: int) -> None:
    bench = Bench(policy(failures=failures, probes=probes, lease_s=40.0))
    under_way: list[Granted] = []
    outcomes: tuple[Outcome, ...] = ("ok", "failed", "unknown")
    for what, number, seconds in steps:
        bench.circuit.adopt(bench.record, bench.now)
        if what == "wait":
            bench.now += seconds
        elif what == "hold":
            bench.circuit.hold_open(seconds + 1)
        elif what == "close":
            bench.circuit.close()
        elif what == "reset":
            bench.circuit.reset()
        elif what == "disable":
            bench.circuit.disable(seconds + 1)
            assert isinstance(bench.permit(), Granted)
        elif under_way and number < 7:
            bench.settle(under_way.pop(number % len(under_way)), outcomes[number % 3])
        else:
            permit = bench.permit()
            if isinstance(permit, Granted):
                under_way.append(permit)
                assert bench.record.state != "open"
            else:
                assert permit.retry_after_s > 0
        record = bench.record
        assert len(record.probes) <= probes
        assert len(record.failures) <= failures
        assert record.state == "open" or not record.held
        assert record.state == "closed" or bench.now >= record.disabled_until
        copied = msgspec.json.decode(msgspec.json.encode(record), type=CircuitRecord)
        assert copied == record
