"""The storage contract: load, store, exists, delete, and where it is possible list_partitions.

An asset is what the data is ("users"), a partition is the part of it that one call is about: a text ("2026-11-21"), or
in this process a date; a storage whose assets have no parts takes the empty partition. A store replaces nothing
halfway: it is kept whole or not at all. What is not there is `NotFound` for load and silence for delete, so that both
may be repeated.

An integration offers the contract by exporting `storage_exports(...)` from its front and answering those calls; then
`actors.storage.actor.ActorStorage` is the same contract for code in this process, and any client has it on the wire.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Final, Protocol, TypeAlias, runtime_checkable

from msgspec import Meta

from runtime.exports import Exported, Param

MAX_KEY_CHARS: Final = 1024
METHODS: Final = ("load", "store", "exists", "delete", "list_partitions")

Key = Annotated[str, Meta(max_length=MAX_KEY_CHARS)]
Partition: TypeAlias = str | date


class Storage(Protocol):
    """Where data of assets lives; calls raise the typed errors of `regrow.protocol.errors` and nothing else."""

    def load(self, asset: str, partition: Partition = "") -> Any:
        """Return what is stored; raises `NotFound` when there is nothing. Switches greenlets."""
        ...

    def store(self, asset: str, data: Any, partition: Partition = "") -> None:
        """Keep all of the data, or raise and keep none of it. Switches greenlets."""
        ...

    def exists(self, asset: str, partition: Partition = "") -> bool:
        """Tell whether `load` would find something. Switches greenlets."""
        ...

    def delete(self, asset: str, partition: Partition = "") -> None:
        """Remove what is stored; nothing happens when there is nothing. Switches greenlets."""
        ...


@runtime_checkable
class ListsPartitions(Protocol):
    """A storage that knows which partitions of an asset it holds."""

    def list_partitions(self, asset: str) -> list[str]:
        """Return the partitions of the asset in order. Switches greenlets."""
        ...


def partition_text(partition: Partition) -> str:
    """Return a partition as it is written in keys, paths and queries: dates and moments in ISO 8601. Never switches."""
    return partition.isoformat() if isinstance(partition, date | datetime) else partition


def storage_exports(*, lists_partitions: bool) -> dict[str, Exported]:
    """Return the exports of a front that offers the contract, the same for every integration. Never switches."""
    asset = Param(type=Key, doc="which data")
    partition = Param(type=Key, required=False, default="", doc='which part of it, such as "2026-11-21"')
    key = {"asset": asset, "partition": partition}
    exports = [
        Exported.make("load", "Return what is stored; not_found when there is nothing.", key),
        Exported.make(
            "store",
            "Keep all of the data, or none of it; answers null.",
            {"asset": asset, "data": Param(type=Any, doc="what to keep"), "partition": partition},
        ),
        Exported.make("exists", "Tell whether load would find something.", key),
        Exported.make("delete", "Remove what is stored, if anything; answers null.", key),
    ]
    if lists_partitions:
        exports.append(Exported.make("list_partitions", "List the partitions of an asset, in order.", {"asset": asset}))
    return {export.name: export for export in exports}
