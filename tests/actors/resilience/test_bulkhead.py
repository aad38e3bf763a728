from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.resilience.bulkhead import Bulkhead


def test_lanes_are_given_out_until_none_is_left() -> None:
    bulkhead: Bulkhead[str] = Bulkhead(2, 1)
    assert [bulkhead.take(), bulkhead.take(), bulkhead.take()] == [0, 1, None]


def test_the_lane_freed_last_is_taken_first() -> None:
    bulkhead: Bulkhead[str] = Bulkhead(3, 0)
    for _ in range(3):
        bulkhead.take()
    bulkhead.release(0)
    bulkhead.release(2)
    assert bulkhead.take() == 2


def test_the_queue_is_bounded_and_first_in_first_out_for_each_client() -> None:
    bulkhead: Bulkhead[str] = Bulkhead(1, 2)
    bulkhead.take()
    assert [bulkhead.wait("me", item) for item in "abc"] == [None, None, "c"]
    assert [bulkhead.next(), bulkhead.next(), bulkhead.next()] == ["a", "b", None]


def test_clients_take_turns_before_the_lanes() -> None:
    bulkhead: Bulkhead[str] = Bulkhead(1, 10)
    for client, item in (("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1")):
        bulkhead.wait(client, item)
    assert [bulkhead.next() for _ in range(4)] == ["a1", "b1", "a2", "a3"]


def test_an_item_that_gave_up_waiting_leaves_its_place() -> None:
    bulkhead: Bulkhead[str] = Bulkhead(1, 1)
    bulkhead.wait("a", "a1")
    assert bulkhead.leave("a", "a1")
    assert not bulkhead.leave("a", "a1")
    assert bulkhead.wait("b", "b1") is None


def test_a_lane_is_never_given_out_twice_by_releasing_it_twice() -> None:
    bulkhead: Bulkhead[str] = Bulkhead(1, 0)
    bulkhead.take()
    bulkhead.release(0)
    bulkhead.release(0)
    assert [bulkhead.take(), bulkhead.take()] == [0, None]


def test_unwanted_items_leave_the_queue_and_the_others_keep_their_order() -> None:
    bulkhead: Bulkhead[int] = Bulkhead(1, 10)
    for item in range(6):
        bulkhead.wait("me", item)
    assert bulkhead.remove(lambda item: item % 2 == 0) == [0, 2, 4]
    assert [bulkhead.next() for _ in range(3)] == [1, 3, 5]


def test_a_bulkhead_without_lanes_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 lane"):
        Bulkhead(0, 1)


@given(st.lists(st.tuples(st.sampled_from(["take", "release", "occupy"]), st.integers(0, 3)), max_size=100))
def test_every_lane_is_either_busy_or_free(steps: list[tuple[str, int]]) -> None:
    bulkhead: Bulkhead[str] = Bulkhead(4, 0)
    for what, lane in steps:
        if what == "take":
            taken = bulkhead.take()
            assert (taken is None) == (len(bulkhead.busy) == 4 and taken is None)
        elif what == "release":
            bulkhead.release(lane)
        else:
            bulkhead.occupy(lane)
    free = 0
    busy = len(bulkhead.busy)
    while bulkhead.take() is not None:
        free += 1
    assert busy + free == 4
