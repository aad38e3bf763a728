"""Names: one name, one actor; freed when the actor ends, before its links and monitors can hear of it (OTP)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrow.protocol.errors import Conflict

if TYPE_CHECKING:
    from runtime.ref import Ref

_names: dict[str, Ref] = {}


class NameTaken(Conflict):
    """Another living actor has the name; `holder` is its ref (OTP's `already_started`)."""

    def __init__(self, name: str, holder: Ref) -> None:
        super().__init__(f"the name {name!r} belongs to another actor, {holder}, stop it or choose another name")
        self.holder = holder


def whereis(name: str) -> Ref | None:
    """Return the living actor that has this name, or None. Never switches."""
    return _names.get(name)


def register(name: str, ref: Ref) -> None:
    """Give the actor its only name; raises `NameTaken`. Never switches."""
    holder = _names.setdefault(name, ref)
    if holder is not ref:
        raise NameTaken(name, holder)
    ref.name = name


def release(ref: Ref) -> None:
    """Free the name of an actor. Never switches."""
    name = ref.name
    if name is not None and _names.get(name) is ref:
        del _names[name]


def registered() -> list[str]:
    """Return the names in use. Never switches."""
    return list(_names)
