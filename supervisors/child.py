"""One child of a supervisor: its record, and the protocols that start and stop it (OTP, `do_start_child`, `shutdown`)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from runtime import clock, events
from runtime.actor import Actor
from runtime.measure import Counter
from runtime.promise import AskTimeout
from runtime.reasons import NOPROC, Crashed, ExitReason, Ignore, StartFailed, Stop, reason_of
from runtime.ref import Ref, spawn
from runtime.scheduler import DEAD
from runtime.signals import when_ended
from runtime.sys import Extras, Meter
from supervisors.spec import ChildSpec

if TYPE_CHECKING:
    from runtime.clock import Timer

RESTARTS = Counter("actor_restarts_total", "restarts by the reason of the exit before", ("actor", "reason"))
RESTART_REASONS = ("crashed", "killed", "normal", "shutdown", "other")

RUNNING, RESTARTING, PARKED, ABSENT = "running", "restarting", "parked", "undefined"


class FailedToStart:
    """OTP's `{failed_to_start_child, Id, Reason}`."""

    __slots__ = ("id", "reason")

    def __init__(self, id: Any, reason: ExitReason) -> None:  # noqa: A002 - OTP's word
        self.id = id
        self.reason = reason

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FailedToStart) and (self.id, self.reason) == (other.id, other.reason)

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return f"child {self.id!r} failed to start: {self.reason}"

    __repr__ = __str__


class Child:
    """What a supervisor knows of one child; it outlives the child's incarnations."""

    __slots__ = ("attempts", "info", "last_reason", "last_ref", "ref", "restarts", "retry", "since", "spec", "state", "up_since", "why")

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.ref: Ref | None = None
        self.last_ref: Ref | None = None  # what it had last, by which callers of a dynamic supervisor still know it
        self.state = ABSENT
        self.info: Any = None
        self.restarts = 0
        self.attempts = 0  # restarts in a row, for the back-off
        self.since = time.time()  # unix seconds of the last change of state
        self.up_since = clock.now()
        self.retry: Timer | None = None
        self.last_reason: ExitReason | None = None
        self.why: str | None = None  # why it is parked or waits, for people

    @property
    def label(self) -> str:
        return str(self.spec.id)

    def set(self, state: str, ref: Ref | None = None) -> None:
        """Enter a state. Never switches."""
        self.state = state
        self.ref = ref
        if ref is not None:
            self.last_ref = ref
        self.since = time.time()
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None

    def __repr__(self) -> str:
        return f"<Child {self.label} {self.state}, {self.restarts} restarts>"


def start_child(supervisor: Ref, child: Child) -> ExitReason | None:
    """Start the child's actor and set its state; None on success (or ignore), else the reason. Switches greenlets."""
    spec = child.spec
    try:
        started = _run_start(supervisor, spec)
    except Ignore:
        child.set(ABSENT)
        return None
    except (Stop, StartFailed) as error:
        return error.reason
    except Exception as error:  # noqa: BLE001 - an exception in a start function is the child's failed start, not ours
        return reason_of(error)
    info = None
    if isinstance(started, tuple) and len(started) == 2:
        started, info = started
    if started is None:
        child.set(ABSENT)
        return None
    if not isinstance(started, Ref):
        return ExitReason("bad_return", started)
    child.set(RUNNING, started)
    child.info = info
    child.up_since = clock.now()
    child.why = None
    if events.listening():
        events.publish("child.started", actor=started.name or started.path, path=started.path, incarnation=started.serial)
    return None


def _run_start(supervisor: Ref, spec: ChildSpec) -> Any:
    start = spec.start
    if isinstance(start, type) and issubclass(start, Actor):

        def prepare(ref: Ref) -> None:
            if spec.mailbox is not None:
                ref.bound = spec.mailbox
            if spec.timeout_s is not None:
                ref.timeout_s = spec.timeout_s
            ref.exports = spec.exports
            if spec.measured:
                ref.extras = Extras(ref, meter_of(spec))

        return spawn(start, spec.args, spec.kwargs, name=spec.name, parent=supervisor, label=str(spec.id), prepare=prepare)
    return start(*spec.args, **spec.kwargs)


def meter_of(spec: ChildSpec) -> Meter:
    """Return the measurements of a configured child, which outlive its incarnations. Never switches."""
    if spec.meter is None:
        actor = spec.name or str(spec.id)
        spec.meter = Meter(actor)
        for reason in RESTART_REASONS:
            RESTARTS.declare(actor, reason)
    meter: Meter = spec.meter
    return meter


def count_restart(child: Child, reason: ExitReason | None) -> None:
    """Count a restart of the child. Never switches."""
    child.restarts += 1
    if child.spec.measured:
        kind = reason.kind if reason is not None else "other"
        meter_of(child.spec)
        RESTARTS.inc(child.spec.name or child.label, kind if kind in RESTART_REASONS else "other")


def stop_child(supervisor: Ref, child: Child) -> ExitReason | None:
    """Stop the child's actor by its shutdown protocol and return the reason with which it left; None when it had no actor.

    A child found dead left with the reason that its link told, or `noproc` when it had unlinked itself. Switches greenlets.
    """
    ref = child.ref
    if child.retry is not None:
        child.retry.cancel()
        child.retry = None
    if ref is None:
        return None
    if ref.state == DEAD:
        return ref.reason if ref.parent_linked else NOPROC
    ended = when_ended(ref)
    if supervisor.links is not None:
        supervisor.links.pop(ref, None)
    ref.parent_linked = False
    if child.spec.shutdown == "brutal_kill":
        ref.kill()
    else:
        ref.shut_down(supervisor)
        if child.spec.shutdown != "infinity":
            try:
                reason: ExitReason = ended.wait(child.spec.shutdown)
            except AskTimeout:
                ref.kill()
    reason = ended.wait()
    return reason


def crash_id_of(reason: ExitReason | None) -> str | None:
    """Return the id under which a crash was recorded, if the reason is one. Never switches."""
    return reason.crash_id if isinstance(reason, Crashed) else None
