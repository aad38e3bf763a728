"""Registries: actors found by keys of any kind, one or many under a key, gone with their owner (Elixir `Registry`).

A registry is a table on the hub, not an actor: it cannot crash, and a lookup costs a dictionary access. With unique
keys it is a name service for keys that are no strings; with duplicate keys it is process groups with dispatch to all
members. Names (runtime.names) stay what the wire addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Literal

from regrow.protocol.errors import Conflict, Unavailable
from runtime.ref import DEFAULT_ASK_TIMEOUT_S, RETRY_AFTER_S, Ref
from runtime.scheduler import DEAD, current_ref
from runtime.signals import Down, Monitor, demonitor, monitor

Listener = Callable[[Literal["registered", "unregistered"], Hashable, Ref, Any], object]


class AlreadyRegistered(Conflict):
    """Another living actor has this unique key; `holder` is its ref."""

    def __init__(self, key: Hashable, holder: Ref) -> None:
        super().__init__(f"the key {key!r} belongs to another actor, {holder}")
        self.holder = holder


class Registry:
    """Entries of (key, owner, value).

    `keys` is "unique" or "duplicate". A listener hears of each change, in the hub.
    """

    def __init__(self, keys: Literal["unique", "duplicate"] = "unique", *, listener: Listener | None = None) -> None:
        if keys not in ("unique", "duplicate"):
            raise ValueError(f"keys is {keys!r}, expected 'unique' or 'duplicate'")
        self.unique = keys == "unique"
        self._listener = listener
        self._by_key: dict[Hashable, dict[Ref, Any]] = {}
        self._by_owner: dict[Ref, tuple[Monitor, dict[Hashable, None]]] = {}

    def register(self, key: Hashable, value: Any = None, *, owner: Ref | None = None) -> None:
        """Enter the calling actor (or `owner`) under a key; raises `AlreadyRegistered`. Never switches.

        Under a duplicate key an actor has one entry, and registering again replaces its value.
        """
        ref = _owner(owner)
        if ref.state == DEAD:
            raise Unavailable(f"{ref} is dead and cannot be registered", retry_after_s=RETRY_AFTER_S)
        members = self._by_key.get(key)
        if members and self.unique:
            holder = next((other for other in members if other.state != DEAD and other is not ref), None)
            if holder is not None:
                raise AlreadyRegistered(key, holder)
        if members is None:
            members = self._by_key[key] = {}
        members[ref] = value
        owned = self._by_owner.get(ref)
        if owned is None:
            owned = self._by_owner[ref] = (monitor(ref, self._owner_ended), {})
        owned[1][key] = None
        self._tell("registered", key, ref, value)

    def unregister(self, key: Hashable, *, owner: Ref | None = None) -> None:
        """Remove the calling actor's (or `owner`'s) entry under a key, if there is one. Never switches."""
        ref = _owner(owner)
        owned = self._by_owner.get(ref)
        if owned is None or key not in owned[1]:
            return
        del owned[1][key]
        if not owned[1]:
            demonitor(owned[0])
            del self._by_owner[ref]
        self._remove(key, ref)

    def lookup(self, key: Hashable) -> list[tuple[Ref, Any]]:
        """Return (owner, value) of each living entry under a key, the first registered first. Never switches."""
        return [(ref, value) for ref, value in self._by_key.get(key, {}).items() if ref.state != DEAD]

    def whereis(self, key: Hashable) -> Ref | None:
        """Return the living owner of a key, the first one where there are several. Never switches."""
        return next((ref for ref in self._by_key.get(key, ()) if ref.state != DEAD), None)

    def keys(self, owner: Ref | None = None) -> list[Hashable]:
        """Return the keys of the calling actor, or of `owner`. Never switches."""
        owned = self._by_owner.get(_owner(owner))
        return list(owned[1]) if owned is not None else []

    def update_value(self, key: Hashable, change: Callable[[Any], Any], *, owner: Ref | None = None) -> Any:
        """Replace the value of the calling actor's entry by `change(value)` and return it.

        KeyError without an entry.
        """
        ref = _owner(owner)
        members = self._by_key.get(key, {})
        if ref not in members:
            raise KeyError(key)
        members[ref] = change(members[ref])
        return members[ref]

    def dispatch(self, key: Hashable, send: Callable[[list[tuple[Ref, Any]]], object]) -> int:
        """Call `send` with all living entries under a key, unless there are none; return how many. Never switches."""
        entries = self.lookup(key)
        if entries:
            send(entries)
        return len(entries)

    def tell_all(self, key: Hashable, message: Any) -> int:
        """Tell a message to every member under a key and return how many have it in their mailbox. Never switches.

        A member whose mailbox is full is left out: one slow member must not keep the message from the others.
        """
        sent = 0
        for ref, _ in self.lookup(key):
            try:
                ref.tell(message)
            except Unavailable:
                continue
            except Exception:  # noqa: BLE001 - an edge: the members are independent of each other
                continue
            sent += 1
        return sent

    def via(self, key: Hashable) -> Via:
        """Return an address that finds the owner anew for each message (Elixir's via tuple). Never switches."""
        return Via(self, key)

    def __len__(self) -> int:
        return sum(len(members) for members in self._by_key.values())

    def __repr__(self) -> str:
        return f"<Registry of {len(self)} entries, {'unique' if self.unique else 'duplicate'} keys>"

    def _owner_ended(self, down: Down) -> None:
        owned = self._by_owner.pop(down.ref, None)
        for key in owned[1] if owned is not None else ():
            self._remove(key, down.ref)

    def _remove(self, key: Hashable, ref: Ref) -> None:
        members = self._by_key.get(key)
        if members is None or ref not in members:
            return
        value = members.pop(ref)
        if not members:
            del self._by_key[key]
        self._tell("unregistered", key, ref, value)

    def _tell(self, what: Literal["registered", "unregistered"], key: Hashable, ref: Ref, value: Any) -> None:
        if self._listener is not None:
            self._listener(what, key, ref, value)


class Via:
    """An address of whoever owns a key at the moment a message is sent."""

    __slots__ = ("key", "registry")

    def __init__(self, registry: Registry, key: Hashable) -> None:
        self.registry = registry
        self.key = key

    def tell(self, message: Any) -> None:
        """Tell the present owner; raises `Unavailable` where there is none. Never switches."""
        self._ref().tell(message)

    def ask(self, message: Any, *, timeout: float | None = DEFAULT_ASK_TIMEOUT_S) -> Any:
        """Ask the present owner; raises `Unavailable` where there is none. Switches greenlets."""
        return self._ref().ask(message, timeout=timeout)

    def _ref(self) -> Ref:
        ref = self.registry.whereis(self.key)
        if ref is None:
            raise Unavailable(f"nobody is registered under {self.key!r}", retry_after_s=RETRY_AFTER_S)
        return ref

    def __repr__(self) -> str:
        return f"<Via {self.key!r}>"


def _owner(owner: Ref | None) -> Ref:
    ref = owner or current_ref()
    if ref is None:
        raise TypeError("a registry was used outside of an actor, name the owner")
    return ref
