"""What an actor system can leave behind: names that are still held, timers that still wait. Guarded like the rest."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import gevent

from runtime import clock, names, scheduler
from runtime.ref import Ref
from tests.support import leaks


class Names:
    """Names in the registry, and by them the actors that hold them: no test may leave one alive."""

    kind = "name"

    def alive(self) -> Mapping[Hashable, Any]:
        holders = {name: names.whereis(name) for name in names.registered()}
        return {(name, ref.serial): (name, ref) for name, ref in holders.items() if ref is not None}

    def settle(self, leaked: Iterable[Any], timeout_s: float) -> None:
        _switch_until_gone(lambda: any(ref.is_alive() for _, ref in leaked))

    def describe(self, leaked: Any) -> str:
        name, ref = leaked
        return f"{name} is held by {ref!r}"

    def end(self, leaked: Iterable[Any]) -> None:
        for ref in _roots(ref for _, ref in leaked):
            ref.kill()


class Timers:
    """Timers of the real clock; a deadline that was met must have been cancelled."""

    kind = "timer"

    def alive(self) -> Mapping[Hashable, Any]:
        # The timer itself is its identity: it lives as long as this mapping's keys are kept.
        # The sweep after long handlers is the machine's own: it ends by itself; cancelled it never starts again.
        return {timer: timer for timer in clock.pending_timers() if timer is not scheduler.S.sweep_timer}

    def settle(self, leaked: Iterable[Any], timeout_s: float) -> None:
        _switch_until_gone(lambda: any(timer.pending for timer in leaked))

    def describe(self, leaked: Any) -> str:
        return repr(leaked)

    def end(self, leaked: Iterable[Any]) -> None:
        for timer in leaked:
            timer.cancel()


def _switch_until_gone(remains: Any, turns: int = 20) -> None:
    for _ in range(turns):
        if not remains():
            return
        gevent.sleep(0)


def _roots(refs: Iterable[Ref]) -> list[Ref]:
    """Return the topmost of these actors, whose ends end the others."""
    given = list(refs)
    return [ref for ref in given if ref.parent not in given]


leaks.register(Timers())
leaks.register(Names())
