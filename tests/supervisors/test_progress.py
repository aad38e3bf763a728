"""A supervisor tells of every start that succeeded, as OTP's progress reports do."""

from __future__ import annotations

from runtime.events import Event
from supervisors import restart_child, start_child_of, start_dynamic, terminate_child
from tests.supervisors.workshop import Workshop, refuse_to_start


def started(published: list[Event]) -> list[tuple[str, int]]:
    """Return actor and incarnation of each successful start that was told, and forget them."""
    found = [
        (event.fields["actor"], event.fields["incarnation"]) for event in published if event.topic == "child.started"
    ]
    published.clear()
    return found


def test_each_child_that_started_is_told_in_the_order_of_the_starts(workshop: Workshop, published: list[Event]) -> None:
    workshop.supervise(workshop.spec("a", name="first"), workshop.spec("b", name="second"))
    assert started(published) == [("first", workshop.refs["a"].serial), ("second", workshop.refs["b"].serial)]


def test_a_start_is_told_with_the_place_of_the_child_in_the_tree(workshop: Workshop, published: list[Event]) -> None:
    workshop.supervise("a")
    [event] = [event for event in published if event.topic == "child.started"]
    assert event.fields["path"] == event.fields["actor"] == workshop.refs["a"].path


def test_a_restart_is_told_as_a_new_incarnation(workshop: Workshop, published: list[Event]) -> None:
    workshop.supervise(workshop.spec("a", name="fragile"))
    [(_, before)] = started(published)
    workshop.end("a")
    assert started(published) == [("fragile", workshop.refs["a"].serial)]
    assert workshop.refs["a"].serial > before


def test_a_start_that_failed_is_not_told_and_the_one_that_came_off_is(
    workshop: Workshop, published: list[Event]
) -> None:
    workshop.supervise(workshop.spec("a", name="fragile"), max_restarts=5)
    started(published)
    workshop.faults["a"] = [refuse_to_start(), refuse_to_start()]
    workshop.end("a")
    assert started(published) == [("fragile", workshop.refs["a"].serial)]


def test_a_child_that_was_added_or_started_again_by_hand_is_told(workshop: Workshop, published: list[Event]) -> None:
    supervisor = workshop.supervise()
    start_child_of(supervisor, workshop.spec("a", name="late"))
    terminate_child(supervisor, "a")
    restart_child(supervisor, "a")
    assert [actor for actor, _ in started(published)] == ["late", "late"]


def test_a_child_of_a_dynamic_supervisor_is_told(workshop: Workshop, published: list[Event]) -> None:
    supervisor = workshop.supervise_dynamically()
    start_dynamic(supervisor, workshop.spec("a", name="guest"))
    assert started(published) == [("guest", workshop.refs["a"].serial)]
