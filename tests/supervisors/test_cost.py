"""What supervision costs, in operations and not in time: the work of a restart does not grow with the siblings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from runtime.actor import Actor
from runtime.ref import Ref
from supervisors import ChildSpec, restart_child, start_child_of, start_dynamic, terminate_child
from tests.supervisors.workshop import Tool, Workshop

SIBLINGS = 300


class Watched(dict[Any, Any]):
    """A dictionary that counts how often somebody goes through all of it."""

    scans = 0

    def __iter__(self) -> Iterator[Any]:
        self.scans += 1
        return super().__iter__()

    def values(self) -> Any:
        self.scans += 1
        return super().values()

    def items(self) -> Any:
        self.scans += 1
        return super().items()

    def keys(self) -> Any:
        self.scans += 1
        return super().keys()


def watch(supervisor: Ref, *names: str) -> list[Watched]:
    """Count how often the supervisor goes through these of its dictionaries."""
    actor: Any = supervisor.actor
    watched = []
    for name in names:
        mine = Watched(getattr(actor, name))
        setattr(actor, name, mine)
        watched.append(mine)
    supervisor.links = Watched(supervisor.links or {})
    return [*watched, supervisor.links]


@pytest.fixture
def supervisor(workshop: Workshop) -> Ref:
    return workshop.supervise(*(f"c{number}" for number in range(SIBLINGS)), max_restarts=10)


def test_a_restart_that_fails_and_is_tried_again_looks_at_no_sibling(workshop: Workshop, supervisor: Ref) -> None:
    watched = watch(supervisor, "children", "by_ref")
    workshop.faults["c7"] = [ValueError("not yet"), ValueError("nor now")]
    workshop.end("c7")
    assert workshop.refs["c7"].is_alive()
    assert [mine.scans for mine in watched] == [0, 0, 0]


def test_calls_about_one_child_look_at_no_sibling(workshop: Workshop, supervisor: Ref) -> None:
    watched = watch(supervisor, "children", "by_ref")
    terminate_child(supervisor, "c7")
    restart_child(supervisor, "c7")
    start_child_of(supervisor, workshop.spec("one more"))
    assert [mine.scans for mine in watched] == [0, 0, 0]


def test_a_restart_under_rest_for_one_touches_the_later_ones_alone(workshop: Workshop) -> None:
    workshop.supervise(*(f"c{number}" for number in range(50)), strategy="rest_for_one")
    workshop.told()
    workshop.end("c47")
    told = workshop.told()
    assert [line for line in told if line.startswith("start")] == ["start c47", "start c48", "start c49"]


def test_a_dynamic_supervisor_starts_restarts_and_terminates_without_looking_at_the_others(workshop: Workshop) -> None:
    supervisor = workshop.supervise_dynamically(ChildSpec("tool", Tool, args=(workshop,)), max_restarts=10)
    for number in range(SIBLINGS):
        start_dynamic(supervisor, f"c{number}")
    watched = watch(supervisor, "by_ref", "waiting")
    workshop.end("c7")
    terminate_child(supervisor, workshop.refs["c8"])
    start_dynamic(supervisor, "one more")
    assert [mine.scans for mine in watched] == [0, 0, 0]


def test_an_idle_child_has_neither_mailbox_nor_greenlet(workshop: Workshop) -> None:
    class Idle(Actor):
        """Has nothing to do."""

    supervisor = workshop.supervise_dynamically()
    ref = start_dynamic(supervisor, ChildSpec("idle", Idle))
    assert (ref.mailbox, ref.runner, ref.watchers, ref.extras) == (None, None, None, None)
