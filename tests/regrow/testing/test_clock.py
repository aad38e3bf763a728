"""The manual clock of the test kit: time moves only when a test moves it, and all of the runtime moves along."""

from __future__ import annotations

import time

import gevent
import pytest

from regrow.testing import ManualClock
from regrow.testing.clock import NeverSettles
from runtime import clock
from runtime.actor import Actor
from runtime.promise import AskTimeout


class Echo(Actor):
    """Answers with what it was sent."""

    def on_receive(self, message: object) -> object:
        return message


def test_time_stands_still_until_it_is_moved() -> None:
    with ManualClock(start_s=50.0, wall_s=1000.0) as manual:
        gevent.sleep(0.01)
        assert (clock.now(), clock.wall()) == (50.0, 1000.0)
        manual.advance(2.5)
        assert (clock.now(), clock.wall()) == (52.5, 1002.5)


def test_the_real_clock_is_back_afterwards() -> None:
    with ManualClock():
        pass
    assert abs(clock.now() - time.monotonic()) < 1
    assert abs(clock.wall() - time.time()) < 1


def test_timers_fire_one_instant_after_the_other_with_what_they_set_off_in_between() -> None:
    with ManualClock() as manual:
        log: list[str] = []

        def first() -> None:
            log.append(f"first at {manual.now() - 1000:g}")
            gevent.spawn(log.append, "set off by the first")
            clock.after(0.5, log.append, "later by the first")

        clock.after(1, first)
        clock.after(2, lambda: log.append(f"second at {manual.now() - 1000:g}"))
        manual.advance(10)
        assert log == ["first at 1", "set off by the first", "later by the first", "second at 2"]


def test_many_small_steps_are_as_long_as_one_large_one() -> None:
    with ManualClock() as manual:
        fired: list[int] = []
        clock.after(1.0, fired.append, 1)
        for _ in range(10):
            manual.advance(0.1)
        assert fired == [1]


def test_settling_lets_messages_be_handled_without_time_passing() -> None:
    with ManualClock() as manual:
        ref = Echo.start()
        future = ref.ask("hello", block=False)
        manual.settle()
        assert future.get() == "hello"
        assert manual.now() == 1000.0
        ref.kill()


def test_a_timer_that_is_due_at_once_fires_when_things_settle() -> None:
    with ManualClock() as manual:
        fired: list[int] = []
        clock.after(0, fired.append, 1)
        manual.settle()
        assert fired == [1]


def test_deadlines_follow_the_manual_clock() -> None:
    with ManualClock() as manual:

        class Slow(Actor):
            def on_receive(self, message: float) -> None:
                clock.sleep(message)

        ref = Slow.start()
        future = ref.ask(3600.0, block=False, timeout=1800.0)
        manual.advance(1800)
        with pytest.raises(AskTimeout):
            future.get()
        ref.kill()
        manual.settle()


def test_the_next_timer_can_be_waited_for() -> None:
    with ManualClock() as manual:
        fired: list[float] = []
        clock.after(42, lambda: fired.append(manual.now()))
        assert manual.advance_to_next()
        assert fired == [1042.0]
        assert not manual.advance_to_next()


def test_time_does_not_go_back() -> None:
    with ManualClock() as manual, pytest.raises(ValueError, match="cannot go back"):
        manual.advance(-1)


def test_what_never_settles_is_named_instead_of_hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    from regrow.testing import clock as kit

    monkeypatch.setattr(kit, "MAX_TURNS", 50)
    with ManualClock() as manual:

        def again() -> None:
            clock.after(0, again)

        clock.after(0, again)
        with pytest.raises(NeverSettles):
            manual.settle()


def test_pending_timers_are_those_that_neither_fired_nor_were_cancelled() -> None:
    with ManualClock() as manual:
        kept, cancelled, _ = clock.after(5, list), clock.after(5, list), clock.after(1, list)
        cancelled.cancel()
        manual.advance(2)
        assert manual.pending() == [kept]
