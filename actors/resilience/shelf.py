"""What the cache keeps: answers as bytes, bounded by number and size, fresh for a while and stale for longer."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

# What an entry costs beside its own bytes; measured with sys.getsizeof over the parts of an entry.
ENTRY_BYTES = 400


@dataclass(frozen=True, slots=True)
class Kept:
    """One answer: opaque bytes, when it was made, until when it is fresh and until when it may stand in."""

    content: bytes
    made_at: float
    fresh_until: float
    stale_until: float

    def fresh(self, now: float) -> bool:
        """True while the answer may be used as if it had just come. Never switches."""
        return now < self.fresh_until


class Shelf:
    """Least recently used answers make room for new ones."""

    def __init__(self, max_bytes: int, max_entries: int = 10_000) -> None:
        self.max_bytes = max_bytes
        self.max_entries = max_entries
        self.bytes = 0
        self.evicted = 0
        self._entries: OrderedDict[str, Kept] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Shelf {len(self._entries)} entries, {self.bytes}/{self.max_bytes} bytes>"

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str, now: float) -> Kept | None:
        """Return the answer, fresh or stale, None when there is none or it is too old for both. Never switches."""
        kept = self._entries.get(key)
        if kept is None:
            return None
        if now >= kept.stale_until:
            self.drop(key)
            return None
        self._entries.move_to_end(key)
        return kept

    def put(self, key: str, content: bytes, now: float, *, fresh_s: float, stale_s: float) -> bool:
        """Keep an answer in place of an older one; False when it is larger than the shelf. Never switches."""
        self.drop(key)
        size = self._size(key, content)
        if size > self.max_bytes:
            return False
        while self._entries and (self.bytes + size > self.max_bytes or len(self._entries) >= self.max_entries):
            self._forget_oldest()
        self._entries[key] = Kept(content, now, now + fresh_s, now + fresh_s + stale_s)
        self.bytes += size
        return True

    def drop(self, key: str) -> None:
        """Forget one answer. Never switches."""
        kept = self._entries.pop(key, None)
        if kept is not None:
            self.bytes -= self._size(key, kept.content)

    def clear(self) -> int:
        """Forget all answers and return how many there were. Never switches."""
        count = len(self._entries)
        self._entries.clear()
        self.bytes = 0
        return count

    def _forget_oldest(self) -> None:
        key, kept = self._entries.popitem(last=False)
        self.bytes -= self._size(key, kept.content)
        self.evicted += 1

    @staticmethod
    def _size(key: str, content: bytes) -> int:
        return len(key) + len(content) + ENTRY_BYTES
