"""Partitions: copies of one child, and the copy that a key belongs to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.protocol.errors import Unavailable
from regrow.testing import ManualClock
from runtime.actor import Actor
from runtime.names import whereis
from supervisors import ChildSpec, PartitionSupervisor, route, which_children
from supervisors.partition import partition_of


class Counter(Actor):
    def __init__(self, partition: int = -1) -> None:
        super().__init__()
        self.partition = partition

    def on_receive(self, message: Any) -> Any:
        if message == "crash":
            raise RuntimeError("told to crash")
        return self.partition


def test_there_are_as_many_copies_as_asked_for_with_ids_from_zero() -> None:
    supervisor = PartitionSupervisor.start(ChildSpec("c", Counter), partitions=3)
    assert sorted(key for key, _, _ in which_children(supervisor)) == [0, 1, 2]
    supervisor.stop()


def test_a_whole_number_goes_to_its_remainder_and_with_arguments_tells_each_copy_which_it_is() -> None:
    supervisor = PartitionSupervisor.start(
        ChildSpec("c", Counter), partitions=4, with_arguments=lambda args, kwargs, n: ((n,), kwargs)
    )
    assert [route(supervisor, key).ask("who") for key in (0, 1, 5, 7)] == [0, 1, 1, 3]
    supervisor.stop()


@given(st.one_of(st.text(), st.binary(), st.integers()), st.integers(1, 64))
def test_a_key_always_belongs_to_the_same_existing_partition(key: object, partitions: int) -> None:
    found = partition_of(key, partitions)
    assert 0 <= found < partitions
    assert partition_of(key, partitions) == found


def test_the_hash_of_a_text_does_not_change_between_releases() -> None:
    assert [partition_of(key, 1000) for key in ("billing", b"billing", "")] == [826, 826, 0]


def test_a_text_that_no_encoding_has_belongs_to_a_partition_too() -> None:
    assert partition_of("\ud800", 1000) == partition_of(b"\xed\xa0\x80", 1000)


def test_a_crashed_copy_leaves_the_others_alone_and_comes_back_under_its_name(
    manual_clock: ManualClock,
) -> None:
    supervisor = PartitionSupervisor.start(ChildSpec("c", Counter, name="shard"), partitions=2)
    first, second = whereis("shard/0"), whereis("shard/1")
    assert first is not None
    first.tell("crash")
    manual_clock.settle()
    fresh = whereis("shard/0")
    assert fresh is not None
    assert fresh is not first
    assert whereis("shard/1") is second
    supervisor.stop()


def test_other_children_stand_beside_the_copies_and_are_started_after_them() -> None:
    beside = ChildSpec("front", Counter, args=(9,))
    supervisor = PartitionSupervisor.start(ChildSpec("c", Counter), partitions=2, beside=[beside])
    assert [key for key, _, _ in which_children(supervisor)] == ["front", 1, 0], "the last started first"
    assert route(supervisor, 3).ask("who") == -1
    supervisor.stop()


def test_operators_find_a_copy_by_its_number_as_text() -> None:
    supervisor = PartitionSupervisor.start(
        ChildSpec("c", Counter, name="shard"), partitions=2, beside=[ChildSpec("front", Counter)]
    )
    found = {label: supervisor.actor.child_fact(label) for label in ("0", "1", "2", "front")}
    assert {label: fact and fact.name for label, fact in found.items()} == {
        "0": "shard/0",
        "1": "shard/1",
        "2": None,
        "front": None,
    }
    assert found["2"] is None
    assert found["front"] is not None
    supervisor.stop()


def test_routing_to_a_stopped_supervisor_is_unavailable() -> None:
    supervisor = PartitionSupervisor.start(ChildSpec("c", Counter), partitions=1)
    supervisor.stop()
    with pytest.raises(Unavailable):
        route(supervisor, 1)
