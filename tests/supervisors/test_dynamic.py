"""Dynamic supervisors: children that come and go, addressed by ref, stopped all at the same time."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent.event import Event

from regrow.testing import ManualClock
from runtime import clock, events
from runtime.reasons import NORMAL, Ignore
from runtime.ref import Ref
from supervisors import (
    ChildSpec,
    count_children,
    delete_child,
    get_childspec,
    restart_child,
    start_dynamic,
    terminate_child,
    which_children,
)
from supervisors.errors import ChildStartFailed, NoSuchChild, NotForDynamic, TooManyChildren
from tests.supervisors.workshop import Tool, Workshop, leave, refuse_to_start, reports


def template(workshop: Workshop, **options: Any) -> ChildSpec:
    return ChildSpec("tool", Tool, args=(workshop,), **options)


def running(supervisor: Ref) -> list[Any]:
    return [child for _, child, _ in which_children(supervisor)]


def test_a_start_adds_its_arguments_to_those_of_the_template(workshop: Workshop) -> None:
    supervisor = workshop.supervise_dynamically(template(workshop))
    first, second = start_dynamic(supervisor, "a"), start_dynamic(supervisor, "b")
    assert (first, second) == (workshop.refs["a"], workshop.refs["b"])
    assert running(supervisor) == [first, second]


def test_without_a_template_each_start_brings_its_own_spec_and_ids_may_repeat(workshop: Workshop) -> None:
    supervisor = workshop.supervise_dynamically()
    start_dynamic(supervisor, workshop.spec("a"))
    start_dynamic(supervisor, workshop.spec("a"))
    assert count_children(supervisor) == {"specs": 2, "active": 2, "supervisors": 0, "workers": 2}


def test_a_crashed_child_is_restarted_with_the_same_arguments(workshop: Workshop) -> None:
    supervisor = workshop.supervise_dynamically(template(workshop))
    start_dynamic(supervisor, "a")
    start_dynamic(supervisor, "b")
    workshop.told()
    workshop.end("a")
    assert workshop.told() == ["end a crashed", "start a"]
    assert set(running(supervisor)) == {workshop.refs["a"], workshop.refs["b"]}


def test_there_are_never_more_than_max_children(workshop: Workshop) -> None:
    supervisor = workshop.supervise_dynamically(template(workshop), max_children=2)
    start_dynamic(supervisor, "a")
    start_dynamic(supervisor, "b")
    with pytest.raises(TooManyChildren, match="2 children"):
        start_dynamic(supervisor, "c")
    terminate_child(supervisor, workshop.refs["a"])
    start_dynamic(supervisor, "c")
    assert count_children(supervisor)["active"] == 2


def test_a_child_between_two_attempts_holds_its_place(workshop: Workshop, manual_clock: ManualClock) -> None:
    from supervisors import Backoff

    supervisor = workshop.supervise_dynamically(template(workshop, backoff=Backoff(jitter=0.0)), max_children=1)
    start_dynamic(supervisor, "a")
    workshop.end("a")
    with pytest.raises(TooManyChildren):
        start_dynamic(supervisor, "b")


def test_a_child_that_ended_for_good_is_forgotten(workshop: Workshop) -> None:
    supervisor = workshop.supervise_dynamically(template(workshop, restart="transient"))
    start_dynamic(supervisor, "a")
    workshop.end("a", leave(NORMAL))
    assert count_children(supervisor) == {"specs": 1, "active": 0, "supervisors": 0, "workers": 0}


def test_a_child_that_ignores_is_not_kept_at_start_nor_at_restart(workshop: Workshop) -> None:
    supervisor = workshop.supervise_dynamically(template(workshop))
    workshop.faults["a"] = [Ignore()]
    assert start_dynamic(supervisor, "a") is None
    start_dynamic(supervisor, "b")
    workshop.faults["b"] = [Ignore()]
    workshop.end("b")
    assert running(supervisor) == []
    supervisor.stop()
    assert str(supervisor.reason) == "normal"


def test_a_start_that_fails_keeps_nothing(workshop: Workshop) -> None:
    supervisor = workshop.supervise_dynamically(template(workshop))
    workshop.faults["a"] = [refuse_to_start("no_disk")]
    with pytest.raises(ChildStartFailed, match="no_disk"):
        start_dynamic(supervisor, "a")
    assert count_children(supervisor)["workers"] == 0


def test_children_are_addressed_by_ref_alone(workshop: Workshop) -> None:
    supervisor = workshop.supervise_dynamically(template(workshop))
    start_dynamic(supervisor, "a")
    for call in (terminate_child, restart_child, delete_child):
        with pytest.raises(NotForDynamic):
            call(supervisor, "tool")


def test_a_dead_ref_may_be_terminated_again_and_a_living_stranger_may_not(workshop: Workshop) -> None:
    supervisor = workshop.supervise_dynamically(template(workshop))
    ref = start_dynamic(supervisor, "a")
    terminate_child(supervisor, ref)
    terminate_child(supervisor, ref)
    with pytest.raises(NoSuchChild):
        terminate_child(supervisor, supervisor)


def test_the_spec_of_a_child_is_found_by_its_ref_and_that_of_a_dead_one_is_the_template(workshop: Workshop) -> None:
    spec = template(workshop)
    supervisor = workshop.supervise_dynamically(spec)
    ref = start_dynamic(supervisor, "a")
    assert get_childspec(supervisor, ref).args == (workshop, "a")
    terminate_child(supervisor, ref)
    assert get_childspec(supervisor, ref) is spec
    assert get_childspec(supervisor, "tool") is spec
    with pytest.raises(NoSuchChild):
        get_childspec(supervisor, supervisor)


def test_a_restart_that_fails_is_tried_again_until_the_supervisor_gives_up(
    workshop: Workshop, published: list[events.Event]
) -> None:
    supervisor = workshop.supervise_dynamically(template(workshop), max_restarts=3)
    start_dynamic(supervisor, "a")
    workshop.faults["a"] = [refuse_to_start() for _ in range(10)]
    workshop.end("a")
    assert not supervisor.is_alive()
    assert workshop.log.count("fail a") == 3
    assert reports(published)[-1][0] == "shutdown"


def test_all_children_are_told_to_stop_at_the_same_time(workshop: Workshop, manual_clock: ManualClock) -> None:
    supervisor = workshop.supervise_dynamically()
    for key in "abc":
        start_dynamic(supervisor, workshop.spec(key, on_stop=lambda: clock.sleep(1)))
    gevent.spawn(supervisor.stop)
    manual_clock.advance(1)
    assert not supervisor.is_alive()
    assert workshop.log[-6:-3] == ["stop a", "stop b", "stop c"]


def test_each_child_is_killed_when_its_own_time_is_over(
    workshop: Workshop, manual_clock: ManualClock, published: list[events.Event]
) -> None:
    supervisor = workshop.supervise_dynamically()
    done = Event()
    start_dynamic(supervisor, workshop.spec("patient", shutdown="infinity", on_stop=done.wait))
    start_dynamic(supervisor, workshop.spec("slow", shutdown=3.0, on_stop=Event().wait))
    start_dynamic(supervisor, workshop.spec("quick", shutdown=1.0, on_stop=Event().wait))
    start_dynamic(supervisor, workshop.spec("brutal", shutdown="brutal_kill"))
    workshop.told()
    gevent.spawn(supervisor.stop, timeout=None)
    manual_clock.settle()
    ends = [line for line in workshop.told() if line.startswith("end")]
    assert ends == ["end brutal killed"]
    manual_clock.advance(1)
    assert workshop.told() == ["end quick killed"]
    manual_clock.advance(2)
    assert workshop.told() == ["end slow killed"]
    done.set()
    manual_clock.settle()
    assert workshop.told() == ["end patient shutdown"]
    assert sorted(key for _, key, _ in reports(published)) == ["quick*1", "slow*1"]


def test_children_that_left_with_the_same_reason_are_one_report(
    workshop: Workshop, manual_clock: ManualClock, published: list[events.Event]
) -> None:
    supervisor = workshop.supervise_dynamically(
        ChildSpec("tool", Tool, args=(workshop,), kwargs={"on_stop": Event().wait}, shutdown=1.0)
    )
    for key in "abc":
        start_dynamic(supervisor, key)
    gevent.spawn(supervisor.stop)
    manual_clock.advance(1)
    assert reports(published) == [("shutdown_error", "tool*3", "killed")]


def test_a_killed_dynamic_supervisor_leaves_no_orphan(workshop: Workshop) -> None:
    supervisor = workshop.supervise_dynamically(template(workshop))
    for key in "abc":
        start_dynamic(supervisor, key)
    supervisor.kill()
    workshop.clock.settle()
    assert not any(ref.is_alive() for _, ref in workshop.ever)
