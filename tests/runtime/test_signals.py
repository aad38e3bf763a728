"""Links, monitors and exit signals: who hears of an end, once, and who dies of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from regrow.testing import ManualClock
from runtime.reasons import KILL, NORMAL, SHUTDOWN, ExitReason
from runtime.ref import Ref
from runtime.signals import Monitor, demonitor, link, monitor, unlink, when_ended
from tests.runtime.actors import Doer, Terminating
from tests.runtime.conftest import Starter

BOOM = ExitReason("boom")


def log_of(ref: Ref) -> list[Any]:
    log: list[Any] = ref.ask(lambda actor: actor.log)
    return log


def do(ref: Ref, action: Callable[[], object]) -> Any:
    """Have the actor run the function in its own name."""
    return ref.ask(lambda _: action())


# -- exit signals


@pytest.mark.parametrize(("reason", "dies"), [(NORMAL, False), (SHUTDOWN, True), (BOOM, True)])
def test_a_signal_ends_who_does_not_trap_unless_it_is_normal(start: Starter, reason: ExitReason, dies: bool) -> None:
    ref = start(Doer)
    ref.exit(reason)
    assert ref.is_alive() is not dies
    assert ref.reason == (reason if dies else None)


@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, BOOM])
def test_a_signal_is_a_message_for_who_traps(start: Starter, reason: ExitReason) -> None:
    ref, sender = start(Doer, trap_exit=True), start(Doer)
    do(sender, lambda: ref.exit(reason))
    assert log_of(ref) == [("exit", sender, str(reason))]


def test_kill_cannot_be_trapped_and_is_heard_of_as_killed(start: Starter, manual_clock: ManualClock) -> None:
    ref, linked = start(Doer, trap_exit=True), start(Doer, trap_exit=True)
    do(linked, lambda: link(ref))
    ref.exit(KILL)
    assert str(ref.reason) == "killed"
    assert log_of(linked) == [("exit", ref, "killed")]


def test_a_normal_signal_ends_the_actor_that_sends_it_to_itself(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Doer)
    ref.tell(lambda actor: actor.ref.exit(NORMAL))
    manual_clock.settle()
    assert ref.reason == NORMAL


def test_a_signal_to_itself_ends_the_handler_on_the_spot(start: Starter, manual_clock: ManualClock) -> None:
    went_on: list[int] = []

    def handler(actor: Doer) -> None:
        actor.ref.exit(BOOM)
        went_on.append(1)

    ref = start(Doer)
    ref.tell(handler)
    manual_clock.settle()
    assert (ref.reason, went_on) == (BOOM, [])


def test_a_signal_to_the_dead_is_nothing(start: Starter) -> None:
    ref = start(Doer)
    ref.kill()
    ref.exit(BOOM)
    assert str(ref.reason) == "killed"


def test_the_signal_of_the_parent_stops_who_traps_with_its_reason_and_the_hook(start: Starter) -> None:
    heard: list[ExitReason] = []
    parent = start(Doer)
    child = do(parent, lambda: Terminating.start_linked(heard.append, trap_exit=True))
    child.exit(BOOM, parent)
    assert child.stop() in (True, False)
    assert (heard, child.reason) == ([BOOM], BOOM)


def test_the_end_of_the_parent_ends_its_linked_child(start: Starter, manual_clock: ManualClock) -> None:
    parent = start(Doer)
    child = do(parent, Doer.start_linked)
    parent.kill()
    assert str(child.reason) == "killed"


# -- links


def test_of_two_linked_actors_an_abnormal_end_takes_the_other_along(start: Starter, manual_clock: ManualClock) -> None:
    one, other = start(Doer), start(Doer)
    do(one, lambda: link(other))
    other.exit(BOOM)
    assert one.reason == BOOM


def test_a_normal_end_takes_nobody_along(start: Starter) -> None:
    one, other = start(Doer), start(Doer)
    do(one, lambda: link(other))
    other.stop()
    assert one.is_alive()


def test_a_pair_has_at_most_one_link(start: Starter, manual_clock: ManualClock) -> None:
    one, other = start(Doer, trap_exit=True), start(Doer)
    for _ in range(3):
        do(one, lambda: link(other))
    do(other, lambda: link(one))
    other.exit(BOOM)
    assert log_of(one) == [("exit", other, "boom")]


def test_linking_to_the_dead_delivers_noproc(start: Starter, manual_clock: ManualClock) -> None:
    trapping, plain, dead = start(Doer, trap_exit=True), start(Doer), start(Doer)
    dead.kill()
    do(trapping, lambda: link(dead))
    assert log_of(trapping) == [("exit", dead, "noproc")]
    plain.tell(lambda _: link(dead))
    manual_clock.settle()
    assert str(plain.reason) == "noproc"


def test_after_unlink_no_exit_of_that_link_arrives_any_more(start: Starter, manual_clock: ManualClock) -> None:
    one, other = start(Doer, trap_exit=True), start(Doer)

    def part() -> None:
        link(other)
        other.kill()  # its signal waits in the mailbox now
        unlink(other)

    do(one, part)
    assert log_of(one) == []


def test_after_unlink_neither_takes_the_other_along(start: Starter) -> None:
    one, other = start(Doer), start(Doer)
    do(one, lambda: link(other))
    do(other, lambda: unlink(one))
    one.exit(BOOM)
    assert other.is_alive()


def test_an_end_travels_along_a_chain_of_links_of_any_length(start: Starter, manual_clock: ManualClock) -> None:
    chain = [start(Doer) for _ in range(3000)]
    for one, other in itertools.pairwise(chain):
        do(one, lambda other=other: link(other))  # type: ignore[misc]
    chain[0].exit(BOOM)
    assert [ref for ref in chain if ref.reason != BOOM] == []


def test_a_ring_of_links_ends_once(start: Starter, manual_clock: ManualClock) -> None:
    ring = [start(Doer) for _ in range(3)]
    downs: list[Ref] = []
    for one, other in zip(ring, ring[1:] + ring[:1], strict=True):
        do(one, lambda other=other: link(other))  # type: ignore[misc]
        monitor(one, lambda down: downs.append(down.ref))
    ring[0].exit(BOOM)
    assert sorted(ref.serial for ref in downs) == sorted(ref.serial for ref in ring)


def test_links_belong_to_actors(start: Starter) -> None:
    with pytest.raises(TypeError, match="only actors have links"):
        link(start(Doer))


# -- monitors


def test_a_monitor_gives_one_down_with_the_reason(start: Starter) -> None:
    watcher, ref = start(Doer), start(Doer)
    do(watcher, lambda: monitor(ref))
    ref.exit(BOOM)
    assert log_of(watcher) == [("down", ref, "boom")]


def test_monitors_may_be_stacked(start: Starter) -> None:
    watcher, ref = start(Doer), start(Doer)
    do(watcher, lambda: [monitor(ref) for _ in range(3)])
    ref.kill()
    assert log_of(watcher) == [("down", ref, "killed")] * 3


def test_a_monitor_of_the_dead_tells_so_at_once(start: Starter) -> None:
    watcher, ref = start(Doer), start(Doer)
    ref.kill()
    do(watcher, lambda: monitor(ref))
    assert log_of(watcher) == [("down", ref, "noproc")]


def test_a_monitor_does_not_end_its_watcher(start: Starter) -> None:
    watcher, ref = start(Doer), start(Doer)
    do(watcher, lambda: monitor(ref))
    ref.exit(BOOM)
    assert watcher.is_alive()


def test_a_monitor_is_one_way(start: Starter) -> None:
    watcher, ref = start(Doer), start(Doer)
    do(watcher, lambda: monitor(ref))
    watcher.kill()
    assert ref.is_alive()
    assert not ref.watchers


def test_demonitor_takes_back_a_down_that_waits_already_and_leaves_the_others(start: Starter) -> None:
    class Unequal:
        """A message that cannot be compared."""

        def __eq__(self, other: object) -> bool:
            raise ValueError

        __hash__ = None  # type: ignore[assignment]

    watcher, ref = start(Doer), start(Doer)

    def watch(actor: Doer) -> None:
        first, second = monitor(ref), monitor(ref)
        actor.ref.tell(Unequal())
        ref.kill()
        demonitor(first)
        actor.log.append(second)

    watcher.ask(watch)
    second, *heard = log_of(watcher)
    assert isinstance(second, Monitor)
    assert heard == [("down", ref, "killed")]


def test_demonitor_ends_the_watch(start: Starter) -> None:
    watcher, ref = start(Doer), start(Doer)
    do(watcher, lambda: demonitor(monitor(ref)))
    ref.kill()
    assert log_of(watcher) == []


def test_outside_of_an_actor_a_monitor_needs_a_callback(start: Starter) -> None:
    with pytest.raises(TypeError, match="give it a callback"):
        monitor(start(Doer))


def test_the_end_of_an_actor_can_be_waited_for(start: Starter) -> None:
    ref = start(Doer)
    ended = when_ended(ref)
    ref.exit(BOOM)
    assert ended.wait() == BOOM
    assert str(when_ended(ref).wait()) == "noproc"


def test_links_hear_of_an_end_before_monitors_and_both_exactly_once(start: Starter, manual_clock: ManualClock) -> None:
    watcher, ref = start(Doer, trap_exit=True), start(Doer)
    do(watcher, lambda: monitor(ref))
    do(watcher, lambda: link(ref))
    ref.exit(BOOM)
    ref.kill()
    assert log_of(watcher) == [("exit", ref, "boom"), ("down", ref, "boom")]
