"""Refs: what they say, who may use them, and how foreign threads come in."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.monkey import get_original

from regrow.testing import ManualClock
from runtime import clock, names
from runtime.messages import Call
from runtime.promise import ActorUnavailable, AskTimeout, Promise
from runtime.reasons import ExitReason
from runtime.ref import Ref, spawn
from tests.runtime.actors import Doer
from tests.runtime.conftest import Starter

start_new_thread = get_original("_thread", "start_new_thread")


def test_a_ref_reads_as_one_line_of_a_log(start: Starter) -> None:
    ref = start(Doer)
    assert str(ref) == f"Doer-{ref.serial} (Doer #{ref.serial}, running, 0 queued)"


def test_a_restart_makes_another_ref_and_a_name_finds_it() -> None:
    first = spawn(Doer, name="clerk")
    first.kill()
    second = spawn(Doer, name="clerk")
    assert second.serial > first.serial
    assert names.whereis("clerk") is second
    second.kill()
    assert names.whereis("clerk") is None


def test_the_path_leads_from_the_root_down(start: Starter) -> None:
    parent = start(Doer)
    child = spawn(Doer, parent=parent, label="child")
    grandchild = spawn(Doer, parent=child, label="grandchild")
    assert grandchild.path == f"{parent.path}/child/grandchild"


def test_a_dead_actor_refuses_everything_as_never_started(start: Starter) -> None:
    ref = start(Doer)
    ref.exit(ExitReason("boom"))
    for send in (ref.tell, ref.ask, lambda m: ref.request(m, None)):
        with pytest.raises(ActorUnavailable, match="is not running, it ended: boom") as refused:
            send("message")
        assert refused.value.started == "no"
    promise = Promise()
    ref.request("message", promise)
    assert isinstance(promise.error, ActorUnavailable)


def test_an_actor_that_asks_itself_is_told_that_nobody_would_answer(start: Starter) -> None:
    ref = start(Doer)
    with pytest.raises(RuntimeError, match="asked itself"):
        ref.ask(lambda actor: actor.ref.ask("me"))


def test_the_hub_may_neither_ask_nor_start(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Doer)
    refused: list[str] = []

    def in_the_hub() -> None:
        for forbidden in (lambda: ref.ask("x"), lambda: spawn(Doer, name="clerk")):
            try:
                forbidden()
            except RuntimeError as error:
                refused.append(str(error))

    clock.after(0, in_the_hub)
    manual_clock.settle()
    assert len(refused) == 2
    assert names.whereis("clerk") is None
    assert ref.ask("alive") == "alive"


def test_a_promise_with_a_callback_needs_no_greenlet(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Doer)
    settled: list[Any] = []
    ref.request("hello", Promise(callback=lambda promise: settled.append((promise.value, promise.started))))
    manual_clock.settle()
    assert settled == [("hello", True)]


def test_a_cancelled_request_that_waits_is_never_begun(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Doer)
    begun: list[int] = []
    ref.tell(lambda _: clock.sleep(1))
    promise = Promise()
    ref.request(lambda _: begun.append(1), promise)
    assert promise.cancel()
    manual_clock.advance(2)
    assert begun == []
    assert promise.error is not None


def test_a_caller_that_is_killed_while_it_asks_cancels_its_request(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Doer)
    begun: list[int] = []
    ref.tell(lambda _: clock.sleep(1))
    asker = gevent.spawn(ref.ask, lambda _: begun.append(1))
    manual_clock.settle()
    asker.kill()
    manual_clock.advance(2)
    assert begun == []


def test_a_gevent_timeout_around_an_ask_is_the_caller_s_own(start: Starter) -> None:
    ref = start(Doer)
    never = Event()
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
        ref.ask(lambda _: never.wait())
    never.set()
    assert ref.ask("alive") == "alive"


def test_an_actor_killed_while_it_asks_another_stops_waiting(start: Starter, manual_clock: ManualClock) -> None:
    inner, outer = start(Doer), start(Doer)
    begun: list[int] = []
    inner.tell(lambda _: clock.sleep(1))
    outer.tell(lambda _: inner.ask(lambda _: begun.append(1)))
    manual_clock.settle()
    outer.kill()
    manual_clock.advance(2)
    assert begun == []
    assert inner.ask("alive") == "alive"


def test_two_greenlets_may_wait_for_one_future(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Doer)
    future = ref.ask(lambda _: clock.sleep(1), block=False)
    waiting = [gevent.spawn(future.get) for _ in range(3)]
    manual_clock.advance(1)
    assert [greenlet.ready() for greenlet in waiting] == [True, True, True]


def test_a_future_that_is_waited_for_too_shortly_can_be_waited_for_again(
    start: Starter, manual_clock: ManualClock
) -> None:
    ref = start(Doer)
    future = ref.ask(lambda _: clock.sleep(5), block=False, timeout=60.0)
    others = [gevent.spawn(_too_short, future, 1.0), gevent.spawn(_too_short, future, 2.0)]
    manual_clock.advance(2)
    assert all(other.ready() for other in others)
    manual_clock.advance(5)
    assert future.get() is None


def _too_short(future: Any, timeout: float) -> None:
    with pytest.raises(AskTimeout):
        future.get(timeout=timeout)


def test_a_call_of_a_method_that_is_not_exported_is_refused(start: Starter) -> None:
    ref = start(Doer)
    with pytest.raises(Exception, match="exports no method 'on_receive'"):
        ref.call("on_receive", {"message": 1})
    assert isinstance(Call("a", {}), Call)


# -- foreign threads, on the real clock: native threads do not wait for a manual one


class ForeignThread:
    """Runs a function in a native thread; the hub goes on while the test waits."""

    def __init__(self, function: Any) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        done = gevent.get_hub().loop.async_()
        finished = Event()
        done.start(finished.set)

        def run() -> None:
            try:
                self.result = function()
            except BaseException as error:  # noqa: BLE001 - looked at by the test
                self.error = error
            done.send()

        start_new_thread(run, ())
        finished.wait(10)
        done.stop()
        done.close()

    def value(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.result


@pytest.fixture
def doer() -> Any:
    ref = Doer.start()
    yield ref
    ref.kill()
    gevent.sleep(0)


def test_a_foreign_thread_may_ask_tell_and_stop(doer: Ref) -> None:
    log: list[str] = []
    assert ForeignThread(lambda: doer.ask("hello")).value() == "hello"
    assert ForeignThread(lambda: doer.tell(lambda _: log.append("told"))).value() is None
    assert doer.ask("done") == "done"
    assert log == ["told"]
    assert ForeignThread(doer.stop).value() is True
    assert ForeignThread(doer.stop).value() is False


def test_a_foreign_thread_hears_what_the_handler_raised(doer: Ref) -> None:
    with pytest.raises(ZeroDivisionError):
        ForeignThread(lambda: doer.ask(ZeroDivisionError())).value()


def test_a_foreign_thread_is_refused_by_the_dead(doer: Ref) -> None:
    doer.kill()
    for send in (doer.tell, doer.ask):
        with pytest.raises(ActorUnavailable):
            ForeignThread(lambda send=send: send("x")).value()


def test_a_foreign_thread_waits_no_longer_than_its_timeout(doer: Ref) -> None:
    never = Event()
    with pytest.raises(AskTimeout):
        ForeignThread(lambda: doer.ask(lambda _: never.wait(), timeout=0.02)).value()
    never.set()


def test_a_foreign_thread_may_get_a_future_later_and_give_up_on_it(doer: Ref) -> None:
    release = Event()
    in_hub = gevent.get_hub().loop.run_callback_threadsafe

    def wait_and_answer(_: Doer) -> str:
        release.wait()
        return "late"

    def in_thread() -> str:
        future = doer.ask(wait_and_answer, block=False)
        with pytest.raises(AskTimeout):
            future.get(timeout=0.02)
        in_hub(release.set)
        answer: str = future.get(timeout=5)
        return answer

    assert ForeignThread(in_thread).value() == "late"


def test_a_foreign_thread_may_start_and_kill() -> None:
    ref = ForeignThread(Doer.start).value()
    assert ref.ask("alive") == "alive"
    ForeignThread(ref.kill).value()
    assert not ref.is_alive()


def test_a_start_that_fails_raises_in_the_foreign_thread_that_asked_for_it() -> None:
    from tests.runtime.actors import Failing

    with pytest.raises(ZeroDivisionError):
        ForeignThread(lambda: Failing.start(ZeroDivisionError())).value()
