"""Which name is which storage: registered objects first, then actors of the tree that offer the contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from actors.storage.actor import ActorStorage
from actors.storage.contract import METHODS, Storage
from actors.storage.memory import MemoryStorage
from regrow.protocol.errors import Conflict, NotFound
from runtime.names import whereis

#: what `list_partitions` adds is optional
_NEEDED = frozenset(METHODS[:4])


class Registry:
    """Storages by name, and the one that is meant when no name is given."""

    def __init__(self) -> None:
        self._storages: dict[str, Storage] = {}
        self._default: str | None = None
        self._memory = MemoryStorage()

    def register(self, name: str, storage: Storage, *, default: bool = False) -> None:
        """Give a storage a name; raises `Conflict` when another one has it. Never switches."""
        holder = self._storages.setdefault(name, storage)
        if holder is not storage:
            raise Conflict(f"storage {name!r} is registered already as {holder!r}: choose another name")
        if default:
            self._default = name

    def load_config(
        self, entries: Mapping[str, Callable[..., Storage] | tuple[Callable[..., Storage], Mapping[str, Any]]]
    ) -> None:
        """Register what each entry makes: a class, or a class with its keyword arguments. Never switches."""
        for name, entry in entries.items():
            make, arguments = entry if isinstance(entry, tuple) else (entry, {})
            self.register(name, make(**arguments))

    def resolve(self, name: str) -> Storage:
        """Return the storage of that name, an actor of the tree included; raises `NotFound`. Never switches."""
        found = self._storages.get(name)
        if found is not None:
            return found
        ref = whereis(name)
        exports = getattr(ref.actor, "exports", {}) if ref is not None else {}
        if _NEEDED.issubset(exports):
            return ActorStorage(name)
        why = (
            "no actor has that name" if ref is None else "the actor of that name offers no load, store, exists, delete"
        )
        raise NotFound(f"there is no storage {name!r}: nothing was registered and {why}")

    def default(self) -> Storage:
        """Return the storage that was registered as default, else one in memory that this registry owns.

        Never switches.
        """
        return self._memory if self._default is None else self._storages[self._default]

    def __repr__(self) -> str:
        return f"<Registry of {len(self._storages)} storages>"
