"""A clock that the test moves, and supervised parts as an integration has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from runtime import clock, events, scheduler
from runtime.names import whereis
from runtime.ref import Ref
from supervisors import ChildSpec, Supervisor


class ManualClock:
    """Moves every timer of the runtime; work that a timer sets free has run when `advance` returns."""

    def __init__(self) -> None:
        self.now = 10_000.0
        self.wheel = clock.Wheel(lambda: self.now, clock.SLOTS_PER_S, lambda _: None)

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        gevent.idle()
        while (due := self.wheel.next_due()) is not None and due <= until:
            self.now = max(self.now, due)
            self.wheel.fire()
            gevent.idle()
        self.now = until
        self.wheel.fire()
        gevent.idle()


@pytest.fixture
def manual() -> Iterator[ManualClock]:
    made = ManualClock()
    clock.install(made.wheel, lambda: made.now, lambda: made.now)
    yield made
    clock.install(None, lambda: 0.0, lambda: 0.0)
    # The timer of the sweep after long handlers lies on the wheel that is gone.
    scheduler.S.sweeping = False


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
