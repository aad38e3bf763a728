"""Memory: the answers of asks that carry an `idem` key, so that repeating one does not repeat the work.

The scope of a key is the client's own (its CURVE name, or everybody without CURVE), the target and the method. While
the work runs, repetitions join it; afterwards they get the stored answer. What never started is not stored, since
repeating that is safe and wanted. The memory is bounded in number, bytes and age; the oldest answers go first.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from regrow.protocol.errors import Conflict, Overloaded, RegrowError
from runtime import clock

if TYPE_CHECKING:
    from runtime.edge.gateway.outcome import Outcome
    from runtime.edge.gateway.peer import Ask
    from runtime.promise import Promise

MAX_KEYS = 10_000
MAX_BYTES = 64 * 1024 * 1024
KEPT_S = 3600.0

Key = tuple[str, str, str, str]


class Remembered:
    """One key: the digest of its request, whoever waits for the answer, and the answer once it is there."""

    __slots__ = ("_digest", "_key", "_memory", "answer", "expires_at", "promise", "waiting")

    def __init__(self, memory: IdemMemory, key: Key, digest: bytes) -> None:
        self._memory = memory
        self._key = key
        self._digest = digest
        self.answer: Outcome | None = None
        self.expires_at = 0.0
        self.promise: Promise | None = None
        self.waiting: dict[Ask, None] = {}

    def is_same(self, digest: bytes) -> bool:
        return self._digest == digest

    def leave(self, ask: Ask) -> None:
        """Wait no longer; the work goes on, because its answer may be asked for again. Never switches."""
        self.waiting.pop(ask, None)

    def settle(self, outcome: Outcome) -> None:
        """Store the answer and give it to everybody who waits. Never switches."""
        self.promise = None
        self._memory.settled(self._key, self, outcome)
        for ask in list(self.waiting):
            ask.finish(outcome)


class IdemMemory:
    """All keys, oldest first."""

    def __init__(self, *, max_keys: int = MAX_KEYS, max_bytes: int = MAX_BYTES, kept_s: float = KEPT_S) -> None:
        self.max_keys = max_keys
        self.max_bytes = max_bytes
        self.kept_s = kept_s
        self._pending: dict[Key, Remembered] = {}
        self._answered: dict[Key, Remembered] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._pending) + len(self._answered)

    @property
    def orphans(self) -> int:
        """How many works under way have nobody left who waits for them."""
        return sum(not entry.waiting for entry in self._pending.values())

    def abandon_orphans(self, error: RegrowError) -> None:
        """Give up the work that nobody waits for. Never switches."""
        for entry in [entry for entry in self._pending.values() if not entry.waiting]:
            if entry.promise is not None:
                entry.promise.abandon(error)

    def find(self, key: Key, digest: bytes) -> Remembered | None:
        """Return what is known of this key; raises `Conflict` when it was used for another body. Never switches."""
        found = self._pending.get(key) or self._answered.get(key)
        if found is not None and found.answer is not None and found.expires_at <= clock.now():
            self._forget(key)
            found = None
        if found is not None and not found.is_same(digest):
            raise Conflict(f"the idem key was used for another body of {key[1]}.{key[2]}, use a new key for new work")
        return found

    def begin(self, key: Key, digest: bytes) -> Remembered:
        """Remember a new key; raises `Overloaded` when too many are under way. Never switches."""
        if len(self._pending) >= self.max_keys:
            raise Overloaded(f"{self.max_keys} asks with an idem key are under way, come back later", retry_after_s=1.0)
        entry = self._pending[key] = Remembered(self, key, digest)
        return entry

    def settled(self, key: Key, entry: Remembered, outcome: Outcome) -> None:
        """Move a key from under way to answered, or forget it when its work never started. Never switches."""
        if self._pending.get(key) is not entry:
            return
        del self._pending[key]
        if outcome.started == "no":
            return
        entry.answer = outcome
        entry.expires_at = clock.now() + self.kept_s
        self._answered[key] = entry
        self._bytes += outcome.size_bytes
        while self._answered and (len(self._answered) > self.max_keys or self._bytes > self.max_bytes):
            self._forget(next(iter(self._answered)))

    def expire(self) -> None:
        """Forget what is too old. Never switches."""
        now = clock.now()
        for key, entry in list(self._answered.items()):
            if entry.expires_at > now:
                break
            self._forget(key)

    def _forget(self, key: Key) -> None:
        entry = self._answered.pop(key)
        if entry.answer is not None:
            self._bytes -= entry.answer.size_bytes


def digest(codec: str, body: bytes | None) -> bytes:
    """Return what tells two bodies apart. Never switches."""
    return blake2b(body or b"", digest_size=16, person=codec.encode()).digest()
