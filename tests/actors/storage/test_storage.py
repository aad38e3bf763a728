"""The storage contract on the reference storage, and which name is which storage."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.storage.contract import ListsPartitions, storage_exports
from actors.storage.memory import MemoryStorage
from actors.storage.registry import Registry
from regrow.protocol.errors import Conflict, InvalidArguments, NotFound, TooLarge

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(values)
def test_what_is_stored_is_loaded(value: Any) -> None:
    storage = MemoryStorage()

    storage.store("users", value, "2026-11-21")

    assert storage.load("users", "2026-11-21") == value
    assert storage.exists("users", "2026-11-21")
    assert not storage.exists("users", "2026-11-22")


def test_what_was_stored_cannot_be_changed_from_outside() -> None:
    storage = MemoryStorage()
    rows = [1]
    storage.store("users", rows)
    rows.append(2)
    storage.load("users").append(3)

    assert storage.load("users") == [1]


def test_what_is_not_there_is_not_found_and_can_be_deleted() -> None:
    storage = MemoryStorage()
    storage.delete("users", "2026-11-21")

    with pytest.raises(NotFound, match="nothing stored for partition '2026-11-21'"):
        storage.load("users", "2026-11-21")


def test_partitions_are_listed_in_order() -> None:
    storage = MemoryStorage()
    for partition in ("b", "a", "c"):
        storage.store("users", 1, partition)
    storage.delete("users", "c")

    assert isinstance(storage, ListsPartitions)
    assert storage.list_partitions("users") == ["a", "b"]
    assert storage.list_partitions("orders") == []


def test_the_reference_storage_is_bounded() -> None:
    storage = MemoryStorage(max_entries=2, max_bytes=100)
    storage.store("users", "a", "1")
    storage.store("users", "a", "2")

    with pytest.raises(TooLarge, match="holds 2 partitions"):
        storage.store("users", "a", "3")
    with pytest.raises(TooLarge, match="at most 100"):
        storage.store("users", "a" * 100, "2")

    storage.delete("users", "1")
    storage.store("users", "a", "3")
    assert storage.bytes == 4


def test_what_no_codec_carries_is_refused() -> None:
    with pytest.raises(InvalidArguments, match="object"):
        MemoryStorage().store("users", object())


def test_a_registry_resolves_what_was_registered_and_has_a_default() -> None:
    registry = Registry()
    first, second = MemoryStorage(), MemoryStorage()
    registry.register("first", first)
    fallback = registry.default()
    assert isinstance(fallback, MemoryStorage)
    assert registry.default() is fallback

    registry.register("second", second, default=True)

    assert registry.resolve("first") is first
    assert registry.default() is second
    with pytest.raises(Conflict):
        registry.register("first", second)
    with pytest.raises(NotFound, match="no actor has that name"):
        registry.resolve("third")


def test_a_registry_reads_classes_with_and_without_arguments() -> None:
    registry = Registry()
    registry.load_config({"small": (MemoryStorage, {"max_entries": 1}), "usual": MemoryStorage})

    small = registry.resolve("small")
    assert isinstance(small, MemoryStorage)
    assert small.max_entries == 1
    assert isinstance(registry.resolve("usual"), MemoryStorage)


def test_the_exports_of_a_storage_check_their_arguments() -> None:
    exports = storage_exports(lists_partitions=True)

    assert exports["load"].check({"asset": "users"}) == {"asset": "users", "partition": ""}
    assert list(exports) == ["load", "store", "exists", "delete", "list_partitions"]
    assert "list_partitions" not in storage_exports(lists_partitions=False)
    with pytest.raises(InvalidArguments):
        exports["store"].check({"asset": "users"})
