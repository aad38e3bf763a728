from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.resilience.shelf import ENTRY_BYTES, Shelf


def test_an_answer_is_fresh_then_stale_then_gone() -> None:
    shelf = Shelf(10_000)
    shelf.put("k", b"v", 0.0, fresh_s=10, stale_s=5)
    fresh, stale = shelf.get("k", 9.9), shelf.get("k", 10.0)
    assert fresh is not None
    assert fresh.fresh(9.9)
    assert stale is not None
    assert not stale.fresh(10.0)
    assert shelf.get("k", 15.0) is None
    assert len(shelf) == 0


def test_the_least_recently_used_answer_makes_room() -> None:
    shelf = Shelf(10_000, max_entries=2)
    shelf.put("a", b"1", 0, fresh_s=10, stale_s=0)
    shelf.put("b", b"2", 0, fresh_s=10, stale_s=0)
    shelf.get("a", 1)
    shelf.put("c", b"3", 1, fresh_s=10, stale_s=0)
    assert [shelf.get(key, 2) is not None for key in "abc"] == [True, False, True]
    assert shelf.evicted == 1


def test_an_answer_larger_than_the_shelf_is_not_kept_and_throws_nothing_out() -> None:
    shelf = Shelf(2 * ENTRY_BYTES)
    shelf.put("a", b"1", 0, fresh_s=10, stale_s=0)
    assert not shelf.put("b", bytes(10_000), 0, fresh_s=10, stale_s=0)
    assert shelf.get("a", 1) is not None


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 900), st.floats(0, 20)), max_size=60))
def test_its_bounds_hold_and_its_bytes_add_up(steps: list[tuple[str, int, float]]) -> None:
    shelf = Shelf(3000, max_entries=4)
    for now, (key, size, fresh_s) in enumerate(steps):
        shelf.put(key, bytes(size), now, fresh_s=fresh_s, stale_s=0)
        shelf.get("a", now)
        assert shelf.bytes <= 3000
        assert len(shelf) <= 4
    kept = shelf.bytes
    assert shelf.clear() == 0 or kept > 0
    assert shelf.bytes == 0
