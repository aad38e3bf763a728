"""The reference storage: a dictionary with a limit, for tests and for what may be lost with the process."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from actors.storage.contract import Partition, partition_text
from regrow.protocol.errors import InvalidArguments, NotFound, TooLarge

MAX_ENTRIES: Final = 10_000
MAX_BYTES: Final = 256 << 20


class MemoryStorage:
    """Keeps the data of this process, as bytes, so that nobody changes what another one stored."""

    def __init__(self, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.bytes = 0
        self._assets: dict[str, dict[str, bytes]] = {}

    def load(self, asset: str, partition: Partition = "") -> Any:
        """Return a copy of what is stored; raises `NotFound`. Never switches."""
        key = partition_text(partition)
        found = self._assets.get(asset, {}).get(key)
        if found is None:
            raise NotFound(f"asset {asset!r} has nothing stored for partition {key!r}")
        return msgspec.msgpack.decode(found)

    def store(self, asset: str, data: Any, partition: Partition = "") -> None:
        """Keep a copy; raises `TooLarge` beyond the limits and `InvalidArguments` for what no codec carries.

        Never switches.
        """
        try:
            encoded = msgspec.msgpack.encode(data)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidArguments(f"data of type {type(data).__name__} cannot be stored: {error}") from error
        key = partition_text(partition)
        before = self._assets.get(asset, {}).get(key)
        total = self.bytes + len(encoded) - len(before or b"")
        if total > self.max_bytes:
            raise TooLarge(f"the storage would hold {total} bytes, at most {self.max_bytes} are allowed: delete some")
        entries = sum(map(len, self._assets.values()))
        if before is None and entries >= self.max_entries:
            raise TooLarge(f"the storage holds {entries} partitions, no more are allowed: delete some")
        self._assets.setdefault(asset, {})[key] = encoded
        self.bytes = total

    def exists(self, asset: str, partition: Partition = "") -> bool:
        """Tell whether `load` would find something. Never switches."""
        return partition_text(partition) in self._assets.get(asset, {})

    def delete(self, asset: str, partition: Partition = "") -> None:
        """Remove what is stored, if anything. Never switches."""
        partitions = self._assets.get(asset, {})
        self.bytes -= len(partitions.pop(partition_text(partition), b""))
        if not partitions:
            self._assets.pop(asset, None)

    def list_partitions(self, asset: str) -> list[str]:
        """Return the partitions of the asset in order. Never switches."""
        return sorted(self._assets.get(asset, {}))

    def __repr__(self) -> str:
        return f"<MemoryStorage of {len(self._assets)} assets, {self.bytes} bytes>"
