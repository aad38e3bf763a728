"""Parking: a child supervisor that gave up is kept as failed and tried again, and never counted."""

from __future__ import annotations

import json

import pytest

from config.secret import Secret
from regrow.testing import ManualClock
from runtime import events
from runtime.introspect import snapshot
from runtime.reasons import SHUTDOWN
from runtime.ref import Ref
from supervisors import (
    Backoff,
    ChildSpec,
    Supervisor,
    restart_child,
    start_dynamic,
    terminate_child,
    which_children,
)
from supervisors.errors import ChildRestarting
from tests.supervisors.workshop import Boom, Workshop, refuse_to_start, states

PARK = Backoff(base_s=1.0, max_s=4.0, jitter=0.0, reset_after_s=60.0)


def entry(workshop: Workshop, **options: object) -> ChildSpec:
    """A supervisor that allows its worker no restart."""
    return ChildSpec(
        "entry", Supervisor, args=([workshop.spec("w")],), kwargs={"max_restarts": 0, **options}, park=PARK
    )


def test_a_supervisor_that_gave_up_is_parked_and_comes_back(
    workshop: Workshop, manual_clock: ManualClock, published: list[events.Event]
) -> None:
    supervisor = workshop.supervise(entry(workshop), max_restarts=0)
    workshop.end("w")
    assert states(supervisor) == {"entry": "restarting"}
    assert [e.fields["retry_in_s"] for e in published if e.topic == "actor.parked"] == [1.0]
    manual_clock.advance(1)
    assert states(supervisor) == {"entry": "running"}


def test_parking_never_counts_and_waits_longer_each_time(workshop: Workshop, manual_clock: ManualClock) -> None:
    supervisor = workshop.supervise(entry(workshop), max_restarts=0)
    for delay_s in (1, 2, 4, 4, 4):
        workshop.end("w")
        manual_clock.advance(delay_s - 0.01)
        assert states(supervisor) == {"entry": "restarting"}
        manual_clock.advance(0.01)
        assert states(supervisor) == {"entry": "running"}


def test_a_parked_entry_that_cannot_start_stays_parked(workshop: Workshop, manual_clock: ManualClock) -> None:
    supervisor = workshop.supervise(entry(workshop), max_restarts=0)
    workshop.faults["w"] = [refuse_to_start() for _ in range(3)]
    workshop.end("w")
    manual_clock.advance(1 + 2)
    assert workshop.log.count("fail w") == 2
    assert states(supervisor) == {"entry": "restarting"}
    manual_clock.advance(4 + 4)
    assert states(supervisor) == {"entry": "running"}


def test_what_is_told_of_a_parked_entry_shows_no_secret(
    workshop: Workshop, manual_clock: ManualClock, published: list[events.Event]
) -> None:
    password = Secret("hunter2-hunter2")
    workshop.faults["w"] = [RuntimeError(f"{'x' * 430} login failed with {password.reveal()}")]
    supervisor = workshop.supervise(entry(workshop), max_restarts=0)
    shown = json.dumps(snapshot(supervisor).to_json()) + str([event.fields for event in published])
    assert "login failed with" in shown
    assert "hunter2" not in shown


def test_terminating_a_parked_entry_cancels_its_return(workshop: Workshop, manual_clock: ManualClock) -> None:
    supervisor = workshop.supervise(entry(workshop), max_restarts=0)
    workshop.end("w")
    with pytest.raises(ChildRestarting):
        restart_child(supervisor, "entry")
    terminate_child(supervisor, "entry")
    manual_clock.advance(60)
    assert states(supervisor) == {"entry": "undefined"}
    restart_child(supervisor, "entry")
    assert states(supervisor) == {"entry": "running"}


def test_a_parked_entry_does_not_hold_up_the_end_of_its_supervisor(
    workshop: Workshop, manual_clock: ManualClock
) -> None:
    supervisor = workshop.supervise(entry(workshop), max_restarts=0)
    workshop.end("w")
    supervisor.stop(reason=SHUTDOWN)
    assert manual_clock.pending() == []


def test_an_entry_that_crashed_is_restarted_and_counted_as_ever(workshop: Workshop) -> None:
    class Faulty(Supervisor):
        def do_crash(self) -> None:
            raise Boom("a bug in a supervisor")

    supervisor = workshop.supervise(ChildSpec("entry", Faulty, park=PARK), max_restarts=1)
    for expected in (True, False):
        if supervisor.is_alive():
            child = which_children(supervisor)[0][1]
            assert isinstance(child, Ref)
            child.kill()
            workshop.clock.settle()
        assert supervisor.is_alive() is expected


def test_a_dynamic_entry_is_parked_too(workshop: Workshop, manual_clock: ManualClock) -> None:
    supervisor = workshop.supervise_dynamically(max_restarts=0)
    start_dynamic(supervisor, entry(workshop))
    workshop.end("w")
    assert [child for _, child, _ in which_children(supervisor)] == ["restarting"]
    manual_clock.advance(1)
    assert [isinstance(child, Ref) for _, child, _ in which_children(supervisor)] == [True]
