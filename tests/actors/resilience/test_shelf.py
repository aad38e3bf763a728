from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from actors.resilience.shelf import ENTRY_BYTES, MAX_CHANGES, Shelf, kept_at


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


def test_what_was_asked_for_before_a_change_is_outdated_and_so_is_all_after_too_many_changes() -> None:
    shelf = Shelf(10_000)
    shelf.put("k", b"v", 0.0, fresh_s=10, stale_s=0, group="g")
    assert shelf.change("g", 5.0) == 1
    assert [shelf.is_outdated("g", at) for at in (4.9, 5.0)] == [True, False]
    assert not shelf.is_outdated("other", 4.9)
    assert not shelf.is_outdated("", 4.9)
    for number in range(MAX_CHANGES):
        shelf.change(str(number), 6.0)
    assert shelf.is_outdated("g", 4.9)
    assert shelf.is_outdated("other", 5.9)
    assert not shelf.is_outdated("other", 6.0)


TIMES = st.sampled_from([0.0, 1.0, 2.5, 7.0])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abc"), TIMES, TIMES, TIMES, TIMES, st.sampled_from(["", "g", "h"])),
        st.tuples(st.just("get"), st.sampled_from("abc")),
        st.tuples(st.just("wait"), TIMES),
        st.tuples(st.just("forget"), st.sampled_from(["g", "h"])),
        st.tuples(st.just("clear")),
    ),
    max_size=40,
)


@given(STEPS)
def test_it_answers_as_a_plain_list_of_what_was_kept_would(steps: list[tuple[Any, ...]]) -> None:
    shelf, now = Shelf(1 << 20), 100.0
    book: dict[str, tuple[bytes, float, float, float, float, float, str]] = {}
    for number, (what, *args) in enumerate(steps):
        if what == "put":
            key, fresh_s, stale_s, keep_s, refresh_s, group = args
            content = str(number).encode()
            shelf.place(
                key,
                kept_at(
                    now, content, fresh_s=fresh_s, stale_s=stale_s, keep_s=keep_s, refresh_s=refresh_s, group=group
                ),
            )
            book[key] = (content, now, fresh_s, stale_s, keep_s, refresh_s, group)
        elif what == "wait":
            now += args[0]
        elif what == "forget":
            assert shelf.drop_group(args[0]) >= sum(
                entry[-1] == args[0] and lives(entry, now) for entry in book.values()
            )
            book = {key: entry for key, entry in book.items() if entry[-1] != args[0]}
        elif what == "clear":
            shelf.clear()
            book.clear()
        for key in "abc":
            kept, entry = shelf.get(key, now), book.get(key)
            if entry is None or not lives(entry, now):
                assert kept is None
                continue
            content, at, fresh_s, stale_s, _, refresh_s, _ = entry
            assert kept is not None
            assert kept.content == content
            assert kept.fresh(now) == (now < at + fresh_s)
            assert kept.usable(now) == (now < at + fresh_s + refresh_s)
            assert (now < kept.stale_until) == (now < at + fresh_s + stale_s)


def lives(entry: tuple[bytes, float, float, float, float, float, str], now: float) -> bool:
    _, at, fresh_s, stale_s, keep_s, refresh_s, _ = entry
    return now < at + max(fresh_s + stale_s, fresh_s + refresh_s, keep_s)


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
