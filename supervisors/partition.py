"""Partitions: several copies of one child, and the copy that a key belongs to (Elixir `PartitionSupervisor`).

All messages with one key go to one copy, so they stay in order, while different keys work side by side.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from regrow.protocol.errors import Unavailable
from runtime.introspect import ChildFacts
from runtime.ref import RETRY_AFTER_S, Ref
from supervisors.child import facts_of
from supervisors.spec import ChildSpec, Flags
from supervisors.supervisor import Supervisor

Arguments = Callable[[tuple[Any, ...], Mapping[str, Any], int], tuple[tuple[Any, ...], Mapping[str, Any]]]


class PartitionSupervisor(Supervisor):
    """Runs `partitions` copies (default: one for each core) of the child that `template` describes, with ids 0, 1, ...

    `with_arguments(args, kwargs, partition)` adapts the arguments of each copy; a `name` in the template becomes
    `name/0`, `name/1` and so on. `beside` are other children, started after the copies: what stands in front of them.
    """

    def __init__(
        self,
        template: ChildSpec,
        *,
        partitions: int | None = None,
        with_arguments: Arguments | None = None,
        beside: Sequence[ChildSpec] = (),
        strategy: str = "one_for_one",
        max_restarts: int = 3,
        max_seconds: float = 5,
    ) -> None:
        super().__init__([], strategy=strategy, max_restarts=max_restarts, max_seconds=max_seconds)
        self.partitions = os.cpu_count() or 1 if partitions is None else partitions
        if self.partitions < 1:
            raise ValueError(f"partitions is {self.partitions}, expected 1 or more")
        self._template = template
        self._with_arguments = with_arguments
        self._beside = list(beside)

    def init(self) -> tuple[Flags, list[Any]]:
        return self.flags, [*(self._copy(partition) for partition in range(self.partitions)), *self._beside]

    def child_fact(self, label: str) -> ChildFacts | None:
        """Return what operators may see of the child with this id, that of a copy as text. Never switches."""
        child = self.children.get(int(label)) if label.isdecimal() else None
        return super().child_fact(label) if child is None else facts_of(child)

    def _copy(self, partition: int) -> ChildSpec:
        spec = self._template.copy()
        spec.id = partition
        if spec.name is not None:
            spec.name = f"{spec.name}/{partition}"
        if self._with_arguments is not None:
            args, kwargs = self._with_arguments(spec.args, spec.kwargs, partition)
            spec.args, spec.kwargs = tuple(args), dict(kwargs)
        return spec


def partition_of(key: object, partitions: int) -> int:
    """Return the partition of a key: whole numbers modulo, anything else by a hash of its text. Never switches.

    The same in every process and after every restart, which Python's own hash of a string is not.
    """
    if isinstance(key, int) and not isinstance(key, bool):
        return key % partitions
    data = key if isinstance(key, bytes) else str(key).encode("utf-8", "surrogatepass")
    return zlib.crc32(data) % partitions


def route(supervisor: Ref, key: object) -> Ref:
    """Return the living copy that a key belongs to; raises `Unavailable` while that one restarts. Never switches."""
    actor = supervisor.actor
    if not isinstance(actor, PartitionSupervisor):
        raise Unavailable(f"{supervisor} is no living partition supervisor", retry_after_s=RETRY_AFTER_S)
    partition = partition_of(key, actor.partitions)
    child = actor.children.get(partition)
    if child is None or child.ref is None or not child.ref.is_alive():
        raise Unavailable(f"partition {partition} of {supervisor.path} is restarting", retry_after_s=RETRY_AFTER_S)
    return child.ref
