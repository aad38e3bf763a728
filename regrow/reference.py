"""Writes the pages of `docs` that are made from the code: `python -m regrow.reference docs`.

configuration.md from the schema of the configuration, metrics.md from the instruments. `make docs` runs it, and a test
compares the pages with the code.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from config.reference import reference
from regrow import daemon
from runtime import measure
from runtime.edge.metrics import PREFIX, tree_families
from runtime.introspect import Node

INTRODUCTION = """\
# Metrics

What `/metrics` shows, made from the code by `make docs`. The label `actor` is a configured name or the path of an actor
without one, never an id; every series of a configured actor exists from the start. Figures of the process itself have
prometheus_client's own names (`process_resident_memory_bytes` and so on).

| metric | kind | labels | |
| --- | --- | --- | --- |
"""
# Made at the scrape itself, from no instrument.
ALWAYS = [
    ("build_info", "info", ("version", "python", "gevent"), "what runs"),
    ("process_start_time_seconds", "gauge", (), "when this process began to serve, in unix time"),
    ("measure_overflows_total", "counter", ("instrument",), "writes beyond the bound of series of an instrument"),
]


def metrics_page() -> str:
    """Return the page of all metrics, sorted by name. Never switches."""
    rows = [
        f"| `{PREFIX}{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {text} |"
        for name, kind, labels, text in sorted([*ALWAYS, *_of_the_tree(), *_of_instruments()])
    ]
    return INTRODUCTION + "\n".join(rows) + "\n"


def _of_instruments() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    for family in measure.snapshot():
        yield family.name, family.kind, family.labels, family.help


def _of_the_tree() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    root = Node(
        name="root",
        path="root",
        kind="supervisor",
        type=None,
        strategy="one_for_one",
        restart=None,
        state="running",
        restarts={},
        mailbox=0,
        mailbox_oldest_wall=None,
        handled=0,
        incarnation=None,
        since_wall=0.0,
        why=None,
        retry_in_s=None,
        last_reason=None,
        crash_id=None,
        intensity=0.0,
    )
    for metric in tree_families(root):
        sample = next(iter(metric.samples))
        yield sample.name.removeprefix(PREFIX), metric.type, tuple(sample.labels), metric.documentation


def main(folder: Path) -> None:
    """Write the pages into a folder. Never switches."""
    (folder / "configuration.md").write_text(reference(daemon.configuration_schema()))
    (folder / "metrics.md").write_text(metrics_page())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
