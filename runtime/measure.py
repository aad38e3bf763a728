"""Counters, gauges and histograms as plain Python: what every layer counts with, and nothing about how it is shown.

Read: the three instruments, their cells, then `snapshot`, which copies the numbers for somebody who renders elsewhere.

An instrument is made once, at import, with the labels it will ever have. `declare` makes a series exist at zero from
the start, so that a rate over it is right from the first scrape on. A hot path asks once for its cell and keeps it:

    ASKED = Counter("messages_total", "messages by what became of them", ("actor", "outcome"))
    ok = ASKED.cell("greeter", "ok")
    ok.value += 1

Everything here belongs to the hub's thread: nothing switches, so nothing needs a lock. Cells must not be written from
another native thread; hand the number over to the hub first.

Names carry no prefix (the metrics edge adds it), base units only, `_total` on counters. The number of series of one
instrument is bounded: further label values share one series named `overflow`, and `overflows` counts the writes.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Generic, Literal, TypeAlias, TypeVar

Kind = Literal["counter", "gauge", "histogram"]
Labels: TypeAlias = tuple[str, ...]
#: what a snapshot holds for one series: a number, or (count per bucket, sum) of a histogram
Value: TypeAlias = float | tuple[tuple[int, ...], float]

MAX_SERIES = 10_000
OVERFLOW = "overflow"

#: upper bounds in seconds; from a message in a mailbox (50 us) to a model's answer (minutes)
SECONDS = (0.00005, 0.00025, 0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0)
#: upper bounds in bytes
BYTES = (64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 8388608.0, 67108864.0)

_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


class NumberCell:
    """One series of a counter or gauge; hot paths add to `value` themselves."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, by: float = 1.0) -> None:
        """Add `by`. Never switches."""
        self.value += by

    def set(self, value: float) -> None:
        """Replace the value; for gauges. Never switches."""
        self.value = value

    def read(self) -> float:
        """Return the value now. Never switches."""
        return self.value


class HistogramCell:
    """One series of a histogram: a count per bucket (the last one is +Inf) and the sum of what was observed."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count `value` in the first bucket whose bound is not below it. Never switches."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def read(self) -> tuple[tuple[int, ...], float]:
        """Return the counts per bucket (not cumulative) and the sum. Never switches."""
        return tuple(self.counts), self.sum


Cell = TypeVar("Cell", NumberCell, HistogramCell)


class _Instrument(Generic[Cell]):
    """The series of one name, by their label values in the order of `labels`."""

    kind: ClassVar[Kind]

    def __init__(
        self,
        name: str,
        help: str,
        labels: Sequence[str] = (),
        *,
        max_series: int = MAX_SERIES,
        registry: list[Instrument] | None = None,
    ) -> None:
        if not _NAME.match(name):
            raise ValueError(f"instrument {name!r} must be lower case letters, digits and underscores")
        if (self.kind == "counter") != name.endswith("_total"):
            raise ValueError(f"instrument {name!r} is a {self.kind}: counters, and only they, end in _total")
        for label in labels:
            if not _NAME.match(label) or label == "le":
                raise ValueError(
                    f"label {label!r} of {name} must be lower case letters, digits and underscores, not 'le'"
                )
        self.name = name
        self.help = help
        self.labels: Labels = tuple(labels)
        self.max_series = max_series
        self.overflows = 0
        self._cells: dict[Labels, Cell] = {}
        if not self.labels:
            self._cells[()] = self._new_cell()
        where = REGISTRY if registry is None else registry
        if any(other.name == name for other in where):
            raise ValueError(f"instrument {name!r} exists already: make it once, at import, and share it")
        where.append(self)  # type: ignore[arg-type]  # every concrete subclass is one of the union

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}{list(self.labels)}, {len(self._cells)} of {self.max_series} series>"

    def __len__(self) -> int:
        return len(self._cells)

    def _new_cell(self) -> Cell:
        raise NotImplementedError

    def cell(self, *labels: str) -> Cell:
        """Return the series of these label values, made at zero when it is new; keep it in a hot path. Never switches.

        A cell that outlives `drop` still counts, but nobody reads it any more.
        """
        cell = self._cells.get(labels)
        return self._made(labels) if cell is None else cell

    def declare(self, *labels: str) -> None:
        """Make the series exist at zero. Never switches."""
        self.cell(*labels)

    def _made(self, labels: Labels) -> Cell:
        if len(labels) != len(self.labels) or not all(isinstance(value, str) for value in labels):
            raise TypeError(f"{self.name} takes {len(self.labels)} label strings {self.labels}, got {labels!r}")
        if len(self._cells) >= self.max_series:
            self.overflows += 1
            labels = (OVERFLOW,) * len(self.labels)
            if labels in self._cells:
                return self._cells[labels]
        cell = self._cells[labels] = self._new_cell()
        return cell

    def drop(self, label: str, value: str) -> int:
        """Forget the series whose `label` is `value` or a part of it (`value/...`); return how many. Never switches."""
        if label not in self.labels:
            return 0
        at, part = self.labels.index(label), value + "/"
        gone = [labels for labels in self._cells if labels[at] == value or labels[at].startswith(part)]
        for labels in gone:
            del self._cells[labels]
        return len(gone)

    def series(self) -> dict[Labels, Cell]:
        """Return the series there are now, in a dict that later changes do not touch. Never switches."""
        return self._cells.copy()


class Counter(_Instrument[NumberCell]):
    """A number that only grows; its name ends in `_total`."""

    kind = "counter"

    def _new_cell(self) -> NumberCell:
        return NumberCell()

    def inc(self, *labels: str, by: float = 1.0) -> None:
        """Add `by` (not negative) to the series of these label values. Never switches."""
        try:
            self._cells[labels].value += by
        except KeyError:
            self._made(labels).value += by

    def value(self, *labels: str) -> float:
        """Return the number of one series, 0 when there is no such series. Never switches."""
        cell = self._cells.get(labels)
        return 0.0 if cell is None else cell.value


class Gauge(_Instrument[NumberCell]):
    """A number that goes up and down. Writes over the bound of series are counted and otherwise lost."""

    kind = "gauge"

    def _new_cell(self) -> NumberCell:
        return NumberCell()

    def _made(self, labels: Labels) -> NumberCell:
        # a sum of unrelated gauges says nothing, so there is no shared overflow series
        if len(self._cells) >= self.max_series and len(labels) == len(self.labels):
            self.overflows += 1
            return NumberCell()
        return super()._made(labels)

    def set(self, value: float, *labels: str) -> None:
        """Replace the value of the series of these label values. Never switches."""
        try:
            self._cells[labels].value = value
        except KeyError:
            self._made(labels).value = value

    def add(self, by: float, *labels: str) -> None:
        """Add `by`, which may be negative. Never switches."""
        try:
            self._cells[labels].value += by
        except KeyError:
            self._made(labels).value += by

    def value(self, *labels: str) -> float:
        """Return the value of one series, 0 when there is no such series. Never switches."""
        cell = self._cells.get(labels)
        return 0.0 if cell is None else cell.value


class Histogram(_Instrument[HistogramCell]):
    """How often something was how large: counts per fixed bucket, and the sum."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        help: str,
        labels: Sequence[str] = (),
        *,
        buckets: tuple[float, ...] = SECONDS,
        max_series: int = MAX_SERIES,
        registry: list[Instrument] | None = None,
    ) -> None:
        if not buckets or list(buckets) != sorted(set(buckets)):
            raise ValueError(f"buckets of {name} must be rising bounds, got {buckets!r}")
        self.buckets = buckets
        super().__init__(name, help, labels, max_series=max_series, registry=registry)

    def _new_cell(self) -> HistogramCell:
        return HistogramCell(self.buckets)

    def observe(self, value: float, *labels: str) -> None:
        """Count `value` in the series of these label values. Never switches."""
        cell = self._cells.get(labels)
        if cell is None:
            cell = self._made(labels)
        cell.counts[bisect_left(cell.bounds, value)] += 1
        cell.sum += value

    def count(self, *labels: str) -> int:
        """Return how many values one series has seen, 0 when there is no such series. Never switches."""
        cell = self._cells.get(labels)
        return 0 if cell is None else sum(cell.counts)


Instrument: TypeAlias = Counter | Gauge | Histogram

#: every instrument of the process, in the order of creation
REGISTRY: list[Instrument] = []


@dataclass(frozen=True, slots=True)
class Family:
    """An immutable copy of one instrument; each value is a number, or (counts per bucket, sum) of a histogram."""

    name: str
    help: str
    kind: Kind
    labels: Labels
    buckets: tuple[float, ...]
    # two columns instead of pairs: a pair per series would be a container for the garbage collector to visit
    keys: tuple[Labels, ...]
    values: tuple[Value, ...]
    overflows: int

    @property
    def series(self) -> tuple[tuple[Labels, Value], ...]:
        """The label values and the value of each series."""
        return tuple(zip(self.keys, self.values, strict=True))


def families(slice_size: int, registry: Sequence[Instrument] | None = None) -> Iterator[Family | None]:
    """Yield a copy of each instrument, and None whenever `slice_size` series were copied since the last yield of None.

    At a None the caller may let other work run: each series is consistent in itself, the whole need not be of one
    instant. Never switches.
    """
    room = slice_size
    for instrument in tuple(REGISTRY if registry is None else registry):
        series: dict[Labels, NumberCell] | dict[Labels, HistogramCell] = instrument.series()
        values: list[Value] = []
        cells: Iterator[NumberCell | HistogramCell] = iter(series.values())
        while part := [cell.read() for cell in islice(cells, room)]:
            values += part
            room -= len(part)
            if room <= 0:
                yield None
                room = slice_size
        buckets = instrument.buckets if isinstance(instrument, Histogram) else ()
        yield Family(
            instrument.name,
            instrument.help,
            instrument.kind,
            instrument.labels,
            buckets,
            tuple(series),
            tuple(values),
            instrument.overflows,
        )


def snapshot(registry: Sequence[Instrument] | None = None) -> list[Family]:
    """Return copies of all instruments at this instant. Never switches."""
    return [family for family in families(1 << 62, registry) if family is not None]


def drop_actor(name: str, registry: Sequence[Instrument] | None = None) -> int:
    """Forget all series whose `actor` label is `name` or a part of it; return how many.

    For an actor that left the configuration; one that restarts keeps its numbers. Never switches.
    """
    return sum(instrument.drop("actor", name) for instrument in (REGISTRY if registry is None else registry))
