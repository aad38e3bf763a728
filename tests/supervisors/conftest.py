"""What the tests of supervisors share: time that they move, what was published, and a workshop of actors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from regrow.testing import ManualClock, plugin
from runtime import events
from tests.supervisors.workshop import Workshop

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
def workshop(manual_clock: ManualClock) -> Iterator[Workshop]:
    """Actors that tell what becomes of them, and supervisors that are ended with the test."""
    shop = Workshop(manual_clock)
    yield shop
    shop.close()
