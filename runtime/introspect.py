"""The tree as it stands: what `/tree`, the metrics and the command line show of every actor.

A snapshot never changes afterwards. Taken at once it is of one instant. With a `Pace` it lets others run in between, as
20,000 actors would hold up the hub for a tenth of a second and more: then each actor is shown as it was at its turn,
below the supervisor that had it when its own turn began. Supervisors tell of their children through `child_facts`, so
this module knows nothing of supervision. Dynamic supervisors may have a million children: at most MAX_DYNAMIC of each
are listed, `omitted` counts the rest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import gevent
import msgspec

from config.secret import redact
from runtime import clock
from runtime.ref import Ref
from runtime.scheduler import DEAD

MAX_DYNAMIC = 1000
SLICE_S = 0.002
SHORTEST_S = 1e-6
_log = logging.getLogger("regrow.introspect")


class Pace:
    """Called once for each of many small steps of a long piece of work; after every slice of it others get their turn.

    For a greenlet only. Switches greenlets.
    """

    __slots__ = ("_began", "_steps")

    def __init__(self) -> None:
        self._steps = 0
        self._began = time.monotonic()

    def __call__(self) -> None:
        self._steps += 1
        if not self._steps % 16 and time.monotonic() - self._began > SLICE_S:
            # a sleep of 0 comes back up to a thousand times before anybody looks at sockets and timers
            gevent.sleep(SHORTEST_S)
            self._began = time.monotonic()


@dataclass(frozen=True, slots=True)
class ChildFacts:
    """What a supervisor knows of one child; `ref` is None while it has no actor. Times are unix seconds."""

    label: str
    name: str | None
    kind: str
    restart: str
    state: str
    restarts: Mapping[str, int]
    since_wall: float
    why: str | None = None
    retry_in_s: float | None = None
    last_reason: str | None = None
    crash_id: str | None = None
    ref: Ref | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """One actor, or the place of one that is not running. `state` is one of starting, running, waiting, restarting,
    suspended, failed, stopped; `type` is the actor's class; `detail` what the actor itself tells.
    """

    name: str | None
    path: str
    kind: str
    type: str | None
    strategy: str | None
    restart: str | None
    state: str
    restarts: Mapping[str, int]
    mailbox: int
    mailbox_oldest_wall: float | None
    handled: int
    incarnation: int | None
    since_wall: float
    why: str | None
    retry_in_s: float | None
    last_reason: str | None
    crash_id: str | None
    intensity: float | None
    detail: Mapping[str, Any] = field(default_factory=dict)
    omitted: int = 0
    children: tuple[Node, ...] = ()

    def walk(self) -> Iterator[Node]:
        """Yield this node and all below it, each parent before its children. Never switches."""
        todo = [self]
        while todo:
            node = todo.pop()
            yield node
            todo.extend(reversed(node.children))

    def to_json(self) -> dict[str, Any]:
        """Return the node and what is below it as JSON-safe values, absent facts left out. Never switches."""
        body = self._facts()
        body["children"] = [child.to_json() for child in self.children]
        return body

    def encode(self, pace: Pace) -> bytes:
        """Return what `to_json` returns as text, at that pace. Switches greenlets."""
        own = msgspec.json.encode(self._facts(), enc_hook=str)
        pace()
        below = b",".join([child.encode(pace) for child in self.children])
        return own[:-1] + b',"children":[' + below + b"]}"

    def _facts(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "name": self.name or self.path.rpartition("/")[2],
            "path": self.path,
            "kind": self.kind,
            "type": self.type,
            "state": self.state,
            "restarts": sum(self.restarts.values()),
            "mailbox": self.mailbox,
            "handled": self.handled,
            "since": self.since_wall,
        }
        for key in ("strategy", "restart", "why", "retry_in_s", "last_reason", "crash_id", "incarnation", "intensity"):
            value = getattr(self, key)
            if value is not None:
                body[key] = value
        if self.detail:
            body["detail"] = dict(self.detail)
        if self.omitted:
            body["omitted"] = self.omitted
        return body


def snapshot(root: Ref, label: str = "root", pace: Pace | None = None) -> Node:
    """Return the tree below a supervisor as of now. Switches greenlets only at a pace."""
    state = "stopped" if root.state == DEAD else root.state_name
    facts = ChildFacts(label, root.name, "supervisor", "", state, {}, clock.wall(), ref=root)
    return _node(facts, label, pace)


def _node(facts: ChildFacts, path: str, pace: Pace | None) -> Node:
    if pace is not None:
        pace()
    ref = facts.ref
    actor = ref.actor if ref is not None else None
    detail: dict[str, Any] = {}
    below: tuple[Node, ...] = ()
    omitted = 0
    strategy: str | None = None
    intensity: float | None = None
    state = facts.state
    if actor is not None and ref is not None:
        detail = _status(actor, path)
        if facts.kind == "supervisor" and hasattr(actor, "child_facts"):
            strategy = str(detail.pop("strategy", ""))
            intensity = detail.pop("intensity", None)
            children, omitted = actor.child_facts(MAX_DYNAMIC)
            below = tuple([_node(child, f"{path}/{child.label}", pace) for child in children])
        elif detail.get("state") == "waiting" and state == "running":
            state = "waiting"
    extras = ref.extras if ref is not None else None
    age_s = extras.oldest_age_s() if extras is not None else None
    return Node(
        name=facts.name,
        path=path,
        kind=facts.kind,
        type=ref.actor_class.__name__ if ref is not None else None,
        strategy=strategy,
        restart=facts.restart or None,
        state=state,
        restarts=facts.restarts,
        mailbox=ref.queued if ref is not None else 0,
        mailbox_oldest_wall=None if age_s is None else clock.wall() - age_s,
        handled=ref.handled if ref is not None else 0,
        incarnation=ref.serial if ref is not None else None,
        since_wall=facts.since_wall,
        why=facts.why,
        retry_in_s=facts.retry_in_s,
        last_reason=facts.last_reason,
        crash_id=facts.crash_id,
        intensity=intensity,
        detail=detail,
        omitted=omitted,
        children=below,
    )


def _status(actor: Any, path: str) -> dict[str, Any]:
    try:
        return {key: _masked(value) for key, value in actor.status().items()}
    except Exception:  # noqa: BLE001 - an edge: one actor's broken status must not hide the tree
        _log.exception("the status of an actor failed", extra={"event": "status.failed", "path": path})
        return {"error": "its status failed"}


def _masked(value: Any) -> Any:
    """The value without secrets: a user's status may repeat what configuration gave it."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: _masked(each) for key, each in value.items()}
    return [_masked(each) for each in value] if isinstance(value, list | tuple) else value


def find_facts(root: Ref, labels: list[str]) -> ChildFacts | None:
    """Follow ids down from the root and return the first place that has no actor, else the last one. Never switches."""
    ref = root
    facts: ChildFacts | None = None
    for label in labels:
        actor = ref.actor
        facts = actor.child_fact(label) if actor is not None and hasattr(actor, "child_fact") else None
        if facts is None or facts.ref is None:
            return facts
        ref = facts.ref
    return facts
