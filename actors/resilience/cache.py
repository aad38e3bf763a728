"""The cache actor: answers kept for their time; the shelf outlives the actor, and may be shared through Redis.

With a shared shelf what Redis says counts, and the own shelf keeps a copy: it spares the way of an answer that has not
changed, and serves alone while Redis does not answer.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from actors.resilience.shared import SharedDown
from actors.resilience.shared_shelf import LEASE_S, SharedShelf
from actors.resilience.shelf import Kept, Shelf, kept_at
from regrow.protocol.errors import Unavailable
from runtime import clock
from runtime.actor import Actor, exported
from runtime.measure import Counter, Gauge
from runtime.promise import Promise

LOOKUPS = Counter("cache_lookups_total", "what the cache had", ("actor", "result"))
WAITS = Counter("cache_waits_total", "lookups that waited for the answer another daemon asked for", ("actor",))
CACHE_BYTES = Gauge("cache_bytes", "bytes of kept answers in this process", ("actor",))

# Another daemon's answer is looked for so often: soon, as most answers take some milliseconds, then less and less.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.25
MAX_WAITING = 10_000


@dataclass(frozen=True, slots=True)
class Lookup:
    """Ask for an answer: `Kept`, fresh or stale, or None.

    `wait_s`, for those who will ask the peer if there is none: so long the answer that another daemon asks for just now
    is waited for; with `among="callers"` also the one that another caller of this cache asks for. Who is answered with
    none or a stale one (`asked` is False) is then the one who asks: it tells what to keep, or lets go.
    """

    key: str
    wait_s: float = 0.0
    among: Literal["daemons", "callers"] = "daemons"


@dataclass(frozen=True, slots=True)
class Keep:
    """Tell an answer to keep: fresh for `fresh_s` seconds, as a stand-in for `stale_s` more, `keep_s` in all at least.

    It was `age_s` seconds old when it came; `group` names what is forgotten together, and where that happened within
    the `took_s` seconds that it took to come, it is not kept. For `refresh_s` seconds after it has become stale it may
    still be used while a newer one is asked for.
    """

    key: str
    content: bytes
    fresh_s: float
    stale_s: float = 0.0
    keep_s: float = 0.0
    age_s: float = 0.0
    group: str = ""
    refresh_s: float = 0.0
    took_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LetGo:
    """Tell that no answer came that could be kept, so that another daemon may ask."""

    key: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Tell that the answers of a group no longer hold."""

    group: str


@dataclass(frozen=True, slots=True)
class _LookAgain:
    """The cache's own timer: whether another daemon's answer is there by now."""

    key: str


@dataclass(slots=True)
class _Queue:
    """Who waits for the same answer, each until when, and when it is looked for again."""

    among: Literal["daemons", "callers"]
    promises: deque[tuple[Promise, float]] = field(default_factory=deque)
    until: float = 0.0
    pause_s: float = 0.0
    looks_at: float = 0.0
    timer: clock.Timer | None = None


class Cache(Actor):
    """The answers of one integration; `integration` names it in metrics."""

    def __init__(self, integration: str, shelf: Shelf, shared: SharedShelf | None = None) -> None:
        super().__init__()
        self._integration = integration
        self._shelf = shelf
        self._shared = shared
        self._waiting: dict[str, _Queue] = {}
        self._asking: dict[str, float] = {}
        self._waiters = 0

    def on_start(self) -> None:
        """Make the series exist."""
        declare(self._integration)
        self._count()

    def on_stop(self) -> None:
        """Close the connections to Redis."""
        if self._shared is not None:
            self._shared.link.close()

    def on_receive(self, message: object) -> Kept | None:
        """Look up, keep or forget. Switches greenlets only when answers are shared."""
        if isinstance(message, Lookup):
            return self._look_up(message)
        if isinstance(message, Keep):
            self._keep(message)
        elif isinstance(message, Forget):
            self._shelf.change(message.group, clock.now())
            if self._shared is not None:
                self._shared.drop_group(message.group)
        elif isinstance(message, LetGo):
            self._let_go(message.key)
        elif isinstance(message, _LookAgain):
            self._look_again(message.key)
        else:
            raise TypeError(f"the cache of {self._integration} got a message of type {type(message).__name__}")
        self._count()
        return None

    @exported
    def clear(self) -> int:
        """Forget all answers, those of other daemons too where they are shared, and return how many there were."""
        count = self._shelf.clear()
        self._count()
        if self._shared is not None:
            try:
                count = self._shared.clear()
            except SharedDown as down:
                raise Unavailable(
                    f"the cache of {self._integration} is cleared in this daemon only, redis does not answer",
                    actor=self._integration,
                    retry_after_s=down.retry_after_s,
                ) from None
        return count

    def status(self) -> Mapping[str, Any]:
        """Return how full the cache is. Never switches."""
        shelf = self._shelf
        shown: dict[str, Any] = {
            "entries": len(shelf),
            "bytes": shelf.bytes,
            "max_bytes": shelf.max_bytes,
            "evicted": shelf.evicted,
        }
        if self._shared is not None:
            shown |= {"redis": self._shared.link.state, "waiting": self._waiters}
        return shown

    def _look_up(self, message: Lookup) -> Kept | None:
        key, now = message.key, clock.now()
        if message.wait_s <= 0:
            return self._told(self._find(key, lease=False)[0])
        queue = self._waiting.get(key)
        if queue is not None and self._waiters < MAX_WAITING:
            self._wait(queue, now + message.wait_s)
            if now + message.wait_s < queue.looks_at:
                self._look_later(key, queue, message.wait_s)
            return None
        kept, elsewhere = self._find(key, lease=True)
        here = message.among == "callers" and self._asking.get(key, now) > now
        if kept is not None and kept.usable(now):
            if here and not kept.fresh(now):
                kept = dataclasses.replace(kept, asked=True)
        elif (here or elsewhere) and self._waiters < MAX_WAITING:
            self._waiting[key] = queue = _Queue(message.among)
            self._wait(queue, now + message.wait_s)
            self._look_later(key, queue, FIRST_PAUSE_S if elsewhere else message.wait_s)
            return None
        if message.among == "callers" and not (kept is not None and (kept.fresh(now) or kept.asked)):
            self._asks(key, now)
        return self._told(kept)

    def _asks(self, key: str, now: float) -> None:
        """Have other callers wait for who has just been sent to the peer."""
        if len(self._asking) >= MAX_WAITING:
            self._asking = {other: until for other, until in self._asking.items() if until > now}
        if len(self._asking) < MAX_WAITING:
            self._asking[key] = now + LEASE_S

    def _wait(self, queue: _Queue, until: float) -> None:
        WAITS.inc(self._integration)
        self._waiters += 1
        queue.promises.append((self.defer(), until))
        queue.until = max(queue.until, until)

    def _look_later(self, key: str, queue: _Queue, pause_s: float) -> None:
        if queue.timer is not None:
            queue.timer.cancel()
        queue.pause_s = pause_s
        queue.looks_at = clock.now() + pause_s
        queue.timer = self.send_after(pause_s, _LookAgain(key))

    def _look_again(self, key: str) -> None:
        queue = self._waiting.get(key)
        if queue is None:
            return
        if all(promise.done for promise, _ in queue.promises):
            self._end(key, queue)
            return
        kept, elsewhere = self._find(key, lease=True)
        now = clock.now()
        here = queue.among == "callers" and self._asking.get(key, now) > now
        if (elsewhere or here) and now < queue.until and not (kept is not None and kept.usable(now)):
            self._let_the_hasty_go(key, queue, kept, now)
            if not queue.promises:
                self._end(key, queue)
                return
            pause_s = max(min(until for _, until in queue.promises) - now, FIRST_PAUSE_S)
            self._look_later(key, queue, min(queue.pause_s * 2, LONGEST_PAUSE_S, pause_s) if elsewhere else pause_s)
        else:
            self._end_wait(key, queue, kept)

    def _let_the_hasty_go(self, key: str, queue: _Queue, kept: Kept | None, now: float) -> None:
        """Answer those who can wait no longer; whoever can has still to wait."""
        waiting, queue.promises = queue.promises, deque()
        for promise, until in waiting:
            if until > now:
                queue.promises.append((promise, until))
                continue
            self._waiters -= 1
            if promise.resolve(kept):
                self._told(kept)
                if queue.among == "callers":
                    self._asks(key, now)

    def _end_wait(self, key: str, queue: _Queue, kept: Kept | None) -> None:
        """Answer those who wait: all of them, unless one has to ask the peer for the others."""
        now = clock.now()
        if queue.among == "callers" and not (kept is not None and kept.usable(now)) and now < queue.until:
            while queue.promises:
                self._waiters -= 1
                promise, _ = queue.promises.popleft()
                if promise.resolve(kept):
                    self._told(kept)
                    self._asks(key, now)
                    break
            if queue.promises:
                if queue.timer is None or not queue.timer.pending:
                    self._look_later(key, queue, max(queue.until - now, FIRST_PAUSE_S))
                return
        self._end(key, queue)
        for promise, _ in queue.promises:
            if promise.resolve(kept):
                self._told(kept)

    def _end(self, key: str, queue: _Queue) -> None:
        del self._waiting[key]
        self._waiters -= len(queue.promises)
        if queue.timer is not None:
            queue.timer.cancel()

    def _find(self, key: str, *, lease: bool) -> tuple[Kept | None, bool]:
        """Return what there is, and whether another daemon asks for a newer one."""
        local = self._shelf.get(key, clock.now())
        if self._shared is None:
            return local, False
        try:
            found = self._shared.get(key, local, lease=lease)
        except SharedDown:
            return local, False
        kept = found.kept
        if kept is None:
            # Forgotten by another daemon, or lost: either way it is no longer known to hold.
            self._shelf.drop(key)
        elif kept is not local:
            self._shelf.place(key, kept)
            self._count()
        if kept is not None and found.asks == "other":
            kept = dataclasses.replace(kept, asked=True)
        return kept, found.asks == "other"

    def _told(self, kept: Kept | None) -> Kept | None:
        now = clock.now()
        LOOKUPS.inc(self._integration, "miss" if kept is None else "fresh" if kept.fresh(now) else "stale")
        return kept

    def _keep(self, message: Keep) -> None:
        now = clock.now()
        if self._shelf.is_outdated(message.group, now - message.took_s):
            self._let_go(message.key)
            return
        kept = kept_at(
            now,
            message.content,
            fresh_s=message.fresh_s,
            stale_s=message.stale_s,
            keep_s=message.keep_s,
            age_s=message.age_s,
            group=message.group,
            refresh_s=message.refresh_s,
            stamp="" if self._shared is None else secrets.token_hex(8),
        )
        if self._share(message, kept, now):
            self._shelf.place(message.key, kept)
        self._asking.pop(message.key, None)
        queue = self._waiting.get(message.key)
        if queue is not None:
            self._end_wait(message.key, queue, kept)

    def _share(self, message: Keep, kept: Kept, now: float) -> bool:
        """Keep it in Redis; False when it may not be kept here either."""
        if self._shared is None:
            return True
        try:
            return self._shared.put(message.key, kept, now, message.took_s)
        except SharedDown:
            # Redis may hold an older one, which is then found when it is back: it is as good as it ever was.
            return True

    def _let_go(self, key: str) -> None:
        if self._shared is not None:
            try:
                self._shared.release(key)
            except SharedDown:
                pass
        self._asking.pop(key, None)
        queue = self._waiting.get(key)
        if queue is not None and queue.among == "callers":
            self._look_again(key)

    def _count(self) -> None:
        CACHE_BYTES.set(self._shelf.bytes, self._integration)


def declare(integration: str) -> None:
    """Make every series of a cache exist. Never switches."""
    for result in ("fresh", "stale", "miss"):
        LOOKUPS.declare(integration, result)
    WAITS.declare(integration)
    CACHE_BYTES.declare(integration)
