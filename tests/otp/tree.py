"""The processes of a scenario: workers that behave as their nodes say, under the supervisors of the daemon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gevent
from gevent.event import Event

from runtime import clock, signals
from runtime.actor import Actor
from runtime.reasons import NORMAL, Crashed, ExitReason, Ignore, Shutdown, StartFailed, Stop
from runtime.ref import Ref, spawn
from runtime.scheduler import current_ref
from runtime.signals import Exit
from supervisors import ChildSpec, DynamicSupervisor, Flags, Supervisor
from supervisors.spec import MISSING
from tests.otp.terms import RaisedByInit, RaisedByStartFunction, path_of, term

SLOW_S = 0.04
SIMPLE = "simple_one_for_one"

Node = Mapping[str, Any]


class Hold:
    """A point at which a process stops until the driver lets it go on."""

    def __init__(self) -> None:
        self.reached = Event()
        self.released = Event()

    def wait(self) -> None:
        self.reached.set()
        self.released.wait()


class Scene:
    """What the processes of one scenario share: who is who, what happened, what was started how often."""

    def __init__(self) -> None:
        self.refs: dict[str, Ref] = {}
        self.events: list[str] = []
        self.attempts: dict[str, int] = {}
        self.dynamic: set[str] = set()
        self.hold_start: dict[tuple[str, int], Hold] = {}
        self.hold_terminate: dict[str, Hold] = {}
        self.hanging: set[Ref] = set()  # workers that never finish to terminate

    def happened(self, event: str, path: str, reason: ExitReason | None = None) -> None:
        self.events.append(f"{event} {path}" if reason is None else f"{event} {path} {term(reason)}")

    def watch(self, path: str, ref: Ref) -> None:
        """Know the process under its path, and record its end."""
        self.refs[path] = ref
        signals.monitor(ref, lambda down: self.happened("exit", path, down.reason))

    def living(self, path: str) -> Ref | None:
        ref = self.refs.get(path)
        return ref if ref is not None and ref.is_alive() else None


class Leave:
    """Told to a worker: exit with this reason by yourself."""

    def __init__(self, reason: ExitReason) -> None:
        self.reason = reason


class PartFromSupervisor:
    """Told to a worker: remove the link to your supervisor."""


class Worker(Actor):
    """A worker as its node says."""

    mailbox = None
    timeout = None

    def __init__(self, scene: Scene, path: str, node: Node, outcome: str) -> None:
        super().__init__()
        self.scene = scene
        self.path = path
        self.behaviour = node.get("terminate", "ok")
        self.trap_exit = node.get("trap_exit", True)
        self.outcome = outcome
        self.leaving = False

    def on_start(self) -> None:
        if self.outcome == "crash":
            raise Stop(ExitReason("init_crash"))

    def on_receive(self, message: object) -> None:
        if isinstance(message, Leave):
            self.leaving = True
            raise Stop(message.reason)
        assert isinstance(message, PartFromSupervisor)
        assert self.ref.parent is not None
        signals.unlink(self.ref.parent)

    def on_exit(self, signal: Exit) -> None:
        self.scene.happened("signal", self.path, signal.reason)

    def on_terminate(self, reason: ExitReason) -> None:
        if self.leaving or not self.trap_exit:
            return
        self.scene.happened("terminate", self.path, reason)
        hold = self.scene.hold_terminate.pop(self.path, None)
        if hold is not None:
            hold.wait()
        match self.behaviour:
            case "crash":
                raise Stop(ExitReason("term_crash"))
            case "normal":
                raise Stop(NORMAL)
            case "shutdown_x":
                raise Stop(Shutdown("x"))
            case "slow":
                clock.sleep(SLOW_S)
            case "hang":
                self.scene.hanging.add(self.ref)
                gevent.sleep(float("inf"))


class OddSupervisor(Supervisor):
    """A supervisor whose init does what its node says: `ignore`, `bad_return`, `crash`, or raw flags."""

    def __init__(self, made: Any, children: Sequence[Any]) -> None:
        super().__init__(children)
        self.made = made

    def init(self) -> Any:
        if isinstance(self.made, BaseException):
            raise self.made
        return self.made


class OddDynamicSupervisor(DynamicSupervisor):
    """A dynamic supervisor whose init returns any number of templates."""

    def __init__(self, made: tuple[Flags, Sequence[Any]]) -> None:
        super().__init__()
        self.made = made

    def init(self) -> tuple[Flags, Sequence[Any]]:
        return self.made


def is_supervisor(node: Node) -> bool:
    return node.get("type") == "supervisor" or "children" in node or "strategy" in node


class Start:
    """The start function of one child."""

    def __init__(self, scene: Scene, path: str, node: Node) -> None:
        self.scene = scene
        self.path = path
        self.node = node

    def __call__(self) -> Any:
        scene, path = self.scene, self.path
        outcomes = self.node.get("start") or ["ok"]
        nth = scene.attempts[path] = scene.attempts.get(path, 0) + 1
        outcome = outcomes[min(nth, len(outcomes)) - 1]
        scene.happened("start", path)
        hold = scene.hold_start.pop((path, nth), None)
        if hold is not None:
            hold.wait()
        try:
            ref = self.run(outcome)
        except Ignore:
            scene.happened("ignored", path)
            raise
        except (StartFailed, Stop) as error:
            scene.happened("failed", path, error.reason)
            raise StartFailed(error.reason) from None
        except Exception as error:
            scene.happened("failed", path, Crashed(error))
            raise
        if not isinstance(ref, Ref):
            scene.happened("failed", path, ExitReason("bad_start", ref))
            return ref
        scene.happened("started", path)
        scene.watch(path, ref)
        return (ref, "info") if outcome == "ok_info" else ref

    def run(self, outcome: str) -> Any:
        match outcome:
            case "ignore":
                raise Ignore
            case "error":
                raise StartFailed(ExitReason("start_failed"))
            case "raise":
                raise RaisedByStartFunction("raised")
            case "bad_return":
                return "garbage"
        kind, args, kwargs = self.process(outcome)
        return spawn(kind, args, kwargs, parent=current_ref(), label=self.path.rpartition("/")[2])

    def process(self, outcome: str) -> tuple[type[Actor], tuple[Any, ...], dict[str, Any]]:
        """Return the class to start, and its arguments."""
        node = self.node
        if not is_supervisor(node):
            return Worker, (self.scene, self.path, node, outcome), {}
        children = node.get("children", [])
        options = {
            ours: node[theirs]
            for ours, theirs in (
                ("strategy", "strategy"),
                ("max_restarts", "intensity"),
                ("max_seconds", "period"),
                ("auto_shutdown", "auto_shutdown"),
            )
            if theirs in node
        }
        if node.get("strategy") == SIMPLE:
            self.scene.dynamic.add(self.path)
            specs: list[Any] = [template_of(self.scene, self.path, child) for child in children]
        else:
            specs = [spec_of(self.scene, self.path, child) for child in children]
        odd = self.oddity(outcome, Flags(**options), specs)
        if odd is not None:
            return OddSupervisor, (odd, specs), {}
        if node.get("strategy") != SIMPLE:
            return Supervisor, (specs,), options
        if len(specs) == 1:
            del options["strategy"]
            return DynamicSupervisor, (specs[0],), options
        return OddDynamicSupervisor, ((Flags(**options), specs),), {}

    def oddity(self, outcome: str, flags: Flags, specs: Sequence[Any]) -> Any:
        """Return what init returns or raises where the node asks for something special, else None."""
        del flags
        if outcome == "crash":
            return Stop(ExitReason("init_crash"))
        match self.node.get("init", "ok"):
            case "ignore":
                return Ignore()
            case "bad_return":
                return "bad"
            case "crash":
                return RaisedByInit("init_crash")
        return (self.node["flags"], specs) if "flags" in self.node else None


class StartDynamic:
    """The start function of a template: the name of the child and what differs for it come with each start."""

    def __init__(self, scene: Scene, supervisor: str, node: Node) -> None:
        self.scene = scene
        self.supervisor = supervisor
        self.node = node

    def __call__(self, name: str, behaviour: Node) -> Any:
        return Start(self.scene, f"{self.supervisor}/{name}", {**self.node, **behaviour})()


def spec_of(scene: Scene, supervisor: str, node: Any) -> Any:
    """Return the child spec of a node; whatever is wrong in it is passed on as it is."""
    if not isinstance(node, Mapping):
        return node
    return _spec(node, Start(scene, f"{supervisor}/{node.get('id')}", node))


def template_of(scene: Scene, supervisor: str, node: Any) -> Any:
    """Return the child spec of a template."""
    return _spec(node, StartDynamic(scene, supervisor, node)) if isinstance(node, Mapping) else node


def _spec(node: Node, start: Any) -> ChildSpec:
    omitted = node.get("omit", ())
    if isinstance(node.get("start"), str):  # no start function at all
        start = node["start"]
    shutdown = node.get("shutdown", MISSING)
    if isinstance(shutdown, int | float):
        shutdown /= 1000
    given = {key: node[key] for key in ("restart", "significant", "modules") if key in node}
    return ChildSpec(
        MISSING if "id" in omitted else node.get("id", MISSING),
        MISSING if "start" in omitted else start,
        type=node.get("type", "supervisor" if is_supervisor(node) else "worker"),
        shutdown=shutdown,
        **given,
    )


class Outside(Actor):
    """The parent of the root: a process that starts the tree and survives it."""

    mailbox = None
    timeout = None
    trap_exit = True

    def on_receive(self, message: Any) -> Any:
        """Run a start function; what it raises is returned, since a failed start must not end this process."""
        assert isinstance(message, Start)
        try:
            started = message()
        except (Ignore, StartFailed, RaisedByInit, RaisedByStartFunction) as error:
            return error
        return None if isinstance(started, Ref | tuple) else StartFailed(ExitReason("bad_start", started))


__all__ = ["SIMPLE", "Hold", "Leave", "Outside", "PartFromSupervisor", "Scene", "Start", "path_of", "spec_of"]
