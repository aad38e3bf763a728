"""Waiting for a dependency: who is to be told when a circuit closes or a database is back (ours, beyond OTP).

A child with `on_dependency_down = "wait"` that crashed because something it depends on is down is parked here instead
of being restarted: it spends no restart intensity, and comes back as soon as its dependency does. A timer with a
growing delay stands beside it, for dependencies that say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from runtime import events
from runtime.events import Event

BACK = frozenset({"breaker.closed", "breaker.half_opened", "database.connected", "redis.found", "actor.restarted"})

_waiting: dict[str, dict[int, Callable[[], object]]] = {}
_numbers = 0
_unsubscribe: Callable[[], None] | None = None


def wait_for(names: Iterable[str], wake: Callable[[], object]) -> Callable[[], None]:
    """Call `wake` once one of the named dependencies is back; return the function that ends the wait.

    Never switches.
    """
    global _numbers, _unsubscribe
    _numbers += 1
    number = _numbers
    wanted = list(names)
    for name in wanted:
        _waiting.setdefault(name, {})[number] = wake
    if _unsubscribe is None:
        _unsubscribe = events.subscribe(_on_event)

    def end() -> None:
        for name in wanted:
            waiters = _waiting.get(name)
            if waiters is not None:
                waiters.pop(number, None)
                if not waiters:
                    del _waiting[name]
        _stop_listening()

    return end


def _on_event(event: Event) -> None:
    if event.topic not in BACK:
        return
    actor = str(event.fields.get("actor", ""))
    for name in {actor, actor.partition("/")[0]}:
        for wake in list(_waiting.get(name, {}).values()):
            wake()


def _stop_listening() -> None:
    global _unsubscribe
    if not _waiting and _unsubscribe is not None:
        _unsubscribe()
        _unsubscribe = None
