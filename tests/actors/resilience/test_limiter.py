from __future__ import annotations

import gevent
import pytest

from actors.resilience.limiter import DECISIONS, WAIT_SECONDS, Admit, GiveBack, Limiter, QuotaTable
from actors.resilience.policy import RatePolicy
from actors.resilience.quota import Lesson
from config.schema import PositiveDuration
from regrow.protocol.errors import Overloaded, RateLimited
from regrow.testing import ManualClock
from runtime.promise import Promise
from runtime.ref import Ref
from tests.actors.resilience.conftest import Supervised, found


def rate(requests: int, window_s: float, queue: int = 1000) -> RatePolicy:
    return RatePolicy(requests=requests, window=PositiveDuration(window_s), queue=queue)


def waiting(manual: ManualClock, ref: Ref, within_s: float) -> Promise:
    """A request that may wait for so long; its deadline runs already."""
    promise = Promise(deadline=manual.now() + within_s)
    ref.request(Admit(), promise)
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
    ref = supervised("counted/limiter", Limiter, "counted", rate(1, 10.0), QuotaTable())
    ref.ask(Admit())
    waiting(manual, ref, 5.0)
    waiting(manual, ref, 100.0)
    manual.advance(11)
    words = ("admitted", "refused", "overloaded", "expired")
    assert [DECISIONS.value("counted", word) for word in words] == [2, 1, 0, 0]
    assert WAIT_SECONDS.count("counted") == 2
