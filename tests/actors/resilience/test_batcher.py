"""Items of many callers sent as one batch, and one answer for each of them whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.resilience.batcher import BATCHES, ITEMS, Batch, Batcher, Item, alike, each
from regrow.protocol.errors import (
    ActorDown,
    Cancelled,
    DeadlineExceeded,
    DecodeError,
    InvalidArguments,
    Overloaded,
    Unavailable,
    UpstreamError,
)
from regrow.testing import ManualClock
from runtime import clock, events
from runtime.actor import Actor, exported
from runtime.messages import Call
from runtime.promise import Promise
from runtime.ref import Ref
from supervisors import ChildSpec, Supervisor
from tests.actors.resilience.conftest import Supervised, found


class Doubler(Actor):
    """Does many things at once: doubles numbers, as the test's book says."""

    def __init__(self, book: Book) -> None:
        super().__init__()
        self.book = book

    def on_receive(self, message: Any) -> Any:
        if message == "die":
            raise RuntimeError("told to")
        assert isinstance(message, Batch)
        self.book.batches.append(message)
        if self.book.holds:
            self.book.held.append(self.defer())
            return None
        return self.book.answer(message)

    @exported
    def double_all(self, numbers: list[int]) -> list[int]:
        return [number * 2 for number in numbers]


class Book:
    """What the doubler saw, and what it is to answer."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.held: list[Promise] = []
        self.holds = False
        self.answer: Any = lambda batch: [item * 2 for item in batch.items]

    @property
    def items(self) -> list[tuple[Any, ...]]:
        return [batch.items for batch in self.batches]


@pytest.fixture
def book(supervised: Supervised) -> Book:
    made = Book()
    supervised("doubler", Doubler, made)
    return made


@pytest.fixture
def manual() -> Iterator[ManualClock]:
    with ManualClock() as clock:
        yield clock


def ask(ref: Ref, *values: Any, timeout: float | None = None) -> list[Promise]:
    promises = [Promise(deadline=None if timeout is None else clock.now() + timeout) for _ in values]
    for value, promise in zip(values, promises, strict=True):
        ref.request(Item(value), promise)
    gevent.sleep(0)
    return promises


def outcomes(promises: list[Promise]) -> list[Any]:
    for promise in promises:
        try:
            promise.wait(5.0)
        except Exception:  # noqa: BLE001 - it is what the test looks at
            pass
    return [promise.value if promise.error is None else type(promise.error) for promise in promises]


def test_a_full_batch_goes_at_once_and_each_caller_gets_its_own_answer(supervised: Supervised, book: Book) -> None:
    ref = supervised("batcher", Batcher, "full", "doubler", max_size=3)
    assert outcomes(ask(ref, 1, 2, 3, 4, 5, 6)) == [2, 4, 6, 8, 10, 12]
    assert book.items == [(1, 2, 3), (4, 5, 6)]
    assert book.batches[0].key != book.batches[1].key
    assert (BATCHES.value("full", "", "ok"), ITEMS.value("full", "", "answered")) == (2, 6)


def test_one_that_does_not_fill_goes_when_its_oldest_item_has_waited(
    manual: ManualClock, supervised: Supervised, book: Book
) -> None:
    ref = supervised("batcher", Batcher, "b", "doubler", max_delay_s=5.0)
    first = ask(ref, 1)
    manual.advance(3)
    second = ask(ref, 2)
    assert book.items == []
    assert ref.actor.status()["waiting"] == 2
    manual.advance(2)
    assert outcomes([*first, *second]) == [2, 4]
    assert book.items == [(1, 2)]


def test_a_caller_waits_for_the_others_no_longer_than_half_of_its_time(
    manual: ManualClock, supervised: Supervised, book: Book
) -> None:
    ref = supervised("batcher", Batcher, "b", "doubler", max_delay_s=5.0)
    promises = ask(ref, 1) + ask(ref, 2, timeout=1.0)
    manual.advance(0.5)
    assert outcomes(promises) == [2, 4]


def test_what_a_caller_wanted_that_gave_up_is_not_sent(manual: ManualClock, supervised: Supervised, book: Book) -> None:
    ref = supervised("batcher", Batcher, "gone", "doubler", max_delay_s=5.0)
    first, second, third = ask(ref, 1, 2, 3)
    second.cancel()
    manual.advance(5)
    assert outcomes([first, third]) == [2, 6]
    assert book.items == [(1, 3)]
    assert isinstance(second.error, Cancelled)
    assert second.error.started == "no"
    assert ITEMS.value("gone", "", "gave_up") == 1


def test_when_all_gave_up_nothing_is_sent(manual: ManualClock, supervised: Supervised, book: Book) -> None:
    ref = supervised("batcher", Batcher, "b", "doubler")
    for promise in ask(ref, 1, 2):
        promise.cancel()
    manual.advance(10)
    assert book.items == []


def test_a_batch_lives_as_long_as_its_most_patient_caller(
    manual: ManualClock, supervised: Supervised, book: Book
) -> None:
    book.holds = True
    ref = supervised("batcher", Batcher, "b", "doubler", max_size=2)
    hasty, patient = ask(ref, 1, timeout=1.0) + ask(ref, 2, timeout=20.0)
    manual.advance(1.5)
    assert isinstance(hasty.error, DeadlineExceeded)
    assert not book.held[0].done
    book.held[0].resolve([2, 4])
    assert outcomes([patient]) == [4]


def test_a_batch_that_nobody_waits_for_any_more_is_cancelled(supervised: Supervised, book: Book) -> None:
    book.holds = True
    ref = supervised("batcher", Batcher, "idle", "doubler", max_size=2)
    first, second = ask(ref, 1, 2)
    gevent.sleep(0)
    first.cancel()
    held = book.held[0]
    assert not held.done
    second.cancel()
    gevent.sleep(0)
    assert [each.done for each in book.held] == [True]
    assert BATCHES.value("idle", "", "cancelled") == 1
    assert ref.actor.status()["under_way"] == 0


def test_a_batch_ends_after_its_own_time_for_callers_without_deadline(
    manual: ManualClock, supervised: Supervised, book: Book
) -> None:
    book.holds = True
    ref = supervised("batcher", Batcher, "b", "doubler", max_size=1, timeout_s=10.0)
    promises = ask(ref, 1)
    manual.advance(10.1)
    assert isinstance(promises[0].error, DeadlineExceeded)


def test_one_answer_may_be_for_all(supervised: Supervised, book: Book) -> None:
    book.answer = lambda batch: {"accepted": len(batch.items)}
    ref = supervised("batcher", Batcher, "b", "doubler", max_size=2, split=alike)
    assert outcomes(ask(ref, 1, 2)) == [{"accepted": 2}] * 2


def test_an_item_may_fail_alone(supervised: Supervised, book: Book) -> None:
    book.answer = lambda batch: [InvalidArguments("too odd") if item % 2 else item for item in batch.items]
    ref = supervised("batcher", Batcher, "alone", "doubler", max_size=3)
    assert outcomes(ask(ref, 2, 3, 4)) == [2, InvalidArguments, 4]
    assert ITEMS.value("alone", "", "refused") == 1


@pytest.mark.parametrize("answer", [[1], [1, 2, 3], {"a": 1, "b": 2}, None, "ab"])
def test_a_wrong_number_of_answers_is_nobodys(supervised: Supervised, book: Book, answer: object) -> None:
    book.answer = lambda _: answer
    ref = supervised("batcher", Batcher, "b", "doubler", max_size=2)
    assert outcomes(ask(ref, 1, 2)) == [DecodeError] * 2


def test_an_error_of_the_whole_goes_to_all(supervised: Supervised, book: Book) -> None:
    def fail(_: Batch) -> None:
        raise UpstreamError("503", status=503)

    book.answer = fail
    ref = supervised("batcher", Batcher, "b", "doubler", max_size=2)
    assert outcomes(ask(ref, 1, 2)) == [UpstreamError] * 2


def test_items_beyond_the_queue_are_refused(supervised: Supervised, book: Book) -> None:
    book.holds = True
    ref = supervised("batcher", Batcher, "b", "doubler", max_size=2, queue=3)
    promises = ask(ref, 1, 2, 3, 4)
    assert isinstance(promises[3].error, Overloaded)
    book.held[0].resolve([2, 4])
    assert outcomes(promises[:2]) == [2, 4]
    (again,) = ask(ref, 5)
    gevent.sleep(0)
    book.held[1].resolve([6, 10])
    assert outcomes([promises[2], again]) == [6, 10]


def test_a_batch_is_no_heavier_than_it_may_be(supervised: Supervised, book: Book) -> None:
    ref = supervised("batcher", Batcher, "b", "doubler", max_size=10, max_weight=100, max_delay_s=0.05)
    promises = [Promise() for _ in range(5)]
    for weight, promise in zip([60, 30, 20, 80, 500], promises, strict=True):
        ref.request(Item(weight, weight), promise)
    assert outcomes(promises) == [120, 60, 40, 160, 1000]
    assert book.items == [(60, 30), (20, 80), (500,)]


def test_a_crash_of_the_one_behind_is_told_to_all_of_the_batch_and_the_next_one_goes_well(
    supervised: Supervised, book: Book
) -> None:
    def crash(_: Batch) -> None:
        raise RuntimeError("broken")

    book.answer = crash
    ref = supervised("batcher", Batcher, "b", "doubler", max_size=2)
    assert outcomes(ask(ref, 1, 2)) == [RuntimeError] * 2
    book.answer = lambda batch: list(batch.items)
    assert outcomes(ask(ref, 3, 4)) == [3, 4]


def test_a_crash_of_the_batcher_answers_all_who_wait(supervised: Supervised, book: Book) -> None:
    book.holds = True
    ref = supervised("batcher", Batcher, "b", "doubler", max_size=2, max_delay_s=0.05)
    promises = ask(ref, 1, 2, 3)
    ref.tell("no item")
    assert all(issubclass(each, ActorDown | Unavailable) for each in outcomes(promises))
    book.holds = False
    assert outcomes(ask(found("batcher"), 4, 5)) == [8, 10]
    gevent.sleep(0.06)


def test_a_split_that_is_wrong_is_a_crash_of_the_batcher_alone(supervised: Supervised, book: Book) -> None:
    def split(answer: Any, _: int) -> list[Any]:
        if answer == [2]:
            raise ZeroDivisionError
        return list(answer)

    ref = supervised("batcher", Batcher, "b", "doubler", max_size=1, split=split)
    (promise,) = ask(ref, 1)
    outcomes([promise])
    assert isinstance(promise.error, ActorDown)
    assert outcomes(ask(found("batcher"), 2)) == [4]
    assert found("doubler").is_alive()


def test_a_batch_waits_for_the_restart_of_the_one_behind(book: Book, supervised: Supervised) -> None:
    ref = supervised("batcher", Batcher, "b", "doubler", max_size=2)
    found("doubler").kill()
    assert outcomes(ask(ref, 1, 2)) == [2, 4]


def test_without_anybody_behind_it_the_callers_hear_that_nothing_began(
    manual: ManualClock, supervised: Supervised
) -> None:
    ref = supervised("batcher", Batcher, "b", "nobody", max_size=2)
    promises = ask(ref, 1, 2)
    for _ in range(120):
        manual.advance(0.02)
    assert outcomes(promises) == [Unavailable] * 2
    assert promises[0].error is not None
    assert promises[0].error.started == "no"  # type: ignore[attr-defined]


def test_what_waits_when_it_stops_is_sent_and_answered(book: Book) -> None:
    specs = [
        ChildSpec(id="doubler2", start=Doubler, args=(book,), name="doubler2"),
        ChildSpec(id="batcher2", start=Batcher, args=("b", "doubler2"), name="batcher2"),
    ]
    supervisor = Supervisor.start(specs)
    promises = ask(found("batcher2"), 1, 2)
    supervisor.stop()
    assert outcomes(promises) == [2, 4]
    assert book.items == [(1, 2)]


def test_when_the_daemon_drains_what_waits_goes_and_nothing_waits_any_more(supervised: Supervised, book: Book) -> None:
    ref = supervised("batcher", Batcher, "b", "doubler", max_delay_s=60.0)
    waiting = ask(ref, 1, 2)
    events.publish("daemon.draining", timeout_s=30.0)
    assert outcomes(waiting) == [2, 4]
    assert outcomes(ask(ref, 3)) == [6]
    assert book.items == [(1, 2), (3,)]


def test_it_may_call_an_exported_method_with_the_list(supervised: Supervised, book: Book) -> None:
    def message(batch: Batch) -> Call:
        return Call("double_all", {"numbers": list(batch.items)})

    ref = supervised("batcher", Batcher, "b", "doubler", max_size=2, message=message)
    assert outcomes(ask(ref, 1, 2)) == [2, 4]


@pytest.mark.parametrize("limits", [{"max_size": 0}, {"max_delay_s": 0.0}, {"max_size": 10, "queue": 9}])
def test_limits_that_make_no_sense_do_not_start(limits: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="at least 1 item"):
        Batcher.start("b", "doubler", **limits)


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 7))
def test_the_answers_are_in_the_order_of_the_items(items: list[int], size: int) -> None:
    assert each([item * 2 for item in items], len(items)) == [item * 2 for item in items]
    if len(items) != size:
        with pytest.raises(DecodeError):
            each(items, size)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.one_of(st.none(), st.floats(0.05, 3.0))),
        st.tuples(st.just("give up"), st.integers(0, 40)),
        st.tuples(st.just("wait"), st.sampled_from([0.01, 0.3, 1.0])),
        st.tuples(st.just("answer"), st.booleans()),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, size=st.integers(1, 4))
def test_whatever_happens_each_item_goes_once_at_most_and_each_caller_hears_once(
    steps: list[tuple[str, Any]], size: int
) -> None:
    book = Book()
    book.holds = True
    with ManualClock() as moved:
        specs = [
            ChildSpec(id="doubler", start=Doubler, args=(book,), name="any/doubler"),
            ChildSpec(
                id="batcher",
                start=Batcher,
                args=("any", "any/doubler"),
                kwargs={"max_size": size, "max_delay_s": 1.0, "queue": 12, "timeout_s": 5.0},
                name="any/batcher",
            ),
        ]
        supervisor = Supervisor.start(specs)
        ref = found("any/batcher")
        promises: list[Promise] = []
        gone: set[int] = set()
        for what, detail in steps:
            if what == "ask":
                promises += ask(ref, len(promises), timeout=detail)
            elif what == "give up" and detail < len(promises):
                if not promises[detail].done and not any(detail in items for items in book.items):
                    gone.add(detail)
                promises[detail].cancel()
            elif what == "wait":
                moved.advance(detail)
            elif what == "answer":
                for held, batch in zip(book.held, book.batches, strict=True):
                    if detail:
                        held.resolve([item * 2 for item in batch.items])
                    else:
                        held.reject(UpstreamError("no"))
            gevent.sleep(0)
        moved.advance(1.0)
        gevent.sleep(0)
        moved.advance(5.1)
        gevent.sleep(0)
        sent = [item for items in book.items for item in items]
        assert len(set(sent)) == len(sent)
        assert gone.isdisjoint(sent)
        assert all(1 <= len(items) <= size for items in book.items)
        assert all(promise.done for promise in promises)
        for number, promise in enumerate(promises):
            assert promise.error is not None or promise.value == number * 2
            assert number in sent or promise.error is not None
        assert ref.actor.status() | {"waiting": 0, "under_way": 0, "batches": 0} == ref.actor.status()
        supervisor.stop()
