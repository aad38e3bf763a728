"""The sys requests that every actor answers: state, suspend and resume, statistics, trace and log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gevent
import pytest

from regrow.protocol.errors import InvalidArguments
from regrow.testing import ManualClock
from runtime import clock, sys
from runtime.promise import ActorUnavailable, AskTimeout
from runtime.reasons import SHUTDOWN
from runtime.ref import Ref
from supervisors import Supervisor, which_children
from supervisors.spec import ChildSpec
from tests.runtime.actors import Doer, Terminating
from tests.runtime.conftest import Starter


class Counter(Doer):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0


def test_the_state_is_the_actor_s_attributes(start: Starter) -> None:
    assert sys.get_state(start(Counter))["count"] == 0


def test_a_replaced_state_is_returned_and_stays(start: Starter) -> None:
    ref = start(Counter)
    assert sys.replace_state(ref, lambda state: {**state, "count": state["count"] + 5})["count"] == 5
    assert sys.get_state(ref)["count"] == 5


def test_a_change_of_state_that_raises_changes_nothing(start: Starter) -> None:
    ref = start(Counter)

    def change(state: dict[str, Any]) -> Mapping[str, Any]:
        state["count"] = 99
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sys.replace_state(ref, change)
    assert sys.get_state(ref)["count"] == 0


def test_a_suspended_actor_keeps_messages_in_order_until_it_is_resumed(
    start: Starter, manual_clock: ManualClock
) -> None:
    ref = start(Doer)
    log: list[int] = []
    sys.suspend(ref)
    sys.suspend(ref)
    for number in range(3):
        ref.tell(lambda _, number=number: log.append(number))
    manual_clock.settle()
    assert log == []
    assert "suspended" in repr(ref)
    sys.resume(ref)
    ref.ask("done")
    assert log == [0, 1, 2]


def test_a_suspended_actor_answers_sys_requests(start: Starter) -> None:
    ref = start(Counter)
    sys.suspend(ref)
    ref.tell("waits")
    assert sys.get_state(ref)["count"] == 0
    assert ref.queued == 1


def test_an_ask_of_a_suspended_actor_expires_unstarted(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Doer)
    sys.suspend(ref)
    future = ref.ask("never", block=False, timeout=1.0)
    manual_clock.advance(1)
    with pytest.raises(AskTimeout) as expired:
        future.get()
    assert expired.value.started == "no"


def test_a_suspended_actor_can_be_stopped_killed_and_ended_by_its_parent(start: Starter) -> None:
    stopped, killed, parent = start(Doer), start(Doer), start(Doer)
    child = parent.ask(lambda _: Terminating.start_linked(lambda _reason: None, trap_exit=True))
    for ref in (stopped, killed, child):
        sys.suspend(ref)
    assert stopped.stop(timeout=1.0) is True
    killed.kill()
    child.exit(SHUTDOWN, parent)
    gevent.sleep(0)
    assert [ref.is_alive() for ref in (stopped, killed, child)] == [False, False, False]


def test_a_crash_in_the_last_act_of_a_suspended_actor_ends_it(start: Starter) -> None:
    def fail(_reason: object) -> None:
        raise ZeroDivisionError

    ref = start(Terminating, fail)
    sys.suspend(ref)
    ref.stop(timeout=1.0)
    assert not ref.is_alive()


def test_sys_requests_overtake_the_messages_of_users(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Counter)
    seen: list[int] = []

    def count(actor: Counter) -> None:
        actor.count += 1

    ref.tell(lambda _: clock.sleep(1))
    manual_clock.settle()
    for _ in range(3):
        ref.tell(count)
    asking = [gevent.spawn(lambda: seen.append(sys.get_state(ref)["count"])) for _ in range(2)]
    manual_clock.advance(1)
    gevent.joinall(asking)
    assert seen == [0, 0]


def test_sys_requests_overtake_nothing_in_the_mailbox_of_a_supervisor(start: Starter) -> None:
    supervisor = start(Supervisor, [ChildSpec("a", Doer)])
    before = which_children(supervisor)[0][1]
    assert isinstance(before, Ref)
    before.kill()  # the exit waits in the mailbox now
    state = sys.get_state(supervisor)
    assert state["children"]["a"].ref is not before


def test_a_request_that_does_not_exist_harms_nobody(start: Starter) -> None:
    ref = start(Doer)
    with pytest.raises(InvalidArguments, match="no sys request"):
        sys.request(ref, "make_coffee")
    with pytest.raises(InvalidArguments, match="statistics takes"):
        sys.statistics(ref, "maybe")
    assert ref.ask("alive") == "alive"


def test_a_dead_actor_answers_nothing(start: Starter) -> None:
    ref = start(Doer)
    ref.kill()
    with pytest.raises(ActorUnavailable):
        sys.get_state(ref)


def test_a_busy_actor_makes_a_sys_request_time_out(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Doer)
    ref.tell(lambda _: clock.sleep(10))
    manual_clock.settle()
    asking = gevent.spawn(_state_times_out, ref)
    manual_clock.advance(5)
    assert asking.get(block=False) is True


def _state_times_out(ref: Ref) -> bool:
    with pytest.raises(AskTimeout):
        sys.get_state(ref)
    return True


def test_statistics_count_what_came_in_and_went_out(start: Starter) -> None:
    ref = start(Doer)
    assert sys.statistics(ref) is None
    sys.statistics(ref, "on")
    for number in range(3):
        ref.ask(number)
    counted = sys.statistics(ref)
    assert counted["messages_in"] >= 3
    assert counted["messages_out"] >= 3
    assert counted["start_time"] <= counted["current_time"]
    sys.statistics(ref, "off")
    assert sys.statistics(ref) is None


def test_the_log_keeps_the_last_events_alone(start: Starter) -> None:
    ref = start(Doer)
    sys.log(ref, 4)
    for number in range(10):
        ref.ask(number)
    kept = sys.log(ref, 0)
    assert len(kept) == 4
    assert {event["direction"] for event in kept} == {"in", "out"}
    assert sys.log(ref) == []


def test_a_trace_tells_of_each_message_without_its_payload_and_ends_by_count(start: Starter) -> None:
    ref = start(Doer)
    told: list[Mapping[str, Any]] = []
    sys.trace(ref, told.append, most=3, seconds=60)
    for _ in range(5):
        ref.ask("a payload")
    assert len(told) == 4
    assert told[-1]["direction"] == "end"
    assert "payload" not in str(told)


def test_a_trace_ends_by_time(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Doer)
    told: list[Mapping[str, Any]] = []
    sys.trace(ref, told.append, most=1000, seconds=5)
    ref.ask("within")
    manual_clock.advance(5)
    before = len(told)
    ref.ask("after")
    assert [record["direction"] for record in told[before:]] == ["end"]


def test_a_trace_sends_no_more_than_its_rate_in_a_second_and_tells_how_many_it_left_out(
    start: Starter, manual_clock: ManualClock
) -> None:
    ref = start(Doer)
    told: list[Mapping[str, Any]] = []
    sys.trace(ref, told.append, most=1000, seconds=5, per_s=4)
    for _ in range(10):
        ref.ask("in the first second")
    assert len(told) == 4
    manual_clock.advance(1)
    for _ in range(10):
        ref.ask("in the next")
    assert len(told) == 8
    manual_clock.advance(4)
    ref.ask("after")
    assert told[-1]["direction"] == "end"
    assert told[-1]["left_out"] == 2 * 20 + 1 - 8  # 20 came in and went out; the request for the trace went out too


def test_a_trace_is_capped_in_rate_when_nobody_asks_for_it(start: Starter) -> None:
    ref = start(Doer)
    told: list[Mapping[str, Any]] = []
    sys.trace(ref, told.append, most=1000, seconds=5)
    for number in range(200):
        ref.ask(number)
    assert len(told) == sys.TRACED_PER_S
