"""Back-off: a delay before each restart, longer each time, until the child stays up."""

from __future__ import annotations

import random

import pytest

from regrow.testing import ManualClock
from supervisors import Backoff, delete_child, restart_child, terminate_child
from supervisors.errors import ChildRestarting
from tests.supervisors.workshop import Workshop, refuse_to_start, states

STEADY = Backoff(base_s=1.0, max_s=8.0, jitter=0.0, reset_after_s=60.0)


def test_the_delay_doubles_up_to_its_limit() -> None:
    assert [STEADY.delay_s(attempt) for attempt in (1, 2, 3, 4, 5, 1000)] == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_jitter_spreads_the_delay_to_both_sides() -> None:
    backoff = Backoff(base_s=1.0, jitter=0.25)
    delays = [backoff.delay_s(1, random.Random(seed)) for seed in range(200)]
    assert 0.75 <= min(delays) < 0.8
    assert 1.2 < max(delays) <= 1.25


def test_a_crashed_child_is_restarting_until_its_delay_is_over(workshop: Workshop, manual_clock: ManualClock) -> None:
    supervisor = workshop.supervise(workshop.spec("a", backoff=STEADY))
    workshop.end("a")
    manual_clock.advance(0.99)
    assert states(supervisor) == {"a": "restarting"}
    manual_clock.advance(0.02)
    assert states(supervisor) == {"a": "running"}


def test_each_restart_in_a_row_waits_longer(workshop: Workshop, manual_clock: ManualClock) -> None:
    supervisor = workshop.supervise(workshop.spec("a", backoff=STEADY), max_restarts=10)
    for delay_s in (1, 2, 4, 8, 8):
        workshop.end("a")
        manual_clock.advance(delay_s - 0.01)
        assert states(supervisor) == {"a": "restarting"}
        manual_clock.advance(0.01)
        assert states(supervisor) == {"a": "running"}


def test_a_child_that_stayed_up_begins_anew(workshop: Workshop, manual_clock: ManualClock) -> None:
    supervisor = workshop.supervise(workshop.spec("a", backoff=STEADY), max_restarts=10)
    for _ in range(3):
        workshop.end("a")
        manual_clock.advance(10)
    manual_clock.advance(60)
    workshop.end("a")
    manual_clock.advance(1)
    assert states(supervisor) == {"a": "running"}


def test_time_in_which_it_could_not_start_is_no_time_up(workshop: Workshop, manual_clock: ManualClock) -> None:
    supervisor = workshop.supervise(workshop.spec("a", backoff=STEADY), max_restarts=1000)
    workshop.faults["a"] = [refuse_to_start() for _ in range(20)]
    workshop.end("a")
    manual_clock.advance(1 + 2 + 4 + 8 * 10)
    attempts = workshop.log.count("fail a")
    manual_clock.advance(7.9)
    assert workshop.log.count("fail a") == attempts
    manual_clock.advance(8)
    assert workshop.log.count("fail a") > attempts
    assert states(supervisor) == {"a": "restarting"}


def test_a_delayed_restart_counts_once(workshop: Workshop, manual_clock: ManualClock) -> None:
    supervisor = workshop.supervise(workshop.spec("a", backoff=STEADY), max_restarts=1, max_seconds=100)
    workshop.end("a")
    manual_clock.advance(1)
    assert supervisor.is_alive()
    workshop.end("a")
    assert not supervisor.is_alive()


def test_each_attempt_that_fails_counts_as_a_restart(workshop: Workshop, manual_clock: ManualClock) -> None:
    supervisor = workshop.supervise(workshop.spec("a", backoff=STEADY), max_restarts=2, max_seconds=100)
    workshop.faults["a"] = [refuse_to_start(), refuse_to_start()]
    workshop.end("a")
    manual_clock.advance(1)
    assert supervisor.is_alive()
    manual_clock.advance(2)
    assert not supervisor.is_alive()


def test_a_child_that_waits_for_its_delay_can_be_terminated_but_not_restarted_or_deleted(
    workshop: Workshop, manual_clock: ManualClock
) -> None:
    supervisor = workshop.supervise(workshop.spec("a", backoff=STEADY))
    workshop.end("a")
    with pytest.raises(ChildRestarting):
        restart_child(supervisor, "a")
    with pytest.raises(ChildRestarting):
        delete_child(supervisor, "a")
    terminate_child(supervisor, "a")
    manual_clock.advance(60)
    assert states(supervisor) == {"a": "undefined"}
    assert manual_clock.pending() == []


def test_a_group_restart_takes_a_waiting_child_along_and_cancels_its_delay(
    workshop: Workshop, manual_clock: ManualClock
) -> None:
    supervisor = workshop.supervise(
        "a", workshop.spec("b", backoff=STEADY), strategy="one_for_all", max_restarts=2, max_seconds=100
    )
    workshop.end("b")
    workshop.end("a")
    workshop.told()
    assert states(supervisor) == {"b": "running", "a": "running"}
    manual_clock.advance(60)
    assert workshop.told() == []


def test_a_stopped_supervisor_leaves_no_delay_behind(workshop: Workshop, manual_clock: ManualClock) -> None:
    supervisor = workshop.supervise(workshop.spec("a", backoff=STEADY))
    workshop.end("a")
    supervisor.stop()
    assert manual_clock.pending() == []


def test_a_dynamic_child_comes_back_after_its_delay(workshop: Workshop, manual_clock: ManualClock) -> None:
    from supervisors import count_children, start_dynamic

    supervisor = workshop.supervise_dynamically()
    start_dynamic(supervisor, workshop.spec("a", backoff=STEADY))
    workshop.end("a")
    assert count_children(supervisor) == {"specs": 1, "active": 0, "supervisors": 0, "workers": 1}
    manual_clock.advance(1)
    assert count_children(supervisor)["active"] == 1
