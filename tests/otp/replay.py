"""Replays scenario files through the supervisors of the daemon: `python -m tests.otp.replay [--real-clock] FILE...`.

Prints a JSON list of {"name", "expect"} in the files' own format, so that any file of that format can be checked.
Nothing here knows supervision: a scenario's tree is started, its steps are done from outside, and what was seen is
written down.
"""

from __future__ import annotations

from gevent import monkey

if __name__ == "__main__":
    monkey.patch_all()

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import gevent

from regrow.testing import ManualClock
from runtime import events, scheduler
from runtime import sys as runtime_sys
from runtime.promise import ActorDied, ActorUnavailable, Promise
from runtime.reasons import Ignore, reason_of
from runtime.ref import Ref
from supervisors import SpecError, check_childspecs
from supervisors.dynamic import GroupOffender
from supervisors.supervisor import Request
from tests.otp.terms import answer, path_of, reason_from, term
from tests.otp.tree import Hold, Leave, Outside, PartFromSupervisor, Scene, Start, spec_of

MOST_S = 20.0  # a phase that takes longer hangs

Step = Mapping[str, Any]
_EXITS = ("exit", "terminate")


class Hung(Exception):
    """A phase never came to rest."""


class Time(Protocol):
    """The clock that a replay runs on."""

    def settle(self) -> None:
        """Return when nothing is ready to run."""

    def pass_some(self) -> None:
        """Let time pass, because a process is at work and waits for something."""

    def advance(self, seconds: float) -> None:
        """Let this much time pass."""

    def now(self) -> float: ...


class VirtualTime(ManualClock):
    """Time that passes only where a process waits for it, or a step says so."""

    def pass_some(self) -> None:
        if not self.advance_to_next():
            raise Hung("a process is at work, and no timer is set that could end that")


class RealTime:
    """The time of the wall."""

    def settle(self) -> None:
        gevent.idle()
        while scheduler.S.ready or scheduler.S.scheduled:
            gevent.idle()

    def pass_some(self) -> None:
        gevent.sleep(0.002)

    def advance(self, seconds: float) -> None:
        gevent.sleep(seconds)

    def now(self) -> float:
        return time.monotonic()


class Replay:
    """One scenario."""

    def __init__(self, scenario: Mapping[str, Any], time: Time) -> None:
        self.scenario = scenario
        self.time = time
        self.scene = Scene()
        self.reports: list[tuple[str, str]] = []  # the supervisor's path and the report
        self.outside: Ref = Outside.start()

    def run(self) -> list[dict[str, Any]]:
        """Return what was seen, phase by phase."""
        unsubscribe = events.subscribe(self.on_event)
        try:
            first = self.phase(self.start(), unordered=False)
            steps = self.scenario["steps"]
            return [first, *(self.phase(self.step(step), unordered=step.get("unordered", False)) for step in steps)]
        finally:
            unsubscribe()
            self.end()

    def end(self) -> None:
        """Leave nothing running."""
        self.outside.kill()
        for ref in self.scene.refs.values():
            ref.kill()
        self.time.settle()

    def on_event(self, event: events.Event) -> None:
        if event.topic != "supervisor.reported":
            return
        source: Any = event.source
        supervisor, context, child, reason = source
        path = path_of(supervisor)
        grouped = path in self.scene.dynamic and not isinstance(child, GroupOffender)
        name = child.spec.args[0] if grouped else child.label
        self.reports.append((path, f"{path} {context} {name} {term(reason)}"))

    # -- phases

    def phase(self, result: Any, *, unordered: bool) -> dict[str, Any]:
        seen, self.scene.events = canonical(self.scene.events, self.scene.dynamic), []
        reports, self.reports = canonical_reports(self.reports, self.scene.dynamic), []
        if unordered:
            seen.sort()
            reports.sort()
        alive = sorted(path for path, ref in self.scene.refs.items() if ref.is_alive())
        return {"result": result, "events": seen, "reports": reports, "alive": alive}

    def start(self) -> str:
        promise = Promise()
        self.outside.request(Start(self.scene, "root", self.scenario["tree"]), promise)
        self.come_to_rest()
        failure = promise.wait(0)
        if isinstance(failure, Ignore):
            return "ignore"
        if failure is not None:
            return f"{{error,{term(reason_of(failure))}}}"
        return "ok"

    def come_to_rest(self, hold: Hold | None = None) -> None:
        """Let the tree run until no process is at work, or until `hold` is reached."""
        began = self.time.now()
        while True:
            self.time.settle()
            if (hold is not None and hold.reached.is_set()) or not self.at_work():
                return
            if self.time.now() - began > MOST_S:
                raise Hung(f"{self.scenario['name']}: still at work after {MOST_S:g} s")
            self.time.pass_some()

    def at_work(self) -> bool:
        """Tell whether a process of this scenario is inside a handler, other than one whom nobody will ever end."""
        return any(self.is_at_work(runner.ref) for runner in scheduler.S.runners if runner.ref is not None)

    def is_at_work(self, ref: Ref) -> bool:
        if not ref.path.startswith(self.outside.path):
            return False
        return ref not in self.scene.hanging or (ref.parent is not None and ref.parent.is_alive())

    # -- steps

    def step(self, step: Step) -> Any:
        match step["op"]:
            case "during_start":
                hold = self.scene.hold_start[step["path"], step["nth"]] = Hold()
                return self.during(step, hold)
            case "during_terminate":
                hold = self.scene.hold_terminate[step["path"]] = Hold()
                return self.during(step, hold)
            case "advance_ms":
                self.time.advance(step["ms"] / 1000)
                self.come_to_rest()
                return "ok"
        pending = self.begin(step)
        self.come_to_rest()
        return pending.result()

    def during(self, step: Step, hold: Hold) -> dict[str, Any]:
        trigger = self.begin(step["trigger"])
        self.come_to_rest(hold)
        calls = []
        for call in step["calls"]:
            calls.append(self.begin(call))
            self.time.settle()
        hold.released.set()
        self.come_to_rest()
        return {"trigger": trigger.result(), "calls": [call.result() for call in calls]}

    def begin(self, step: Step) -> Pending:
        """Begin a step, without waiting for its result."""
        operation = step["op"]
        if operation == "check_childspecs":
            return Pending(self.check(step))
        if operation == "shutdown":
            return self.shut_down()
        target = self.scene.living(step.get("sup") or step["path"])
        if target is None:
            return Pending("noproc")
        match operation:
            case "exit":
                target.tell(Leave(reason_from(step["reason"])))
            case "kill":
                target.kill()
            case "signal":
                target.exit(reason_from(step["reason"]))
            case "unlink":
                target.tell(PartFromSupervisor())
            case "stop":
                target.stop(block=False, timeout=None, reason=reason_from(step["reason"]))
            case "together":
                self.together(target, step["steps"])
            case _:
                return self.call(target, step)
        return Pending("ok")

    def shut_down(self) -> Pending:
        root = self.scene.living("root")
        if root is None:
            return Pending("noproc")
        root.exit(reason_from("shutdown"), self.outside)
        return Pending("ok")

    def together(self, supervisor: Ref, steps: Sequence[Step]) -> None:
        suspended = gevent.spawn(runtime_sys.suspend, supervisor)
        self.time.settle()
        suspended.get(block=False)
        for step in steps:
            self.begin(step)
            self.time.settle()
        gevent.spawn(runtime_sys.resume, supervisor)

    def check(self, step: Step) -> str:
        specs = step["specs"]
        if isinstance(specs, list):
            specs = [spec_of(self.scene, "root", spec) for spec in specs]
        try:
            check_childspecs(specs, step.get("auto_shutdown"))
        except SpecError as error:
            return answer(error, bare=False)
        return "ok"

    def call(self, supervisor: Ref, step: Step) -> Pending:
        """Send a call to a supervisor."""
        operation = step["op"]
        path = path_of(supervisor)
        if operation in ("which_children", "count_children"):
            arguments: tuple[Any, ...] = ()
        elif "path" in step:
            arguments = (self.scene.refs.get(step["path"]) or step["path"],)
        elif "args" in step:
            arguments = (step["args"][0], step.get("behaviour", {}))
        elif operation == "start_child":
            arguments = (spec_of(self.scene, path, step["spec"]),)
        else:
            arguments = (step["id"],)
        pending = PendingCall(supervisor, operation, simple=path in self.scene.dynamic)
        supervisor.request(Request(operation, *arguments), pending.promise)
        return pending


class Pending:
    """A step that was begun; its result is known when the tree came to rest."""

    def __init__(self, known: Any) -> None:
        self.known = known

    def result(self) -> Any:
        return self.known


class PendingCall(Pending):
    """A call that a supervisor answers in its turn."""

    def __init__(self, supervisor: Ref, operation: str, *, simple: bool) -> None:
        super().__init__(None)
        self.supervisor = supervisor
        self.operation = operation
        self.simple = simple
        self.promise = Promise()

    def result(self) -> Any:
        if not self.promise.done:
            raise Hung(f"{self.operation} was never answered by {self.supervisor}")
        try:
            value = self.promise.wait()
        except (ActorDied, ActorUnavailable):
            return f"call_exit {term(self.supervisor.reason)}"
        except Exception as error:  # noqa: BLE001 - a refusal is a result
            return answer(error, bare=self.simple or self.operation == "restart_child")
        match self.operation:
            case "start_child" | "restart_child":
                ref, *info = value if isinstance(value, tuple) else (value,)
                return term(("ok", ref, *info))
            case "which_children":
                return self.children(value)
            case "get_childspec":
                return childspec(value)
            case "count_children":
                return value
        return "ok"

    def children(self, children: Iterable[tuple[Any, Any, str]]) -> list[dict[str, str]]:
        rows = []
        for key, child, kind in children:
            shown = path_of(child) if isinstance(child, Ref) else term(child)
            rows.append({"id": term(key), "child": shown, "type": kind})
        return sorted(rows, key=lambda row: row["child"]) if self.simple else rows


def childspec(spec: Any) -> dict[str, Any]:
    """Write a child spec as the files do, with its shutdown in milliseconds."""
    shutdown = spec.shutdown if isinstance(spec.shutdown, str) else round(spec.shutdown * 1000)
    return {
        "id": spec.id,
        "restart": spec.restart,
        "significant": spec.significant,
        "shutdown": shutdown,
        "type": spec.type,
    }


# -- the canonical order


def canonical(seen: Sequence[str], dynamic: set[str]) -> list[str]:
    """Bring the ends of dynamic children, which stop all at the same time, into the files' order."""
    written: list[str] = []
    for group, run in itertools.groupby(seen, key=lambda event: _dynamic_above(event, dynamic)):
        ends = list(run)
        written += ends if group is None else sorted(ends, key=_rank)
    return written


def _dynamic_above(event: str, dynamic: set[str]) -> str | None:
    kind, path = event.split(" ")[:2]
    if kind not in _EXITS:
        return None
    return next((above for above in sorted(dynamic) if path.startswith(above + "/")), None)


def _rank(event: str) -> tuple[bool, int, str, str]:
    kind, path = event.split(" ")[:2]
    is_exit = kind == "exit"
    return is_exit, -path.count("/") if is_exit else 0, path, event


def canonical_reports(reports: Sequence[tuple[str, str]], dynamic: set[str]) -> list[str]:
    """Sort the shutdown errors that one dynamic supervisor reports together."""
    written: list[str] = []

    def group_of(item: tuple[str, str]) -> str | None:
        path, report = item
        return path if path in dynamic and report.startswith(f"{path} shutdown_error ") else None

    for group, run in itertools.groupby(reports, key=group_of):
        texts = [report for _, report in run]
        written += texts if group is None else sorted(texts)
    return written


def replay(scenario: Mapping[str, Any], *, real_clock: bool = False) -> list[dict[str, Any]]:
    """Replay one scenario and return its phases."""
    if real_clock:
        return Replay(scenario, RealTime()).run()
    virtual = VirtualTime()
    with virtual:
        return Replay(scenario, virtual).run()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.otp.replay", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a JSON list of scenarios")
    parser.add_argument("--real-clock", action="store_true", help="let real time pass instead of virtual time")
    options = parser.parse_args(arguments)
    seen = []
    for file in options.files:
        for scenario in json.loads(file.read_text(encoding="utf-8")):
            try:
                phases: Any = replay(scenario, real_clock=options.real_clock)
            except Exception as error:  # noqa: BLE001 - one scenario that cannot be replayed must not hide the others
                sys.stderr.write(f"{scenario['name']}: {error!r}\n")
                phases = []
            seen.append({"name": scenario["name"], "expect": phases})
    json.dump(seen, sys.stdout, indent=1)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
