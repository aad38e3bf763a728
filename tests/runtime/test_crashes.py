"""The record of a crash: whose it was, what it was doing, and what it was made of, without any payload."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from regrow.testing import ManualClock
from runtime import clock, crashes, events
from runtime.actor import Actor, exported
from runtime.ref import Ref
from supervisors import ChildSpec, Supervisor, which_children
from tests.runtime.actors import Doer
from tests.runtime.conftest import Starter


@pytest.fixture(autouse=True)
def listener() -> Iterator[None]:
    """Reports are made when somebody listens."""
    unsubscribe = events.subscribe(lambda _event: None)
    yield
    unsubscribe()


class Clerk(Actor):
    inspectable = ("served",)

    def __init__(self) -> None:
        super().__init__()
        self.served = 7
        self.password = "not to be shown"

    @exported
    def serve(self, pause_s: float, customer: str) -> None:
        clock.sleep(pause_s)
        raise ZeroDivisionError("a bug")


def child_of(supervisor: Ref) -> Ref:
    child = which_children(supervisor)[0][1]
    assert isinstance(child, Ref)
    return child


def report_of(ref: Ref) -> dict[str, Any]:
    return next(report for report in reversed(crashes.recent) if report["incarnation"] == ref.serial)


def test_a_crash_tells_the_supervisors_above_it_nearest_first(start: Starter, manual_clock: ManualClock) -> None:
    group = ChildSpec("group", Supervisor, args=([ChildSpec("clerk", Clerk)],))
    root = start(Supervisor, [group])
    inner = child_of(root)
    clerk = child_of(inner)
    clerk.cast("serve", {"pause_s": 0.0, "customer": "Ada"})
    manual_clock.settle()
    assert report_of(clerk)["ancestors"] == [inner.path, root.path]


def test_a_crash_tells_how_many_messages_waited(start: Starter, manual_clock: ManualClock) -> None:
    clerk = start(Clerk)
    clerk.cast("serve", {"pause_s": 1.0, "customer": "Ada"})
    manual_clock.settle()
    for _ in range(3):
        clerk.tell("waits")
    manual_clock.advance(1)
    assert report_of(clerk)["mailbox"] == 3


def test_a_crash_names_its_last_message_and_the_arguments_without_their_values(
    start: Starter, manual_clock: ManualClock
) -> None:
    clerk = start(Clerk)
    clerk.cast("serve", {"pause_s": 0.0, "customer": "Ada Lovelace"})
    manual_clock.settle()
    report = report_of(clerk)
    assert report["last_message"] == "call serve(customer, pause_s)"
    assert "Lovelace" not in str(report)


def test_a_crash_without_an_exported_call_names_the_kind_of_its_message(
    start: Starter, manual_clock: ManualClock
) -> None:
    ref = start(Doer)
    ref.tell(ZeroDivisionError("a bug"))
    manual_clock.settle()
    assert report_of(ref)["last_message"] == "ZeroDivisionError"


@pytest.mark.parametrize(("attribute", "shown"), [("served", "7"), ("password", "str")])
def test_a_crash_shows_values_of_inspectable_attributes_and_types_of_the_others(
    start: Starter, manual_clock: ManualClock, attribute: str, shown: str
) -> None:
    clerk = start(Clerk)
    clerk.cast("serve", {"pause_s": 0.0, "customer": "Ada"})
    manual_clock.settle()
    assert report_of(clerk)["state"][attribute] == shown
