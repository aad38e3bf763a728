"""The cache actor: answers kept for their time; the shelf outlives the actor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.resilience.shelf import Kept, Shelf
from runtime import clock
from runtime.actor import Actor, exported
from runtime.measure import Counter, Gauge

LOOKUPS = Counter("cache_lookups_total", "what the cache had", ("actor", "result"))
CACHE_BYTES = Gauge("cache_bytes", "bytes of kept answers", ("actor",))


@dataclass(frozen=True, slots=True)
class Lookup:
    """Ask for an answer: `Kept`, fresh or stale, or None."""

    key: str


@dataclass(frozen=True, slots=True)
class Keep:
    """Tell an answer to keep: fresh for `fresh_s` seconds, as a stand-in for `stale_s` more, `keep_s` in all at least.

    It was `age_s` seconds old when it came; `group` names what is forgotten together. For `refresh_s` seconds after it
    has become stale it may still be used while a newer one is asked for.
    """

    key: str
    content: bytes
    fresh_s: float
    stale_s: float
    keep_s: float = 0.0
    age_s: float = 0.0
    group: str = ""
    refresh_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Forget:
    """Tell that the answers of a group no longer hold."""

    group: str


class Cache(Actor):
    """The answers of one integration."""

    def __init__(self, integration: str, shelf: Shelf) -> None:
        super().__init__()
        self._integration = integration
        self._shelf = shelf

    def on_start(self) -> None:
        """Make the series exist."""
        declare(self._integration)
        CACHE_BYTES.set(self._shelf.bytes, self._integration)

    def on_receive(self, message: object) -> Kept | None:
        """Look up, keep or forget. Never switches."""
        now = clock.now()
        if isinstance(message, Lookup):
            kept = self._shelf.get(message.key, now)
            LOOKUPS.inc(self._integration, "miss" if kept is None else "fresh" if kept.fresh(now) else "stale")
            return kept
        if isinstance(message, Keep):
            self._shelf.put(
                message.key,
                message.content,
                now,
                fresh_s=message.fresh_s,
                stale_s=message.stale_s,
                keep_s=message.keep_s,
                age_s=message.age_s,
                group=message.group,
                refresh_s=message.refresh_s,
            )
            CACHE_BYTES.set(self._shelf.bytes, self._integration)
            return None
        if isinstance(message, Forget):
            self._shelf.drop_group(message.group)
            CACHE_BYTES.set(self._shelf.bytes, self._integration)
            return None
        raise TypeError(f"the cache of {self._integration} got a message of type {type(message).__name__}")

    @exported
    def clear(self) -> int:
        """Forget all answers and return how many there were."""
        count = self._shelf.clear()
        CACHE_BYTES.set(0, self._integration)
        return count

    def status(self) -> Mapping[str, Any]:
        """Return how full the cache is. Never switches."""
        shelf = self._shelf
        return {
            "entries": len(shelf),
            "bytes": shelf.bytes,
            "max_bytes": shelf.max_bytes,
            "evicted": shelf.evicted,
        }


def declare(integration: str) -> None:
    """Make every series of a cache exist. Never switches."""
    for result in ("fresh", "stale", "miss"):
        LOOKUPS.declare(integration, result)
    CACHE_BYTES.declare(integration)
