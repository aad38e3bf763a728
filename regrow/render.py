"""The tree as text: one line an actor, for the banner and `regrow tree`; input is the JSON of `/tree`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

COLOURS = {"running": "32", "starting": "36", "waiting": "33", "restarting": "33", "suspended": "35", "failed": "31"}
MAX_NOTE_CHARS = 100
NOTE_KEYS = ("state", "circuit", "pid", "calls", "queue", "in_flight", "idle", "workers", "clients")


def render_tree(root: Mapping[str, Any], *, colour: bool) -> str:
    """Return the tree, an actor a line: name, state, restarts, waiting messages, and why where something is wrong."""
    rows = [_row(prefix, node) for prefix, node in _walk(root)]
    width = max(len(row[0]) for row in rows)
    states = max(len(row[1]) for row in rows)
    lines = []
    for left, state, numbers, note in rows:
        shown = state.ljust(states)
        if colour and state in COLOURS:
            shown = f"\x1b[{COLOURS[state]}m{shown}\x1b[0m"
        lines.append(f"{left.ljust(width)}  {shown}  {numbers}{note}".rstrip())
    return "\n".join(lines)


def _walk(root: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    todo: list[tuple[str, str, Mapping[str, Any]]] = [("", "", root)]
    while todo:
        own, below, node = todo.pop()
        yield own, node
        children: Sequence[Mapping[str, Any]] = node.get("children", ())
        for index in range(len(children) - 1, -1, -1):
            last = index == len(children) - 1
            todo.append((below + ("`- " if last else "|- "), below + ("   " if last else "|  "), children[index]))


def _row(prefix: str, node: Mapping[str, Any]) -> tuple[str, str, str, str]:
    name = str(node.get("path", "")).rpartition("/")[2]
    if node.get("kind") == "supervisor" and node.get("strategy"):
        name += f" ({node['strategy']})"
    numbers = []
    if node.get("restarts"):
        numbers.append(f"{node['restarts']} restart{'s' if node['restarts'] != 1 else ''}")
    if node.get("mailbox"):
        numbers.append(f"{node['mailbox']} waiting")
    return prefix + name, str(node.get("state", "")), ", ".join(numbers), _note(node, bool(numbers))


def _note(node: Mapping[str, Any], follows: bool) -> str:
    parts = []
    if node.get("why"):
        parts.append(str(node["why"]))
    elif node.get("restarts") and node.get("last_reason"):
        since = dt.datetime.fromtimestamp(node.get("since", 0)).astimezone().strftime("%H:%M:%S")
        parts.append(f"last: {node['last_reason']} ({since})")
    detail = node.get("detail", {})
    parts += [f"{key}={detail[key]}" for key in NOTE_KEYS if key in detail and not isinstance(detail[key], dict | list)]
    if node.get("omitted"):
        parts.append(f"{node['omitted']} more children")
    text = "; ".join(parts)
    text = text if len(text) <= MAX_NOTE_CHARS else text[: MAX_NOTE_CHARS - 3] + "..."
    return f"{'; ' if follows and text else ''}{text}"
