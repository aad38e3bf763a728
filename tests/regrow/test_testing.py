"""The test kit: probes, sequencer, crasher, and the guard that tells what a test left behind."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from regrow.testing import Crash, ManualClock, Probe, Sequencer, crash, hang, stop_with
from regrow.testing.leftovers import Leftovers
from runtime import clock
from runtime.actor import Actor
from runtime.reasons import SHUTDOWN
from runtime.ref import spawn
from runtime.signals import Down, Exit, link, monitor

pytest_plugins = ["pytester"]


class Echo(Actor):
    def on_receive(self, message: Any) -> Any:
        return message


def test_a_probe_gives_messages_in_the_order_in_which_they_came() -> None:
    with Probe(answer=lambda message: message * 2) as probe:
        probe.ref.tell(1)
        assert probe.ref.ask(2) == 4
        assert [probe.receive(int), probe.receive()] == [1, 2]
        probe.expect_nothing()


def test_a_probe_waits_for_a_message_that_comes_later_and_says_so_when_none_does() -> None:
    with Probe() as probe:
        gevent.spawn(probe.ref.tell, "late")
        assert probe.receive(str) == "late"
        with pytest.raises(AssertionError, match="no message within"):
            probe.receive(timeout_s=0.01)


def test_a_probe_refuses_a_message_of_another_class() -> None:
    with Probe() as probe:
        probe.ref.tell("text")
        with pytest.raises(AssertionError, match="expected a int, got 'text'"):
            probe.receive(int)


def test_a_probe_hears_of_monitored_and_linked_actors() -> None:
    with Probe() as probe:
        watched, linked = Echo.start(), Echo.start()
        probe.run(lambda: monitor(watched))
        probe.run(lambda: link(linked))
        crash(watched)
        assert isinstance(probe.receive(Down).reason.detail, Crash)
        stop_with(linked, SHUTDOWN)
        assert probe.receive(Exit).reason == SHUTDOWN


def test_a_crash_raises_what_the_test_named() -> None:
    ref = Echo.start()
    crash(ref, KeyError("chosen"))
    gevent.sleep(0)
    assert isinstance(ref.reason.detail, KeyError)


def test_a_hanging_actor_answers_once_it_is_let_go() -> None:
    ref = Echo.start()
    go = hang(ref)
    asked = gevent.spawn(ref.ask, "hello")
    gevent.sleep(0)
    assert not asked.ready()
    go.set()
    assert asked.get() == "hello"
    ref.stop()


def test_a_sequencer_brings_greenlets_into_its_order() -> None:
    order: list[int] = []
    step = Sequencer()

    def run(*numbers: int) -> None:
        for number in numbers:
            with step(number):
                order.append(number)

    gevent.joinall([gevent.spawn(run, 1, 3), gevent.spawn(run, 0, 2, 4)], raise_error=True)
    assert order == [0, 1, 2, 3, 4]
    assert step.done == 5


def test_a_sequence_with_a_missing_step_fails_instead_of_hanging() -> None:
    step = Sequencer(timeout_s=0.02)
    with pytest.raises(AssertionError, match="step 1 waited"), step(1):
        pass


def test_a_step_is_taken_once() -> None:
    step = Sequencer()
    with step(0):
        pass
    with pytest.raises(ValueError, match="taken twice"):
        step(0)


def test_leftovers_name_actors_names_and_timers() -> None:
    before = Leftovers()
    ref = spawn(Echo, name="left_behind")
    timer = clock.after(60, print)
    found = before.found()
    assert [line.partition(" ")[0] for line in found] == ["actor", "name", "timer"]
    assert "left_behind" in found[0]
    ref.kill()
    timer.cancel()
    assert before.found() == []


def test_a_manual_clock_leaves_the_real_one_in_place_afterwards() -> None:
    real = clock.now
    with ManualClock() as manual:
        fired: list[float] = []
        clock.after(10, lambda: fired.append(clock.now()))
        began = clock.now()
        manual.advance(9.999)
        assert fired == []
        manual.advance(0.001)
        assert fired == [pytest.approx(began + 10)]
    assert clock.now is real


PLUGIN_TEST = """
import pytest
from runtime.actor import Actor
from runtime import clock

class Echo(Actor):
    def on_receive(self, message):
        return message

def test_leaves_an_actor():
    Echo.start()

def test_leaves_a_timer():
    clock.after(60, print)

@pytest.mark.leaves_behind
def test_may_leave_one():
    Echo.start()

def test_is_clean(manual_clock, probe, sequencer):
    ref = Echo.start()
    assert ref.ask(1) == 1
    ref.stop()
"""


def test_the_plugin_fails_a_test_that_leaves_something_behind(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("from gevent import monkey\nmonkey.patch_all()\npytest_plugins = ['regrow.testing.plugin']\n")
    pytester.makepyfile(PLUGIN_TEST)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=4, errors=2)
    result.stdout.fnmatch_lines(["*this test left behind: actor *Echo*", "*this test left behind: timer *"])
