"""Crashes that are a dependency's fault: blamed, uncounted, and healed when the dependency is back."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import pytest

from regrow.protocol.errors import CircuitOpen, ConnectionFailed
from regrow.testing import ManualClock, crash
from runtime import events
from runtime.actor import Actor
from runtime.blame import blame
from runtime.crashes import crash_report, recent
from runtime.messages import Call
from runtime.names import whereis
from runtime.reasons import KILLED, NORMAL, SHUTDOWN, Crashed, ExitReason
from runtime.ref import HandlerOverran, Ref
from supervisors import Backoff, ChildSpec, Supervisor, terminate_child, which_children


class Clerk(Actor):
    is_database_up = True

    def on_start(self) -> None:
        if not Clerk.is_database_up:
            raise RuntimeError("cannot load") from ConnectionFailed("the database is gone")

    def on_receive(self, message: Any) -> Any:
        return message


@pytest.fixture(autouse=True)
def database() -> Iterator[None]:
    Clerk.is_database_up = True
    yield
    Clerk.is_database_up = True


@pytest.fixture
def clock() -> Iterator[ManualClock]:
    with ManualClock() as manual:
        yield manual


def supervised(**options: Any) -> Ref:
    spec = ChildSpec(
        "clerk",
        Clerk,
        name="clerk",
        depends_on=["db"],
        on_dependency_down="wait",
        backoff=Backoff(base_s=1.0, max_s=8.0, jitter=0.0),
    )
    supervisor: Ref = Supervisor.start([spec], max_restarts=0, **options)
    return supervisor


def state_of(supervisor: Ref) -> tuple[str, str | None]:
    facts = supervisor.actor.child_fact("clerk")
    return facts.state, facts.why


def test_a_crash_for_want_of_a_dependency_spends_no_intensity_and_says_what_it_waits_for(clock: ManualClock) -> None:
    supervisor = supervised()
    crash(whereis("clerk"), ConnectionFailed("refused"))  # type: ignore[arg-type]
    clock.settle()
    assert whereis("clerk") is not None  # a typed error is an answer, not a crash
    crash(whereis("clerk"), ConnectionRefusedError(errno.ECONNREFUSED, "refused"))  # type: ignore[arg-type]
    clock.settle()
    state, why = state_of(supervisor)
    assert state == "waiting"
    assert why is not None
    assert why.startswith("waits for db: crashed: ConnectionRefusedError")
    assert supervisor.is_alive()
    supervisor.stop()


def test_the_child_comes_back_as_soon_as_its_dependency_says_so(clock: ManualClock) -> None:
    supervisor = supervised()
    crash(whereis("clerk"), ConnectionResetError())  # type: ignore[arg-type]
    clock.settle()
    events.publish("breaker.closed", actor="something_else")
    clock.settle()
    assert whereis("clerk") is None
    events.publish("breaker.half_opened", actor="db")
    clock.settle()
    assert whereis("clerk") is not None
    supervisor.stop()


def test_a_dependency_that_says_nothing_is_tried_again_with_growing_delays(clock: ManualClock) -> None:
    supervisor = supervised()
    Clerk.is_database_up = False
    crash(whereis("clerk"), ConnectionResetError())  # type: ignore[arg-type]
    for attempt, delay_s in enumerate((1.0, 2.0, 4.0, 8.0, 8.0)):
        clock.settle()
        assert state_of(supervisor)[0] == "waiting"
        clock.advance(delay_s - 0.001)
        assert whereis("clerk") is None
        Clerk.is_database_up = attempt == 4
        clock.advance(0.001)
    assert whereis("clerk") is not None
    supervisor.stop()


def test_a_first_start_without_the_dependency_waits_instead_of_failing(clock: ManualClock) -> None:
    Clerk.is_database_up = False
    supervisor = supervised()
    assert state_of(supervisor)[0] == "waiting"
    Clerk.is_database_up = True
    events.publish("database.connected", actor="db")
    clock.settle()
    assert whereis("clerk") is not None
    supervisor.stop()


def test_a_bug_counts_as_ever(clock: ManualClock) -> None:
    supervisor = supervised()
    crash(whereis("clerk"), ValueError("a bug"))  # type: ignore[arg-type]
    clock.settle()
    assert not supervisor.is_alive()


def test_a_waiting_child_can_be_terminated_and_then_stays_away(clock: ManualClock) -> None:
    supervisor = supervised()
    crash(whereis("clerk"), ConnectionResetError())  # type: ignore[arg-type]
    clock.settle()
    terminate_child(supervisor, "clerk")
    events.publish("breaker.closed", actor="db")
    clock.advance(60)
    assert which_children(supervisor) == [("clerk", None, "worker")]
    supervisor.stop()
    assert not events.listening()


class OperationalError(Exception):
    """Named as psycopg names a lost connection."""


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (Crashed(ValueError()), "bug"),
        (Crashed(ConnectionResetError()), "dependency_down"),
        (Crashed(CircuitOpen()), "dependency_down"),
        (Crashed(OperationalError()), "dependency_down"),
        (Crashed(MemoryError()), "resource_limit"),
        (Crashed(OSError(errno.EMFILE, "too many open files")), "resource_limit"),
        (Crashed(HandlerOverran()), "resource_limit"),
        (KILLED, "killed"),
        (NORMAL, None),
        (SHUTDOWN, None),
        (ExitReason("boom"), "bug"),
    ],
)
def test_a_reason_is_blamed_on_what_it_says(reason: ExitReason, expected: str | None) -> None:
    assert blame(reason) == expected


def test_the_cause_of_an_exception_is_blamed_and_a_suppressed_context_is_not() -> None:
    wrapped, hidden = RuntimeError("load"), RuntimeError("load")
    wrapped.__cause__ = TimeoutError()
    hidden.__context__ = TimeoutError()
    hidden.__suppress_context__ = True
    assert blame(Crashed(wrapped)) == "dependency_down"
    assert blame(Crashed(hidden)) == "bug"


def test_the_same_message_twice_in_a_row_is_poison() -> None:
    ref = Clerk.start()
    calls = [Call("divide", {"n": n}) for n in (1, 2, 2, 1)]
    blames = [crash_report(ref, Crashed(ValueError()), call)["blame"] for call in calls]
    assert blames == ["bug", "bug", "poison_message", "bug"]
    assert recent[-1]["last_message"] == "call divide(n)"
    ref.stop()
