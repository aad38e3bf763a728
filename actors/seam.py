"""The seam between the daemon and an integration: what an integration contributes, and what it is given.

It stands outside `actors.integrations` so that the integrations, which never import one another, can all import it.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from config.secret import Secret
    from runtime.exports import Exported
    from supervisors import ChildSpec


@dataclass(frozen=True)
class Context:
    """What the daemon tells every integration; relative paths of the configuration start at `config_dir`."""

    state_dir: Path
    config_dir: Path
    redis_url: Secret | None
    daemon_name: str


@dataclass(frozen=True)
class Plan:
    """What an integration contributes to the tree.

    The children start in order under a supervisor of their own; the front is the one named as the integration itself.
    Only `exports` can be called from the wire; `timeout_s` is the default deadline of a call.
    """

    children: list[ChildSpec]
    exports: Mapping[str, Exported]
    timeout_s: float


@dataclass(frozen=True)
class Integration:
    """One type of integration: its word in the configuration, its keys, and how its part of the tree is planned."""

    type: str
    config: builtins.type[msgspec.Struct]
    plan: Callable[[str, Any, Context], Plan]
