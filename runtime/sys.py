"""What some actors carry beside the machine: measurements, an idle timer, a log of events, and OTP's sys requests.

Decisions. An actor without extras pays one test per message. `suspend` lets only sys requests and the supervisor's exit
through; the rest waits in order. For user actors sys requests overtake user messages; supervisors stay first in, first
out, as in OTP. A trace is capped by rate and ends by itself; states leave an actor only in the attributes that its
class declares `inspectable`, unless the code inside the process asks for all of it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from regrow.protocol.errors import InvalidArguments, RegrowError
from runtime import clock, events, scheduler
from runtime.measure import SECONDS, Counter, Histogram
from runtime.messages import Call
from runtime.promise import Promise
from runtime.signals import Exit

if TYPE_CHECKING:
    from runtime.ref import Ref

DEFAULT_TIMEOUT_S = 5.0
KEPT_EVENTS = 10
TRACED_PER_S = 50
OUTCOMES = ("ok", "refused", "invalid", "failed", "crashed", "expired", "overloaded")

MESSAGES = Counter("messages_total", "messages by what became of them", ("actor", "outcome"))
WAITED = Histogram("message_wait_seconds", "time that messages waited in the mailbox", ("actor",), buckets=SECONDS)
SERVED = Histogram("message_service_seconds", "time that handlers took", ("actor",), buckets=SECONDS)


class SysRequest:
    """One request of the sys kind: an operation name and its argument."""

    __slots__ = ("argument", "operation")

    def __init__(self, operation: str, argument: Any = None) -> None:
        self.operation = operation
        self.argument = argument

    def __repr__(self) -> str:
        return f"<SysRequest {self.operation}>"


class Meter:
    """The measurements of one configured actor; they outlive its incarnations."""

    def __init__(self, actor: str) -> None:
        self.actor = actor
        self.outcomes = {outcome: MESSAGES.cell(actor, outcome) for outcome in OUTCOMES}
        self.waited = WAITED.cell(actor)
        self.served = SERVED.cell(actor)


class Trace:
    """A trace that is capped in messages and in messages per second, and ends by itself."""

    def __init__(
        self, sink: Callable[[Mapping[str, Any]], object], most: int, until: float, per_s: int = TRACED_PER_S
    ) -> None:
        self.sink = sink
        self.left = most
        self.until = until
        self.per_s = per_s
        self.left_out = 0
        self._second_began = clock.now()
        self._in_second = 0

    def admit(self) -> bool:
        """Tell whether one more record fits into this second; one that does not is counted. Never switches."""
        now = clock.now()
        if now - self._second_began >= 1.0:
            self._second_began, self._in_second = now, 0
        if self._in_second >= self.per_s:
            self.left_out += 1
            return False
        self._in_second += 1
        self.left -= 1
        return True


class Extras:
    """What one incarnation carries beside the machine."""

    __slots__ = ("arrivals", "began_at", "idle_timer", "kept", "meter", "ref", "statistics", "trace")

    def __init__(self, ref: Ref, meter: Meter | None = None) -> None:
        self.ref = ref
        self.meter = meter
        self.arrivals: deque[float] = deque()  # when the waiting messages came, in the mailbox's order
        self.began_at = 0.0
        self.idle_timer: clock.Timer | None = None
        self.kept: deque[dict[str, Any]] | None = None
        self.statistics: dict[str, Any] | None = None
        self.trace: Trace | None = None

    # -- called by the machine, for each message

    def arrived(self) -> None:
        """A message was put into the mailbox."""
        self.arrivals.append(time.monotonic())
        if self.idle_timer is not None:
            self.idle_timer.cancel()
            self.idle_timer = None

    def arrived_first(self) -> None:
        """A message was put before all that wait (continue, sys requests)."""
        self.arrivals.appendleft(time.monotonic())

    def withdrawn(self, at: int) -> None:
        """The message at this place of the mailbox was taken back."""
        if at < len(self.arrivals):
            del self.arrivals[at]

    def began(self, message: Any) -> None:
        """A message was taken out of the mailbox and its handler runs now."""
        now = self.began_at = time.monotonic()
        if self.meter is not None and self.arrivals:
            self.meter.waited.observe(now - self.arrivals.popleft())
        elif self.arrivals:
            self.arrivals.popleft()
        if self.statistics is not None:
            self.statistics["messages_in"] += 1
        if self.kept is not None or self.trace is not None:
            self._note("in", message)

    def ended(self, error: BaseException | None) -> None:
        """The handler returned, or raised `error`."""
        if self.meter is not None:
            self.meter.served.observe(time.monotonic() - self.began_at)
            self.meter.outcomes[_outcome(error)].value += 1
        if self.statistics is not None:
            self.statistics["messages_out"] += 1
        if self.kept is not None or self.trace is not None:
            self._note("out", error)

    def expired(self, promise: Promise) -> None:
        """A message was skipped, because its caller had given up."""
        if self.arrivals:
            self.arrivals.popleft()
        if self.meter is not None:
            self.meter.outcomes["expired"].value += 1

    def refused(self) -> None:
        """A message found the mailbox full."""
        if self.meter is not None:
            self.meter.outcomes["overloaded"].value += 1

    def closed(self, ref: Ref) -> None:
        """The actor ended."""
        if self.idle_timer is not None:
            self.idle_timer.cancel()
            self.idle_timer = None
        self.arrivals.clear()

    def oldest_age_s(self) -> float | None:
        """Return how long the oldest waiting message waits, None when none does. Never switches."""
        return time.monotonic() - self.arrivals[0] if self.arrivals else None

    # -- tracing

    def _note(self, direction: str, what: Any) -> None:
        record = {"at": clock.wall(), "actor": self.ref.path, "direction": direction, "what": _name_of(what)}
        if self.kept is not None:
            self.kept.append(record)
        trace = self.trace
        if trace is not None:
            if trace.left <= 0 or clock.now() >= trace.until:
                self.trace = None
                ended = {"direction": "end", "what": "trace ended", "left_out": trace.left_out}
                trace.sink({"at": clock.wall(), "actor": self.ref.path, **ended})
            elif trace.admit():
                trace.sink(record)

    # -- suspended actors

    def has_urgent(self, ref: Ref) -> bool:
        """Tell whether a message waits that a suspended actor must handle."""
        return any(_is_urgent(ref, message) for message, _ in ref.mailbox or ())

    def serve_urgent(self, ref: Ref) -> None:
        """Handle what a suspended actor must handle, in order, and leave the rest where it is."""
        box = ref.mailbox
        runner = ref.runner
        while box and ref.state == scheduler.SUSPENDED:
            at = next((i for i, (message, _) in enumerate(box) if _is_urgent(ref, message)), None)
            if at is None:
                return
            message, promise = box[at]
            del box[at]
            self.withdrawn(at)
            runner.message, runner.reply = message, promise
            if promise is not None:
                if promise.done:
                    continue
                promise.started = True
            value = scheduler.SPECIAL[message.__class__](ref, message)
            if promise is not None:
                promise.resolve(value)


URGENT: set[type] = {SysRequest}
"""Message classes that a suspended actor handles; runtime.actor adds the request to stop."""


def _is_urgent(ref: Ref, message: Any) -> bool:
    return message.__class__ in URGENT or (message.__class__ is Exit and message.sender is ref.parent)


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "ok"
    if isinstance(error, RegrowError):
        group = type(error).__mro__
        return next((kind.code for kind in group if kind.__name__ in ("Refused", "Invalid", "Failed")), "failed")  # type: ignore[attr-defined]
    return "crashed"


def _name_of(what: Any) -> str:
    if isinstance(what, Call):
        return f"call {what.method}"
    return type(what).__name__ if what is not None else "ok"


def extras_of(ref: Ref) -> Extras:
    """Return the actor's extras, made on first use. Never switches."""
    if ref.extras is None:
        ref.extras = Extras(ref)
        ref.extras.arrivals.extend([time.monotonic()] * ref.queued)
    return ref.extras


# -- the requests


def request(ref: Ref, operation: str, argument: Any = None, *, timeout_s: float | None = DEFAULT_TIMEOUT_S) -> Any:
    """Send a sys request and return its result; raises `ActorUnavailable` or `AskTimeout`. Switches greenlets."""
    extras_of(ref)
    promise = Promise(deadline=None if timeout_s is None else clock.now() + timeout_s)
    message = SysRequest(operation, argument)
    if ref.actor_class.fifo or ref.state == scheduler.DEAD:
        ref.post(message, promise)
    else:
        ref.post_urgent(message, promise)
    promise.expire_at_deadline()
    return promise.wait()


def suspend(ref: Ref) -> None:
    """Let only sys requests and the supervisor's exit through until `resume`; twice is harmless. Switches greenlets."""
    request(ref, "suspend")


def resume(ref: Ref) -> None:
    """Go on with the messages that waited, in their order. Switches greenlets."""
    request(ref, "resume")


def get_state(ref: Ref) -> dict[str, Any]:
    """Return the actor's attributes, all of them: for code in the same process. Switches greenlets."""
    state: dict[str, Any] = request(ref, "get_state")
    return state


def replace_state(ref: Ref, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> dict[str, Any]:
    """Replace attributes by what `change(attributes)` returns; when it raises nothing changes. Switches greenlets."""
    state: dict[str, Any] = request(ref, "replace_state", change)
    return state


def statistics(ref: Ref, switch: str = "get") -> Any:
    """`on`, `off`, or `get`: messages_in, messages_out, start_time, current_time; None when off. Switches greenlets."""
    return request(ref, "statistics", switch)


def log(ref: Ref, keep: int = KEPT_EVENTS) -> list[dict[str, Any]]:
    """Return the last events and keep the last `keep` from now on; 0 ends it. Switches greenlets."""
    kept: list[dict[str, Any]] = request(ref, "log", keep)
    return kept


def trace(
    ref: Ref,
    sink: Callable[[Mapping[str, Any]], object] | None = None,
    *,
    most: int = 100,
    seconds: float = 10.0,
    per_s: int = TRACED_PER_S,
) -> None:
    """Send a record of each message to `sink`, `most` of them within `seconds`, then end by itself.

    At most `per_s` records are sent in one second; the last record tells how many were `left_out`. Switches greenlets.
    """
    target = sink or (lambda record: events.publish("actor.traced", **record))
    request(ref, "trace", Trace(target, most, clock.now() + seconds, per_s))


def _attributes(actor: Any) -> dict[str, Any]:
    return {key: value for key, value in vars(actor).items() if not key.startswith("_actor")}


def _replace(actor: Any, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> dict[str, Any]:
    fresh = dict(change(_attributes(actor)))
    vars(actor).update(fresh)
    return _attributes(actor)


def _handle_sys(ref: Ref, message: SysRequest) -> Any:
    extras = extras_of(ref)
    argument = message.argument
    match message.operation:
        case "suspend":
            ref.state = scheduler.SUSPENDED
            return None
        case "resume":
            if ref.state == scheduler.SUSPENDED:
                ref.state = scheduler.ALIVE
            return None
        case "get_state":
            return _attributes(ref.actor)
        case "replace_state":
            try:
                return _replace(ref.actor, argument)
            except Exception as error:  # noqa: BLE001 - an edge: the caller's function, not the actor's (OTP callback_failed)
                scheduler.current_promise().reject(error)  # type: ignore[union-attr]
                return None
        case "statistics":
            return _statistics(extras, argument)
        case "log":
            kept = list(extras.kept or ())
            extras.kept = deque(kept, maxlen=argument) if argument > 0 else None
            return kept
        case "trace":
            extras.trace = argument
            return None
    raise InvalidArguments(f"there is no sys request {message.operation!r}")


def _statistics(extras: Extras, switch: str) -> Any:
    if switch == "on":
        extras.statistics = {"start_time": clock.wall(), "messages_in": 0, "messages_out": 0}
    elif switch == "off":
        extras.statistics = None
    elif switch != "get":
        raise InvalidArguments(f"statistics takes 'on', 'off' or 'get', not {switch!r}")
    return None if extras.statistics is None else {**extras.statistics, "current_time": clock.wall()}


scheduler.SPECIAL[SysRequest] = _handle_sys
