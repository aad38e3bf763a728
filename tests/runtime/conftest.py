"""What the tests of the core share: time that they move, what was published, actors that end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from regrow.testing import ManualClock, plugin
from runtime import events
from runtime.actor import Actor
from runtime.ref import Ref

Starter = Callable[..., Ref]

manual_clock = plugin.manual_clock
nothing_left_behind = plugin.nothing_left_behind


@pytest.fixture
def published() -> Iterator[list[events.Event]]:
    """Every event since the test began."""
    seen: list[events.Event] = []
    unsubscribe = events.subscribe(seen.append)
    yield seen
    unsubscribe()


@pytest.fixture
def start(manual_clock: ManualClock) -> Iterator[Starter]:
    """Start an actor of a class; it is killed after the test."""
    refs: list[Ref] = []

    def starter(actor_class: type[Actor], *args: Any, **kwargs: Any) -> Ref:
        ref: Ref = actor_class.start(*args, **kwargs)
        refs.append(ref)
        return ref

    yield starter
    for ref in refs:
        ref.kill()
    manual_clock.settle()
