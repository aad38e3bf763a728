"""The timer wheel: never early, at most a slot late, in order; and the seam by which a manual clock is put in."""

from __future__ import annotations

import math

import gevent
import hypothesis.strategies as st
import pytest
from hypothesis import given

from regrow.testing import ManualClock
from runtime import clock
from runtime.clock import Wheel


class Time:
    """A clock in the hand of the test."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.armed: list[float] = []

    def wheel(self, slots_per_s: int = 100) -> Wheel:
        return Wheel(lambda: self.now_s, slots_per_s, self.armed.append)


def test_a_timer_is_never_early_and_at_most_one_slot_late() -> None:
    time = Time()
    wheel = time.wheel()
    fired: list[float] = []
    wheel.after(0.0234, lambda: fired.append(time.now_s))
    for milliseconds in range(60):
        time.now_s = 100.0 + milliseconds / 1000
        wheel.fire()
    assert 100.0234 <= fired[0] <= 100.0334 + 0.001
    assert len(fired) == 1


@given(st.lists(st.floats(0, 5), min_size=1, max_size=30))
def test_timers_fire_in_order_of_their_slots_each_once(delays: list[float]) -> None:
    time = Time()
    wheel = time.wheel()
    fired: list[float] = []
    for delay_s in delays:
        wheel.after(delay_s, fired.append, delay_s)
    time.now_s += 10
    assert wheel.fire() == len(delays)
    slots = [math.ceil((100.0 + delay_s) * 100 - 1e-6) for delay_s in fired]
    assert slots == sorted(slots)
    assert sorted(fired) == sorted(delays)
    assert wheel.fire() == 0


def test_a_cancelled_timer_never_fires_even_by_one_of_its_own_slot() -> None:
    time = Time()
    wheel = time.wheel()
    fired: list[str] = []

    def first() -> None:
        fired.append("first")
        second.cancel()

    wheel.after(1, first)
    second = wheel.after(1, fired.append, "second")
    third = wheel.after(1, fired.append, "third")
    third.cancel()
    third.cancel()
    time.now_s += 2
    wheel.fire()
    assert fired == ["first"]
    assert not second.pending
    assert not third.pending


def test_a_timer_that_sets_another_one_for_now_does_not_keep_the_others_waiting() -> None:
    time = Time()
    wheel = time.wheel()
    fired: list[str] = []

    def again() -> None:
        fired.append("again")
        wheel.after(0, again)

    wheel.after(1, again)
    wheel.after(1.5, fired.append, "other")
    time.now_s += 2
    wheel.fire()
    assert fired == ["again", "other"]


def test_a_broken_timer_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[type] = []
    monkeypatch.setattr(type(gevent.get_hub()), "handle_error", lambda _hub, _context, kind, *_: reported.append(kind))
    time = Time()
    wheel = time.wheel()
    fired: list[str] = []

    def fail() -> None:
        raise ZeroDivisionError

    wheel.after(1, fail)
    wheel.after(1, fired.append, "after it")
    time.now_s += 2
    wheel.fire()
    assert (fired, reported) == (["after it"], [ZeroDivisionError])


def test_the_alarm_is_set_anew_only_when_the_earliest_timer_changes() -> None:
    time = Time()
    wheel = time.wheel()
    wheel.after(5, list)
    wheel.after(7, list)
    wheel.after(1, list)
    assert [round(delay_s, 2) for delay_s in time.armed] == [5.0, 1.0]


def test_a_timer_that_is_due_in_infinity_never_fires_and_is_in_nobody_s_way() -> None:
    time = Time()
    wheel = time.wheel()
    timer = wheel.after(math.inf, list)
    assert timer.pending
    assert wheel.next_due() is None
    timer.cancel()
    assert not timer.pending


def test_the_next_instant_skips_slots_whose_timers_were_all_cancelled() -> None:
    time = Time()
    wheel = time.wheel()
    wheel.after(1, list).cancel()
    wheel.after(2, list)
    assert wheel.next_due() == pytest.approx(102.0)


def test_sleep_ends_when_its_time_is_over_and_leaves_no_timer() -> None:
    with ManualClock() as manual:
        sleeper = gevent.spawn(clock.sleep, 2.0)
        manual.advance(1.99)
        assert not sleeper.ready()
        manual.advance(0.01)
        assert sleeper.ready()
        assert manual.pending() == []


def test_a_killed_sleeper_leaves_no_timer() -> None:
    with ManualClock() as manual:
        sleeper = gevent.spawn(clock.sleep, 2.0)
        manual.settle()
        sleeper.kill()
        assert manual.pending() == []


def test_the_real_clock_fires_soon_after_the_delay() -> None:
    fired = gevent.event.Event()
    began = clock.now()
    clock.after(0.02, fired.set)
    assert fired.wait(5)
    assert clock.now() - began >= 0.02
