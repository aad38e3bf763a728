from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.resilience.fair import STALE, FairQueue


def drained(queue: FairQueue[str]) -> list[str]:
    taken = []
    while (item := queue.take()) is not None:
        taken.append(item)
    return taken


def filled(bound: int = 100, **items: int) -> FairQueue[str]:
    """A queue with so many items of each client: "a1", "a2", ..."""
    queue: FairQueue[str] = FairQueue(bound)
    for client, number in items.items():
        for index in range(number):
            assert queue.put(client, f"{client}{index + 1}") is None
    return queue


def test_a_single_client_is_served_first_in_first_out() -> None:
    assert drained(filled(a=4)) == ["a1", "a2", "a3", "a4"]


def test_clients_take_turns_however_much_one_of_them_asks() -> None:
    assert drained(filled(a=5, b=2, c=1)) == ["a1", "b1", "c1", "a2", "b2", "a3", "a4", "a5"]


def test_whoever_comes_late_is_served_after_one_item_of_each_of_the_others() -> None:
    queue = filled(a=5, b=5)
    assert [queue.take() for _ in range(4)] == ["a1", "b1", "a2", "b2"]
    queue.put("c", "c1")
    assert [queue.take() for _ in range(3)] == ["a3", "b3", "c1"]


def test_a_client_that_asks_again_as_soon_as_it_was_served_gets_no_more_than_its_turn() -> None:
    queue = filled(flood=10)
    order = []
    for index in range(6):
        queue.put("sync", f"s{index}")
        while (item := queue.take()) is not None:
            order.append(item)
            if item.startswith("s"):
                break
    assert order == [word for index in range(6) for word in (f"flood{index + 1}", f"s{index}")]


def test_what_costs_more_uses_up_more_turns() -> None:
    queue: FairQueue[str] = FairQueue(100)
    for index in range(2):
        queue.put("heavy", f"h{index}", cost=5)
    for index in range(10):
        queue.put("light", f"l{index}")
    assert drained(queue) == ["h0", "l0", "l1", "l2", "l3", "l4", "h1", "l5", "l6", "l7", "l8", "l9"]


def test_who_is_first_stays_first_until_served() -> None:
    queue: FairQueue[str] = FairQueue(100)
    queue.put("a", "a1", cost=3)
    queue.put("a", "a2", cost=50)
    queue.put("b", "b1")
    assert [queue.take(), queue.take()] == ["a1", "b1"]
    assert queue.first() == "a2"
    for client in "cdefg":
        queue.put(client, client)
        assert queue.first() == "a2"


def test_when_it_is_full_the_newcomer_of_the_client_with_most_finds_no_place() -> None:
    queue = filled(bound=3, a=2, b=1)
    assert queue.put("a", "a3") == "a3"
    assert queue.shares() == {"a": 2, "b": 1}


def test_when_it_is_full_a_client_with_less_takes_the_newest_place_of_the_one_with_most() -> None:
    queue = filled(bound=4, a=3, b=1)
    assert queue.put("c", "c1") == "a3"
    assert queue.shares() == {"a": 2, "b": 1, "c": 1}
    assert drained(queue) == ["a1", "b1", "c1", "a2"]


def test_nobody_is_displaced_for_one_who_would_then_have_as_much() -> None:
    queue = filled(bound=5, a=3, b=2)
    assert queue.put("b", "b3") == "b3"
    assert filled(bound=1, a=1).put("b", "b1") == "b1"


def test_a_queue_without_places_keeps_nothing() -> None:
    queue: FairQueue[str] = FairQueue(0)
    assert queue.put("a", "a1") == "a1"
    assert (len(queue), queue.first(), queue.take()) == (0, None, None)


def test_a_queue_with_a_negative_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="no negative bound"):
        FairQueue(-1)


def test_an_item_that_leaves_costs_its_client_nothing() -> None:
    queue = filled(a=3, b=3)
    assert queue.discard("a", "a2")
    assert not queue.discard("a", "a2")
    assert not queue.discard("nobody", "a1")
    assert drained(queue) == ["a1", "b1", "a3", "b2", "b3"]


def test_unwanted_items_leave_and_the_others_keep_their_order() -> None:
    queue = filled(a=4, b=3)
    assert queue.remove(lambda item: item[1] in "13") == ["a1", "a3", "b1", "b3"]
    assert drained(queue) == ["a2", "b2", "a4"]


def test_clients_that_come_and_go_unserved_leave_nothing_behind() -> None:
    queue = filled(a=1)
    for index in range(1000):
        queue.put(f"c{index}", "x")
        queue.discard(f"c{index}", "x")
    assert len(queue._order) <= 2 * 2 + STALE + 1
    assert drained(queue) == ["a1"]


def test_the_cost_ahead_of_a_newcomer_is_one_turn_of_each_other_client() -> None:
    queue = filled(a=10, b=1)
    assert queue.ahead("new") == 2
    assert queue.ahead("a") == 11
    assert queue.ahead("b") == 3


Steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abcd"), st.integers(1, 4)),
        st.tuples(st.just("take"), st.just(""), st.just(0)),
        st.tuples(st.just("leave"), st.sampled_from("abcd"), st.integers(0, 3)),
    ),
    max_size=120,
)


@given(steps=Steps, bound=st.integers(0, 12))
def test_whatever_happens_it_keeps_order_bound_and_shares(steps: list[tuple[str, str, int]], bound: int) -> None:
    queue: FairQueue[int] = FairQueue(bound)
    lines: dict[str, list[int]] = {}
    for number, (what, client, amount) in enumerate(steps):
        mine = lines.setdefault(client, [])
        if what == "put":
            left_out = queue.put(client, number, cost=amount)
            mine.append(number)
            if left_out is not None:
                loser = next(each for each, items in lines.items() if left_out in items)
                assert lines[loser][-1] == left_out
                lines[loser].remove(left_out)
                most = max(len(items) for items in lines.values())
                assert most <= len(lines[loser]) + 1
                assert loser == client or len(lines[loser]) >= len(mine)
        elif what == "take":
            first = queue.first()
            assert queue.take() == first
            if first is not None:
                owner = next(each for each, items in lines.items() if items and items[0] == first)
                lines[owner].pop(0)
            else:
                assert not any(lines.values())
        elif amount < len(mine):
            assert queue.discard(client, mine.pop(amount))
        assert len(queue) == sum(map(len, lines.values())) <= bound
        assert queue.shares() == {each: len(items) for each, items in lines.items() if items}


@given(
    arrivals=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5)), min_size=1, max_size=60),
    served=st.data(),
)
def test_clients_that_wait_all_the_time_get_the_same_to_within_one_item(
    arrivals: list[tuple[str, int]], served: st.DataObject
) -> None:
    queue: FairQueue[int] = FairQueue(1000)
    costs: dict[int, tuple[str, int]] = {}
    waiting = dict.fromkeys("abc", 0)
    got = dict.fromkeys("abc", 0)
    pending = list(enumerate(arrivals))
    together: dict[tuple[str, str], int] = {}

    def note() -> None:
        # The lead of one client over another counts from when both began to wait.
        for one in "abc":
            for other in "abc":
                if one != other and not (waiting[one] and waiting[other]):
                    together[one, other] = got[one] - got[other]

    note()
    while pending or len(queue):
        if pending and (not len(queue) or served.draw(st.booleans())):
            number, (client, cost) = pending.pop(0)
            costs[number] = (client, cost)
            queue.put(client, number, cost)
            waiting[client] += 1
            note()
        else:
            number_taken = queue.take()
            assert number_taken is not None
            client, cost = costs[number_taken]
            got[client] += cost
            for (one, other), lead in together.items():
                if waiting[one] and waiting[other]:
                    # One item of the largest cost each.
                    assert abs(got[one] - got[other] - lead) <= 2 * 5
            waiting[client] -= 1
            note()


@given(
    queued=st.lists(st.sampled_from("abc"), max_size=40),
    taken=st.integers(0, 10),
    client=st.sampled_from("abcd"),
)
def test_the_place_of_a_newcomer_is_what_is_served_before_it(queued: list[str], taken: int, client: str) -> None:
    queue: FairQueue[int] = FairQueue(1000)
    for number, each in enumerate(queued):
        queue.put(each, number)
    for _ in range(taken):
        queue.take()
    ahead = queue.ahead(client)
    queue.put(client, -1)
    place = 0
    while queue.take() != -1:
        place += 1
    assert place == ahead
