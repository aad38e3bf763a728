from __future__ import annotations

import gevent
import pytest

from actors.resilience.breaker import BREAKER_STATE, TRANSITIONS, Breaker, CircuitChanged, CircuitTable, Permit, Settled
from actors.resilience.circuit import Granted
from actors.resilience.policy import BreakerPolicy
from regrow.protocol.errors import CircuitOpen
from regrow.testing import ManualClock
from runtime import events
from runtime.actor import Actor
from runtime.ref import Ref
from tests.actors.resilience.conftest import Supervised, found

POLICY = BreakerPolicy()


def permit(ref: Ref) -> Granted:
    granted = ref.ask(Permit())
    assert isinstance(granted, Granted)
    return granted


def fail(ref: Ref, times: int) -> None:
    for _ in range(times):
        ref.ask(Settled(permit(ref), "failed"))


def refusal(ref: Ref) -> CircuitOpen:
    with pytest.raises(CircuitOpen) as caught:
        ref.ask(Permit())
    return caught.value


def test_after_five_failures_it_refuses_and_says_when_to_come_back(manual: ManualClock, supervised: Supervised) -> None:
    ref = supervised("api/breaker", Breaker, "api", POLICY, CircuitTable())
    fail(ref, 5)
    manual.advance(10)
    error = refusal(ref)
    assert error.retry_after_s == pytest.approx(20.0)
    assert str(error) == "the circuit of api is open, come back in 20 s"
    assert (error.started, error.retryable, error.actor) == ("no", True, "api")


def test_with_a_hundred_callers_at_a_half_open_circuit_one_probe_goes(
    manual: ManualClock, supervised: Supervised
) -> None:
    ref = supervised("api/breaker", Breaker, "api", POLICY, CircuitTable())
    fail(ref, 5)
    manual.advance(30)
    granted: list[Granted] = []
    refused: list[CircuitOpen] = []

    def call() -> None:
        try:
            granted.append(ref.ask(Permit()))
        except CircuitOpen as error:
            refused.append(error)

    gevent.joinall([gevent.spawn(call) for _ in range(100)], raise_error=True)
    assert (len(granted), len(refused)) == (1, 99)
    ref.ask(Settled(granted[0], "ok"))
    assert permit(ref).probe is None


def test_killed_while_open_it_comes_back_open(manual: ManualClock, supervised: Supervised) -> None:
    ref = supervised("api/breaker", Breaker, "api", POLICY, CircuitTable())
    fail(ref, 5)
    manual.advance(5)
    ref.kill()
    gevent.idle()
    again = found("api/breaker")
    assert again is not ref
    assert refusal(again).retry_after_s == pytest.approx(25.0)


def test_outcomes_of_calls_from_before_a_kill_still_count(manual: ManualClock, supervised: Supervised) -> None:
    ref = supervised("api/breaker", Breaker, "api", POLICY, CircuitTable())
    fail(ref, 4)
    under_way = permit(ref)
    ref.kill()
    gevent.idle()
    again = found("api/breaker")
    again.ask(Settled(under_way, "failed"))
    refusal(again)


def test_a_message_it_does_not_know_crashes_it_and_costs_no_state(manual: ManualClock, supervised: Supervised) -> None:
    ref = supervised("api/breaker", Breaker, "api", POLICY, CircuitTable())
    fail(ref, 5)
    with pytest.raises(TypeError):
        ref.ask("what is this")
    gevent.idle()
    refusal(found("api/breaker"))


def test_changes_are_events_and_metrics(manual: ManualClock, supervised: Supervised, heard: list[events.Event]) -> None:
    ref = supervised("metered/breaker", Breaker, "metered", POLICY, CircuitTable())
    fail(ref, 5)
    manual.advance(30)
    ref.ask(Settled(permit(ref), "ok"))
    told = [(event.topic, event.fields["actor"]) for event in heard if event.topic.startswith("breaker.")]
    assert told == [("breaker.opened", "metered"), ("breaker.half_opened", "metered"), ("breaker.closed", "metered")]
    assert [TRANSITIONS.value("metered", state) for state in ("open", "half-open", "closed")] == [1, 1, 1]
    assert [BREAKER_STATE.value("metered", state) for state in ("open", "half-open", "closed")] == [0, 0, 1]


def test_every_series_exists_before_anything_happened(supervised: Supervised) -> None:
    supervised("fresh/breaker", Breaker, "fresh", POLICY, CircuitTable())
    series = {labels for labels in BREAKER_STATE.series() if labels[0] == "fresh"}
    assert series == {("fresh", "closed"), ("fresh", "open"), ("fresh", "half-open")}


class Listener(Actor):
    def __init__(self) -> None:
        super().__init__()
        self.heard: list[object] = []

    def on_receive(self, message: object) -> object:
        if message == "heard":
            return list(self.heard)
        self.heard.append(message)
        return None


def test_the_front_is_told_of_every_change(manual: ManualClock, supervised: Supervised) -> None:
    front = supervised("api", Listener)
    ref = supervised("api/breaker", Breaker, "api", POLICY, CircuitTable(), front="api")
    fail(ref, 5)
    assert front.ask("heard") == [CircuitChanged("open", 30.0, certain=True)]


def test_an_operator_can_hold_it_open_close_it_and_reset_it(manual: ManualClock, supervised: Supervised) -> None:
    ref = supervised("api/breaker", Breaker, "api", POLICY, CircuitTable())
    assert ref.call("open", {"for_s": 100.0})["circuit"] == "open"
    manual.advance(99)
    assert refusal(ref).retry_after_s == pytest.approx(1.0)
    assert ref.call("close")["circuit"] == "closed"
    fail(ref, 5)
    assert ref.call("reset")["failures"] == 0
    permit(ref)


def test_its_status_says_what_an_operator_asks(manual: ManualClock, supervised: Supervised) -> None:
    ref = supervised("api/breaker", Breaker, "api", POLICY, CircuitTable())
    fail(ref, 3)
    assert ref.actor.status() == {
        "circuit": "closed",
        "failures": 3,
        "threshold": 5,
        "window_s": 60.0,
        "generation": 0,
        "held": False,
    }


def test_an_operator_can_disable_it_for_a_time_and_everybody_hears_of_it(
    manual: ManualClock, supervised: Supervised, heard: list[events.Event]
) -> None:
    ref = supervised("api/breaker", Breaker, "api", POLICY, CircuitTable())
    fail(ref, 5)
    heard.clear()
    assert ref.call("disable", {"for_s": 300.0})["disabled_s"] == 300.0
    fail(ref, 50)
    manual.advance(299)
    fail(ref, 50)
    assert ref.actor.status()["disabled_s"] == pytest.approx(1.0)
    manual.advance(1.5)
    gevent.idle()
    assert "disabled_s" not in ref.actor.status()
    fail(ref, 5)
    refusal(ref)
    topics = [event.topic for event in heard if event.topic.startswith("breaker.")]
    assert topics == ["breaker.closed", "breaker.disabled", "breaker.enabled", "breaker.opened"]


def test_disabled_for_longer_it_stays_so(
    manual: ManualClock, supervised: Supervised, heard: list[events.Event]
) -> None:
    ref = supervised("api/breaker", Breaker, "api", POLICY, CircuitTable())
    ref.call("disable", {"for_s": 10.0})
    ref.call("disable", {"for_s": 100.0})
    manual.advance(50)
    gevent.idle()
    fail(ref, 5)
    assert ref.actor.status()["disabled_s"] == pytest.approx(50.0)
    ref.call("close")
    topics = [event.topic for event in heard if event.topic.startswith("breaker.")]
    assert topics == ["breaker.disabled", "breaker.enabled"]


def test_killed_while_disabled_it_comes_back_disabled_and_ends_it_in_time(
    manual: ManualClock, supervised: Supervised, heard: list[events.Event]
) -> None:
    ref = supervised("api/breaker", Breaker, "api", POLICY, CircuitTable())
    ref.call("disable", {"for_s": 100.0})
    ref.kill()
    gevent.idle()
    reborn = found("api/breaker")
    fail(reborn, 20)
    manual.advance(101)
    gevent.idle()
    topics = [event.topic for event in heard if event.topic.startswith("breaker.")]
    assert topics == ["breaker.disabled", "breaker.enabled"]
