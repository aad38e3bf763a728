"""Reloading: what a changed configuration file means for a daemon that runs.

The client keys of [gateway.curve] are taken over at once. Everything else that differs is told, key by key, as waiting
for a restart; a file that cannot be loaded changes nothing.
"""

from __future__ import annotations

from typing import Any

import msgspec

from config.load import Config
from config.schema import Curve

MAX_TOLD = 50
_MISSING: Any = object()


def new_clients(old: Config, new: Config) -> Curve | None:
    """Return the CURVE table whose client keys are to be taken over, None when they are the same or there is no CURVE.

    Never switches.
    """
    before, after = old.gateway.curve, new.gateway.curve
    if before is None or after is None or before.clients == after.clients:
        return None
    return after


def taken_over(old: Config, curve: Curve) -> Config:
    """Return the configuration that is in effect once the client keys were taken over. Never switches."""
    assert old.gateway.curve is not None
    kept = msgspec.structs.replace(old.gateway.curve, clients=curve.clients)
    return msgspec.structs.replace(old, gateway=msgspec.structs.replace(old.gateway, curve=kept))


def client_changes(old: Config, new: Config) -> dict[str, list[str]]:
    """Return the names of the clients that were added, removed and changed. Never switches."""
    tables = (old.gateway.curve, new.gateway.curve)
    before, after = ({} if curve is None else {client.name: client for client in curve.clients} for curve in tables)
    return {
        "clients_added": sorted(after.keys() - before.keys()),
        "clients_removed": sorted(before.keys() - after.keys()),
        "clients_changed": sorted(name for name in before.keys() & after.keys() if before[name] != after[name]),
    }


def waiting_for_restart(old: Config, new: Config) -> list[str]:
    """Return the keys that differ and are not taken over, sorted; never a value. Never switches."""
    curve = new_clients(old, new)
    if curve is not None:
        old = taken_over(old, curve)
    before, after = old.dump(), new.dump()
    found = _differences(before, after, "")
    for name in ("daemon", "gateway", "http", "actors", "integrations"):
        told = any(key == name or key.startswith(f"{name}.") for key in found)
        if not told and getattr(old, name) != getattr(new, name):
            found.append(f"{name} (a secret)")  # which is shown the same whatever it is
    return sorted(found)


def _differences(before: Any, after: Any, path: str) -> list[str]:
    if before == after:
        return []
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return [path]
    found = []
    for key in {**before, **after}:
        found += _differences(before.get(key, _MISSING), after.get(key, _MISSING), f"{path}.{key}" if path else key)
    return found
