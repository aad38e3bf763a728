"""Restart intensity: at most so many restarts within so many seconds, then the supervisor gives up."""

from __future__ import annotations

import pytest

from regrow.testing import ManualClock
from runtime import events
from runtime.reasons import NORMAL
from supervisors import restart_child, terminate_child
from supervisors.intensity import Intensity
from tests.supervisors.workshop import Workshop, leave, reports, states


def test_exactly_the_limit_is_allowed_and_one_more_is_not() -> None:
    intensity = Intensity(2, 5)
    assert [intensity.admit(100.0) for _ in range(3)] == [True, True, False]


def test_zero_allows_none() -> None:
    assert not Intensity(0, 5).admit(100.0)


@pytest.mark.parametrize(("second_at", "admitted"), [(105.0, False), (105.9, False), (106.0, True)])
def test_a_restart_counts_for_whole_seconds_and_the_last_of_them_counts_too(second_at: float, admitted: bool) -> None:
    intensity = Intensity(1, 5)
    assert intensity.admit(100.9)
    assert intensity.admit(second_at) is admitted


def test_restarts_slide_out_of_the_window_one_by_one() -> None:
    intensity = Intensity(2, 5)
    assert [intensity.admit(second) for second in (0, 4, 6, 10, 11)] == [True, True, True, True, False]


def test_the_ratio_says_how_much_of_the_limit_is_spent() -> None:
    intensity = Intensity(4, 5)
    intensity.admit(10)
    assert (intensity.ratio(10), intensity.ratio(15), intensity.ratio(16)) == (0.25, 0.25, 0.0)


def test_the_restart_that_exceeds_is_not_attempted_and_the_others_stop_in_reverse(
    workshop: Workshop, published: list[events.Event]
) -> None:
    supervisor = workshop.supervise("a", "b", "c", max_restarts=1, max_seconds=5)
    workshop.end("b")
    workshop.told()
    workshop.end("b")
    assert workshop.told() == ["end b crashed", "stop c", "end c shutdown", "stop a", "end a shutdown"]
    assert str(supervisor.reason) == "shutdown"
    assert reports(published)[-1] == ("shutdown", "b", "reached_max_restart_intensity")


def test_crashes_far_enough_apart_never_end_a_supervisor(workshop: Workshop, manual_clock: ManualClock) -> None:
    supervisor = workshop.supervise("a", max_restarts=1, max_seconds=5)
    for _ in range(10):
        workshop.end("a")
        manual_clock.advance(6)
    assert supervisor.is_alive()


def test_what_an_operator_stops_and_starts_is_not_counted(workshop: Workshop) -> None:
    supervisor = workshop.supervise("a", max_restarts=0)
    for _ in range(5):
        terminate_child(supervisor, "a")
        restart_child(supervisor, "a")
    assert states(supervisor) == {"a": "running"}


def test_exits_that_restart_nothing_are_not_counted(workshop: Workshop) -> None:
    supervisor = workshop.supervise(
        workshop.spec("a", restart="temporary"), workshop.spec("b", restart="transient"), max_restarts=0
    )
    workshop.end("a")
    workshop.end("b", leave(NORMAL))
    assert states(supervisor) == {"b": "undefined"}


def test_a_restart_of_a_group_counts_once(workshop: Workshop) -> None:
    supervisor = workshop.supervise("a", "b", "c", strategy="one_for_all", max_restarts=1)
    workshop.end("a")
    assert states(supervisor) == {"c": "running", "b": "running", "a": "running"}
