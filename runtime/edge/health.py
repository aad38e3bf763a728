"""Health: whether the daemon can take work, as the daemon itself says so.

Alive and ready are two things. Alive means that the hub answers, and needs no state. Ready means that every condition
named at the start is met (store open, tree up, sockets bound) and that no drain has begun. An integration that is down
is told beside it and changes nothing: its peers are no reason to take the daemon out of service.
"""

from __future__ import annotations

from typing import Literal

from runtime import events
from runtime.measure import Gauge

Phase = Literal["starting", "ready", "draining"]

READY = Gauge("ready", "1 while the daemon takes work")


class Health:
    """The conditions of readiness and the drain; set by the daemon, read by `/readyz` and systemd's notifications."""

    def __init__(self, *conditions: str) -> None:
        self._unmet: dict[str, str] = dict.fromkeys(conditions, "starting")
        self._draining = False
        READY.set(float(self.ready))

    def __repr__(self) -> str:
        return f"<Health {self.phase}, unmet {self.unmet()}>"

    @property
    def phase(self) -> Phase:
        if self._draining:
            return "draining"
        return "starting" if self._unmet else "ready"

    @property
    def ready(self) -> bool:
        return self.phase == "ready"

    def unmet(self) -> dict[str, str]:
        """Return the conditions that are not met, each with why. Never switches."""
        return dict(self._unmet)

    def meet(self, condition: str) -> None:
        """Say that a condition holds. Never switches."""
        before = self.phase
        self._unmet.pop(condition, None)
        self._changed(before)

    def fail(self, condition: str, why: str) -> None:
        """Say that a condition does not hold, or no longer. Never switches."""
        before = self.phase
        self._unmet[condition] = why
        self._changed(before)

    def drain(self) -> None:
        """Take no new work from now on; there is no way back. Never switches."""
        before = self.phase
        self._draining = True
        self._changed(before)

    def _changed(self, before: Phase) -> None:
        READY.set(float(self.ready))
        if self.phase != before:
            events.publish("health.changed", before=before, after=self.phase, unmet=self.unmet())
