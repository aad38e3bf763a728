"""How children are started: in order, each fully, and what a start that fails or ignores leaves behind."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from regrow.testing import ManualClock
from runtime import clock, events
from runtime.actor import Actor
from runtime.names import whereis
from runtime.reasons import Crashed, ExitReason, Ignore, StartFailed
from runtime.ref import Ref
from supervisors import (
    ChildSpec,
    Supervisor,
    delete_child,
    get_childspec,
    restart_child,
    start_child_of,
    terminate_child,
    which_children,
)
from supervisors.errors import AlreadyPresent, AlreadyStarted, ChildRunning, ChildStartFailed, NoSuchChild
from tests.supervisors.workshop import Boom, Tool, Workshop, refuse_to_start, reports, states


def test_a_failed_start_stops_what_was_started_in_reverse_and_names_the_child(workshop: Workshop) -> None:
    workshop.faults["c"] = [refuse_to_start("no_disk")]
    with pytest.raises(StartFailed) as failed:
        workshop.supervise("a", "b", "c", "d")
    assert workshop.told() == [
        "start a",
        "start b",
        "fail c",
        "stop b",
        "end b shutdown",
        "stop a",
        "end a shutdown",
    ]
    assert (failed.value.reason.kind, failed.value.reason.detail.id) == ("shutdown", "c")
    assert failed.value.reason.detail.reason == ExitReason("no_disk")


def test_nothing_is_retried_at_the_first_start(workshop: Workshop) -> None:
    workshop.faults["a"] = [refuse_to_start()]
    with pytest.raises(StartFailed):
        workshop.supervise("a", max_restarts=10)
    assert workshop.told() == ["fail a"]


@pytest.mark.parametrize("error", [Boom("bug"), SystemExit(3), gevent.Timeout(1), gevent.GreenletExit()])
def test_whatever_leaves_a_start_is_the_failure_of_that_child_alone(workshop: Workshop, error: BaseException) -> None:
    supervisor = workshop.supervise("a", max_restarts=5)
    workshop.faults["a"] = [error]
    workshop.end("a")
    assert states(supervisor) == {"a": "running"}
    assert workshop.log.count("fail a") == 1


def test_a_name_that_is_taken_fails_the_start_of_that_child(workshop: Workshop) -> None:
    supervisor = workshop.supervise(workshop.spec("a", name="clerk"))
    with pytest.raises(ChildStartFailed, match="clerk"):
        start_child_of(supervisor, workshop.spec("b", name="clerk"))
    assert whereis("clerk") is workshop.refs["a"]


def test_a_failed_start_frees_its_name(workshop: Workshop) -> None:
    supervisor = workshop.supervise()
    workshop.faults["a"] = [refuse_to_start()]
    with pytest.raises(ChildStartFailed):
        start_child_of(supervisor, workshop.spec("a", name="clerk"))
    assert whereis("clerk") is None


def test_a_child_that_ignores_stays_listed_unless_it_is_temporary(workshop: Workshop) -> None:
    workshop.faults.update({"a": [Ignore()], "b": [Ignore()]})
    supervisor = workshop.supervise("a", workshop.spec("b", restart="temporary"), "c")
    assert states(supervisor) == {"c": "running", "a": "undefined"}


def test_a_start_function_may_give_information_along(workshop: Workshop) -> None:
    supervisor = workshop.supervise()

    def start() -> tuple[Any, str]:
        return Tool.start_linked(workshop, "a"), "port 80"

    ref, info = start_child_of(supervisor, ChildSpec("a", start))
    assert (ref, info) == (workshop.refs["a"], "port 80")


def test_what_a_start_function_returns_that_is_no_actor_is_the_reason_of_the_failure(workshop: Workshop) -> None:
    supervisor = workshop.supervise()
    with pytest.raises(ChildStartFailed) as failed:
        start_child_of(supervisor, ChildSpec("a", lambda: "garbage"))
    assert failed.value.reason == ExitReason("bad_start", "garbage")


def test_an_actor_that_a_start_function_forgot_to_link_is_supervised_all_the_same(workshop: Workshop) -> None:
    supervisor = workshop.supervise(ChildSpec("a", lambda: Tool.start(workshop, "a")))
    first = workshop.refs["a"]
    assert first.path == f"{supervisor.path}/a"
    workshop.end("a")
    assert workshop.refs["a"].is_alive()
    supervisor.kill()
    assert not workshop.refs["a"].is_alive()


def test_ids_are_unique_and_a_stopped_child_keeps_its_id(workshop: Workshop) -> None:
    supervisor = workshop.supervise("a")
    with pytest.raises(AlreadyStarted) as running:
        start_child_of(supervisor, workshop.spec("a"))
    assert running.value.ref is workshop.refs["a"]
    terminate_child(supervisor, "a")
    with pytest.raises(AlreadyPresent):
        start_child_of(supervisor, workshop.spec("a"))
    delete_child(supervisor, "a")
    start_child_of(supervisor, workshop.spec("a"))
    assert states(supervisor) == {"a": "running"}


def test_a_running_child_can_be_neither_restarted_nor_deleted_by_hand(workshop: Workshop) -> None:
    supervisor = workshop.supervise("a")
    with pytest.raises(ChildRunning):
        restart_child(supervisor, "a")
    with pytest.raises(ChildRunning):
        delete_child(supervisor, "a")


@pytest.mark.parametrize("call", [terminate_child, restart_child, delete_child, get_childspec])
@pytest.mark.parametrize("key", ["nobody", ["unhashable"]])
def test_an_id_that_nobody_has_is_refused(workshop: Workshop, call: Any, key: Any) -> None:
    supervisor = workshop.supervise("a")
    with pytest.raises(NoSuchChild):
        call(supervisor, key)


def test_a_ref_is_no_id(workshop: Workshop) -> None:
    supervisor = workshop.supervise("a")
    with pytest.raises(NoSuchChild):
        terminate_child(supervisor, workshop.refs["a"])


def test_children_are_listed_with_the_last_started_first(workshop: Workshop) -> None:
    supervisor = workshop.supervise("a", "b")
    start_child_of(supervisor, workshop.spec("c"))
    assert [key for key, _, _ in which_children(supervisor)] == ["c", "b", "a"]


def test_a_stray_message_is_refused_and_harms_nobody(workshop: Workshop, published: list[events.Event]) -> None:
    supervisor = workshop.supervise("a")
    supervisor.tell("what is this")
    with pytest.raises(Exception, match="is a supervisor and takes no message of type str"):
        supervisor.ask("and this")
    assert [e.fields["kind"] for e in published if e.topic == "message.unexpected"] == ["str", "str"]
    assert states(supervisor) == {"a": "running"}


def test_a_start_error_at_restart_is_reported_and_tried_again_at_once(
    workshop: Workshop, published: list[events.Event]
) -> None:
    workshop.supervise("a", max_restarts=5)
    workshop.faults["a"] = [refuse_to_start("not_yet")]
    workshop.told()
    workshop.end("a")
    assert workshop.told() == ["end a crashed", "fail a", "start a"]
    contexts = [(context, key) for context, key, _ in reports(published)]
    assert contexts == [("child_terminated", "a"), ("start_error", "a")]


def test_a_supervisor_below_starts_with_all_its_children_before_the_next(workshop: Workshop) -> None:
    inner = ChildSpec("inner", Supervisor, args=([workshop.spec("x"), workshop.spec("y")],))
    workshop.supervise("a", inner, "b")
    assert workshop.told() == ["start a", "start x", "start y", "start b"]
    assert workshop.refs["x"].path.endswith("/inner/x")


def test_a_supervisor_killed_while_a_child_starts_takes_the_child_along(workshop: Workshop) -> None:
    class Slow(Actor):
        trap_exit = False

        def on_start(self) -> None:
            workshop.know("slow", self.ref)
            gevent.sleep(float("inf"))

    starting = gevent.spawn(_failing_start, ChildSpec("slow", Slow))
    workshop.clock.settle()
    slow = workshop.refs["slow"]
    assert slow.parent is not None
    slow.parent.kill()
    workshop.clock.settle()
    assert not slow.is_alive()
    assert starting.dead


def _failing_start(spec: ChildSpec) -> None:
    with pytest.raises(StartFailed):
        Supervisor.start([spec])


def test_the_ref_of_a_child_tells_its_supervisor(workshop: Workshop) -> None:
    supervisor = workshop.supervise("a")
    ref = workshop.refs["a"]
    assert isinstance(ref, Ref)
    assert ref.parent is supervisor


class Slow(Actor):
    """Takes its time to start."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        clock.sleep(seconds)


def test_a_start_that_takes_too_long_is_killed_and_has_failed(workshop: Workshop, manual_clock: ManualClock) -> None:
    supervisor = workshop.supervise()
    spec = ChildSpec("slow", Slow, args=(60.0,), name="clerk", start_timeout_s=5.0)
    starting = gevent.spawn(_start_error, supervisor, spec)
    manual_clock.advance(4.99)
    assert not starting.ready()
    manual_clock.advance(0.01)
    assert starting.get(block=False).reason == ExitReason("timeout")
    assert whereis("clerk") is None
    assert which_children(supervisor) == []


def test_a_start_that_raised_is_remembered_as_a_crash_under_the_id_that_its_supervisor_reports(
    workshop: Workshop, published: list[events.Event]
) -> None:
    workshop.faults["a"] = [Boom("no start today")]
    supervisor = workshop.supervise()
    reason = _start_error(supervisor, workshop.spec("a", name="clerk")).reason
    crashes = [event.fields for event in published if event.topic == "actor.crashed"]
    assert [(crash["actor"], crash["message"]) for crash in crashes] == [("clerk", "no start today")]
    assert isinstance(reason, Crashed)
    assert crashes[0]["crash_id"] == reason.crash_id


def _start_error(supervisor: Ref, spec: ChildSpec) -> ChildStartFailed:
    with pytest.raises(ChildStartFailed) as failed:
        start_child_of(supervisor, spec)
    return failed.value


def test_a_start_within_its_time_leaves_no_timer(workshop: Workshop, manual_clock: ManualClock) -> None:
    supervisor = workshop.supervise(workshop.spec("a", start_timeout_s=5.0))
    assert manual_clock.pending() == []
    manual_clock.advance(10)
    assert states(supervisor) == {"a": "running"}
