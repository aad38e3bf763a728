"""One child of a supervisor.

Its record, and the protocols that start and stop it (OTP, `do_start_child`, `shutdown`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from config.secret import redact
from runtime import clock, events
from runtime.actor import Actor
from runtime.introspect import ChildFacts
from runtime.promise import AskTimeout, Promise
from runtime.reasons import NOPROC, Crashed, ExitReason, Ignore, StartFailed, reason_of
from runtime.ref import Ref, spawn
from runtime.scheduler import DEAD
from runtime.signals import when_ended
from runtime.sys import Extras, Meter
from supervisors.spec import ChildSpec

if TYPE_CHECKING:
    from runtime.clock import Timer
    from supervisors.backoff import Backoff

RUNNING, RESTARTING, PARKED, WAITING, ABSENT = "running", "restarting", "parked", "waiting", "undefined"
COMING_BACK = (RESTARTING, PARKED, WAITING)
START_TIMED_OUT = ExitReason("timeout")
_SHOWN = {PARKED: "failed", ABSENT: "stopped"}
MAX_REASON_CHARS = 500


class FailedToStart:
    """OTP's `{failed_to_start_child, Id, Reason}`."""

    __slots__ = ("id", "reason")

    def __init__(self, id: Any, reason: ExitReason) -> None:
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

    __slots__ = (
        "attempts",
        "info",
        "last_reason",
        "last_ref",
        "ref",
        "restarts",
        "retry",
        "retry_at",
        "since",
        "spec",
        "state",
        "unwait",
        "up_since",
        "why",
    )

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.ref: Ref | None = None
        self.last_ref: Ref | None = None  # what it had last, by which callers of a dynamic supervisor still know it
        self.state = ABSENT
        self.info: Any = None
        self.restarts: dict[str, int] = {}  # by why the actor had ended: crashed, killed, exited
        self.attempts = 0  # restarts in a row, for the back-off
        self.since = time.time()  # unix seconds of the last change of state
        self.up_since: float | None = None  # clock.now() of the last start, None once a back-off looked at it
        self.retry: Timer | None = None
        self.retry_at: float | None = None
        self.last_reason: ExitReason | None = None
        self.unwait: Callable[[], None] | None = None  # ends its wait for a dependency
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
        self.retry_at = None
        if self.unwait is not None:
            self.unwait()
            self.unwait = None

    def next_delay_s(self, backoff: Backoff) -> float:
        """Return the seconds to wait before the next attempt; long enough up, it begins anew. Never switches."""
        if self.up_since is not None and clock.now() - self.up_since >= backoff.reset_after_s:
            self.attempts = 0
        self.up_since = None  # an attempt that fails was not up at all
        self.attempts += 1
        return backoff.delay_s(self.attempts)

    def __repr__(self) -> str:
        return f"<Child {self.label} {self.state}, {sum(self.restarts.values())} restarts>"


def start_child(supervisor: Ref, child: Child) -> ExitReason | None:
    """Start the child's actor and set its state; None on success (or ignore), else the reason. Switches greenlets."""
    spec = child.spec
    try:
        started = _run_start(supervisor, spec)
    except Ignore:
        child.set(ABSENT)
        return None
    except BaseException as error:  # whatever leaves a start is the child's failure, a gevent.Timeout too
        if supervisor.state == DEAD:  # but it is the supervisor itself that was killed while it waited
            raise
        return reason_of(error)
    info = None
    if isinstance(started, tuple) and len(started) == 2:
        started, info = started
    if started is None:
        child.set(ABSENT)
        return None
    if not isinstance(started, Ref):
        return ExitReason("bad_start", started)
    if started.parent is None:
        adopt(supervisor, started, str(spec.id))
    child.set(RUNNING, started)
    child.info = info
    child.up_since = clock.now()
    child.why = None
    if events.listening():
        events.publish(
            "child.started", actor=started.name or started.path, path=started.path, incarnation=started.serial
        )
    return None


def adopt(supervisor: Ref, ref: Ref, label: str) -> None:
    """Take an actor that a start function started without a link for this supervisor's own. Never switches."""
    ref.parent = supervisor
    ref.label = ref.label or label
    if ref.state == DEAD:
        supervisor.hear_exit(ref, NOPROC)
        return
    ref.parent_linked = True
    if supervisor.links is None:
        supervisor.links = {}
    supervisor.links[ref] = None


def _run_start(supervisor: Ref, spec: ChildSpec) -> Any:
    start = spec.start
    if isinstance(start, type) and issubclass(start, Actor):
        limit: Timer | None = None
        begun: Ref | None = None

        def prepare(ref: Ref) -> None:
            nonlocal begun
            begun = ref
            if spec.mailbox is not None:
                ref.bound = spec.mailbox
            if spec.timeout_s is not None:
                ref.timeout_s = spec.timeout_s
            ref.exports = spec.exports
            if spec.measured:
                ref.extras = Extras(ref, meter_of(spec))
            if spec.start_timeout_s is not None:
                nonlocal limit
                limit = clock.after(spec.start_timeout_s, ref.die_now, START_TIMED_OUT)

        try:
            return spawn(
                start, spec.args, spec.kwargs, name=spec.name, parent=supervisor, label=str(spec.id), prepare=prepare
            )
        except Exception as error:  # whatever else leaves a start may be the end of the supervisor itself
            reason = reason_of(error)
            if begun is None or not isinstance(reason, Crashed):
                raise
            begun.publish_crash(reason, None)
            raise StartFailed(reason) from error
        finally:
            if limit is not None:
                limit.cancel()
    return start(*spec.args, **spec.kwargs)


def meter_of(spec: ChildSpec) -> Meter:
    """Return the measurements of a configured child, which outlive its incarnations. Never switches."""
    if spec.meter is None:
        spec.meter = Meter(spec.name or str(spec.id))
    meter: Meter = spec.meter
    return meter


def count_restart(child: Child) -> None:
    """Count a restart of the child by why its actor had ended. Never switches."""
    kind = child.last_reason.kind if child.last_reason is not None else "exited"
    word = kind if kind in ("crashed", "killed") else "exited"
    child.restarts[word] = child.restarts.get(word, 0) + 1


def stop_child(supervisor: Ref, child: Child) -> ExitReason | None:
    """Stop the child's actor by its shutdown protocol and return the reason with which it left, None without an actor.

    A child found dead left with the reason that its link told, or `noproc` when it had unlinked itself. Switches
    greenlets.
    """
    ref = child.ref
    if child.retry is not None:
        child.retry.cancel()
        child.retry = None
    if ref is None:
        return None
    ended = begin_to_stop(supervisor, ref, child.spec)
    shutdown = child.spec.shutdown
    if not isinstance(shutdown, str):
        try:
            ended.wait(shutdown)
        except AskTimeout:
            ref.kill()
    reason: ExitReason = ended.wait()
    let_go(supervisor, ref)
    return reason


def begin_to_stop(supervisor: Ref, ref: Ref, spec: ChildSpec) -> Promise:
    """Tell a child to stop, or kill it at once; the promise gives the reason with which it left. Never switches.

    From here on its end is heard by this promise and not by the link, which stays in place until `let_go` so that the
    child still hears of it when its supervisor is killed meanwhile.
    """
    if ref.state == DEAD:
        gone = Promise()
        gone.resolve(ref.reason if ref.parent_linked else NOPROC)
        return gone
    ended = when_ended(ref)
    ref.parent_linked = False
    if spec.shutdown == "brutal_kill":
        ref.kill()
    else:
        ref.shut_down(supervisor)
    return ended


def let_go(supervisor: Ref, ref: Ref) -> None:
    """Forget the link of a child that has been stopped. Never switches."""
    if supervisor.links is not None:
        supervisor.links.pop(ref, None)


def facts_of(child: Child) -> ChildFacts:
    """Return what operators may see of this child. Never switches."""
    ref = child.ref
    state = _SHOWN.get(child.state, child.state)
    if ref is not None:
        state = "restarting" if ref.state == DEAD else ref.state_name
    spec = child.spec
    return ChildFacts(
        label=child.label,
        name=spec.name,
        kind=spec.type,
        restart=spec.restart,
        state=state,
        restarts=child.restarts,
        since_wall=child.since,
        why=child.why,
        retry_in_s=None if child.retry_at is None else max(0.0, round(child.retry_at - clock.now(), 3)),
        last_reason=None if child.last_reason is None else redact(str(child.last_reason))[:MAX_REASON_CHARS],
        crash_id=crash_id_of(child.last_reason),
        ref=ref,
    )


def crash_id_of(reason: ExitReason | None) -> str | None:
    """Return the id under which a crash was recorded, if the reason is one. Never switches."""
    return reason.crash_id if isinstance(reason, Crashed) else None
