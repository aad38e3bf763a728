"""The contract over a front of the tree: an integration that exports the storage calls, found by name for each call."""

from __future__ import annotations

from typing import Any

from actors.storage.contract import Partition, partition_text
from regrow.protocol.errors import Unavailable
from runtime.names import whereis

DEFAULT_TIMEOUT_S = 30.0


class ActorStorage:
    """A storage that lives in the actor called `name`; who restarts in between is found again."""

    def __init__(self, name: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self.name = name
        self.timeout_s = timeout_s

    def load(self, asset: str, partition: Partition = "") -> Any:
        """Return what is stored; raises `NotFound`. Switches greenlets."""
        return self._call("load", asset=asset, partition=partition_text(partition))

    def store(self, asset: str, data: Any, partition: Partition = "") -> None:
        """Keep all of the data, or raise and keep none of it. Switches greenlets."""
        self._call("store", asset=asset, data=data, partition=partition_text(partition))

    def exists(self, asset: str, partition: Partition = "") -> bool:
        """Tell whether `load` would find something. Switches greenlets."""
        return bool(self._call("exists", asset=asset, partition=partition_text(partition)))

    def delete(self, asset: str, partition: Partition = "") -> None:
        """Remove what is stored, if anything. Switches greenlets."""
        self._call("delete", asset=asset, partition=partition_text(partition))

    def list_partitions(self, asset: str) -> list[str]:
        """Return the partitions in order; raises `NotFound` when this storage does not know. Switches greenlets."""
        found: list[str] = self._call("list_partitions", asset=asset)
        return found

    def _call(self, method: str, **arguments: Any) -> Any:
        ref = whereis(self.name)
        if ref is None:
            raise Unavailable(f"storage {self.name} is not running now", retry_after_s=1.0)
        return ref.call(method, arguments, timeout=self.timeout_s)

    def __repr__(self) -> str:
        return f"<ActorStorage {self.name}>"
