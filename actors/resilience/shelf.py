"""What the cache keeps: answers as bytes, bounded by number and size, fresh for a while and stale for longer."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

# What an entry costs beside its own bytes; measured with sys.getsizeof over the parts of an entry.
ENTRY_BYTES = 400
# An answer that was asked for before something was changed, and comes so long after that, is taken for a new one.
CHANGE_REMEMBERED_S = 60.0
MAX_CHANGES = 1000


@dataclass(frozen=True, slots=True)
class Kept:
    """One answer: opaque bytes, when it was made, until when it is fresh, may stand in, and is kept at all.

    Between the last two it can only be asked for again; `group` names what is forgotten together. Until
    `refresh_until` it may be used although it is stale, while a newer one is asked for.
    """

    content: bytes
    made_at: float
    fresh_until: float
    stale_until: float
    until: float
    group: str
    refresh_until: float = 0.0
    stamp: str = ""
    """Tells this answer from every other one of its key; empty where nobody else keeps answers."""
    asked: bool = False
    """Somebody asks for a newer one already."""

    def fresh(self, now: float) -> bool:
        """True while the answer may be used as if it had just come. Never switches."""
        return now < self.fresh_until

    def usable(self, now: float) -> bool:
        """True while the answer may be used at once, with or without being asked for anew. Never switches."""
        return now < max(self.fresh_until, self.refresh_until)


def kept_at(
    now: float,
    content: bytes,
    *,
    fresh_s: float,
    stale_s: float,
    keep_s: float = 0.0,
    age_s: float = 0.0,
    group: str = "",
    refresh_s: float = 0.0,
    stamp: str = "",
) -> Kept:
    """Return an answer that came `age_s` seconds old, with its times counted from now. Never switches.

    It is kept for `keep_s` seconds at least, and may be used for `refresh_s` seconds after it has become stale, while a
    newer one is asked for.
    """
    fresh_until = now + fresh_s
    stale_until, refresh_until = fresh_until + stale_s, fresh_until + refresh_s
    until = max(stale_until, refresh_until, now + keep_s)
    return Kept(content, now - age_s, fresh_until, stale_until, until, group, refresh_until, stamp)


class Shelf:
    """Least recently used answers make room for new ones."""

    def __init__(self, max_bytes: int, max_entries: int = 10_000, max_entry_bytes: int | None = None) -> None:
        self.max_bytes = max_bytes
        self.max_entries = max_entries
        self.max_entry_bytes = max_bytes if max_entry_bytes is None else max_entry_bytes
        self.bytes = 0
        self.evicted = 0
        self._entries: OrderedDict[str, Kept] = OrderedDict()
        self._groups: dict[str, set[str]] = {}
        self._changed: dict[str, float] = {}
        self._all_changed = float("-inf")

    def __repr__(self) -> str:
        return f"<Shelf {len(self._entries)} entries, {self.bytes}/{self.max_bytes} bytes>"

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str, now: float) -> Kept | None:
        """Return the answer, fresh or stale, None when there is none or it is too old for all. Never switches."""
        kept = self._entries.get(key)
        if kept is None:
            return None
        if now >= kept.until:
            self.drop(key)
            return None
        self._entries.move_to_end(key)
        return kept

    def put(self, key: str, content: bytes, now: float, *, fresh_s: float, stale_s: float, group: str = "") -> bool:
        """Keep an answer in place of an older one; False when it is too large. Never switches."""
        return self.place(key, kept_at(now, content, fresh_s=fresh_s, stale_s=stale_s, group=group))

    def place(self, key: str, kept: Kept) -> bool:
        """Keep an answer whose times are known; False when it is too large. Never switches."""
        self.drop(key)
        size = self._size(key, kept.content)
        if size > self.max_bytes or len(kept.content) > self.max_entry_bytes:
            return False
        while self._entries and (self.bytes + size > self.max_bytes or len(self._entries) >= self.max_entries):
            self._forget_oldest()
        self._entries[key] = kept
        if kept.group:
            self._groups.setdefault(kept.group, set()).add(key)
        self.bytes += size
        return True

    def drop(self, key: str) -> None:
        """Forget one answer. Never switches."""
        kept = self._entries.pop(key, None)
        if kept is not None:
            self._forget(key, kept)

    def change(self, group: str, now: float) -> int:
        """Forget the answers of a group, and those that were asked for before now. Never switches."""
        if len(self._changed) >= MAX_CHANGES:
            self._changed = {other: at for other, at in self._changed.items() if now - at < CHANGE_REMEMBERED_S}
        if len(self._changed) >= MAX_CHANGES:
            self._changed.clear()
            self._all_changed = now
        self._changed[group] = now
        return self.drop_group(group)

    def is_outdated(self, group: str, asked_at: float) -> bool:
        """Tell whether what a group is about was changed after an answer had been asked for. Never switches."""
        return bool(group) and asked_at < max(self._changed.get(group, float("-inf")), self._all_changed)

    def drop_group(self, group: str) -> int:
        """Forget the answers of a group and return how many there were. Never switches."""
        keys = list(self._groups.get(group, ()))
        for key in keys:
            self.drop(key)
        return len(keys)

    def clear(self) -> int:
        """Forget all answers and return how many there were. Never switches."""
        count = len(self._entries)
        self._entries.clear()
        self._groups.clear()
        self.bytes = 0
        return count

    def _forget_oldest(self) -> None:
        key, kept = self._entries.popitem(last=False)
        self._forget(key, kept)
        self.evicted += 1

    def _forget(self, key: str, kept: Kept) -> None:
        self.bytes -= self._size(key, kept.content)
        group = self._groups.get(kept.group)
        if group is not None:
            group.discard(key)
            if not group:
                del self._groups[kept.group]

    @staticmethod
    def _size(key: str, content: bytes) -> int:
        return len(key) + len(content) + ENTRY_BYTES
