"""The root tree of the daemon, on one screen: what is started in which order under which supervisor.

    root (one_for_one)
    |- integrations    one supervisor for each [integrations.*], made from its plan
    |- actors          one supervisor for each [actors.*], around the user's class, or its instances and their front
    |- gateway         ZeroMQ
    `- http            metrics, tree, health

Children stop in reverse: first the doors, then the work. An entry's supervisor that gives up is parked and retried, and
the daemon lives, unless the entry says `on_give_up = "escalate"`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from actors.hosted.process import ProcessActor
from actors.hosted.thread import ThreadActor
from actors.partitioned import PartitionedActor, name_of_instance
from actors.seam import Context, Integration, Plan
from config.load import Config
from config.schema import ActorEntry, Supervised
from runtime import telemetry
from runtime.actor import DEFAULT_TIMEOUT_S
from runtime.directory import Directory, Entry
from runtime.exports import exports_of
from runtime.introspect import ChildFacts, find_facts
from runtime.ref import Ref, spawn
from supervisors import Backoff, ChildSpec, PartitionSupervisor, Supervisor

PARK = Backoff(base_s=1.0, max_s=300.0, jitter=0.25, reset_after_s=600.0)
ROOT_RESTARTS, ROOT_SECONDS = 3, 5
# An actor that hangs in __init__ or on_start would hold up all that start after it, so its start has failed by then.
START_TIMEOUT_S = 60.0
# The front of several instances has nothing to clean up.
FRONT_SHUTDOWN_S = 5.0


class Tree:
    """The root's child specs and the directory of what they will serve; `root` is set once it has been started."""

    def __init__(self, config: Config, integrations: Mapping[str, Integration]) -> None:
        self.config = config
        self.directory = Directory()
        self.root: Ref | None = None
        context = Context(
            state_dir=config.daemon.state_dir,
            config_dir=config.folder,
            redis_url=config.daemon.redis,
            daemon_name=config.daemon.name,
        )
        self._entries: dict[str, list[ChildSpec]] = {"integrations": [], "actors": []}
        for name, entry in config.integrations.items():
            plan = integrations[entry.type].plan(name, entry.config, context)
            self._add_integration(name, entry.type, entry.config, plan)
        for name, actor in config.actors.items():
            self._add_actor(name, actor, config.classes[name])

    def specs(self, doors: Sequence[ChildSpec]) -> list[ChildSpec]:
        """Return the root's children: the entries, then the `doors` by which the outside comes in. Never switches."""
        groups = [group_spec(group, children) for group, children in self._entries.items()]
        return [*groups, *doors]

    def start(self, doors: Sequence[ChildSpec]) -> Ref:
        """Start the whole tree and return the root. Raises what a door's start raised. Switches greenlets."""
        flags = {"max_restarts": ROOT_RESTARTS, "max_seconds": ROOT_SECONDS}
        self.root = spawn(Supervisor, (self.specs(doors),), flags, label="root")
        return self.root

    def failing(self) -> dict[str, str]:
        """Return the entries that cannot be reached now, each with its state. Never switches."""
        return {entry.name: entry.state for entry in self.directory.entries() if entry.ref is None}

    def _add_integration(self, name: str, kind: str, config: Any, plan: Plan) -> None:
        telemetry.declare(name)
        for child in plan.children:
            child.measured = True
            child.start_timeout_s = START_TIMEOUT_S
            child.backoff = child.backoff or backoff_of(config)
            child.depends_on = child.depends_on or tuple(config.depends_on)
            child.on_dependency_down = config.on_dependency_down
            if child.name == name:
                child.exports = plan.exports
                where = partial(self._where, ["integrations", name, str(child.id)])
                self.directory.add(Entry(name, "integration", plan.exports, plan.timeout_s, where, type=kind))
        self._entries["integrations"].append(entry_spec(name, config, plan.children))

    def _add_actor(self, name: str, entry: ActorEntry, actor_class: Any) -> None:
        exports = exports_of(actor_class)
        timeout_s = float(entry.timeout) if entry.timeout is not None else actor_class.timeout or DEFAULT_TIMEOUT_S
        start, kwargs = front_of(entry, actor_class)
        child = ChildSpec(
            name,
            start,
            kwargs=kwargs,
            name=name,
            restart=entry.restart,
            shutdown=entry.shutdown if isinstance(entry.shutdown, str) else float(entry.shutdown),
            mailbox=actor_class.mailbox if entry.mailbox is None else entry.mailbox,
            timeout_s=timeout_s,
            start_timeout_s=float(entry.start_timeout),
            backoff=backoff_of(entry),
            measured=True,
            exports=exports,
            depends_on=entry.depends_on,
            on_dependency_down=entry.on_dependency_down,
        )
        if entry.instances == 1:
            self.directory.add(Entry(name, "actor", exports, timeout_s, partial(self._where, ["actors", name, name])))
            self._entries["actors"].append(entry_spec(name, entry, [child]))
            return
        where = partial(self._where, ["actors", name, "0"])
        parts = [name_of_instance(name, instance) for instance in range(entry.instances)]
        self.directory.add(Entry(name, "actor", exports, timeout_s, where, parts=parts))
        self._entries["actors"].append(partitioned_spec(name, entry, child))

    def _where(self, labels: list[str]) -> ChildFacts | None:
        return None if self.root is None else find_facts(self.root, labels)


def front_of(entry: ActorEntry, actor_class: Any) -> tuple[Any, dict[str, Any]]:
    """Return the class that is started for a configured actor, and its arguments. Never switches."""
    if entry.run_in == "process":
        return ProcessActor, {"actor_class": entry.class_, "args": entry.args, "exports": exports_of(actor_class)}
    if entry.run_in == "thread":
        return ThreadActor, {"actor_class": actor_class, "args": entry.args}
    return actor_class, entry.args


def entry_spec(name: str, config: Supervised, children: Sequence[ChildSpec]) -> ChildSpec:
    """Return the spec of one configured entry's own supervisor. Never switches."""
    return ChildSpec(
        name,
        Supervisor,
        args=(list(children),),
        kwargs={"max_restarts": config.max_restarts, "max_seconds": float(config.max_seconds)},
        park=PARK if config.on_give_up == "park" else None,
    )


def partitioned_spec(name: str, entry: ActorEntry, child: ChildSpec) -> ChildSpec:
    """Return the spec of the supervisor of an entry with several instances of `child`. Never switches."""
    front = child.copy()
    front.start = PartitionedActor
    front.kwargs = {"name": name, "instances": entry.instances, "key": entry.key, "exports": child.exports}
    front.restart, front.depends_on, front.shutdown = "permanent", (), FRONT_SHUTDOWN_S
    return ChildSpec(
        name,
        PartitionSupervisor,
        args=(child,),
        kwargs={
            "partitions": entry.instances,
            "beside": [front],
            "max_restarts": entry.max_restarts,
            "max_seconds": float(entry.max_seconds),
        },
        park=PARK if entry.on_give_up == "park" else None,
    )


def group_spec(name: str, children: Sequence[ChildSpec]) -> ChildSpec:
    """Return the spec of a supervisor over entries, each of which is independent of the others. Never switches."""
    return ChildSpec(
        name, Supervisor, args=(list(children),), kwargs={"max_restarts": ROOT_RESTARTS, "max_seconds": ROOT_SECONDS}
    )


def backoff_of(config: Supervised) -> Backoff:
    """Return the restart back-off that an entry's configuration asks for. Never switches."""
    table = config.backoff
    return Backoff(float(table.base), float(table.max), float(table.jitter), float(table.reset_after))
