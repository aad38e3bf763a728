"""Counters, gauges, histograms: bounded, exact, copied cheaply."""

from __future__ import annotations

import timeit
from typing import Any, cast

import pytest

from runtime import measure
from runtime.measure import Counter, Gauge, Histogram, Instrument


@pytest.fixture
def registry() -> list[Instrument]:
    return []


def test_a_declared_series_exists_at_zero(registry: list[Instrument]) -> None:
    counter = Counter("calls_total", "calls", ("actor", "outcome"), registry=registry)
    counter.declare("github", "ok")
    (family,) = measure.snapshot(registry)
    assert family.series == ((("github", "ok"), 0.0),)


def test_an_instrument_without_labels_exists_at_zero(registry: list[Instrument]) -> None:
    Counter("stalls_total", "stalls", registry=registry)
    (family,) = measure.snapshot(registry)
    assert family.series == (((), 0.0),)


def test_inc_adds_to_the_series_of_its_labels_only(registry: list[Instrument]) -> None:
    counter = Counter("calls_total", "calls", ("actor",), registry=registry)
    counter.inc("a")
    counter.inc("a", by=2.5)
    counter.inc("b")
    assert (counter.value("a"), counter.value("b"), counter.value("c")) == (3.5, 1.0, 0.0)


def test_a_cell_is_the_series_itself(registry: list[Instrument]) -> None:
    counter = Counter("calls_total", "calls", ("actor",), registry=registry)
    cell = counter.cell("a")
    cell.inc()
    cell.value += 1
    counter.inc("a")
    assert counter.value("a") == 3


def test_a_gauge_goes_both_ways(registry: list[Instrument]) -> None:
    gauge = Gauge("clients", "clients", ("kind",), registry=registry)
    gauge.set(5, "tcp")
    gauge.add(-2, "tcp")
    gauge.add(1, "ipc")
    assert (gauge.value("tcp"), gauge.value("ipc")) == (3, 1)


def test_a_value_on_a_bound_falls_into_that_bucket(registry: list[Instrument]) -> None:
    histogram = Histogram("wait_seconds", "waits", buckets=(0.1, 1.0), registry=registry)
    for value in (0.1, 0.05, 1.0, 7.0):
        histogram.observe(value)
    ((_, (counts, total)),) = cast("Any", measure.snapshot(registry)[0].series)
    assert counts == (2, 1, 1)
    assert total == pytest.approx(8.15)
    assert histogram.count() == 4


def test_series_over_the_bound_share_one_overflow_series(registry: list[Instrument]) -> None:
    counter = Counter("calls_total", "calls", ("path",), max_series=2, registry=registry)
    for path in ("a", "b", "c", "d", "a"):
        counter.inc(path)
    assert [counter.value(path) for path in ("a", "b", "c", "d", measure.OVERFLOW)] == [2, 1, 0, 0, 2]
    assert counter.overflows == 2
    assert len(counter) == 3


def test_a_gauge_over_the_bound_writes_nowhere_and_is_counted(registry: list[Instrument]) -> None:
    gauge = Gauge("clients", "clients", ("who",), max_series=1, registry=registry)
    gauge.set(1, "a")
    gauge.set(2, "b")
    gauge.set(3, "a")
    assert measure.snapshot(registry)[0].series == ((("a",), 3),)
    assert gauge.overflows == 1


def test_a_histogram_over_the_bound_counts_under_overflow(registry: list[Instrument]) -> None:
    histogram = Histogram("wait_seconds", "waits", ("who",), max_series=1, registry=registry)
    for who in ("a", "b", "c"):
        histogram.observe(1.0, who)
    assert histogram.count(measure.OVERFLOW) == 2


@pytest.mark.parametrize("labels", [(), ("a",), ("a", "b", "c"), ("a", 5)])
def test_labels_that_do_not_fit_are_refused(registry: list[Instrument], labels: tuple[str, ...]) -> None:
    counter = Counter("calls_total", "calls", ("actor", "outcome"), registry=registry)
    with pytest.raises(TypeError, match="calls_total takes 2 label strings"):
        counter.inc(*labels)
    assert len(counter) == 0


@pytest.mark.parametrize("name", ["Calls_total", "calls", "9_total", "calls total", "calls_total\n"])
def test_a_counter_with_a_bad_name_is_refused(registry: list[Instrument], name: str) -> None:
    with pytest.raises(ValueError, match="instrument"):
        Counter(name, "", registry=registry)


def test_a_gauge_named_like_a_counter_is_refused(registry: list[Instrument]) -> None:
    with pytest.raises(ValueError, match="_total"):
        Gauge("calls_total", "", registry=registry)


def test_the_label_of_buckets_is_reserved(registry: list[Instrument]) -> None:
    with pytest.raises(ValueError, match="'le'"):
        Histogram("wait_seconds", "", ("le",), registry=registry)


def test_one_name_has_one_instrument(registry: list[Instrument]) -> None:
    Counter("calls_total", "", registry=registry)
    with pytest.raises(ValueError, match="exists already"):
        Counter("calls_total", "", registry=registry)


def test_buckets_must_rise(registry: list[Instrument]) -> None:
    with pytest.raises(ValueError, match="rising"):
        Histogram("wait_seconds", "", buckets=(1.0, 1.0), registry=registry)


def test_an_actor_that_left_takes_its_series_and_those_of_its_parts_along(registry: list[Instrument]) -> None:
    counter = Counter("calls_total", "", ("outcome", "actor"), registry=registry)
    gauge = Gauge("clients", "", ("kind",), registry=registry)
    gauge.set(1, "github")
    for actor in ("github", "github/breaker", "github2", "db"):
        counter.inc("ok", actor)
    assert measure.drop_actor("github", registry) == 2
    assert list(counter.series()) == [("ok", "github2"), ("ok", "db")]
    assert gauge.value("github") == 1


def test_a_dropped_actor_that_comes_back_starts_at_zero(registry: list[Instrument]) -> None:
    counter = Counter("calls_total", "", ("actor",), registry=registry)
    counter.inc("a")
    measure.drop_actor("a", registry)
    counter.declare("a")
    assert counter.value("a") == 0


def test_a_snapshot_does_not_change_afterwards(registry: list[Instrument]) -> None:
    counter = Counter("calls_total", "", ("actor",), registry=registry)
    histogram = Histogram("wait_seconds", "", buckets=(1.0,), registry=registry)
    counter.inc("a")
    calls, waits = measure.snapshot(registry)
    counter.inc("a")
    counter.inc("b")
    histogram.observe(0.5)
    assert calls.series == ((("a",), 1.0),)
    assert waits.series == (((), ((0, 0), 0.0)),)


@pytest.mark.parametrize("slice_size", [1, 3, 4, 10])
def test_slices_pause_after_so_many_series_and_lose_none(registry: list[Instrument], slice_size: int) -> None:
    for name in ("a_total", "b_total"):
        counter = Counter(name, "", ("n",), registry=registry)
        for n in range(6):
            counter.inc(str(n))
    pieces = list(measure.families(slice_size, registry))
    assert pieces.count(None) == 12 // slice_size
    assert [len(piece.values) for piece in pieces if piece is not None] == [6, 6]


def test_series_made_and_dropped_between_slices_harm_nothing(registry: list[Instrument]) -> None:
    counter = Counter("calls_total", "", ("actor",), registry=registry)
    for n in range(5):
        counter.inc(f"a{n}")
    pieces = measure.families(2, registry)
    assert next(pieces) is None
    counter.inc("new")
    counter.drop("actor", "a4")
    assert [len(piece.series) for piece in pieces if piece is not None] == [5]


def test_counting_costs_well_under_a_microsecond(registry: list[Instrument]) -> None:
    counter = Counter("calls_total", "", ("actor", "outcome"), registry=registry)
    histogram = Histogram("wait_seconds", "", ("actor",), registry=registry)
    inc = min(timeit.repeat(lambda: counter.inc("a", "ok"), number=20_000, repeat=5)) / 20_000
    observe = min(timeit.repeat(lambda: histogram.observe(0.003, "a"), number=20_000, repeat=5)) / 20_000
    assert inc < 2e-6
    assert observe < 2e-6
