"""Actors: one message at a time, what an exception means, the hooks, deadlines, and answers that come later."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent.event import Event

from regrow.protocol.errors import CircuitOpen, InvalidArguments, NotFound, Overloaded, RegrowError, UpstreamError
from regrow.testing import ManualClock
from runtime import clock, events, names, scheduler
from runtime.actor import Actor
from runtime.promise import ActorDied, ActorUnavailable, AskTimeout, MailboxFull, Promise
from runtime.reasons import NORMAL, SHUTDOWN, Crashed, ExitReason, Ignore, StartFailed, Stop
from runtime.ref import HandlerOverran, Ref, spawn
from runtime.signals import monitor
from tests.runtime.actors import Doer, Failing, Terminating
from tests.runtime.conftest import Starter


class Bug(Exception):
    """What nobody expected."""


# -- one message at a time


def test_a_second_message_waits_while_the_first_handler_blocks(start: Starter, manual_clock: ManualClock) -> None:
    log: list[str] = []

    def slow(_: Doer) -> None:
        log.append("first begins")
        clock.sleep(1)
        log.append("first ends")

    ref = start(Doer)
    ref.tell(slow)
    ref.tell(lambda _: log.append("second"))
    manual_clock.advance(0.5)
    assert log == ["first begins"]
    manual_clock.advance(0.5)
    assert log == ["first begins", "first ends", "second"]


def test_a_handler_that_blocks_holds_up_nobody_else(start: Starter, manual_clock: ManualClock) -> None:
    slow, quick = start(Doer), start(Doer)
    slow.tell(lambda _: clock.sleep(10))
    manual_clock.settle()
    assert quick.ask("now") == "now"


def test_messages_of_one_sender_come_in_the_order_in_which_they_were_sent(start: Starter) -> None:
    log: list[int] = []
    ref = start(Doer)
    for number in range(100):
        ref.tell(lambda _, number=number: log.append(number))
    ref.ask("all before me are done")
    assert log == list(range(100))


def test_a_thousand_askers_at_once_get_their_own_answers(start: Starter) -> None:
    ref = start(Doer)
    askers = [gevent.spawn(ref.ask, number) for number in range(1000)]
    gevent.joinall(askers)
    assert [asker.value for asker in askers] == list(range(1000))


# -- what an exception means


@pytest.mark.parametrize(
    "error",
    [CircuitOpen("open"), Overloaded("full"), InvalidArguments("wrong"), NotFound("none"), UpstreamError("502")],
)
def test_a_typed_error_answers_and_the_actor_lives(start: Starter, error: RegrowError) -> None:
    ref = start(Doer)
    with pytest.raises(type(error)) as raised:
        ref.ask(error)
    assert raised.value is error
    assert ref.ask("alive") == "alive"


def test_a_typed_error_for_nobody_leaves_the_actor_alive(start: Starter) -> None:
    ref = start(Doer)
    ref.tell(NotFound("none"))
    assert ref.ask("alive") == "alive"


@pytest.mark.parametrize(
    "error", [Bug("bug"), SystemExit(1), gevent.GreenletExit(), gevent.Timeout(1), BaseException("base"), Ignore()]
)
@pytest.mark.parametrize("asked", [True, False])
def test_anything_else_that_escapes_crashes_the_actor_asked_or_told(
    start: Starter, manual_clock: ManualClock, error: BaseException, asked: bool
) -> None:
    ref = start(Doer)
    if asked:
        with pytest.raises(RuntimeError if isinstance(error, Ignore) else type(error)):
            ref.ask(error)
    else:
        ref.tell(error)
        manual_clock.settle()
    assert isinstance(ref.reason, Crashed)
    assert not ref.is_alive()


def test_an_end_happens_in_the_promised_order(start: Starter, manual_clock: ManualClock) -> None:
    log: list[str] = []
    ref = spawn(Doer, name="clerk")

    def noted(word: str) -> Promise:
        def settled(promise: Promise) -> None:
            name = "free" if names.whereis("clerk") is None else "held"
            log.append(f"{word}: {type(promise.error).__name__}, name {name}")

        return Promise(callback=settled)

    linked = start(Doer, trap_exit=True)
    linked.ask(lambda actor: _link(ref))
    monitor(ref, lambda _down: log.append("monitor"))
    ref.request(lambda _: _raise(Bug("bug")), noted("in hand"))
    ref.request("queued", noted("queued"))
    manual_clock.settle()
    assert log == ["in hand: Bug, name free", "queued: ActorUnavailable, name free", "monitor"]
    assert linked.ask(lambda actor: actor.log)[0][0] == "exit"


def _link(ref: Ref) -> None:
    from runtime.signals import link

    link(ref)


def _raise(error: BaseException) -> None:
    raise error


def test_queued_asks_of_a_crashed_actor_never_started(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Doer)
    first, second = ref.ask(Bug("bug"), block=False), ref.ask("queued", block=False)
    with pytest.raises(Bug):
        first.get()
    with pytest.raises(ActorUnavailable) as refused:
        second.get()
    assert (refused.value.started, refused.value.retryable) == ("no", True)


def test_a_killed_actor_answers_the_ask_in_hand_as_started(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Doer)
    future = ref.ask(lambda _: Event().wait(), block=False)
    manual_clock.settle()
    ref.kill()
    with pytest.raises(ActorDied) as died:
        future.get()
    assert died.value.started == "yes"


def test_a_crash_is_published_without_the_payload(start: Starter, published: list[events.Event]) -> None:
    ref = start(Doer)
    with pytest.raises(Bug):
        ref.ask(Bug("what went wrong"))
    crash = next(event for event in published if event.topic == "actor.crashed").fields
    assert (crash["reason"], crash["message"]) == ("Bug", "what went wrong")
    assert crash["crash_id"] == ref.reason.crash_id  # type: ignore[union-attr]
    assert crash["last_message"] == "Bug"


def test_an_exception_whose_text_cannot_be_made_still_ends_the_actor(
    start: Starter, published: list[events.Event]
) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    ref = start(Doer)
    with pytest.raises(Mute):
        ref.ask(Mute())
    assert not ref.is_alive()
    assert "Mute" in str(ref.reason)


def test_ctrl_c_in_a_handler_ends_the_actor_and_reaches_the_program(
    start: Starter, manual_clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[object] = []
    monkeypatch.setattr(
        type(scheduler.hub), "handle_system_error", lambda _hub, kind, value, tb=None: reached.append(kind)
    )
    ref = start(Doer)
    ref.tell(KeyboardInterrupt())
    manual_clock.settle()
    assert not ref.is_alive()
    assert reached == [KeyboardInterrupt]


# -- start


@pytest.mark.parametrize("where", ["__init__", "on_start"])
@pytest.mark.parametrize("error", [Bug("bug"), Stop(SHUTDOWN), StartFailed(ExitReason("no")), Ignore()])
def test_a_start_raises_what_its_actor_raised_and_leaves_nothing(where: str, error: BaseException) -> None:
    with pytest.raises(type(error)) as raised:
        spawn(Failing, (error, where), name="clerk")
    assert raised.value is error
    assert names.whereis("clerk") is None


def test_a_start_is_acknowledged_when_on_start_returns(manual_clock: ManualClock) -> None:
    go = Event()

    class Slow(Actor):
        def on_start(self) -> None:
            go.wait()

    starting = gevent.spawn(Slow.start)
    manual_clock.settle()
    assert not starting.ready()
    go.set()
    manual_clock.settle()
    ref = starting.get(block=False)
    assert ref.is_alive()
    ref.kill()


def test_messages_that_come_during_the_start_wait_for_its_end(manual_clock: ManualClock) -> None:
    log: list[str] = []
    go = Event()
    refs: list[Ref] = []

    class Slow(Doer):
        def on_start(self) -> None:
            refs.append(self.ref)
            go.wait()
            log.append("started")

    starting = gevent.spawn(Slow.start)
    manual_clock.settle()
    refs[0].tell(lambda _: log.append("message"))
    manual_clock.settle()
    assert log == []
    go.set()
    manual_clock.settle()
    assert log == ["started", "message"]
    starting.get().kill()


def test_a_name_that_is_taken_is_refused_with_its_holder(start: Starter) -> None:
    holder = spawn(Doer, name="clerk")
    with pytest.raises(names.NameTaken) as taken:
        spawn(Doer, name="clerk")
    assert taken.value.holder is holder
    holder.kill()
    spawn(Doer, name="clerk").kill()


# -- hooks


def test_an_orderly_stop_runs_on_stop_after_the_messages_before_it(start: Starter) -> None:
    log: list[Any] = []
    ref = start(Doer, log=log)
    ref.tell(lambda _: log.append("message"))
    assert ref.stop() is True
    assert log == ["message", "on_stop"]
    assert ref.reason == NORMAL
    assert ref.stop() is False


def test_a_stop_that_nobody_waits_for_any_more_happens_all_the_same(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Doer)
    ref.tell(lambda _: clock.sleep(10))
    stopping = gevent.spawn(_stop_times_out, ref)
    manual_clock.advance(2)
    assert stopping.get(block=False) is True
    assert ref.is_alive()
    manual_clock.advance(10)
    assert ref.reason == NORMAL


def _stop_times_out(ref: Ref) -> bool:
    with pytest.raises(AskTimeout):
        ref.stop(timeout=2.0)
    return True


def test_whoever_waits_for_a_stop_hears_of_the_end_though_a_hook_of_it_never_ends(
    start: Starter, manual_clock: ManualClock
) -> None:
    release = Event()

    class Stubborn(Doer):
        def on_stop(self) -> None:
            while not release.is_set():
                try:
                    release.wait()
                except BaseException:  # noqa: BLE001 - that is the fault
                    continue

    ref = start(Stubborn)
    stopping = gevent.spawn(ref.stop, timeout=100.0)
    manual_clock.settle()
    ref.kill()
    manual_clock.settle()
    assert stopping.get(block=False) is True
    release.set()
    manual_clock.settle()


def test_a_crash_runs_on_failure_and_not_on_stop(start: Starter) -> None:
    log: list[Any] = []
    ref = start(Doer, log=log)
    bug = Bug("bug")
    with pytest.raises(Bug):
        ref.ask(bug)
    (hook, kind, value, traceback), *rest = log
    assert (hook, kind, value, rest) == ("on_failure", Bug, bug, [])
    assert traceback is not None


def test_a_kill_runs_no_hook(start: Starter, manual_clock: ManualClock) -> None:
    log: list[Any] = []
    ref = start(Doer, log=log)
    ref.kill()
    manual_clock.settle()
    assert (log, str(ref.reason)) == ([], "killed")


def test_a_failing_failure_hook_does_not_hide_the_crash(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "report", lambda _context: None)

    class Doubly(Doer):
        def on_failure(self, *_: Any) -> None:
            raise ValueError

    ref = start(Doubly)
    with pytest.raises(Bug):
        ref.ask(Bug("bug"))
    assert isinstance(ref.reason, Crashed)
    assert isinstance(ref.reason.exception, Bug)


def test_the_terminate_hook_hears_why(start: Starter) -> None:
    heard: list[ExitReason] = []
    ref = start(Terminating, heard.append)
    ref.stop(reason=ExitReason("closing time"))
    assert heard == [ExitReason("closing time")]


def test_an_exception_in_the_terminate_hook_replaces_the_reason(start: Starter) -> None:
    ref = start(Terminating, lambda _reason: _raise(Bug("bug")))
    ref.stop()
    assert isinstance(ref.reason, Crashed)


def test_a_handler_may_stop_its_actor_with_a_reason_and_a_last_reply(start: Starter) -> None:
    ref = start(Doer)
    assert ref.ask(Stop(ExitReason("done"), reply="bye")) == "bye"
    assert ref.reason == ExitReason("done")


def test_an_actor_stops_itself_after_the_messages_it_has(start: Starter) -> None:
    log: list[Any] = []
    ref = start(Doer, log=log)
    ref.tell(lambda actor: actor.stop())
    ref.tell(lambda _: log.append("came before the stop was asked for"))
    ref.stop()
    assert log == ["came before the stop was asked for", "on_stop"]


# -- continue, idle, later messages


def test_continue_comes_before_every_message_that_waits(start: Starter) -> None:
    log: list[str] = []
    ref = start(Doer)
    ref.tell(lambda actor: actor.continue_with(lambda _: log.append("continued")))
    ref.tell(lambda _: log.append("waited"))
    ref.ask("done")
    assert log == ["continued", "waited"]


def test_continue_in_on_start_runs_after_the_start_was_acknowledged_and_before_any_message(
    manual_clock: ManualClock,
) -> None:
    log: list[str] = []

    class Continuing(Doer):
        def on_start(self) -> None:
            self.continue_with(lambda _: log.append("continued"))

    ref = Continuing.start()
    log.append("start returned")
    ref.tell(lambda _: log.append("message"))
    manual_clock.settle()
    assert log == ["start returned", "continued", "message"]
    ref.kill()


def test_an_actor_without_messages_hears_that_it_is_idle_once(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Doer)
    log = ref.ask(lambda actor: (actor.idle_after(5), actor.log)[1])
    manual_clock.advance(4.9)
    assert log == []
    manual_clock.advance(60)
    assert log == ["on_idle"]


def test_any_message_cancels_the_wait_for_idleness(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Doer)
    log = ref.ask(lambda actor: (actor.idle_after(5), actor.log)[1])
    manual_clock.advance(4)
    ref.tell("anything")
    manual_clock.advance(60)
    assert log == []


def test_a_message_for_later_comes_when_its_time_is_there(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Doer)
    log: list[str] = []
    kept, cancelled = ref.ask(
        lambda actor: [actor.send_after(5, lambda _, word=word: log.append(word)) for word in ("kept", "cancelled")]
    )
    cancelled.cancel()
    manual_clock.advance(5)
    assert log == ["kept"]
    assert not kept.pending


# -- deadlines


def test_an_ask_is_answered_at_its_deadline_and_says_that_the_work_began(
    start: Starter, manual_clock: ManualClock
) -> None:
    ref = start(Doer)
    asking = gevent.spawn(_timeout_of, ref, lambda _: clock.sleep(10), 2.0)
    manual_clock.advance(1.99)
    assert not asking.ready()
    manual_clock.advance(0.01)
    assert asking.get(block=False).started == "yes"


def _timeout_of(ref: Ref, message: Any, timeout: float) -> AskTimeout:
    with pytest.raises(AskTimeout) as expired:
        ref.ask(message, timeout=timeout)
    return expired.value


def test_a_request_that_expired_in_the_mailbox_is_never_begun(start: Starter, manual_clock: ManualClock) -> None:
    begun: list[int] = []
    ref = start(Doer)
    ref.tell(lambda _: clock.sleep(10))
    asking = gevent.spawn(_timeout_of, ref, lambda _: begun.append(1), 2.0)
    manual_clock.advance(2)
    assert asking.get(block=False).started == "no"
    manual_clock.advance(20)
    assert begun == []


def test_an_ask_within_a_request_is_bounded_by_its_deadline(start: Starter, manual_clock: ManualClock) -> None:
    inner, outer = start(Doer), start(Doer)
    seen: list[float | None] = []

    def note(actor: Doer) -> None:
        seen.append(actor.deadline)

    def pass_on(_: Doer) -> None:
        for timeout in (60.0, None, 1.0):
            inner.ask(note, timeout=timeout)

    outer.ask(pass_on, timeout=3.0)
    now = clock.now()
    assert seen == [now + 3.0, now + 3.0, now + 1.0]


def test_the_time_that_is_left_is_never_more_than_the_default_and_never_zero(
    start: Starter, manual_clock: ManualClock
) -> None:
    ref = start(Doer)
    assert ref.ask(lambda actor: actor.remaining_s(2.0), timeout=5.0) == 2.0
    assert ref.ask(lambda actor: actor.remaining_s(60.0), timeout=5.0) == 5.0
    told: list[float] = []
    ref.tell(lambda actor: told.append(actor.remaining_s(7.0)))
    manual_clock.settle()
    assert told == [7.0]
    late: list[object] = []

    def linger(actor: Doer) -> None:
        clock.sleep(2)
        try:
            actor.remaining_s(60.0)
        except AskTimeout as error:
            late.append(error.started)

    gevent.spawn(_timeout_of, ref, linger, 1.0)
    manual_clock.advance(3)
    assert late == ["yes"]


class Brief(Doer):
    """Works at most five seconds on a message that names no later deadline."""

    timeout = 5.0


def test_a_handler_is_ended_as_a_crash_when_its_request_s_deadline_and_its_own_timeout_are_over(
    start: Starter, manual_clock: ManualClock
) -> None:
    ref = start(Brief)
    future = ref.ask(lambda _: clock.sleep(100), block=False, timeout=20.0)
    manual_clock.advance(19)
    assert ref.is_alive()
    manual_clock.advance(2)
    assert isinstance(ref.reason, Crashed)
    assert isinstance(ref.reason.exception, HandlerOverran)
    with pytest.raises(AskTimeout):
        future.get()


def test_a_tiny_deadline_of_a_client_ends_no_handler(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Brief)
    done: list[int] = []

    def work(_: Doer) -> None:
        clock.sleep(4)
        done.append(1)

    ref.ask(work, block=False, timeout=0.01)
    manual_clock.advance(4)
    assert done == [1]
    assert ref.is_alive()


def test_a_told_handler_that_hangs_is_ended_too(
    start: Starter, manual_clock: ManualClock, published: list[events.Event]
) -> None:
    ref = start(Brief)
    ref.tell(lambda _: Event().wait())
    manual_clock.advance(6)
    assert not ref.is_alive()
    crash = next(event for event in published if event.topic == "actor.crashed")
    assert crash.fields["crash_id"] == ref.reason.crash_id  # type: ignore[union-attr]


def test_many_short_messages_are_not_taken_for_one_long_handler(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Brief)
    for _ in range(30):
        ref.tell(lambda _: clock.sleep(1))
    manual_clock.advance(29)
    assert ref.is_alive()


# -- answers that come later


def test_a_deferred_answer_comes_when_the_promise_is_settled(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Doer)
    promises: list[Promise] = []
    future = ref.ask(lambda actor: promises.append(actor.defer()), block=False)
    manual_clock.settle()
    assert ref.ask("not held up") == "not held up"
    promises[0].resolve("later")
    assert future.get() == "later"


def test_a_deferred_answer_may_be_an_error(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Doer)
    future = ref.ask(lambda actor: actor.defer().reject(NotFound("none")), block=False)
    with pytest.raises(NotFound):
        future.get()


def test_an_actor_that_ends_owes_its_deferred_answers(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Doer)
    future = ref.ask(lambda actor: actor.defer(), block=False)
    manual_clock.settle()
    ref.kill()
    with pytest.raises(ActorDied) as died:
        future.get()
    assert died.value.started == "yes"


def test_the_end_of_an_actor_that_only_queued_the_work_says_that_it_never_started(
    start: Starter, manual_clock: ManualClock
) -> None:
    ref = start(Doer)

    def queue(actor: Doer) -> None:
        actor.defer().started = False

    future = ref.ask(queue, block=False)
    manual_clock.settle()
    ref.kill()
    with pytest.raises(ActorUnavailable) as refused:
        future.get()
    assert refused.value.started == "no"


def test_whoever_defers_hears_that_the_caller_gave_up(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Doer)
    promises: list[Promise] = []
    given_up: list[int] = []

    def take(actor: Doer) -> None:
        promise = actor.defer()
        promise.on_abandon = lambda: given_up.append(1)
        promises.append(promise)

    future = ref.ask(take, block=False, timeout=2.0)
    manual_clock.advance(3)
    assert given_up == [1]
    assert promises[0].done
    assert promises[0].resolve("too late") is False
    with pytest.raises(AskTimeout):
        future.get()


def test_a_deferred_tell_goes_nowhere(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Doer)
    ref.tell(lambda actor: actor.defer().resolve("for nobody"))
    assert ref.ask("alive") == "alive"


def test_an_actor_keeps_nothing_of_deferred_answers_that_were_given(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Doer)
    for _ in range(10):
        assert ref.ask(lambda actor: actor.defer().resolve("now")) == "now"
    assert not ref.deferred


# -- the bound of the mailbox


class Narrow(Doer):
    mailbox = 2


def test_a_full_mailbox_refuses_tells_and_asks_as_never_started(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Narrow)
    ref.tell(lambda _: clock.sleep(1))
    manual_clock.settle()
    ref.tell("one")
    ref.tell("two")
    for send in (ref.tell, ref.ask):
        with pytest.raises(MailboxFull, match="2 messages wait") as full:
            send("three")
        assert (full.value.started, full.value.retry_after_s) == ("no", 0.1)
    future = ref.ask("three", block=False)
    with pytest.raises(MailboxFull):
        future.get()


def test_what_the_machine_sends_is_beyond_the_bound(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Narrow)
    ref.tell(lambda _: clock.sleep(1))
    manual_clock.settle()
    ref.tell("one")
    ref.tell("two")
    stopped = ref.stop(block=False)
    manual_clock.advance(1)
    assert stopped.get() is True


def test_a_skipped_message_makes_room(start: Starter, manual_clock: ManualClock) -> None:
    ref = start(Narrow)
    ref.tell(lambda _: clock.sleep(5))
    manual_clock.settle()
    for _ in range(2):
        ref.ask("expires", block=False, timeout=1.0)
    manual_clock.advance(6)
    assert ref.ask("there is room") == "there is room"
