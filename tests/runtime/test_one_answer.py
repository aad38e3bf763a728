"""Every ask gets exactly one answer, and it is true about the work, whatever happens to the actor meanwhile."""

from __future__ import annotations

from typing import Any

import gevent
import hypothesis.strategies as st
from hypothesis import given, settings

from regrow.protocol.errors import Overloaded, RegrowError
from regrow.testing import ManualClock
from runtime import clock, sys
from runtime.actor import Actor
from runtime.promise import ActorDied, ActorUnavailable, Promise
from runtime.reasons import Stop

KINDS = ("answer", "work", "hang", "refuse", "crash", "stop", "defer", "defer and answer", "ask another")
EVENTS = ("kill", "stop", "suspend", "resume", "wait", "cancel")


class Busy(Actor):
    """Does what each message says, and notes which ones it began."""

    mailbox = 4
    timeout = 3.0

    def __init__(self, begun: set[int], friend: Any) -> None:
        super().__init__()
        self.begun = begun
        self.friend = friend

    def on_receive(self, message: tuple[int, str]) -> Any:
        number, kind = message
        self.begun.add(number)
        match kind:
            case "work":
                clock.sleep(1)
            case "hang":
                clock.sleep(1000)
            case "refuse":
                raise Overloaded("not now", started="yes")
            case "crash":
                raise ZeroDivisionError
            case "stop":
                raise Stop(reply=number)
            case "defer":
                self.defer()
            case "defer and answer":
                promise = self.defer()
                clock.after(0.5, promise.resolve, number)
            case "ask another":
                self.friend.ask(number)
        return number


class Friend(Actor):
    """Answers slowly."""

    def on_receive(self, message: Any) -> Any:
        clock.sleep(0.3)
        return message


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(KINDS), st.sampled_from([None, 0.5, 2.0, 10.0])),
        st.sampled_from(EVENTS),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_each_ask_is_answered_once_and_truly(todo: list[Any]) -> None:
    with ManualClock() as manual:
        begun: set[int] = set()
        answers: dict[int, list[Promise]] = {}
        friend = Friend.start()
        ref = Busy.start(begun, friend)
        promises: list[Promise] = []
        for number, step in enumerate(todo):
            if isinstance(step, tuple):
                kind, timeout = step
                answers[number] = []
                deadline = None if timeout is None else clock.now() + timeout
                promise = Promise(deadline=deadline, callback=answers[number].append)
                promises.append(promise)
                ref.request((number, kind), promise)
            elif step == "wait":
                manual.advance(0.7)
            elif step == "cancel":
                if promises:
                    promises[len(promises) // 2].cancel()
            elif step == "kill":
                ref.kill()
            elif step == "stop":
                ref.stop(block=False)
            else:
                gevent.spawn(_quietly, getattr(sys, step), ref)
            if not ref.is_alive():
                ref = Busy.start(begun, friend)
        manual.advance(60)
        ref.kill()
        friend.kill()
        manual.settle()
        for number, got in answers.items():
            assert len(got) == 1, f"{todo[number]} got {len(got)} answers"
            judge(number, got[0], begun)


def _quietly(request: Any, ref: Any) -> None:
    try:
        request(
            ref,
        )
    except RegrowError:
        pass  # it died before it could answer


def judge(number: int, promise: Promise, begun: set[int]) -> None:
    """Check that the answer says nothing false about whether the work began."""
    error = promise.error
    if error is None:
        assert promise.value == number
        assert number in begun
    elif isinstance(error, ActorUnavailable):
        assert (error.started, number in begun) == ("no", False)
    elif isinstance(error, ActorDied):
        assert (error.started, number in begun) == ("yes", True)
    elif isinstance(error, RegrowError):
        assert (error.started == "yes") == (number in begun)
    else:
        assert number in begun
