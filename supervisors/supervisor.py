"""The supervisor: starts children in order, restarts what ends, gives up when that does not help (OTP `supervisor`).

Decisions. Exits and requests are handled strictly in the order of the mailbox, one at a time, and a restart that fails
is retried by a message to itself, so that whatever arrived meanwhile comes first. Children are found by ref in O(1),
so a restart under one_for_one costs the same beside 10 000 siblings. Ours beyond OTP, all off unless a spec asks for
it: a delay before a restart (`backoff`), and parking a child supervisor that gave up instead of counting it (`park`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, ClassVar

from config.secret import redact
from regrow.protocol.errors import BadRequest
from runtime import clock, events
from runtime.actor import Actor
from runtime.blame import blame
from runtime.introspect import ChildFacts
from runtime.reasons import SHUTDOWN, ExitReason, Shutdown, StartFailed, Stop
from runtime.ref import Ref
from runtime.signals import Exit
from supervisors.backoff import Backoff
from supervisors.child import (
    ABSENT,
    COMING_BACK,
    MAX_REASON_CHARS,
    PARKED,
    RESTARTING,
    WAITING,
    Child,
    FailedToStart,
    count_restart,
    crash_id_of,
    facts_of,
    start_child,
    stop_child,
)
from supervisors.dependencies import wait_for
from supervisors.errors import (
    AlreadyPresent,
    AlreadyStarted,
    ChildRestarting,
    ChildRunning,
    ChildStartFailed,
    NoSuchChild,
)
from supervisors.intensity import Intensity
from supervisors.spec import STRATEGIES, ChildSpec, Flags, SpecError, check_childspecs, check_spec
from supervisors.strategy import decide, is_reported, is_shutdown_error

SHOWN_IDS = 10


class Request:
    """A call to a supervisor: the operation and its arguments."""

    __slots__ = ("args", "operation")

    def __init__(self, operation: str, *args: Any) -> None:
        self.operation = operation
        self.args = args

    def __repr__(self) -> str:
        return f"<Request {self.operation}>"


class TryAgain:
    """The message a supervisor sends to itself to retry a restart; `counted` when the intensity knows of it already."""

    __slots__ = ("child", "counted")

    def __init__(self, child: Child, counted: bool) -> None:
        self.child = child
        self.counted = counted


class Supervisor(Actor):
    """Starts its children in order and keeps them running; one strategy, one restart intensity for all of them.

    `Supervisor.start(children, strategy=...)`, or a subclass with an `init` that returns flags and specs. OTP's
    defaults: one_for_one, at most 1 restart in 5 s. Fails to start with `StartFailed` when a child does.
    """

    supervises: ClassVar[bool] = True
    strategies: ClassVar[Sequence[str]] = STRATEGIES
    fifo = True
    trap_exit = True
    timeout = None
    mailbox = (
        None  # exits must never be refused; requests wait for their answer, so their number is that of their senders
    )

    def __init__(
        self,
        children: Sequence[Any] = (),
        *,
        strategy: Any = "one_for_one",
        max_restarts: Any = 1,
        max_seconds: Any = 5,
        auto_shutdown: Any = "never",
    ) -> None:
        super().__init__()
        self.flags = Flags(strategy, max_restarts, max_seconds, auto_shutdown)
        self.initial: Sequence[Any] = children
        self.intensity = Intensity(1, 5)
        self.children: dict[Any, Child] = {}  # by id, in start order
        self.by_ref: dict[Ref, Child] = {}

    def init(self) -> tuple[Flags, Sequence[Any]]:
        """Return flags and child specs.

        Called at each start of this supervisor. May raise `Ignore` or `StartFailed`.
        """
        return self.flags, self.initial

    # -- start and end

    def on_start(self) -> None:
        made: Any = self.init()  # a subclass may return anything
        if not (isinstance(made, tuple) and len(made) == 2):
            raise StartFailed(ExitReason("bad_return", made))
        self.flags, specs = made
        try:
            self.check_flags(self.flags)
        except SpecError as error:
            raise StartFailed(ExitReason("supervisor_data", error)) from None
        self.intensity = Intensity(self.flags.max_restarts, self.flags.max_seconds)
        try:
            self.check_specs(specs)
        except SpecError as error:
            raise StartFailed(ExitReason("start_spec", error)) from None
        self.start_initial(specs)

    def check_flags(self, flags: Any) -> None:
        """Raise `SpecError` for wrong flags. Never switches."""
        if not isinstance(flags, Flags):
            raise SpecError("invalid_type", flags, "Flags")
        flags.check(self.strategies)

    def check_specs(self, specs: Sequence[Any]) -> None:
        """Raise `SpecError` for wrong specs. Never switches."""
        check_childspecs(specs, self.flags.auto_shutdown)

    def start_initial(self, specs: Sequence[ChildSpec]) -> None:
        """Start the first children; stop those already started when one fails, and fail."""
        for spec in specs:
            self.children[spec.id] = Child(spec)
        for child in list(self.children.values()):
            reason = self.start_one(child)
            if reason is not None and self.must_wait(child, reason):
                self.report("start_error", child, reason)
                self.wait_for_dependency(child, reason)
            elif reason is not None and child.spec.park is not None:
                self.report("start_error", child, reason)
                self.park(child, reason)
            elif reason is not None:
                self.report("start_error", child, reason)
                self.stop_all()
                raise StartFailed(Shutdown(FailedToStart(child.spec.id, reason)))
            if child.state == ABSENT and child.spec.restart == "temporary":
                del self.children[child.spec.id]

    def on_terminate(self, reason: ExitReason) -> None:
        self.stop_all()

    def stop_all(self) -> None:
        """Stop every child, the last started first. Switches greenlets."""
        self.stop_group(list(self.children.values()))

    # -- messages

    def on_receive(self, message: Any) -> Any:
        if message.__class__ is Request:
            return getattr(self, "do_" + message.operation)(*message.args)
        if message.__class__ is TryAgain:
            child = self.listed(message.child)
            if child is not None and child.state in COMING_BACK and child.retry is None:
                self.restart(child, counted=message.counted)
            return None
        # A stray message must not end a subtree: one that asks is refused, one that was told is dropped, and told of.
        events.publish("message.unexpected", actor=self.ref.name or self.ref.path, kind=type(message).__name__)
        raise BadRequest(f"{self.ref.path} is a supervisor and takes no message of type {type(message).__name__}")

    def on_exit(self, signal: Exit) -> None:
        child = self.by_ref.pop(signal.sender, None)
        if child is None:  # stopped meanwhile, or a stranger: a supervisor ignores those
            return
        reason = signal.reason
        child.last_reason = reason
        child.set(ABSENT)
        if is_reported(child.spec.restart, reason):
            self.report("child_terminated", child, reason, signal.sender)
        decision = decide(child.spec.restart, reason)
        if decision == "restart":
            if child.spec.park is not None and reason.kind == "shutdown":
                self.park(child, reason)
            elif self.must_wait(child, reason):
                self.wait_for_dependency(child, reason)
            else:
                self.restart(child)
            return
        if decision == "drop":
            self.forget(child)
        self.auto_shutdown(child)

    # -- restarting

    def restart(self, child: Child, *, counted: bool = False) -> None:
        """Restart a child, or the group that its strategy names, or give up."""
        if not counted and not self.intensity.admit(clock.now()):
            self.report("shutdown", child, ExitReason("reached_max_restart_intensity"))
            child.set(ABSENT)
            if child.spec.restart == "temporary":
                self.forget(child)
            raise Stop(SHUTDOWN)
        if child.spec.backoff is not None and not counted:
            self.restart_later(child)
            return
        again = self.restart_group(child)
        if again is not None:
            self.ref.post(TryAgain(again, counted=False))

    def restart_later(self, child: Child) -> None:
        """Restart after the child's back-off; until then it is `restarting`."""
        backoff = child.spec.backoff
        assert backoff is not None
        delay_s = child.next_delay_s(backoff)
        child.set(RESTARTING)
        child.why = f"restarts in {delay_s:.3g} s" + (f" after {_text(child.last_reason)}" if child.last_reason else "")
        self.retry_in(child, delay_s)

    def retry_in(self, child: Child, delay_s: float) -> None:
        """Try again to start the child when its delay is over. Never switches."""
        child.retry = clock.after(delay_s, self._retry_due, child)
        child.retry_at = clock.now() + delay_s

    def _retry_due(self, child: Child) -> None:
        child.retry = None
        self.ref.post(TryAgain(child, counted=True))

    def park(self, child: Child, reason: ExitReason) -> None:
        """Keep a child that gave up as `failed`, and try again after a growing delay, without counting it."""
        park = child.spec.park
        assert park is not None
        delay_s = child.next_delay_s(park)
        child.set(PARKED)
        child.last_reason = reason
        child.why = f"gave up ({_text(reason)}), tries again in {delay_s:.3g} s"
        self.retry_in(child, delay_s)
        events.publish(
            "actor.parked",
            actor=child.spec.name or child.label,
            supervisor=self.ref.path,
            reason=_text(reason),
            retry_in_s=delay_s,
        )

    def must_wait(self, child: Child, reason: ExitReason) -> bool:
        """Tell whether this exit is a dependency's fault and the child is to wait for it. Never switches."""
        return child.spec.on_dependency_down == "wait" and blame(reason) == "dependency_down"

    def wait_for_dependency(self, child: Child, reason: ExitReason) -> None:
        """Keep the child as `waiting`, uncounted, until a dependency is back or its back-off is over."""
        delay_s = child.next_delay_s(child.spec.backoff or Backoff())
        child.set(WAITING)
        child.last_reason = reason
        names = ", ".join(child.spec.depends_on) or "its dependency"
        child.why = f"waits for {names}: {_text(reason)}"
        self.retry_in(child, delay_s)
        child.unwait = wait_for(child.spec.depends_on, partial(self._dependency_back, child))
        events.publish(
            "actor.waiting",
            actor=child.spec.name or child.label,
            depends_on=list(child.spec.depends_on),
            reason=_text(reason),
            retry_in_s=delay_s,
        )

    def _dependency_back(self, child: Child) -> None:
        if child.state == WAITING and child.retry is not None:
            child.retry.cancel()
            self._retry_due(child)

    def restart_group(self, child: Child) -> Child | None:
        """Restart what the strategy names; return the child whose start failed and must be tried again, or None."""
        strategy = self.flags.strategy
        if strategy == "one_for_one":
            return self.restart_one(child)
        children = list(self.children.values())
        group = children if strategy == "one_for_all" else children[children.index(child) :]
        child.set(ABSENT)
        self.stop_group(group)
        for member in [m for m in group if m.spec.id in self.children]:
            reason = self.start_one(member)
            if reason is not None:
                self.report("start_error", member, reason)
                member.set(RESTARTING)
                return member
            if member.state == ABSENT and member.spec.restart == "temporary":
                self.forget(member)
            if member is child:
                self.restarted(member)
        return None

    def restart_one(self, child: Child) -> Child | None:
        """Restart this child alone; return it when its start failed."""
        reason = self.start_one(child)
        if reason is None:
            self.restarted(child)
            return None
        self.report("start_error", child, reason)
        child.last_reason = reason
        if self.must_wait(child, reason):
            self.wait_for_dependency(child, reason)
            return None
        if child.spec.park is not None:
            self.park(child, reason)
            return None
        child.set(RESTARTING)
        return child

    def restarted(self, child: Child) -> None:
        """Count and announce a restart that worked."""
        count_restart(child)
        if child.ref is not None and events.listening():
            events.publish(
                "actor.restarted",
                actor=child.spec.name or child.ref.path,
                path=child.ref.path,
                incarnation=child.ref.serial,
                restarts=sum(child.restarts.values()),
                reason=_text(child.last_reason),
                crash_id=crash_id_of(child.last_reason),
            )

    def start_one(self, child: Child) -> ExitReason | None:
        """Start the child's actor; None on success, else the reason of the failure. Switches greenlets."""
        reason = start_child(self.ref, child)
        if reason is None and child.ref is not None:
            self.by_ref[child.ref] = child
        return reason

    def stop_group(self, group: Iterable[Child]) -> None:
        """Stop these children, the last one first; temporary ones leave the list. Switches greenlets."""
        for child in reversed(list(group)):
            self.stop_one(child)
            if child.spec.restart == "temporary":
                self.forget(child)

    def stop_one(self, child: Child) -> None:
        """Stop one child by its shutdown protocol and report how it left, if that is worth it. Switches greenlets."""
        ref = child.ref
        if ref is not None:
            self.by_ref.pop(ref, None)
        reason = stop_child(self.ref, child)
        child.set(ABSENT)
        if reason is not None and is_shutdown_error(child.spec.restart, child.spec.shutdown == "brutal_kill", reason):
            self.report("shutdown_error", child, reason, ref)

    def listed(self, child: Child) -> Child | None:
        """Return the child now listed in this one's place, None when it left the list. Never switches."""
        return self.children.get(child.spec.id)

    def forget(self, child: Child) -> None:
        """Remove the child from the list. Never switches."""
        self.children.pop(child.spec.id, None)

    def auto_shutdown(self, child: Child) -> None:
        """Stop this supervisor when the end of a significant child asks for it (OTP, automatic shutdown)."""
        mode = self.flags.auto_shutdown
        if mode == "never" or not child.spec.significant:
            return
        if mode == "all_significant" and any(
            c.spec.significant and c is not child and (c.ref is not None or c.state == RESTARTING)
            for c in self.children.values()
        ):
            return
        raise Stop(SHUTDOWN)

    # -- calls

    def do_start_child(self, spec: Any) -> Any:
        check_spec(spec, self.flags.auto_shutdown)
        present = self.children.get(spec.id)
        if present is not None:
            raise (
                AlreadyStarted(present.ref)
                if present.ref is not None
                else AlreadyPresent(f"child {spec.id!r} is listed already")
            )
        child = Child(spec)
        reason = self.start_one(child)
        if reason is not None:
            raise ChildStartFailed(reason, spec.id)
        if child.ref is not None or spec.restart != "temporary":
            self.children[spec.id] = child
        return (child.ref, child.info) if child.info is not None else child.ref

    def do_terminate_child(self, id: Any) -> None:
        child = self.find(id)
        self.stop_one(child)
        if child.spec.restart == "temporary":
            self.forget(child)

    def do_restart_child(self, id: Any) -> Any:
        child = self.find(id)
        self.must_rest(child)
        reason = self.start_one(child)
        if reason is not None:
            raise ChildStartFailed(reason, id)
        return (child.ref, child.info) if child.info is not None else child.ref

    def do_delete_child(self, id: Any) -> None:
        child = self.find(id)
        self.must_rest(child)
        self.forget(child)

    def do_get_childspec(self, id: Any) -> ChildSpec:
        if isinstance(id, Ref):
            child = self.by_ref.get(id)
            if child is None:
                raise NoSuchChild(f"{id} is no child of {self.ref.path}")
            return child.spec
        return self.find(id).spec

    def do_which_children(self) -> list[tuple[Any, Any, str]]:
        return [
            (c.spec.id, c.ref or (RESTARTING if c.state in COMING_BACK else None), c.spec.type)
            for c in reversed(self.children.values())
        ]

    def do_count_children(self) -> dict[str, int]:
        children = list(self.children.values())
        supervisors = sum(c.spec.type == "supervisor" for c in children)
        return {
            "specs": len(children),
            "active": sum(c.ref is not None and c.ref.is_alive() for c in children),
            "supervisors": supervisors,
            "workers": len(children) - supervisors,
        }

    def find(self, id: Any) -> Child:
        """Return the child with this id; raises `NoSuchChild`. Never switches."""
        try:
            child = self.children.get(id)
        except TypeError:  # an unhashable id
            child = None
        if child is None:
            known = ", ".join(map(str, itertools.islice(self.children, SHOWN_IDS))) or "none"
            more = f" and {len(self.children) - SHOWN_IDS} more" if len(self.children) > SHOWN_IDS else ""
            raise NoSuchChild(f"{self.ref.path} has no child {id!r}, it has {known}{more}")
        return child

    def must_rest(self, child: Child) -> None:
        """Raise unless the child is listed without an actor. Never switches."""
        if child.ref is not None:
            raise ChildRunning(f"child {child.label!r} runs, terminate it first")
        if child.state in COMING_BACK:
            raise ChildRestarting(f"child {child.label!r} is being restarted, terminate it to cancel that")

    # -- reports

    def report(self, context: str, child: Child, reason: ExitReason, ref: Ref | None = None) -> None:
        """Publish a supervisor report (OTP: supervisor, errorContext, reason, offender). Never switches."""
        if not events.listening():
            return
        spec = child.spec
        offender = {
            "id": child.label,
            "pid": str(ref) if ref is not None else None,
            "restart": spec.restart,
            "significant": spec.significant,
            "shutdown": spec.shutdown,
            "type": spec.type,
        }
        events.publish(
            "supervisor.reported",
            _source=(self.ref, context, child, reason),
            supervisor=self.ref.path,
            context=context,
            reason=_text(reason),
            crash_id=crash_id_of(reason),
            offender=offender,
        )

    def child_facts(self, most: int) -> tuple[Iterable[ChildFacts], int]:
        """Return what operators may see of the children of now, made one by one as they are taken, and how many were
        left out. Never switches.
        """
        return map(facts_of, list(self.children.values())), 0

    def child_fact(self, label: str) -> ChildFacts | None:
        """Return what operators may see of the child with this id. Never switches."""
        child = self.children.get(label)
        return None if child is None else facts_of(child)

    def status(self) -> dict[str, Any]:
        return {
            "strategy": self.flags.strategy,
            "intensity": round(self.intensity.ratio(clock.now()), 3),
            "max_restarts": self.flags.max_restarts,
            "max_seconds": self.flags.max_seconds,
        }


def _text(reason: ExitReason | None) -> str:
    """The reason for people: masked first, then cut, so that no cut leaves half a secret."""
    return redact(str(reason))[:MAX_REASON_CHARS]


# -- calls, for code that holds the supervisor's ref; all of them switch greenlets


def start_child_of(supervisor: Ref, spec: ChildSpec) -> Any:
    """Start a child more: its ref, a pair of ref and info, or None when it ignored.

    Raises `AlreadyStarted`, `AlreadyPresent`, `ChildStartFailed`, `SpecError`. Switches greenlets.
    """
    return supervisor.ask(Request("start_child", spec), timeout=None)


def terminate_child(supervisor: Ref, id: Any) -> None:
    """Stop a child by its protocol and keep its spec, unless temporary; uncounted. Switches greenlets."""
    supervisor.ask(Request("terminate_child", id), timeout=None)


def restart_child(supervisor: Ref, id: Any) -> Any:
    """Start a stopped child again, uncounted; raises `ChildRunning`, `ChildRestarting`, `ChildStartFailed`.

    Switches greenlets.
    """
    return supervisor.ask(Request("restart_child", id), timeout=None)


def delete_child(supervisor: Ref, id: Any) -> None:
    """Forget the spec of a stopped child. Switches greenlets."""
    supervisor.ask(Request("delete_child", id), timeout=None)


def get_childspec(supervisor: Ref, id: Any) -> ChildSpec:
    """Return the spec of a child by id or ref. Switches greenlets."""
    spec: ChildSpec = supervisor.ask(Request("get_childspec", id), timeout=None)
    return spec


def which_children(supervisor: Ref) -> list[tuple[Any, Any, str]]:
    """Return (id, ref or None or "restarting", type) of each child, the last started first. Switches greenlets."""
    children: list[tuple[Any, Any, str]] = supervisor.ask(Request("which_children"), timeout=None)
    return children


def count_children(supervisor: Ref) -> dict[str, int]:
    """Return specs, active, supervisors and workers. Switches greenlets."""
    counts: dict[str, int] = supervisor.ask(Request("count_children"), timeout=None)
    return counts
