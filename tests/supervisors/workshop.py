"""Actors whose lives are told, for the tests of supervisors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gevent.event import Event

from regrow.testing import ManualClock
from runtime.actor import Actor
from runtime.events import Event as Event_
from runtime.names import whereis
from runtime.reasons import ExitReason, StartFailed, Stop
from runtime.ref import Ref
from runtime.signals import monitor
from supervisors import ChildSpec, DynamicSupervisor, Supervisor, which_children


class Boom(Exception):
    """A bug in an actor."""


class Tool(Actor):
    """An actor that does what it is told: raise, stop, wait, hang."""

    def __init__(
        self, shop: Workshop, key: str, *, trap_exit: bool = False, on_stop: Callable[[], object] | None = None
    ):
        super().__init__()
        self.shop = shop
        self.key = key
        self.trap_exit = trap_exit
        self.stopping = on_stop

    def on_start(self) -> None:
        fault = self.shop.faults.get(self.key, [])
        outcome = fault.pop(0) if fault else None
        self.shop.log.append(f"start {self.key}" if outcome is None else f"fail {self.key}")
        if outcome is not None:
            raise outcome
        self.shop.know(self.key, self.ref)

    def on_stop(self) -> None:
        self.shop.log.append(f"stop {self.key}")
        if self.stopping is not None:
            self.stopping()

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, BaseException):
            raise message
        return message() if callable(message) else message


class Workshop:
    """Makes specs and supervisors, and knows each actor by its key."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.log: list[str] = []  # "start a", "fail a", "stop a", "end a crashed", in the order in which they happened
        self.refs: dict[str, Ref] = {}
        self.ever: list[tuple[str, Ref]] = []
        self.downs: dict[Ref, int] = {}
        self.faults: dict[str, list[BaseException]] = {}
        self.supervisors: list[Ref] = []

    def know(self, key: str, ref: Ref) -> None:
        self.refs[key] = ref
        self.ever.append((key, ref))

        def ended(down: Any) -> None:
            self.downs[ref] = self.downs.get(ref, 0) + 1
            held = ref.name is not None and whereis(ref.name) is ref
            self.log.append(f"end {key} {down.reason.kind}" + (" still named" if held else ""))

        monitor(ref, ended)

    def spec(self, key: str, **options: Any) -> ChildSpec:
        kwargs: dict[str, Any] = {name: options.pop(name) for name in ("trap_exit", "on_stop") if name in options}
        return ChildSpec(key, Tool, args=(self, key), kwargs=kwargs, **options)

    def supervise(self, *specs: Any, **options: Any) -> Ref:
        """Start a supervisor over these specs, or over a tool for each key."""
        children = [self.spec(spec) if isinstance(spec, str) else spec for spec in specs]
        supervisor: Ref = Supervisor.start(children, **options)
        self.supervisors.append(supervisor)
        return supervisor

    def supervise_dynamically(self, *template: Any, **options: Any) -> Ref:
        supervisor: Ref = DynamicSupervisor.start(*template, **options)
        self.supervisors.append(supervisor)
        return supervisor

    def end(self, key: str, why: BaseException | None = None) -> None:
        """Have the actor end by itself, by default with a crash, and let everybody react."""
        self.refs[key].tell(Boom("told to") if why is None else why)
        self.clock.settle()

    def kill(self, key: str) -> None:
        self.refs[key].kill()
        self.clock.settle()

    def told(self) -> list[str]:
        """Return what happened since the last call."""
        log, self.log[:] = list(self.log), []
        return log

    def close(self) -> None:
        for supervisor in self.supervisors:
            supervisor.kill()
        for _, ref in self.ever:
            ref.kill()
        self.clock.settle()


def leave(reason: ExitReason) -> Stop:
    """Return what a tool is told to end with this reason."""
    return Stop(reason)


def refuse_to_start(reason: str = "not_now") -> StartFailed:
    return StartFailed(ExitReason(reason))


def states(supervisor: Ref) -> dict[Any, str]:
    """Return running, restarting or undefined by id."""
    return {
        key: "running" if isinstance(child, Ref) else child or "undefined"
        for key, child, _ in which_children(supervisor)
    }


class Stubborn:
    """A handler that goes on after it was told to end, as code with a bare except does; until it is released."""

    def __init__(self) -> None:
        self.release = Event()
        self.told_to_end = 0

    def __call__(self) -> None:
        while not self.release.is_set():
            try:
                self.release.wait()
            except BaseException:  # noqa: BLE001 - that is the fault
                self.told_to_end += 1


def reports(published: Sequence[Event_]) -> list[tuple[str, str, str]]:
    """Return context, child and reason of each supervisor report."""
    found: list[tuple[str, str, str]] = []
    for event in published:
        if event.topic == "supervisor.reported":
            source: Any = event.source
            _, context, child, reason = source
            found.append((context, child.label, str(reason)))
    return found
