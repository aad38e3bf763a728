"""The directory: which names the wire may address, what each exports, and why one cannot be reached just now.

An entry stays while its actor restarts, waits or is parked: that is the difference between `unavailable` and
`not_found`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from regrow.protocol.errors import Unavailable
from runtime.exports import Exported
from runtime.introspect import ChildFacts
from runtime.names import whereis
from runtime.ref import RETRY_AFTER_S, Ref


class Entry:
    """One configured name: its exports, the default deadline of a request, and the living actor behind it.

    `parts` names those of whom one at least must live for the name to be reached, where its actor only hands on.
    """

    __slots__ = ("_where", "exports", "kind", "name", "parts", "timeout_s", "type")

    def __init__(
        self,
        name: str,
        kind: str,
        exports: Mapping[str, Exported],
        timeout_s: float,
        where: Callable[[], ChildFacts | None],
        *,
        type: str | None = None,
        parts: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.kind = kind
        self.type = type or kind
        self.exports = exports
        self.timeout_s = timeout_s
        self.parts = tuple(parts)
        self._where = where

    @property
    def ref(self) -> Ref | None:
        """The living actor of this name now. Never switches."""
        if self.parts and all(whereis(part) is None for part in self.parts):
            return None
        return whereis(self.name)

    @property
    def state(self) -> str:
        """running, or why it is not: restarting, failed, stopped. Never switches."""
        if self.ref is not None:
            return "running"
        facts = self._where()
        return "stopped" if facts is None else facts.state

    def unavailable(self) -> Unavailable:
        """Return the error of a request that finds no living actor, with when to come back. Never switches."""
        facts = self._where()
        if facts is None:
            return Unavailable(f"{self.name} is not running", actor=self.name, retry_after_s=RETRY_AFTER_S)
        why = f": {facts.why}" if facts.why else ""
        state = "not running" if facts.state == "running" else facts.state
        return Unavailable(
            f"{self.name} is {state}{why}",
            actor=self.name,
            crash_id=facts.crash_id,
            retry_after_s=max(RETRY_AFTER_S, facts.retry_in_s or 0.0),
        )

    def __repr__(self) -> str:
        return f"<Entry {self.name} {self.state}, {len(self.exports)} methods>"


class Directory:
    """All configured names, in the order of the configuration."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def add(self, entry: Entry) -> None:
        """Add an entry; the configuration has made sure that its name is new. Never switches."""
        self._entries[entry.name] = entry

    def find(self, name: str) -> Entry | None:
        """Return the entry of a name, None when nothing is configured under it. Never switches."""
        return self._entries.get(name)

    def entries(self) -> Iterable[Entry]:
        """Return every entry. Never switches."""
        return self._entries.values()

    def __repr__(self) -> str:
        return f"<Directory of {len(self._entries)}: {', '.join(self._entries)}>"
