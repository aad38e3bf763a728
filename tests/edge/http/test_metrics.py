"""Scrapes: the right families, valid in both formats, and a hub that goes on while they are rendered."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from regrow.protocol.errors import Overloaded
from runtime.edge import metrics
from runtime.edge.metrics import Metrics
from runtime.introspect import Node
from runtime.measure import Counter, Gauge, Histogram, Instrument

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
Found = dict[tuple[str, frozenset[tuple[str, str]]], float]


def node(path: str, name: str | None = None, kind: str = "worker", **facts: Any) -> Node:
    given: dict[str, Any] = {
        "type": "Thing",
        "strategy": None,
        "restart": "permanent",
        "state": "running",
        "restarts": {},
        "mailbox": 0,
        "mailbox_oldest_wall": None,
        "handled": 0,
        "incarnation": 1,
        "since_wall": 0.0,
        "why": None,
        "retry_in_s": None,
        "last_reason": None,
        "crash_id": None,
        "intensity": None,
        **facts,
    }
    return Node(name=name, path=path, kind=kind, **given)


def a_tree() -> Node:
    limiter = node("root/integrations/github/limiter", "github/limiter", mailbox=3, mailbox_oldest_wall=100.0)
    github = node("root/github", "github", "supervisor", strategy="one_for_one", intensity=0.5, children=(limiter,))
    users = (
        node("root/users/1", mailbox=1, mailbox_oldest_wall=51.0, state="restarting", restarts={"crashed": 2}),
        node("root/users/2", mailbox=2, mailbox_oldest_wall=52.0),
        node("root/users/3", mailbox=3),
    )
    dynamic = node("root/users", "users", "supervisor", strategy="dynamic", omitted=40, children=users)
    parked = node("root/db", "db", state="failed", restarts={"crashed": 4, "killed": 1})
    below = (github, dynamic, parked)
    return node("root", None, "supervisor", strategy="one_for_one", restart=None, children=below)


@pytest.fixture
def registry() -> list[Instrument]:
    return []


@pytest.fixture
def rendering(registry: list[Instrument]) -> Iterator[Metrics]:
    made = Metrics(a_tree, version="1.2.3", registry=registry)
    yield made
    made.close()


def found(rendering: Metrics, accept: str = "") -> Found:
    rendered = rendering.render(accept)
    parse = parse_openmetrics if accept else parse_prometheus
    families = list(parse(rendered.body.decode()))
    assert families
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(found: Found, name: str, **labels: str) -> float:
    return found["regrow_" + name, frozenset(labels.items())]


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_instruments_are_shown_with_prefix_labels_and_values_in_both_formats(
    rendering: Metrics, registry: list[Instrument], accept: str
) -> None:
    Counter("calls_total", 'calls "of"\nall \\ kinds', ("actor", "outcome"), registry=registry).inc("a", "ok", by=3)
    Gauge("clients", "who is here", registry=registry).set(7)
    histogram = Histogram("wait_seconds", "waits", ("actor",), buckets=(0.1, 1.0), registry=registry)
    for wait in (0.05, 0.5, 0.5, 3.0):
        histogram.observe(wait, "a")
    seen = found(rendering, accept)
    assert value(seen, "calls_total", actor="a", outcome="ok") == 3
    assert value(seen, "clients") == 7
    assert [value(seen, "wait_seconds_bucket", actor="a", le=le) for le in ("0.1", "1.0", "+Inf")] == [1, 3, 4]
    assert value(seen, "wait_seconds_count", actor="a") == 4
    assert value(seen, "wait_seconds_sum", actor="a") == pytest.approx(4.05)


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_label_values_of_any_text_survive(rendering: Metrics, registry: list[Instrument], accept: str) -> None:
    nasty = 'a"b\\c\nd\u00fc{}='
    Counter("calls_total", "calls", ("actor",), registry=registry).inc(nasty)
    assert value(found(rendering, accept), "calls_total", actor=nasty) == 1


def test_help_and_type_stand_before_the_samples(rendering: Metrics, registry: list[Instrument]) -> None:
    Counter("calls_total", "calls made", registry=registry)
    text = rendering.render().body.decode()
    assert "# HELP regrow_calls_total calls made\n# TYPE regrow_calls_total counter\nregrow_calls_total 0.0\n" in text


def test_the_format_follows_accept(rendering: Metrics) -> None:
    plain, open_ = rendering.render("text/html"), rendering.render(OPENMETRICS + ", text/plain;q=0.5")
    assert plain.content_type.startswith("text/plain; version=0.0.4")
    assert open_.content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert open_.body.endswith(b"# EOF\n")
    assert b"# EOF" not in plain.body


def test_a_compressed_scrape_is_the_same_text(rendering: Metrics, registry: list[Instrument]) -> None:
    Counter("calls_total", "calls made", registry=registry).inc()
    rendered = rendering.render("", "br, gzip")
    assert rendered.encoding == "gzip"
    assert b"regrow_calls_total 1.0\n" in gzip.decompress(rendered.body)


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_the_tree_itself_is_in_the_metrics(rendering: Metrics, accept: str) -> None:
    seen = found(rendering, accept)
    about = {"path": "root/integrations/github/limiter", "parent": "github", "kind": "worker", "strategy": ""}
    assert value(seen, "actor_info", actor="github/limiter", restart="permanent", **about) == 1
    about = {"path": "root", "parent": "", "kind": "supervisor", "strategy": "one_for_one", "restart": ""}
    assert value(seen, "actor_info", actor="root", **about) == 1
    assert value(seen, "mailbox_messages", actor="github/limiter") == 3
    assert value(seen, "mailbox_oldest_timestamp_seconds", actor="github/limiter") == 100
    assert value(seen, "mailbox_oldest_timestamp_seconds", actor="db") == 0


def test_every_actor_has_every_state_and_restart_reason_from_the_start(rendering: Metrics) -> None:
    seen = found(rendering)
    for actor in ("root", "github", "github/limiter", "users", "db"):
        states = {state: value(seen, "actor_state", actor=actor, state=state) for state in metrics.STATES}
        assert sum(states.values()) == 1
        assert states["failed" if actor == "db" else "running"] == 1
    assert value(seen, "actor_restarts_total", actor="github", reason="crashed") == 0
    assert value(seen, "actor_restarts_total", actor="db", reason="killed") == 1


def test_a_supervisor_shows_its_children_and_its_restart_intensity(rendering: Metrics) -> None:
    seen = found(rendering)
    assert value(seen, "supervisor_children", actor="root") == 3
    assert value(seen, "supervisor_children", actor="users") == 43
    assert value(seen, "supervisor_intensity_ratio", actor="github") == 0.5
    assert value(seen, "supervisor_intensity_ratio", actor="root") == 0
    assert ("regrow_supervisor_children", frozenset({("actor", "db")})) not in seen


def test_dynamic_children_are_summed_under_one_name(rendering: Metrics) -> None:
    seen = found(rendering)
    assert value(seen, "mailbox_messages", actor="users/*") == 6
    assert value(seen, "mailbox_oldest_timestamp_seconds", actor="users/*") == 51
    assert value(seen, "actor_state", actor="users/*", state="running") == 2
    assert value(seen, "actor_state", actor="users/*", state="restarting") == 1
    assert value(seen, "actor_restarts_total", actor="users/*", reason="crashed") == 2
    assert not [key for key in seen if any("root/users/" in label for _, label in key[1])]


def test_a_deep_tree_is_walked(registry: list[Instrument]) -> None:
    root = node("n4999")
    for n in reversed(range(4999)):
        root = node(f"n{n}", children=(root,))
    made = Metrics(lambda: root, version="1", registry=registry)
    assert value(found(made), "mailbox_messages", actor="n4999") == 0
    made.close()


def test_the_build_the_start_and_the_process_are_shown(rendering: Metrics) -> None:
    before = time.time()
    seen = found(rendering)
    (build,) = [dict(labels) for name, labels in seen if name == "regrow_build_info"]
    assert build["version"] == "1.2.3"
    assert before - 60 < value(seen, "process_start_time_seconds") <= time.time()
    assert seen["process_resident_memory_bytes", frozenset()] > 10_000_000


def test_a_scrape_takes_one_snapshot_of_the_tree(registry: list[Instrument]) -> None:
    taken: list[Node] = []

    def tree() -> Node:
        taken.append(a_tree())
        return taken[-1]

    made = Metrics(tree, version="1", registry=registry)
    made.render()
    made.close()
    assert len(taken) == 1


def test_a_tree_that_cannot_be_read_is_left_out_and_counted(registry: list[Instrument]) -> None:
    def broken() -> Any:
        raise RuntimeError("no tree")

    before = metrics.ERRORS.value("tree")
    Counter("calls_total", "calls", registry=registry).inc()
    made = Metrics(broken, version="1", registry=registry)
    seen = found(made)
    made.close()
    assert value(seen, "calls_total") == 1
    assert metrics.ERRORS.value("tree") == before + 1


def test_an_instrument_at_its_bound_says_so(rendering: Metrics, registry: list[Instrument]) -> None:
    counter = Counter("calls_total", "calls", ("path",), max_series=1, registry=registry)
    for path in "abc":
        counter.inc(path)
    seen = found(rendering)
    assert value(seen, "measure_overflows_total", instrument="calls_total") == 2
    assert value(seen, "calls_total", path="overflow") == 2


def test_a_scrape_counts_itself(rendering: Metrics) -> None:
    scrapes, seconds = metrics.SCRAPES.value("ok"), metrics.RENDER.count()
    rendering.render()
    assert metrics.SCRAPES.value("ok") == scrapes + 1
    assert metrics.RENDER.count() == seconds + 1


def test_too_many_scrapes_at_once_are_refused_and_counted(rendering: Metrics) -> None:
    before = metrics.SCRAPES.value("refused")
    running = [gevent.spawn(rendering.render) for _ in range(metrics.MAX_WAITING)]
    gevent.sleep(0)
    with pytest.raises(Overloaded, match="scrapes wait already"):
        rendering.render()
    assert all(b"regrow_build_info" in each.get(timeout=30).body for each in running)
    assert metrics.SCRAPES.value("refused") == before + 1
    rendering.render()


def test_the_hub_goes_on_while_ten_thousand_series_are_rendered(rendering: Metrics, registry: list[Instrument]) -> None:
    counter = Counter("calls_total", "calls", ("actor", "outcome"), registry=registry)
    gauge = Gauge("clients", "clients", ("actor",), registry=registry)
    histogram = Histogram("wait_seconds", "waits", ("actor",), registry=registry)
    for n in range(1000):
        for outcome in ("ok", "failed", "refused", "crashed", "expired"):
            counter.declare(f"actor{n}", outcome)
        for kind in range(4):
            gauge.set(n, f"actor{n}-{kind}")
        histogram.declare(f"actor{n}")
    gaps: list[float] = []

    def tick() -> None:
        at = time.perf_counter()
        while True:
            gevent.sleep(0.001)
            gaps.append(time.perf_counter() - at)
            at = time.perf_counter()

    rendering.render()
    ticking = gevent.spawn(tick)
    gevent.sleep(0.01)
    best, body = 1.0, b""
    for _ in range(5):  # the machine is shared: what the best of five reaches, the code can do
        gaps.clear()
        body = rendering.render().body
        best = min(best, max(gaps))
    ticking.kill()
    assert body.count(b"\n") > 10_000
    assert len(gaps) > 5
    assert best < 0.020
