"""How children are stopped: told, given their time, then killed; and what becomes of them when nobody can stop them."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event

from regrow.testing import ManualClock
from runtime import clock, events
from runtime.reasons import NORMAL, SHUTDOWN, ExitReason, Shutdown, Stop
from runtime.ref import Ref
from runtime.signals import unlink
from supervisors import ChildSpec, Supervisor, count_children, restart_child, terminate_child, which_children
from tests.supervisors.workshop import Stubborn, Workshop, reports, states


def test_children_stop_one_after_the_other_in_reverse(workshop: Workshop) -> None:
    supervisor = workshop.supervise("a", "b", "c")
    workshop.told()
    supervisor.stop()
    expected = ["stop c", "end c shutdown", "stop b", "end b shutdown", "stop a", "end a shutdown"]
    assert workshop.told() == expected


def test_a_child_that_takes_longer_than_its_shutdown_is_killed(
    workshop: Workshop, manual_clock: ManualClock, published: list[events.Event]
) -> None:
    supervisor = workshop.supervise(workshop.spec("a", shutdown=2.0, on_stop=Event().wait))
    stopping = gevent.spawn(terminate_child, supervisor, "a")
    manual_clock.advance(1.99)
    assert not stopping.ready()
    manual_clock.advance(0.01)
    assert stopping.ready()
    assert workshop.told()[-1] == "end a killed"
    assert reports(published) == [("shutdown_error", "a", "killed")]


def test_a_child_with_infinity_is_waited_for(workshop: Workshop, manual_clock: ManualClock) -> None:
    done = Event()
    supervisor = workshop.supervise(workshop.spec("a", shutdown="infinity", timeout_s=None, on_stop=done.wait))
    workshop.refs["a"].timeout_s = None
    stopping = gevent.spawn(terminate_child, supervisor, "a")
    manual_clock.advance(1000)
    assert not stopping.ready()
    done.set()
    manual_clock.settle()
    assert stopping.ready()


def test_a_brutally_killed_child_cannot_clean_up(workshop: Workshop, published: list[events.Event]) -> None:
    supervisor = workshop.supervise(workshop.spec("a", shutdown="brutal_kill"))
    workshop.told()
    terminate_child(supervisor, "a")
    assert workshop.told() == ["end a killed"]
    assert reports(published) == []


@pytest.mark.parametrize(
    ("restart", "reason", "reported"),
    [
        ("permanent", NORMAL, True),
        ("permanent", SHUTDOWN, False),
        ("permanent", Shutdown("x"), True),
        ("transient", NORMAL, False),
        ("transient", Shutdown("x"), False),
        ("temporary", NORMAL, False),
        ("temporary", ExitReason("boom"), True),
    ],
)
def test_another_reason_than_shutdown_is_reported_where_it_says_something(
    workshop: Workshop, published: list[events.Event], restart: str, reason: ExitReason, reported: bool
) -> None:
    def stopping() -> None:
        raise Stop(reason)

    supervisor = workshop.supervise(workshop.spec("a", restart=restart, on_stop=stopping))
    terminate_child(supervisor, "a")
    assert reports(published) == ([("shutdown_error", "a", str(reason))] if reported else [])


@pytest.mark.parametrize(("restart", "reported"), [("permanent", True), ("transient", False), ("temporary", False)])
def test_a_child_found_dead_of_a_shutdown_when_it_was_to_be_killed_is_reported_if_permanent(
    workshop: Workshop, published: list[events.Event], restart: str, reported: bool
) -> None:
    supervisor = workshop.supervise(
        workshop.spec("a", restart=restart, shutdown="brutal_kill"),
        workshop.spec("b", on_stop=lambda: workshop.refs["a"].exit(SHUTDOWN)),
    )
    supervisor.stop()
    assert reports(published) == ([("shutdown_error", "a", "shutdown")] if reported else [])


def test_a_crash_while_stopping_is_reported_and_the_stop_goes_on(
    workshop: Workshop, published: list[events.Event]
) -> None:
    def stopping() -> None:
        raise ZeroDivisionError

    supervisor = workshop.supervise("a", workshop.spec("b", on_stop=stopping))
    workshop.told()
    supervisor.stop()
    assert workshop.told() == ["stop b", "end b crashed", "stop a", "end a shutdown"]
    assert [context for context, _, _ in reports(published)] == ["shutdown_error"]


def test_the_end_of_a_child_that_unlinked_itself_goes_unnoticed(workshop: Workshop) -> None:
    supervisor = workshop.supervise("a")
    workshop.refs["a"].tell(lambda: unlink(supervisor))
    workshop.end("a")
    assert states(supervisor) == {"a": "running"}
    assert count_children(supervisor)["active"] == 0


def test_a_child_that_unlinked_itself_can_still_be_terminated(workshop: Workshop) -> None:
    supervisor = workshop.supervise("a")
    workshop.refs["a"].tell(lambda: unlink(supervisor))
    workshop.clock.settle()
    workshop.told()
    terminate_child(supervisor, "a")
    assert workshop.told() == ["stop a", "end a shutdown"]


def test_a_dead_child_that_had_unlinked_itself_left_with_noproc(
    workshop: Workshop, published: list[events.Event]
) -> None:
    supervisor = workshop.supervise("a")
    workshop.refs["a"].tell(lambda: unlink(supervisor))
    workshop.end("a")
    terminate_child(supervisor, "a")
    assert reports(published) == [("shutdown_error", "a", "noproc")]


def test_a_killed_supervisor_leaves_no_orphan(workshop: Workshop) -> None:
    inner = ChildSpec("inner", Supervisor, args=([workshop.spec("a"), workshop.spec("b", trap_exit=True)],))
    supervisor = workshop.supervise(inner, "c", workshop.spec("d", trap_exit=True))
    workshop.told()
    supervisor.kill()
    workshop.clock.settle()
    assert not any(ref.is_alive() for _, ref in workshop.ever)
    assert sorted(line for line in workshop.told() if line.startswith("end")) == [
        "end a shutdown",
        "end b shutdown",
        "end c killed",
        "end d killed",
    ]


def test_a_killed_child_supervisor_is_replaced_and_its_children_too(workshop: Workshop) -> None:
    inner = ChildSpec("inner", Supervisor, args=([workshop.spec("a")],))
    supervisor = workshop.supervise(inner)
    before = workshop.refs["a"]
    child = which_children(supervisor)[0][1]
    assert isinstance(child, Ref)
    child.kill()
    workshop.clock.settle()
    assert not before.is_alive()
    assert workshop.refs["a"].is_alive()


def test_a_supervisor_killed_while_it_waits_for_a_child_still_takes_the_child_along(
    workshop: Workshop, manual_clock: ManualClock
) -> None:
    supervisor = workshop.supervise(workshop.spec("a", shutdown=1000.0, on_stop=lambda: clock.sleep(500)))
    gevent.spawn(_ignoring_its_end, supervisor)
    manual_clock.settle()
    assert workshop.log[-1] == "stop a"
    supervisor.kill()
    manual_clock.settle()
    assert not workshop.refs["a"].is_alive()


def _ignoring_its_end(supervisor: Ref) -> None:
    with pytest.raises(Exception, match="ended"):
        terminate_child(supervisor, "a")


def test_a_handler_that_swallows_the_kill_does_not_hold_up_its_supervisor_and_is_reported(
    workshop: Workshop, manual_clock: ManualClock, published: list[events.Event]
) -> None:
    stubborn = Stubborn()
    supervisor = workshop.supervise(workshop.spec("a", shutdown="brutal_kill"))
    first = workshop.refs["a"]
    first.tell(stubborn)
    manual_clock.settle()
    terminate_child(supervisor, "a")
    assert states(supervisor) == {"a": "undefined"}
    restart_child(supervisor, "a")
    assert workshop.refs["a"].ask("works") == "works"
    manual_clock.advance(3)
    stuck = [event for event in published if event.topic == "actor.stuck"]
    assert len(stuck) == 1
    assert "workshop.py" in stuck[0].fields["where"]
    assert stubborn.told_to_end == 1
    stubborn.release.set()
    manual_clock.settle()


def test_a_handler_that_needs_a_moment_to_clean_up_after_a_kill_is_not_reported(
    workshop: Workshop, manual_clock: ManualClock, published: list[events.Event]
) -> None:
    def handler() -> None:
        try:
            Event().wait()
        finally:
            clock.sleep(0.5)

    supervisor = workshop.supervise(workshop.spec("a", shutdown="brutal_kill"))
    workshop.refs["a"].tell(handler)
    manual_clock.advance(10)
    terminate_child(supervisor, "a")
    manual_clock.advance(5)
    assert [event for event in published if event.topic == "actor.stuck"] == []


def test_a_supervisor_heeds_no_exit_signal_of_a_stranger(workshop: Workshop) -> None:
    supervisor = workshop.supervise("a")
    supervisor.exit(ExitReason("boom"))
    workshop.clock.settle()
    assert states(supervisor) == {"a": "running"}


def test_a_stop_with_a_reason_ends_the_supervisor_with_that_reason(workshop: Workshop) -> None:
    supervisor = workshop.supervise("a")
    supervisor.stop(reason=ExitReason("boom"))
    assert str(supervisor.reason) == "boom"
