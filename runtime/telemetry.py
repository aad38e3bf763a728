"""Telemetry of external calls: start, stop and exception of each, for listeners, and a window of the last ones.

Decisions. Calls are too many for the event bus, whose ring is for what operators must not miss; so listeners attach
here by an id of their own. The window keeps the last KEPT calls of each integration, from which the status API tells
success rate and latencies, and the metrics count every call; all three are fed by the same record at the same moment,
so they agree on what happened, whatever the kind of the integration.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from config.secret import redact
from regrow.protocol.errors import RegrowError
from runtime import clock
from runtime.measure import Counter, Histogram

KEPT: Final = 1000
WINDOW_S: Final = 300.0
MAX_ERROR_CHARS: Final = 300
MAX_INTEGRATIONS: Final = 10_000

Kind = Literal["start", "stop", "exception"]

CALLS = Counter("external_calls_total", "calls to the outside that ended, by how", ("actor", "outcome"))
CALL_SECONDS = Histogram("external_call_seconds", "how long one call to the outside took", ("actor",))

#: how a call may end; whatever else an error is called counts as failed
OUTCOMES: Final = (
    "ok", "actor_down", "cancelled", "connection_error", "database_error", "deadline_exceeded", "decode_error",
    "execution_error", "failed", "invalid_arguments", "not_found", "overloaded", "rate_limited", "timeout", "too_large",
    "unavailable", "upstream_error",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CallEvent:
    """One moment of one external call; `duration_s` and `outcome` (ok, or an error's code) at its end only."""

    kind: Kind
    actor: str
    operation: str
    at_wall: float
    duration_s: float | None = None
    outcome: str | None = None
    error: str | None = None


Listener = Callable[[CallEvent], object]


class Window:
    """The last calls of one integration."""

    def __init__(self) -> None:
        self._calls: deque[tuple[float, float, str]] = deque(maxlen=KEPT)  # when it ended, seconds, outcome
        self.last_error: str | None = None
        self.last_error_wall: float | None = None

    def add(self, duration_s: float, outcome: str, error: str | None) -> None:
        """Keep one call. Never switches."""
        self._calls.append((clock.now(), duration_s, outcome))
        if error is not None:
            self.last_error = error
            self.last_error_wall = clock.wall()

    def figures(self) -> dict[str, Any]:
        """Return calls, success_rate, latency_p50 and latency_p99 (seconds) of the last WINDOW_S seconds.

        The rates are None when there were no calls. Never switches.
        """
        since = clock.now() - WINDOW_S
        recent = [(seconds, outcome) for at, seconds, outcome in self._calls if at >= since]
        times = sorted(seconds for seconds, _ in recent)
        good = sum(outcome == "ok" for _, outcome in recent)
        return {
            "calls": len(recent),
            "success_rate": round(good / len(recent), 4) if recent else None,
            "latency_p50": _quantile(times, 0.5),
            "latency_p99": _quantile(times, 0.99),
        }


def _quantile(ordered: list[float], share: float) -> float | None:
    """The smallest value that at least `share` of all do not exceed (nearest rank)."""
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 6) if ordered else None


_windows: dict[str, Window] = {}
_listeners: dict[str, Listener] = {}


def window(actor: str) -> Window:
    """Return the window of an integration, made on first use. Never switches."""
    found = _windows.get(actor)
    if found is None:
        if len(_windows) >= MAX_INTEGRATIONS:
            return Window()
        found = _windows[actor] = Window()
    return found


def attach(listener_id: str, listener: Listener) -> None:
    """Have `listener` called, in the caller's greenlet, at each start and end; it must neither block nor raise.

    Raises ValueError for an id that is in use. Never switches.
    """
    if listener_id in _listeners:
        raise ValueError(f"the telemetry listener {listener_id!r} is attached already, detach it first")
    _listeners[listener_id] = listener


def detach(listener_id: str) -> bool:
    """Remove a listener; False when there is none of this id. Never switches."""
    return _listeners.pop(listener_id, None) is not None


def began(actor: str, operation: str) -> None:
    """Tell that an external call starts. Never switches."""
    if _listeners:
        _tell(CallEvent("start", actor, operation, clock.wall()))


def ended(
    actor: str, operation: str, duration_s: float, error: BaseException | None = None, *, outcome: str | None = None
) -> None:
    """Tell that an external call is over, well or with `error`; `outcome` where it says more. Never switches."""
    if outcome is None:
        outcome = "ok" if error is None else error.code if isinstance(error, RegrowError) else "failed"
    if outcome not in OUTCOMES:
        outcome = "failed"
    CALLS.inc(actor, outcome)
    CALL_SECONDS.observe(duration_s, actor)
    text = None if error is None else redact(f"{outcome}: {error}")[:MAX_ERROR_CHARS]
    window(actor).add(duration_s, outcome, text)
    if _listeners:
        kind: Kind = "stop" if outcome == "ok" else "exception"
        _tell(CallEvent(kind, actor, operation, clock.wall(), duration_s, outcome, text))


def declare(actor: str) -> None:
    """Make every series of an integration exist from the start. Never switches."""
    CALL_SECONDS.declare(actor)
    for outcome in OUTCOMES:
        CALLS.declare(actor, outcome)


@contextlib.contextmanager
def span(actor: str, operation: str) -> Iterator[None]:
    """Report the call that its body makes; an exception is reported and raised on. Never switches by itself."""
    start = clock.now()
    began(actor, operation)
    try:
        yield
    except BaseException as error:
        ended(actor, operation, clock.now() - start, error)
        raise
    ended(actor, operation, clock.now() - start)


def forget(actor: str) -> None:
    """Drop the window of an integration that left the configuration. Never switches."""
    _windows.pop(actor, None)


def _tell(event: CallEvent) -> None:
    for listener_id, listener in list(_listeners.items()):
        try:
            listener(event)
        except Exception:  # noqa: BLE001 - an edge: a broken listener is removed and must not harm the call
            _listeners.pop(listener_id, None)
