"""The pytest plugin: fixtures for the kit, and a guard that fails a test which leaves something behind.

Switch it on in a conftest.py, after patching: `pytest_plugins = ["regrow.testing.plugin"]`. A test that leaves an
actor, name, timer or process behind on purpose is marked `@pytest.mark.leaves_behind`.
"""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

from regrow.testing.clock import ManualClock
from regrow.testing.leftovers import Leftovers
from regrow.testing.probe import Probe
from regrow.testing.sequencer import Sequencer

TURNS = 20  # of the event loop, for what a test has ended properly to be gone


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", "leaves_behind: this test leaves actors, names, timers or processes on purpose")


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves an actor, name, timer or process behind."""
    before = Leftovers()
    yield
    if request.node.get_closest_marker("leaves_behind") is not None:
        return
    found = before.found()
    for _ in range(TURNS):
        if not found:
            return
        gevent.sleep(0)
        found = before.found()
    pytest.fail("this test left behind: " + "; ".join(found[:20]))


@pytest.fixture
def manual_clock() -> Iterator[ManualClock]:
    """A clock that moves only when the test moves it, for every timer and deadline of the runtime."""
    with ManualClock() as clock:
        yield clock


@pytest.fixture
def probe() -> Iterator[Probe]:
    """An actor that keeps what it is sent."""
    with Probe() as made:
        yield made


@pytest.fixture
def sequencer() -> Sequencer:
    """Steps that bring concurrent code into one order."""
    return Sequencer()
