"""The hub's watchdog: how late the hub is and who held it up; on the real clock, since the hub is the subject."""

from __future__ import annotations

import gc
import json
import time
import weakref
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.event
import gevent.select
import pytest
from gevent.monkey import get_original

from runtime import events, hub_watch, log
from runtime.actor import Actor, exported
from runtime.hub_watch import HubWatch
from tests.runtime.test_log import Pipe

block_natively = get_original("time", "sleep")


def compute(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


class Hog(Actor):
    def on_start(self) -> None:
        self.things = 1

    @exported
    def hog(self, seconds: float) -> str:
        """Compute without a pause."""
        compute(seconds)
        return "done"

    def on_receive(self, message: Any) -> Any:
        block_natively(message)


class Stalls:
    """The stalls published while a watch runs; `wait` gives the next one."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self._came = gevent.event.Event()

    def __call__(self, event: events.Event) -> None:
        if event.topic == "hub.stalled":
            self.seen.append(event.fields)
            self._came.set()

    def wait(self) -> dict[str, Any]:
        assert self._came.wait(5.0)
        return self.seen[0]


@pytest.fixture
def watch() -> Iterator[HubWatch]:
    made = HubWatch(beat_s=0.01, stall_s=0.08)
    made.start()
    gevent.sleep(0.02)  # the first beat: what happened before it is none of the test's
    yield made
    made.stop()


@pytest.fixture
def stalls() -> Iterator[Stalls]:
    made = Stalls()
    unsubscribe = events.subscribe(made)
    yield made
    unsubscribe()


@pytest.fixture
def hog() -> Iterator[Any]:
    ref = Hog.start()
    yield ref
    ref.stop()


def test_a_computing_handler_is_named_with_its_message_and_line(watch: HubWatch, stalls: Stalls, hog: Any) -> None:
    assert hog.call("hog", {"seconds": 0.3}, timeout=5) == "done"
    stall = stalls.wait()
    assert stall["actor"] in (hog.name, hog.path)
    assert stall["message"] == "Call(hog)"
    assert "in compute" in stall["where"]
    assert "test_hub_watch.py" in stall["where"]
    assert any("Hog.hog" in line for line in stall["stack"])
    assert stall["seconds"] == pytest.approx(0.3, abs=0.2)


def test_a_call_that_blocks_in_c_is_named_by_the_line_of_ours_that_made_it(
    watch: HubWatch, stalls: Stalls, hog: Any
) -> None:
    hog.tell(0.3)
    stall = stalls.wait()
    assert stall["message"] == "float"
    assert "Hog.on_receive" in stall["where"]


def test_a_greenlet_outside_of_actors_is_named_by_its_line(watch: HubWatch, stalls: Stalls) -> None:
    gevent.spawn(compute, 0.25).join()
    stall = stalls.wait()
    assert stall["actor"] is None
    assert "in compute" in stall["where"]


def test_a_stall_is_counted_with_its_length(watch: HubWatch, stalls: Stalls) -> None:
    stalls_before = hub_watch.STALLS.value()
    compute(0.25)
    stalls.wait()
    assert hub_watch.STALLS.value() == stalls_before + 1
    assert hub_watch.LAG.cell().sum >= 0.2


def test_a_hub_that_yields_is_not_called_stalled(stalls: Stalls) -> None:
    made = HubWatch(beat_s=0.01, stall_s=0.5)  # far from what a busy machine does to a process
    made.start()
    for _ in range(60):
        compute(0.01)
        gevent.sleep(0.001)  # sleep(0) would not do: gevent runs 50 callbacks before it looks at timers
    made.stop()
    assert stalls.seen == []


def test_the_lag_is_known_while_the_hub_is_blocked_and_afterwards_until_the_next_beat(watch: HubWatch) -> None:
    compute(0.15)
    assert watch.lag_s() > 0.1
    gevent.sleep(0.05)
    assert watch.lag_s() < 0.1


def test_a_stopped_watch_neither_beats_nor_reports(stalls: Stalls) -> None:
    made = HubWatch(beat_s=0.01, stall_s=0.05)
    made.start()
    made.stop()
    made.stop()
    compute(0.15)
    gevent.sleep(0.03)
    assert stalls.seen == []
    assert made.lag_s() == 0


def test_naming_an_actor_does_not_keep_it_alive(watch: HubWatch, stalls: Stalls) -> None:
    ref: Any = Hog.start()
    kept = weakref.ref(ref.actor)
    ref.ask(0.2, timeout=5)
    stalls.wait()
    ref.stop()
    del ref
    another: Any = Hog.start()  # an idle runner keeps its last actor until it carries the next one
    another.ask(0, timeout=5)
    another.stop()
    gevent.sleep(0)
    gc.collect()
    assert kept() is None


def test_a_stall_that_lasts_is_cried_out_while_it_lasts(
    monkeypatch: pytest.MonkeyPatch, watch: HubWatch, hog: Any
) -> None:
    monkeypatch.setattr(hub_watch, "FIRST_CRY_S", 0.1)
    pipe = Pipe()
    made = log.configure(pipe.stream, format="json")
    text_while_blocked = ""

    def block_and_read() -> None:
        nonlocal text_while_blocked
        compute(0.4)
        text_while_blocked = pipe.read()

    gevent.spawn(block_and_read).join()
    assert made.close(5.0)
    pipe.close()
    cries = [json.loads(line) for line in text_while_blocked.splitlines()]
    assert cries[0]["event"] == "hub.stalling"
    assert "in compute" in cries[0]["where"]
    assert len(cries) <= 4
