"""Supervised parts as an integration has them, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from regrow.testing import ManualClock
from runtime import events
from runtime.names import whereis
from runtime.ref import Ref
from supervisors import ChildSpec, Supervisor


@pytest.fixture
def manual() -> Iterator[ManualClock]:
    """The clock of the runtime, moved by hand."""
    with ManualClock() as clock:
        yield clock


Supervised = Callable[..., Ref]


@pytest.fixture
def supervised() -> Iterator[Supervised]:
    """Starts an actor class under a name and a supervisor that brings it back."""
    supervisors: list[Any] = []

    def start(name: str, actor_class: type, *args: Any, **kwargs: Any) -> Ref:
        spec = ChildSpec(id=name, start=actor_class, args=args, kwargs=kwargs, name=name)
        supervisors.append(Supervisor.start(children=[spec], max_restarts=1000, max_seconds=1.0))
        return found(name)

    yield start
    for supervisor in reversed(supervisors):
        supervisor.stop()


def found(name: str) -> Ref:
    """The actor that has this name now, waiting for its supervisor when it has just died."""
    for _ in range(1000):
        ref = whereis(name)
        if ref is not None and ref.is_alive():
            return ref
        gevent.sleep(0.001)
    raise AssertionError(f"nobody has the name {name!r}")


@pytest.fixture
def heard() -> Iterator[list[events.Event]]:
    """Every event that is published during the test."""
    seen: list[events.Event] = []
    unsubscribe = events.subscribe(seen.append)
    yield seen
    unsubscribe()
