"""The tree, crash reports and health as text, for the banner and the command line; input is the JSON of HTTP."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COLOURS = {"running": "32", "starting": "36", "waiting": "33", "restarting": "33", "suspended": "35", "failed": "31"}
MAX_NOTE_CHARS = 160
NOTE_KEYS = (
    "state",
    "circuit",
    "disabled_s",
    "pid",
    "calls",
    "queue",
    "in_flight",
    "idle",
    "workers",
    "instances",
    "clients",
)
ALIKE = 3
"""So many siblings in a row that tell the same become one line."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a tree before its columns are aligned."""

    name: str
    state: str
    facts: str


def render_tree(root: Mapping[str, Any], *, colour: bool, collapse: bool = True) -> str:
    """Return the tree, an actor a line: name, state, restarts, waiting messages, and why where something is wrong.

    With `collapse`, members of a pool that tell the same share a line. Never switches.
    """
    rows = list(_rows(root, collapse))
    width = max(len(row.name) for row in rows)
    states = max(len(row.state) for row in rows)
    lines = []
    for row in rows:
        shown = row.state.ljust(states)
        if colour and row.state in COLOURS:
            shown = f"\x1b[{COLOURS[row.state]}m{shown}\x1b[0m"
        lines.append(f"{row.name.ljust(width)}  {shown}  {row.facts}".rstrip())
    return "\n".join(lines)


def render_crash(report: Mapping[str, Any]) -> str:
    """Return a crash report as text, without the parts that it does not have. Never switches."""
    when = dt.datetime.fromtimestamp(report["at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    who = f"{report['actor']} ({report['class']}, incarnation {report['incarnation']})"
    lines = [
        f"crash {report['crash_id']} of {who} at {when}",
        f"  {report['reason']}: {report['message']}",
        f"  while it handled: {report['last_message']}",
    ]
    if "traceback" in report:
        lines.append(f"  {report['handled']} messages handled before, {report['mailbox']} waiting")
        lines += [f"  {line}" for line in str(report["traceback"]).rstrip().splitlines()]
    return "\n".join(lines)


def render_health(health: Mapping[str, Any]) -> str:
    """Return how an integration does: its circuit, its recent calls, its last error. Never switches."""
    circuit = health.get("circuit") or {}
    head = f"{health['name']}: {health['circuit_state'] or 'has no circuit breaker'}"
    if "disabled_s" in circuit:
        head += f", disabled for {circuit['disabled_s']:.0f} s"
    elif circuit.get("held"):
        head += f", held by hand for {circuit.get('retry_after_s', 0.0):.1f} s"
    elif "retry_after_s" in circuit:
        head += f", lets a probe go in {circuit['retry_after_s']:.1f} s"
    lines = [head]
    if "failures" in circuit:
        lines.append(f"  failures    {circuit['failures']} of {circuit['threshold']} in {circuit['window_s']:g} s")
    calls = f"{health['calls']} in the last {health['window_s']:g} s"
    if health["calls"]:
        p50, p99 = health["latency_p50"] * 1000, health["latency_p99"] * 1000
        calls += f", {health['success_rate']:.1%} of them well, p50 {p50:.3g} ms, p99 {p99:.3g} ms"
    lines.append(f"  calls       {calls}")
    if health["last_error"]:
        when = dt.datetime.fromtimestamp(health.get("last_error_at", 0)).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        lines.append(f"  last error  {health['last_error']} ({when})")
    return "\n".join(lines)


def _rows(root: Mapping[str, Any], collapse: bool) -> Iterator[Row]:
    todo: list[tuple[str, str, Sequence[Mapping[str, Any]]]] = [("", "", [root])]
    while todo:
        own, below, alike = todo.pop()
        yield _row(own, alike)
        children: Sequence[Mapping[str, Any]] = alike[0].get("children", ())
        groups = _groups(children) if collapse else [[child] for child in children]
        for index in range(len(groups) - 1, -1, -1):
            last = index == len(groups) - 1
            todo.append((below + ("`- " if last else "|- "), below + ("   " if last else "|  "), groups[index]))


def _groups(children: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Put neighbours that tell the same together: leaves whose names differ in their number only."""
    groups: list[list[Mapping[str, Any]]] = []
    before: object = None
    for child in children:
        stem, number = re.fullmatch(r"(.*?)(\d*)", _name(child)).groups()  # type: ignore[union-attr]
        same = (stem, child.get("state"), _facts(child)) if number and not child.get("children") else None
        if same is not None and same == before:
            groups[-1].append(child)
        else:
            groups.append([child])
        before = same
    return [part for group in groups for part in ([group] if len(group) >= ALIKE else [[child] for child in group])]


def _row(prefix: str, alike: Sequence[Mapping[str, Any]]) -> Row:
    node = alike[0]
    name = _name(node)
    if node.get("kind") == "supervisor" and node.get("strategy"):
        name += f" ({node['strategy']})"
    if len(alike) > 1:
        name += f" .. {_name(alike[-1])}"
    return Row(prefix + name, str(node.get("state", "")), _facts(node))


def _name(node: Mapping[str, Any]) -> str:
    return str(node.get("path", "")).rpartition("/")[2]


def _facts(node: Mapping[str, Any]) -> str:
    """Say what is known of an actor, what is always told first: the long reason at the end may be cut."""
    parts = []
    if node.get("restarts"):
        parts.append(f"{node['restarts']} restart{'s' if node['restarts'] != 1 else ''}")
    if node.get("mailbox"):
        parts.append(f"{node['mailbox']} waiting")
    detail = node.get("detail", {})
    told = {key: detail[key] for key in NOTE_KEYS if key in detail and not isinstance(detail[key], dict | list)}
    parts += [f"{key}={value}" for key, value in told.items() if (key, value) != ("state", node.get("state"))]
    if node.get("omitted"):
        parts.append(f"{node['omitted']} more children")
    if node.get("why"):
        parts.append(str(node["why"]))
    elif node.get("restarts") and node.get("last_reason"):
        since = dt.datetime.fromtimestamp(node.get("since", 0)).astimezone().strftime("%H:%M:%S")
        parts.append(f"since {since}, before: {node['last_reason']}")
    text = ", ".join(parts)
    return text if len(text) <= MAX_NOTE_CHARS else text[: MAX_NOTE_CHARS - 3] + "..."
