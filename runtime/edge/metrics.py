"""Metrics: the process's counters and its supervision tree as Prometheus or OpenMetrics text.

Read: `Metrics.render`, then `_Collector` (what a scrape is made of), then the families of instruments and of the tree.
This is the only importer of prometheus_client; everybody else counts with runtime.measure.

Decisions. The hub only copies numbers, a slice at a time; turning them into text takes ten times as long and happens in
one native thread of its own, which makes one sample at a time and lets go of the interpreter's lock in between.
A scrape walks the tree once and no mailbox. Label `actor` is a configured name; the children of a dynamic supervisor
are summed under one name, so the number of series does not grow with the load.
"""

from __future__ import annotations

import gzip
import logging
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import gevent
from gevent.monkey import get_original
from gevent.threadpool import ThreadPool
from prometheus_client import PROCESS_COLLECTOR
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from regrow.protocol.errors import Overloaded
from runtime import clock, measure
from runtime.introspect import SHORTEST_S, Node
from runtime.measure import Counter, Family, Histogram, Instrument

PREFIX = "regrow_"
SLICE = 500
MAX_WAITING = 8
PAUSE_EVERY = 100

#: every actor has a series for each of these from the start
STATES = ("starting", "running", "waiting", "restarting", "suspended", "failed", "stopped")
RESTART_REASONS = ("crashed", "killed", "exited")

SCRAPES = Counter("metrics_scrapes_total", "scrapes by what became of them", ("outcome",))
RENDER = Histogram("metrics_render_seconds", "from the request of a scrape to its text")
ERRORS = Counter("metrics_errors_total", "parts of a scrape that failed and were left out", ("part",))
for _outcome in ("ok", "failed", "refused"):
    SCRAPES.declare(_outcome)
for _part in ("tree", "process"):
    ERRORS.declare(_part)

_log = logging.getLogger("regrow.metrics")
_native_sleep = get_original("time", "sleep")


@dataclass(frozen=True, slots=True)
class Rendered:
    """The body of an answer to a scrape."""

    body: bytes
    content_type: str
    encoding: str | None


class Metrics:
    """Renders scrapes, one at a time; a few may wait, more are refused."""

    def __init__(
        self,
        tree: Callable[[], Node | None],
        *,
        version: str,
        registry: Sequence[Instrument] | None = None,
    ) -> None:
        self._tree = tree
        self._registry = measure.REGISTRY if registry is None else registry
        self._build = {"version": version, "python": platform.python_version(), "gevent": gevent.__version__}
        self._started_at = clock.wall()
        self._pool: ThreadPool | None = None
        self._waiting = 0

    def render(self, accept: str = "", accept_encoding: str = "") -> Rendered:
        """Return the figures of now in the format that `accept` asks for; raises `Overloaded`. Switches greenlets."""
        if self._waiting >= MAX_WAITING:
            SCRAPES.inc("refused")
            raise Overloaded(
                f"metrics: {self._waiting} scrapes wait already, scrape from fewer places or less often",
                retry_after_s=1.0,
            )
        self._waiting += 1
        began = clock.now()
        try:
            rendered = self._render(accept, accept_encoding)
        except BaseException:
            SCRAPES.inc("failed")
            raise
        finally:
            self._waiting -= 1
        SCRAPES.inc("ok")
        RENDER.observe(clock.now() - began)
        return rendered

    def close(self) -> None:
        """End the rendering thread. Switches greenlets."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            pool.kill()

    def _render(self, accept: str, accept_encoding: str) -> Rendered:
        root: Node | None = None
        try:
            root = self._tree()
        except Exception:  # noqa: BLE001 - an edge: figures without the tree are better than none
            ERRORS.inc("tree")
            _log.exception("the tree is left out of a scrape", extra={"event": "metrics.failed", "part": "tree"})
        copied: list[Family] = []
        for family in measure.families(SLICE, self._registry):
            if family is None:
                gevent.sleep(SHORTEST_S)
            else:
                copied.append(family)
        encoder, content_type = choose_encoder(accept)
        collector = _Collector(copied, root, self._build, self._started_at)
        zipped = "gzip" in accept_encoding.lower()
        if self._pool is None:
            self._pool = ThreadPool(1)
        body = self._pool.apply(_encode, (encoder, collector, zipped))
        if collector.failed:
            ERRORS.inc("process")
        return Rendered(body, content_type, "gzip" if zipped else None)


def _encode(encoder: Callable[[Any], bytes], collector: _Collector, zipped: bool) -> bytes:
    body = encoder(collector)
    return gzip.compress(body, compresslevel=1) if zipped else body


class _Collector:
    """What prometheus_client's encoders ask for families; runs in the rendering thread, on copies only."""

    def __init__(
        self, families: Sequence[Family], root: Node | None, build: Mapping[str, str], started_at: float
    ) -> None:
        self._families = families
        self._root = root
        self._build = build
        self._started_at = started_at
        self.failed = False

    def collect(self) -> Iterator[Metric]:
        for metric in self._metrics():
            metric.samples = cast("list[Sample]", _Paced(metric.samples))
            yield metric

    def _metrics(self) -> Iterator[Metric]:
        yield InfoMetricFamily(PREFIX + "build", "what runs", value=dict(self._build))
        start = "when this process began to serve, in unix time"
        yield GaugeMetricFamily(PREFIX + "process_start_time_seconds", start, value=self._started_at)
        if self._root is not None:
            yield from tree_families(self._root)
        for family in self._families:
            yield instrument_family(family)
        yield self._overflows()
        try:
            yield from PROCESS_COLLECTOR.collect()
        except Exception:  # noqa: BLE001 - an edge: where /proc cannot be read, the rest is still worth showing
            self.failed = True

    def _overflows(self) -> Metric:
        text = "writes beyond the bound of series of an instrument"
        metric = CounterMetricFamily(PREFIX + "measure_overflows", text, labels=["instrument"])
        for family in self._families:
            if family.overflows:
                metric.add_metric([family.name], family.overflows)
        return metric


class _Paced:
    """Samples that are passed on with pauses.

    A pause lets go of the interpreter's lock, which the hub would otherwise get only after the switch interval (5 ms).
    """

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = samples

    def __iter__(self) -> Iterator[Sample]:
        for n, sample in enumerate(self._samples):
            if not n % PAUSE_EVERY:
                _native_sleep(0)
            yield sample


def instrument_family(family: Family) -> Metric:
    """Turn the copy of an instrument into a family whose samples can be read once. Never switches."""
    name = PREFIX + family.name
    metric = Metric(name.removesuffix("_total") if family.kind == "counter" else name, family.help, family.kind)
    lazy = _histogram_samples(name, family) if family.kind == "histogram" else _number_samples(name, family)
    metric.samples = cast("list[Sample]", lazy)
    return metric


def _number_samples(name: str, family: Family) -> Iterator[Sample]:
    for key, value in zip(family.keys, family.values, strict=True):
        yield Sample(name, dict(zip(family.labels, key, strict=True)), cast("float", value))


def _histogram_samples(name: str, family: Family) -> Iterator[Sample]:
    bounds = [*map(floatToGoString, family.buckets), "+Inf"]
    for key, value in zip(family.keys, family.values, strict=True):
        counts, total = cast("tuple[tuple[int, ...], float]", value)
        labels = dict(zip(family.labels, key, strict=True))
        cumulative = 0
        for bound, count in zip(bounds, counts, strict=True):
            cumulative += count
            yield Sample(name + "_bucket", {**labels, "le": bound}, cumulative)
        yield Sample(name + "_count", labels, cumulative)
        yield Sample(name + "_sum", labels, total)


@dataclass(slots=True)
class _Row:
    """The figures of one label `actor`: an actor, or all children of a dynamic supervisor."""

    path: str
    parent: str
    kind: str
    strategy: str
    restart: str
    states: dict[str, int]
    restarts: Mapping[str, int]
    mailbox: int = 0
    oldest: float = 0.0
    children: int | None = None
    intensity: float | None = None

    @property
    def info(self) -> dict[str, str]:
        return {
            "path": self.path,
            "parent": self.parent,
            "kind": self.kind,
            "strategy": self.strategy,
            "restart": self.restart,
        }


Sampled: TypeAlias = Iterator[tuple[dict[str, str], float]]


def tree_families(root: Node) -> list[Metric]:
    """Return the families that show the tree itself, from one walk over a snapshot; their samples can be read once.

    Never switches.
    """
    rows: dict[str, _Row] = {}
    _walk(rows, root)

    def info() -> Sampled:
        for actor, row in rows.items():
            yield {"actor": actor, **row.info}, 1

    def state() -> Sampled:
        for actor, row in rows.items():
            for name in STATES:
                yield {"actor": actor, "state": name}, row.states.get(name, 0)

    def restarts() -> Sampled:
        for actor, row in rows.items():
            for reason in RESTART_REASONS:
                yield {"actor": actor, "reason": reason}, row.restarts.get(reason, 0)

    def each(read: Callable[[_Row], float | None]) -> Sampled:
        for actor, row in rows.items():
            value = read(row)
            if value is not None:
                yield {"actor": actor}, value

    return [
        _family("actor", "_info", "info", "the supervision tree: one series per actor, and per kind of child", info()),
        _family("actor_state", "", "gauge", "how many actors of this name are in a state", state()),
        _family("actor_restarts", "_total", "counter", "restarts by why the actor had ended", restarts()),
        _family("mailbox_messages", "", "gauge", "messages that wait", each(lambda row: row.mailbox)),
        _family(
            "mailbox_oldest_timestamp_seconds",
            "",
            "gauge",
            "unix time since when the oldest message waits, 0 when none does",
            each(lambda row: row.oldest),
        ),
        _family(
            "supervisor_intensity_ratio",
            "",
            "gauge",
            "restarts in the window as a share of those allowed; over 1 the supervisor gives up",
            each(lambda row: row.intensity),
        ),
        _family("supervisor_children", "", "gauge", "children of a supervisor", each(lambda row: row.children)),
    ]


def _family(name: str, suffix: str, kind: str, text: str, values: Sampled) -> Metric:
    metric = Metric(PREFIX + name, text, kind)
    full = PREFIX + name + suffix
    metric.samples = cast("list[Sample]", (Sample(full, labels, value) for labels, value in values))
    return metric


def _walk(rows: dict[str, _Row], root: Node) -> None:
    # a stack of its own: a tree may be deeper than the interpreter's recursion allows
    todo: list[tuple[Node, str, str | None]] = [(root, "", None)]
    while todo:
        node, parent, shared = todo.pop()
        label = shared or node.name or node.path
        row = rows.get(label)
        if row is None:
            path = node.path if shared is None else shared
            state, restarts = {node.state: 1}, node.restarts
            row = _Row(path, parent, node.kind, node.strategy or "", node.restart or "", state, restarts)
            rows[label] = row
        else:
            row.states[node.state] = row.states.get(node.state, 0) + 1
            row.restarts = {
                reason: row.restarts.get(reason, 0) + node.restarts.get(reason, 0) for reason in RESTART_REASONS
            }
        row.mailbox += node.mailbox
        if node.mailbox_oldest_wall is not None:
            row.oldest = min(row.oldest or node.mailbox_oldest_wall, node.mailbox_oldest_wall)
        if node.kind == "supervisor":
            row.children = (row.children or 0) + len(node.children) + node.omitted
            row.intensity = max(row.intensity or 0.0, node.intensity or 0.0)
        below = f"{label}/*" if shared is None and is_dynamic(node) else shared
        todo.extend((child, label, below) for child in reversed(node.children))


def is_dynamic(node: Node) -> bool:
    """Tell whether the children of a supervisor come and go with the load. Never switches."""
    return node.strategy == "dynamic"
