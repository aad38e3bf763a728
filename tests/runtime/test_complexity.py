"""What must not grow with the tree, counted in operations and not in time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

import supervisors.dynamic
import supervisors.supervisor
from runtime import clock
from runtime.actor import Actor
from runtime.clock import Wheel
from runtime.edge.metrics import Metrics
from runtime.introspect import MAX_DYNAMIC, ChildFacts, snapshot
from runtime.measure import Counter, Instrument, NumberCell
from runtime.ref import Ref
from runtime.signals import Down, demonitor, monitor
from supervisors import ChildSpec, DynamicSupervisor, Supervisor, start_dynamic, which_children
from supervisors.child import Child, facts_of
from supervisors.intensity import Intensity

FEW, MANY = 10, 2000
SIZES = pytest.mark.parametrize("size", [FEW, MANY])


class Idle(Actor):
    def on_receive(self, message: Any) -> Any:
        return message


class Fragile(Actor):
    """Crashes when told to, and passes its new ref on at each start."""

    def __init__(self, started: list[Ref]) -> None:
        self._started = started

    def on_start(self) -> None:
        self._started.append(self.ref)

    def on_receive(self, message: Any) -> Any:
        if message == "crash":
            raise RuntimeError("crashed on command")
        return message


class CountedDict(dict[Any, Any]):
    """A dict that counts its entries as they are looked at one after the other, and single accesses apart from that."""

    walked = 0
    accesses = 0

    def __iter__(self) -> Iterator[Any]:
        for key in super().__iter__():
            self.walked += 1
            yield key

    def items(self) -> Any:
        self.walked += len(self)
        return super().items()

    def values(self) -> Any:
        self.walked += len(self)
        return super().values()

    def __setitem__(self, key: Any, value: Any) -> None:
        self.accesses += 1
        super().__setitem__(key, value)

    def pop(self, *args: Any) -> Any:
        self.accesses += 1
        return super().pop(*args)


class CountedDeque(deque[Any]):
    """A deque that counts the entries that are taken out or walked over."""

    taken = 0
    walked = 0

    def popleft(self) -> Any:
        self.taken += 1
        return super().popleft()

    def __iter__(self) -> Iterator[Any]:
        for item in super().__iter__():
            self.walked += 1
            yield item


class WatchedChild(Child):
    """A child record that counts every read of it."""

    __slots__ = ()
    reads: dict[Any, int] = {}  # noqa: RUF012 - shared on purpose: all records count into it

    def __getattribute__(self, name: str) -> Any:
        spec = object.__getattribute__(self, "spec") if name != "spec" else None
        if spec is not None:
            WatchedChild.reads[spec.id] = WatchedChild.reads.get(spec.id, 0) + 1
        return super().__getattribute__(name)


class WatchedCell(NumberCell):
    """A series that counts how often any of its kind is read."""

    __slots__ = ()
    reads = 0

    def read(self) -> float:
        WatchedCell.reads += 1
        return super().read()


def crash_and_await(started: list[Ref]) -> None:
    """Crash the latest incarnation, and return when the next one has started."""
    before = len(started)
    with pytest.raises(RuntimeError):
        started[-1].ask("crash")
    while len(started) == before:
        clock.sleep(0)


@SIZES
def test_a_restart_under_one_for_one_looks_at_no_sibling(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisors.supervisor, "Child", WatchedChild)
    started: list[Ref] = []
    siblings = [ChildSpec(number, Idle, shutdown="brutal_kill") for number in range(size)]
    boss = Supervisor.start([ChildSpec("fragile", Fragile, args=(started,)), *siblings], max_restarts=10)
    boss.actor.children = children = CountedDict(boss.actor.children)
    boss.actor.by_ref = by_ref = CountedDict(boss.actor.by_ref)
    WatchedChild.reads.clear()
    crash_and_await(started)
    which = dict(WatchedChild.reads)
    assert which.pop("fragile") > 0
    assert which == {}
    assert (children.walked, by_ref.walked) == (0, 0)
    boss.stop()


def test_counting_a_restart_is_amortised_however_many_are_in_the_window() -> None:
    intensity = Intensity(1_000_000, 10)
    intensity._restarts = counted = CountedDeque()
    for number in range(5000):
        assert intensity.admit(number / 100)
    assert counted.walked == 0
    assert counted.taken <= 5000


@SIZES
def test_monitoring_and_ending_a_monitor_look_at_no_other_monitor(size: int) -> None:
    ref = Idle.start()
    for _ in range(size):
        monitor(ref, lambda down: None)
    ref.watchers = counted = CountedDict(ref.watchers)
    watch = monitor(ref, lambda down: None)
    demonitor(watch)
    assert (counted.walked, counted.accesses) == (0, 2)
    ref.kill()


@SIZES
def test_the_end_of_an_actor_takes_each_of_its_monitors_once(size: int) -> None:
    heard: list[Down] = []
    ref = Idle.start()
    for _ in range(size):
        monitor(ref, heard.append)
    ref.watchers = counted = CountedDict(ref.watchers)
    ref.kill()
    assert len(heard) == size
    assert counted.walked <= size + 1


@SIZES
def test_starting_and_cancelling_a_timer_look_at_no_other_timer(size: int) -> None:
    armed: list[float] = []
    wheel = Wheel(lambda: 0.0, 100, armed.append)
    for _ in range(size):
        wheel.after(1.0, int)
    (tick,) = wheel._slots
    wheel._slots[tick] = counted = CountedDict(wheel._slots[tick])
    timer = wheel.after(1.0, int)
    timer.cancel()
    assert (counted.walked, counted.accesses) == (0, 2)
    assert len(armed) == 1


@SIZES
def test_a_turn_of_the_wheel_looks_only_at_what_is_due(size: int) -> None:
    now = 0.0
    wheel = Wheel(lambda: now, 100, lambda delay_s: None)
    for number in range(size):
        wheel.after(10.0 + number, int)
    later = [CountedDict(slot) for slot in wheel._slots.values()]
    wheel._slots = dict(zip(wheel._slots, later, strict=True))
    wheel.after(1.0, int)
    now = 1.0
    assert wheel.fire() == 1
    assert sum(slot.walked + slot.accesses for slot in later) == 0


def test_an_ask_that_is_answered_at_once_starts_no_timer() -> None:
    ref = Idle.start()
    before = len(clock.pending_timers())
    for _ in range(20):
        ref.ask("hello")
    assert len(clock.pending_timers()) <= before + 1  # the sweep's, which all actors share
    ref.kill()


@pytest.mark.parametrize("children", [FEW, MAX_DYNAMIC + MANY])
def test_a_scrape_looks_at_a_bounded_number_of_dynamic_children(children: int, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[Child] = []

    def counted_facts_of(child: Child) -> ChildFacts:
        looked_at.append(child)
        return facts_of(child)

    monkeypatch.setattr(supervisors.dynamic, "facts_of", counted_facts_of)
    boss = DynamicSupervisor.start(ChildSpec("child", Idle, shutdown="brutal_kill"))
    for _ in range(children):
        start_dynamic(boss)
    metrics = Metrics(lambda: snapshot(boss), version="1", registry=[])
    metrics.render()
    assert len(looked_at) == min(children, MAX_DYNAMIC)
    metrics.close()
    boss.stop()


def test_a_scrape_walks_no_mailbox() -> None:
    boss = Supervisor.start([ChildSpec("idle", Idle)])
    ref = which_children(boss)[0][1]
    ref.mailbox = counted = CountedDeque()
    for number in range(MANY):
        counted.append((number, None))
    metrics = Metrics(lambda: snapshot(boss), version="1", registry=[])
    assert b"mailbox_messages" in metrics.render().body
    assert (counted.walked, counted.taken) == (0, 0)
    metrics.close()
    boss.stop()


def test_a_scrape_copies_each_series_once() -> None:
    registry: list[Instrument] = []
    counter = Counter("calls_total", "calls", ("actor",), registry=registry)
    for number in range(MANY):
        counter.inc(str(number))
    WatchedCell.reads = 0
    for cell in counter._cells.values():
        cell.__class__ = WatchedCell
    metrics = Metrics(lambda: None, version="1", registry=registry)
    metrics.render()
    assert WatchedCell.reads == MANY
    metrics.close()
