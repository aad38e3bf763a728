from __future__ import annotations

import pytest

from runtime import clock
from runtime.actor import Actor
from runtime.names import register, whereis
from tests.support.leaks import LeakGuard


class Idle(Actor):
    pass


def test_a_name_that_is_still_held_is_a_leak_and_its_actor_is_ended() -> None:
    guard = LeakGuard()
    ref = Idle.start()
    register("left/behind", ref)
    [line] = guard.leaks()
    assert line.startswith("name: left/behind is held by ")
    assert not ref.is_alive()
    assert whereis("left/behind") is None


def test_a_stopped_actor_leaves_no_name() -> None:
    guard = LeakGuard()
    ref = Idle.start()
    register("gone", ref)
    ref.stop()
    assert guard.leaks() == []


def test_a_waiting_timer_is_a_leak_and_is_cancelled() -> None:
    guard = LeakGuard()
    timer = clock.after(3600, pytest.fail, "must never fire")
    [line] = guard.leaks()
    assert line.startswith("timer: ")
    assert not timer.pending


def test_an_answered_ask_leaves_no_timer() -> None:
    class Echo(Actor):
        def on_receive(self, message: object) -> object:
            return message

    ref = Echo.start()
    guard = LeakGuard()
    assert ref.ask("hello", timeout=5) == "hello"
    assert guard.leaks() == []
    ref.stop()
