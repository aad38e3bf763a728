from __future__ import annotations

import time

import gevent
import pytest

from actors.resilience.limiter import DECISIONS, WAIT_SECONDS, Admit, GiveBack, Limiter, QuotaTable
from actors.resilience.policy import RatePolicy
from actors.resilience.quota import Lesson
from config.schema import PositiveDuration
from regrow.protocol.errors import InvalidArguments, Overloaded, RateLimited
from regrow.testing import ManualClock
from runtime import clock
from runtime.promise import ClientPromise, Promise
from runtime.ref import Ref
from tests.actors.resilience.conftest import Supervised, found


def rate(requests: int, window_s: float, queue: int = 1000) -> RatePolicy:
    return RatePolicy(requests=requests, window=PositiveDuration(window_s), queue=queue)


def bucket(requests: int, window_s: float, burst: int) -> RatePolicy:
    window = PositiveDuration(window_s)
    return RatePolicy(requests=requests, window=window, algorithm="token_bucket", burst=burst)


def waiting(manual: ManualClock, ref: Ref, within_s: float, cost: int = 1, client: str = "") -> Promise:
    """A request that may wait for so long; its deadline runs already."""
    promise = ClientPromise(client, deadline=manual.now() + within_s)
    ref.request(Admit(cost), promise)
    gevent.idle()
    return promise


def test_a_request_waits_for_its_token_when_it_comes_before_the_deadline(
    manual: ManualClock, supervised: Supervised
) -> None:
    ref = supervised("api/limiter", Limiter, "api", rate(1, 10.0), QuotaTable())
    assert ref.ask(Admit()) == 1
    second = waiting(manual, ref, 30.0)
    manual.advance(9.9)
    assert not second.done
    manual.advance(0.5)
    assert second.value == 2


def test_it_refuses_at_once_when_no_token_can_come_before_the_deadline(
    manual: ManualClock, supervised: Supervised
) -> None:
    ref = supervised("api/limiter", Limiter, "api", rate(1, 10.0), QuotaTable())
    ref.ask(Admit())
    with pytest.raises(RateLimited) as caught:
        ref.ask(Admit(), timeout=5.0)
    assert caught.value.started == "no"
    assert caught.value.retry_after_s == pytest.approx(10.0, abs=0.2)


def test_the_refusal_counts_those_who_wait_already(manual: ManualClock, supervised: Supervised) -> None:
    ref = supervised("api/limiter", Limiter, "api", rate(1, 10.0), QuotaTable())
    ref.ask(Admit())
    waiting(manual, ref, 15.0)
    error = waiting(manual, ref, 15.0).error
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == pytest.approx(20.0, abs=0.3)


def test_requests_are_served_in_the_order_of_their_arrival(manual: ManualClock, supervised: Supervised) -> None:
    ref = supervised("api/limiter", Limiter, "api", rate(2, 10.0), QuotaTable())
    promises = [waiting(manual, ref, 100.0) for _ in range(7)]
    manual.advance(45)
    assert [promise.value for promise in promises] == [1, 2, 3, 4, 5, 6, 7]


def test_the_queue_is_bounded(manual: ManualClock, supervised: Supervised) -> None:
    ref = supervised("api/limiter", Limiter, "api", rate(1, 10.0, queue=2), QuotaTable())
    ref.ask(Admit())
    for _ in range(2):
        waiting(manual, ref, 100.0)
    assert isinstance(waiting(manual, ref, 100.0).error, Overloaded)


def test_a_caller_that_gave_up_while_it_waited_takes_no_token(manual: ManualClock, supervised: Supervised) -> None:
    ref = supervised("api/limiter", Limiter, "api", rate(1, 10.0), QuotaTable())
    ref.ask(Admit())
    first, second = waiting(manual, ref, 100.0), waiting(manual, ref, 100.0)
    first.cancel()
    manual.advance(10.5)
    assert second.value == 2


def test_a_pause_of_the_peer_refuses_those_who_can_no_longer_be_served(
    manual: ManualClock, supervised: Supervised
) -> None:
    ref = supervised("api/limiter", Limiter, "api", rate(1, 10.0), QuotaTable())
    ticket = ref.ask(Admit())
    hopeless, patient = waiting(manual, ref, 30.0), waiting(manual, ref, 100.0)
    ref.ask(Lesson(ticket, pause_s=60.0))
    assert isinstance(hopeless.error, RateLimited)
    assert not patient.done
    manual.advance(61)
    assert patient.value == 2


def test_a_pause_holds_without_a_limit_of_its_own(manual: ManualClock, supervised: Supervised) -> None:
    ref = supervised("api/limiter", Limiter, "api", None, QuotaTable())
    ref.ask(Lesson(ref.ask(Admit()), pause_s=60.0))
    with pytest.raises(RateLimited):
        ref.ask(Admit(), timeout=5.0)


def test_killed_while_spent_it_comes_back_spent(manual: ManualClock, supervised: Supervised) -> None:
    ref = supervised("api/limiter", Limiter, "api", rate(1, 10.0), QuotaTable())
    ref.ask(Admit())
    ref.kill()
    gevent.idle()
    with pytest.raises(RateLimited):
        found("api/limiter").ask(Admit(), timeout=5.0)


def test_an_operator_can_let_everybody_go_on(manual: ManualClock, supervised: Supervised) -> None:
    ref = supervised("api/limiter", Limiter, "api", rate(1, 10.0), QuotaTable())
    ref.ask(Admit())
    waiter = waiting(manual, ref, 100.0)
    assert ref.call("reset") == {"waiting": 0, "limit": 1, "window_s": 10.0, "used": 1}
    assert waiter.value == 2


def test_a_token_given_back_serves_the_next_who_waits(manual: ManualClock, supervised: Supervised) -> None:
    ref = supervised("api/limiter", Limiter, "api", rate(1, 10.0), QuotaTable())
    ref.ask(Admit())
    waiter = waiting(manual, ref, 100.0)
    ref.ask(GiveBack())
    assert waiter.value == 1


def test_its_decisions_and_waits_are_counted(manual: ManualClock, supervised: Supervised) -> None:
    ref = supervised("tallied/limiter", Limiter, "tallied", rate(1, 10.0), QuotaTable())
    ref.ask(Admit())
    waiting(manual, ref, 5.0)
    waiting(manual, ref, 100.0)
    manual.advance(11)
    words = ("admitted", "refused", "overloaded", "expired")
    assert [DECISIONS.value("tallied", word) for word in words] == [2, 1, 0, 0]
    assert WAIT_SECONDS.count("tallied") == 2


def test_a_costly_request_waits_for_all_of_its_tokens_and_the_others_behind_it(
    manual: ManualClock, supervised: Supervised
) -> None:
    ref = supervised("api/limiter", Limiter, "api", rate(4, 10.0), QuotaTable())
    ref.ask(Admit(3))
    costly, cheap = waiting(manual, ref, 100.0, cost=3), waiting(manual, ref, 100.0)
    assert not cheap.done
    manual.advance(10.5)
    assert (costly.value, cheap.value) == (6, 7)


def test_the_refusal_counts_what_those_who_wait_will_take(manual: ManualClock, supervised: Supervised) -> None:
    ref = supervised("api/limiter", Limiter, "api", rate(4, 10.0), QuotaTable())
    ref.ask(Admit(4))
    waiting(manual, ref, 100.0, cost=4)
    error = waiting(manual, ref, 15.0).error
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == pytest.approx(20.0, abs=0.3)


def test_what_was_not_sent_gives_its_whole_cost_back(manual: ManualClock, supervised: Supervised) -> None:
    ref = supervised("api/limiter", Limiter, "api", rate(4, 10.0), QuotaTable())
    ref.ask(Admit(4))
    waiters = [waiting(manual, ref, 100.0, cost=2) for _ in range(2)]
    ref.ask(GiveBack(4))
    assert [waiter.value for waiter in waiters] == [2, 4]


@pytest.mark.parametrize("cost", [0, 5])
def test_a_cost_that_can_never_be_met_is_refused_and_harms_nobody(
    manual: ManualClock, supervised: Supervised, cost: int
) -> None:
    ref = supervised("api/limiter", Limiter, "api", rate(4, 10.0), QuotaTable())
    with pytest.raises(InvalidArguments, match="costs from 1 to 4"):
        ref.ask(Admit(cost))
    assert ref.ask(Admit(4)) == 4


def test_a_bucket_serves_those_who_wait_one_by_one_as_tokens_come_back(
    manual: ManualClock, supervised: Supervised
) -> None:
    ref = supervised("api/limiter", Limiter, "api", bucket(10, 10.0, burst=2), QuotaTable())
    promises = [waiting(manual, ref, 100.0) for _ in range(5)]
    assert [promise.done for promise in promises] == [True, True, False, False, False]
    for number in (2, 3, 4):
        manual.advance(1.0)
        assert [promise.done for promise in promises] == [index <= number for index in range(5)]


def test_a_bucket_killed_while_spent_comes_back_spent(manual: ManualClock, supervised: Supervised) -> None:
    ref = supervised("api/limiter", Limiter, "api", bucket(10, 10.0, burst=2), QuotaTable())
    ref.ask(Admit(2))
    ref.kill()
    gevent.idle()
    reborn = found("api/limiter")
    with pytest.raises(RateLimited):
        reborn.ask(Admit(), timeout=0.9)
    manual.advance(1.0)
    assert reborn.ask(Admit()) == 3
    assert reborn.actor.status() == {"waiting": 0, "limit": 10, "window_s": 10.0, "burst": 2, "used": 2}


@pytest.mark.parametrize("policy", [rate(2, 10.0), bucket(2, 10.0, burst=2)], ids=["window", "bucket"])
@pytest.mark.parametrize("shift_s", [-86400.0, 86400.0], ids=["back", "ahead"])
def test_the_wall_clock_has_no_say_in_the_limit(
    manual: ManualClock,
    supervised: Supervised,
    monkeypatch: pytest.MonkeyPatch,
    policy: RatePolicy,
    shift_s: float,
) -> None:
    ref = supervised("api/limiter", Limiter, "api", policy, QuotaTable())
    ref.ask(Admit(2))
    waiter = waiting(manual, ref, 100.0, cost=2)
    wall, real = clock.wall, time.time
    monkeypatch.setattr(clock, "wall", lambda: wall() + shift_s)
    monkeypatch.setattr(time, "time", lambda: real() + shift_s)
    manual.advance(9.9)
    assert not waiter.done
    manual.advance(0.3)
    assert waiter.value == 4


# -- between clients


def test_clients_that_wait_are_served_in_turns(manual: ManualClock, supervised: Supervised) -> None:
    ref = supervised("api/limiter", Limiter, "api", bucket(1, 1.0, burst=1), QuotaTable())
    ref.ask(Admit())
    flood = [waiting(manual, ref, 1000.0, client="flood") for _ in range(50)]
    modest = [waiting(manual, ref, 1000.0, client="modest") for _ in range(5)]
    for _ in range(10):
        manual.advance(1.0)
    assert [promise.done for promise in modest] == [True] * 5
    assert sum(promise.done for promise in flood) == 5


def test_a_modest_client_is_refused_only_for_its_own_wait(manual: ManualClock, supervised: Supervised) -> None:
    ref = supervised("api/limiter", Limiter, "api", bucket(1, 1.0, burst=1), QuotaTable())
    ref.ask(Admit())
    for _ in range(50):
        waiting(manual, ref, 1000.0, client="flood")
    assert waiting(manual, ref, 2.5, client="modest").error is None
    error = waiting(manual, ref, 2.5, client="modest").error
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == pytest.approx(4.0, abs=0.1)
    error = waiting(manual, ref, 2.5, client="flood").error
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == pytest.approx(52.0, abs=0.1)


def test_a_full_queue_has_room_for_the_client_that_has_least_in_it(manual: ManualClock, supervised: Supervised) -> None:
    ref = supervised("api/limiter", Limiter, "api", rate(1, 10.0, queue=4), QuotaTable())
    ref.ask(Admit())
    flood = [waiting(manual, ref, 1000.0, client="flood") for _ in range(6)]
    assert [isinstance(promise.error, Overloaded) for promise in flood] == [False] * 4 + [True] * 2
    modest = waiting(manual, ref, 1000.0, client="modest")
    assert isinstance(flood[3].error, Overloaded)
    assert flood[3].error.started == "no"
    manual.advance(25)
    assert modest.done
    assert modest.error is None


def test_who_gives_up_while_waiting_leaves_its_place_at_once(manual: ManualClock, supervised: Supervised) -> None:
    ref = supervised("api/limiter", Limiter, "api", rate(1, 10.0, queue=2), QuotaTable())
    ref.ask(Admit())
    first, _ = waiting(manual, ref, 1000.0), waiting(manual, ref, 1000.0)
    first.cancel()
    assert ref.actor.status()["waiting"] == 1
    assert not waiting(manual, ref, 1000.0).done
