from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.resilience.quota import MAX_PAUSE_S, Admitted, Lesson, Quota, QuotaRecord, Wait


def quota(limit: int | None = 3, window_s: float = 10.0) -> Quota:
    return Quota(limit, window_s, QuotaRecord())


def wait_of(decision: Admitted | Wait) -> float:
    assert isinstance(decision, Wait)
    return decision.wait_s


def test_as_many_as_the_limit_go_at_once_and_the_next_hears_when() -> None:
    machine = quota()
    assert [machine.admit(100.0) for _ in range(3)] == [Admitted(1), Admitted(2), Admitted(3)]
    wait_s = wait_of(machine.admit(100.0))
    assert 10.0 <= wait_s <= 10.2
    assert isinstance(machine.admit(100.0 + wait_s), Admitted)


def test_the_wait_for_a_place_in_the_queue_counts_those_before_it() -> None:
    machine = quota()
    machine.admit(100.0)
    machine.admit(104.0)
    machine.admit(108.0)
    waits = [machine.wait_s(108.0, nth) for nth in (1, 2, 3, 4)]
    assert [round(wait) for wait in waits] == [2, 6, 10, 12]


def test_without_a_limit_everything_goes() -> None:
    machine = quota(limit=None)
    assert all(isinstance(machine.admit(5.0), Admitted) for _ in range(1000))
    assert machine.used(5.0) == 0


def test_a_pause_that_the_peer_asks_for_stops_everything_until_it_is_over() -> None:
    machine = quota(limit=None)
    machine.learn(50.0, Lesson(ticket=0, pause_s=7.0))
    assert machine.admit(56.0) == Wait(1.0)
    assert machine.admit(57.0) == Admitted(1)


def test_an_absurd_pause_is_cut() -> None:
    machine = quota(limit=None)
    machine.learn(0.0, Lesson(ticket=0, pause_s=1e12))
    assert machine.admit(0.0) == Wait(MAX_PAUSE_S)


def test_what_the_peer_says_is_left_counts_more_than_the_own_window() -> None:
    machine = quota(limit=1000)
    first = machine.admit(0.0)
    assert isinstance(first, Admitted)
    machine.learn(0.0, Lesson(ticket=first.ticket, remaining=2, reset_s=60.0))
    assert [type(machine.admit(1.0)) for _ in range(3)] == [Admitted, Admitted, Wait]
    assert machine.admit(10.0) == Wait(50.0)
    assert isinstance(machine.admit(60.0), Admitted)


def test_requests_still_under_way_count_against_what_the_peer_says_is_left() -> None:
    machine = quota(limit=1000)
    tickets = [machine.admit(0.0) for _ in range(10)]
    first = tickets[0]
    assert isinstance(first, Admitted)
    machine.learn(0.0, Lesson(ticket=first.ticket, remaining=9, reset_s=60.0))
    assert isinstance(machine.admit(1.0), Wait)


def test_an_answer_that_comes_late_can_only_lower_what_a_newer_one_taught() -> None:
    machine = quota(limit=1000)
    for _ in range(5):
        machine.admit(0.0)
    machine.learn(0.0, Lesson(ticket=5, remaining=1, reset_s=60.0))
    machine.learn(0.0, Lesson(ticket=1, remaining=100, reset_s=60.0))
    assert [type(machine.admit(1.0)) for _ in range(2)] == [Admitted, Wait]


def test_a_newer_answer_that_says_more_is_left_is_believed() -> None:
    machine = quota(limit=1000)
    machine.admit(0.0)
    machine.learn(0.0, Lesson(ticket=1, remaining=1, reset_s=60.0))
    machine.admit(0.0)
    machine.learn(0.0, Lesson(ticket=2, remaining=500, reset_s=60.0))
    assert isinstance(machine.admit(0.0), Admitted)


def test_none_left_without_an_end_holds_for_one_window() -> None:
    machine = quota(limit=5)
    machine.admit(0.0)
    machine.learn(0.0, Lesson(ticket=1, remaining=0))
    assert machine.admit(4.0) == Wait(6.0)


def test_a_token_that_was_not_used_can_be_given_back() -> None:
    machine = quota(limit=1)
    machine.admit(0.0)
    machine.give_back()
    assert machine.admit(0.0) == Admitted(1)
    assert isinstance(machine.admit(0.0), Wait)


def test_giving_back_what_was_never_taken_makes_no_room() -> None:
    machine = quota(limit=1)
    machine.give_back()
    machine.admit(0.0)
    assert isinstance(machine.admit(0.0), Wait)


def test_forgetting_lets_everything_go_again() -> None:
    machine = quota(limit=1)
    machine.admit(0.0)
    machine.learn(0.0, Lesson(ticket=1, remaining=0, reset_s=60.0, pause_s=60.0))
    machine.forget()
    assert machine.admit(0.0) == Admitted(2)


@given(
    limit=st.integers(1, 20),
    window_s=st.sampled_from([0.1, 1.0, 3.3, 60.0, 3600.0]),
    gaps=st.lists(st.floats(0, 0.5), min_size=1, max_size=200),
    start=st.floats(0, 1e6),
)
def test_never_more_than_the_limit_in_any_window(limit: int, window_s: float, gaps: list[float], start: float) -> None:
    machine = quota(limit, window_s)
    now, gone = start, []
    for gap in gaps:
        now += gap * window_s
        if isinstance(machine.admit(now), Admitted):
            gone.append(now)
    for index, at in enumerate(gone[limit:]):
        assert at - gone[index] >= window_s * (1 - 1e-6)


@given(
    limit=st.integers(1, 20),
    gaps=st.lists(st.floats(0, 0.5), min_size=1, max_size=100),
)
def test_the_wait_it_names_is_enough_and_at_most_one_slot_too_long(limit: int, gaps: list[float]) -> None:
    machine = quota(limit, 100.0)
    now = 0.0
    gone: list[float] = []
    for gap in gaps:
        now += gap * 10
        decision = machine.admit(now)
        if isinstance(decision, Wait):
            free_at = gone[-limit] + 100.0
            assert free_at <= now + decision.wait_s + 1e-6 <= free_at + 1.0 + 1e-3
            now += decision.wait_s
            assert isinstance(machine.admit(now), Admitted)
        gone.append(now)


@given(count=st.integers(1, 500))
def test_memory_does_not_grow_with_the_number_of_requests(count: int) -> None:
    machine = quota(limit=10_000_000)
    for index in range(count):
        machine.admit(index * 0.05)
    assert len(machine.record.slots) <= 102


# -- what costs more than one


def test_a_request_takes_as_many_tokens_as_it_costs() -> None:
    machine = quota(limit=10)
    assert [machine.admit(100.0, cost) for cost in (4, 5)] == [Admitted(4), Admitted(9)]
    assert wait_of(machine.admit(100.0, 2)) == 10.0
    assert machine.admit(100.0, 1) == Admitted(10)


def test_what_a_request_cost_can_be_given_back_over_several_slots() -> None:
    machine = quota(limit=10)
    machine.admit(100.0, 3)
    machine.admit(101.0, 3)
    machine.give_back(5)
    assert machine.used(101.0) == 1
    assert machine.admit(101.0, 9) == Admitted(10)


def test_what_the_peer_says_is_left_counts_the_cost_of_requests_under_way() -> None:
    machine = quota(limit=1000)
    machine.admit(0.0, 5)
    machine.admit(0.0, 10)
    machine.learn(0.0, Lesson(ticket=5, remaining=20, reset_s=60.0))
    assert isinstance(machine.admit(1.0, 11), Wait)
    assert machine.admit(1.0, 10) == Admitted(25)


@given(
    limit=st.integers(1, 20),
    window_s=st.sampled_from([0.1, 1.0, 60.0, 3600.0]),
    asked=st.lists(st.tuples(st.floats(0, 0.3), st.integers(1, 20)), min_size=1, max_size=150),
)
def test_never_more_than_the_limit_in_any_window_whatever_requests_cost(
    limit: int, window_s: float, asked: list[tuple[float, int]]
) -> None:
    machine = quota(limit, window_s)
    now, gone = 5.0, []
    for gap, cost in asked:
        now += gap * window_s
        if cost <= limit and isinstance(machine.admit(now, cost), Admitted):
            gone.append((now, cost))
    for index, (at, _) in enumerate(gone):
        within = sum(cost for then, cost in gone[index:] if then - at < window_s * (1 - 1e-6))
        assert within <= limit


# -- the bucket


def bucket(limit: int = 10, window_s: float = 10.0, burst: int = 3) -> Quota:
    return Quota(limit, window_s, QuotaRecord(), burst=burst)


def test_a_full_bucket_lets_a_burst_go_and_then_as_many_as_come_back() -> None:
    machine = bucket()
    assert [type(machine.admit(100.0)) for _ in range(4)] == [Admitted, Admitted, Admitted, Wait]
    assert wait_of(machine.admit(100.0)) == 1.0
    assert [type(machine.admit(100.0 + after)) for after in (0.9, 1.0, 1.5, 2.0)] == [Wait, Admitted, Wait, Admitted]


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    machine = bucket()
    machine.admit(0.0)
    assert [type(machine.admit(1e6)) for _ in range(4)] == [Admitted, Admitted, Admitted, Wait]


def test_a_costly_request_waits_for_all_of_its_tokens() -> None:
    machine = bucket()
    machine.admit(0.0, 2)
    assert wait_of(machine.admit(0.0, 3)) == 2.0
    assert machine.wait_s(0.0, 10) == 9.0


def test_what_was_spent_of_a_bucket_can_be_given_back_and_forgotten() -> None:
    machine = bucket()
    machine.admit(0.0, 3)
    machine.give_back(2)
    assert (machine.used(0.0), machine.record.issued) == (1, 1)
    machine.give_back(5)
    assert (machine.used(0.0), machine.record.issued) == (0, 0)
    machine.admit(0.0, 3)
    machine.forget()
    assert machine.admit(0.0, 3) == Admitted(6)


def test_a_bucket_learns_from_the_peer_as_a_window_does() -> None:
    machine = bucket(limit=1000, burst=1000)
    machine.admit(0.0)
    machine.learn(0.0, Lesson(ticket=1, remaining=0, reset_s=60.0))
    assert machine.admit(1.0) == Wait(59.0)
    machine.learn(1.0, Lesson(ticket=1, pause_s=80.0))
    assert machine.admit(1.0) == Wait(80.0)


# Times and rates that floats hold exactly, so that the naive model and the machine agree to the last token.
EIGHTHS = st.integers(0, 64).map(lambda number: number / 8)


@given(
    burst=st.integers(1, 12),
    per_s=st.sampled_from([1, 2, 4, 8]),
    asked=st.lists(st.tuples(EIGHTHS, st.integers(1, 12)), min_size=1, max_size=120),
)
def test_a_bucket_decides_as_the_definition_does(burst: int, per_s: int, asked: list[tuple[float, int]]) -> None:
    machine = Quota(per_s * 16, 16.0, QuotaRecord(), burst=burst)
    now = 1000.0
    gone: list[tuple[float, int]] = []
    for gap, cost in asked:
        now += gap
        if cost > burst:
            continue
        # Never more than the burst and what came back, in any stretch of time that ends now.
        stretches = [(now, 0), *gone]
        allowed = all(
            sum(each for then, each in gone if then >= begin) + cost <= burst + per_s * (now - begin)
            for begin, _ in stretches
        )
        decision = machine.admit(now, cost)
        assert isinstance(decision, Admitted) == allowed
        if allowed:
            gone.append((now, cost))
        else:
            assert machine.wait_s(now + wait_of(decision), cost) == 0.0


@given(
    burst=st.integers(1, 50),
    limit=st.integers(1, 1000),
    window_s=st.sampled_from([0.1, 1.0, 3.3, 60.0, 3600.0]),
    asked=st.lists(st.tuples(st.floats(0, 0.2), st.integers(1, 50)), min_size=1, max_size=100),
)
def test_never_more_than_the_burst_and_what_came_back_in_any_stretch(
    burst: int, limit: int, window_s: float, asked: list[tuple[float, int]]
) -> None:
    machine = Quota(limit, window_s, QuotaRecord(), burst=burst)
    now, gone = 7.7, []
    for gap, cost in asked:
        now += gap * window_s
        if cost <= burst and isinstance(machine.admit(now, cost), Admitted):
            gone.append((now, cost))
    for index, (begin, _) in enumerate(gone):
        together = 0
        for then, cost in gone[index:]:
            together += cost
            assert together <= burst + limit / window_s * (then - begin) + 1e-3
