"""Several instances of one class behind one name: who is asked, in which order, what a crash of one touches."""

from __future__ import annotations

import datetime as dt
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import AsyncResult, Event

from actors.hosted.process import ProcessActor
from actors.hosted.thread import ThreadActor
from actors.partitioned import PartitionedActor
from regrow.protocol.errors import DeadlineExceeded, InvalidArguments, Overloaded, Unavailable
from runtime import clock, events
from runtime.actor import Actor, exported
from runtime.exports import exports_of
from runtime.messages import Call
from runtime.names import whereis
from runtime.promise import ActorDied, Promise
from runtime.ref import Ref
from supervisors import Backoff, ChildSpec, PartitionSupervisor
from tests.actors.workers.conftest import EventLog

INSTANCES = 3
GATES: dict[str, Event] = {}


class Account(Actor):
    """Remembers, instance by instance, what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    @exported
    def add(self, customer: str, amount: int) -> dict[str, Any]:
        """Add an amount."""
        self.seen.append((customer, amount))
        return {"by": self.ref.name, "seen": [each for who, each in self.seen if who == customer]}

    @exported
    def where(self, customer: Any = None) -> str | None:
        """Tell which instance this is."""
        return self.ref.name

    @exported
    def wait(self, gate: str, customer: str | None = None) -> str | None:
        """Wait for a gate."""
        GATES[gate].wait()
        return self.ref.name

    @exported
    def hear_of_it(self, customer: str) -> None:
        """Answer never, and remember that the caller gave up."""
        self.defer().on_abandon = lambda: self.seen.append((customer, "given up"))

    @exported
    def fail(self, customer: str) -> None:
        """Crash."""
        raise RuntimeError("told to crash")

    @exported
    def count(self, customer: str, to: int) -> Iterator[int]:
        """Count."""
        yield from range(to)

    def on_receive(self, message: Any) -> Any:
        return [self.ref.name, message]


@pytest.fixture(autouse=True)
def gates() -> Iterator[None]:
    yield
    for gate in GATES.values():
        gate.set()
    GATES.clear()


@pytest.fixture
def happened() -> Iterator[EventLog]:
    log = EventLog()
    unsubscribe = events.subscribe(log.add)
    yield log
    unsubscribe()


Start = Callable[..., Ref]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts the instances and their front as the tree does, and returns the front."""
    supervisors: list[Any] = []

    def begin(key: str | None = "customer", backoff_s: float = 0.001, **options: Any) -> Ref:
        template = ChildSpec("bank", Account, name="bank", backoff=Backoff(base_s=backoff_s), **options)
        front = {"name": "bank", "instances": INSTANCES, "key": key, "exports": exports_of(Account)}
        supervisors.append(
            PartitionSupervisor.start(
                template,
                partitions=INSTANCES,
                beside=[ChildSpec("bank", PartitionedActor, kwargs=front, name="bank")],
                max_restarts=100,
            )
        )
        ref = whereis("bank")
        assert ref is not None
        return ref

    yield begin
    for supervisor in supervisors:
        supervisor.stop()


def customers_of(front: Ref) -> dict[str, str]:
    """One customer for each instance."""
    found: dict[str, str] = {}
    for number in range(100):
        found.setdefault(front.call("where", {"customer": f"c{number}"}), f"c{number}")
    assert len(found) == INSTANCES
    return found


def test_calls_of_one_key_go_to_one_instance_in_the_order_in_which_they_came(start: Start) -> None:
    front = start()
    for amount in range(20):
        for customer in ("ada", "bob", "eve", "dan"):
            front.cast("add", {"customer": customer, "amount": amount})
    for customer in ("ada", "bob", "eve", "dan"):
        answer = front.call("add", {"customer": customer, "amount": 20})
        assert answer["seen"] == list(range(21))


def test_the_keys_are_shared_out_among_all_instances(start: Start) -> None:
    assert sorted(customers_of(start())) == ["bank/0", "bank/1", "bank/2"]


def test_a_crash_of_one_instance_touches_no_call_of_another_ones_keys(start: Start, happened: EventLog) -> None:
    front = start()
    one, other, _ = customers_of(front).values()
    GATES["open"] = Event()
    waiting = gevent.spawn(front.call, "wait", {"gate": "open", "customer": other})
    gevent.sleep(0)
    before = front.call("where", {"customer": one})
    with pytest.raises(RuntimeError, match="told to crash"):
        front.call("fail", {"customer": one})
    GATES["open"].set()
    assert waiting.get(timeout=5) != before
    happened.wait("child.started", count=2, actor=before)
    assert front.call("add", {"customer": one, "amount": 1}) == {"by": before, "seen": [1]}


def test_calls_behind_the_crash_of_their_instance_are_answered_as_never_started(start: Start) -> None:
    front = start()
    customer = next(iter(customers_of(front).values()))
    promises = [Promise(deadline=clock.now() + 5) for _ in range(3)]
    for promise in promises:
        front.request(Call("fail", {"customer": customer}), promise)
    errors = []
    for promise in promises:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - looked at below
            promise.wait()
        errors.append(caught.value)
    assert isinstance(errors[0], RuntimeError)
    assert [getattr(error, "started", None) for error in errors[1:]] == ["no", "no"]


def test_while_its_instance_is_away_a_key_is_unavailable_and_the_others_are_served(start: Start) -> None:
    front = start(backoff_s=60.0)
    gone, here, _ = customers_of(front).values()
    with pytest.raises(RuntimeError):
        front.call("fail", {"customer": gone})
    with pytest.raises(Unavailable, match=r"bank/\d, to which this customer belongs, is not running") as caught:
        front.call("where", {"customer": gone})
    assert caught.value.started == "no"
    assert caught.value.retry_after_s is not None
    assert front.call("where", {"customer": here})
    assert front.actor.status() == {"instances": 3, "running": 2, "key": "customer"}


def test_who_is_told_of_a_crash_over_the_wire_gets_the_record_of_the_instance(start: Start) -> None:
    front = start()
    name, customer = next(iter(customers_of(front).items()))
    answered: AsyncResult[Promise] = AsyncResult()
    front.request(Call("fail", {"customer": customer}), Promise(deadline=clock.now() + 5, callback=answered.set))
    settled = answered.get(timeout=5)
    assert settled is not None
    error = settled.error
    assert isinstance(error, ActorDied)
    assert error.crash_id is not None
    assert error.actor == name


def test_without_a_key_the_instance_with_the_least_to_do_is_asked(start: Start) -> None:
    front = start(key=None)
    GATES["shut"] = Event()
    busy = [gevent.spawn(front.call, "wait", {"gate": "shut"}) for _ in range(INSTANCES - 1)]
    gevent.sleep(0)
    free = {front.call("where", {}) for _ in range(10)}
    assert len(free) == 1
    GATES["shut"].set()
    assert {each.get(timeout=5) for each in busy} | free == {"bank/0", "bank/1", "bank/2"}


def test_idle_instances_are_asked_in_turn(start: Start) -> None:
    front = start(key=None)
    assert [front.call("where", {}) for _ in range(6)] == [f"bank/{n % 3}" for n in range(6)]


@pytest.mark.parametrize("absent", [{}, {"customer": None}])
def test_a_call_without_the_key_goes_to_the_instance_with_the_least_to_do(start: Start, absent: dict[str, Any]) -> None:
    front = start()
    assert {front.call("where", absent) for _ in range(3)} == {"bank/0", "bank/1", "bank/2"}


def test_any_other_message_reaches_an_instance(start: Start) -> None:
    assert start().ask({"hello": 1}, timeout=5) == ["bank/0", {"hello": 1}]


@pytest.mark.parametrize("key", ["ada", 7, 1.5, b"raw", uuid.UUID(int=5), dt.date(2026, 1, 2), True])
def test_texts_numbers_and_the_like_are_keys(start: Start, key: object) -> None:
    front = start()
    assert len({front.call("where", {"customer": key}) for _ in range(4)}) == 1


@pytest.mark.parametrize("key", [[1], {"a": 1}])
def test_a_key_that_is_no_text_or_number_is_refused(start: Start, key: object) -> None:
    with pytest.raises(InvalidArguments, match="must be a text or a number, not"):
        start().call("where", {"customer": key})


def test_a_stream_comes_from_the_instance_of_its_key(start: Start) -> None:
    from runtime.streams import iterate

    stream = start().call("count", {"customer": "ada", "to": 5})
    assert list(iterate(stream)) == [0, 1, 2, 3, 4]


def test_a_call_that_expires_in_the_line_of_its_instance_never_started(start: Start) -> None:
    front = start()
    GATES["shut"] = Event()
    first = gevent.spawn(front.call, "wait", {"gate": "shut", "customer": "ada"})
    gevent.sleep(0)
    with pytest.raises(DeadlineExceeded) as caught:
        front.call("add", {"customer": "ada", "amount": 1}, timeout=0.05)
    assert caught.value.started == "no"
    GATES["shut"].set()
    first.get(timeout=5)
    assert front.call("add", {"customer": "ada", "amount": 2})["seen"] == [2], "the expired call was never made"


def test_a_call_that_expires_in_its_handler_has_started(start: Start) -> None:
    front = start()
    GATES["shut"] = Event()
    with pytest.raises(DeadlineExceeded) as caught:
        front.call("wait", {"gate": "shut", "customer": "ada"}, timeout=0.05)
    assert caught.value.started == "yes"
    GATES["shut"].set()
    front.call("where", {"customer": "ada"})


def test_the_mailbox_of_each_instance_is_bounded_by_itself(start: Start) -> None:
    front = start(mailbox=1)
    one, other, _ = customers_of(front).values()
    GATES["shut"] = Event()
    calls = [gevent.spawn(front.call, "wait", {"gate": "shut", "customer": one}) for _ in range(2)]
    gevent.sleep(0)
    with pytest.raises(Overloaded):
        front.call("where", {"customer": one})
    assert front.call("where", {"customer": other})
    GATES["shut"].set()
    gevent.joinall(calls, timeout=5)


def test_a_crash_of_the_front_leaves_the_instances_and_their_state(start: Start, happened: EventLog) -> None:
    front = start()
    front.call("add", {"customer": "ada", "amount": 1})
    front.kill()
    happened.wait("child.started", count=2, actor="bank")
    again = whereis("bank")
    assert again is not None
    assert again is not front
    assert again.call("add", {"customer": "ada", "amount": 2})["seen"] == [1, 2]


def test_a_call_that_waits_for_its_instance_when_the_front_ends_is_never_made(start: Start, happened: EventLog) -> None:
    front = start()
    GATES["shut"] = Event()
    begun = gevent.spawn(front.call, "wait", {"gate": "shut", "customer": "ada"})
    gevent.sleep(0)
    promise = Promise(deadline=clock.now() + 5)
    front.request(Call("add", {"customer": "ada", "amount": 1}), promise)
    gevent.sleep(0)
    front.kill()
    with pytest.raises(Unavailable) as waited:
        promise.wait(5)
    assert waited.value.started == "no"
    with pytest.raises(ActorDied) as lost:
        begun.get(timeout=5)
    assert lost.value.started == "yes"
    GATES["shut"].set()
    happened.wait("child.started", count=2, actor="bank")
    again = whereis("bank")
    assert again is not None
    assert again.call("add", {"customer": "ada", "amount": 2})["seen"] == [2]


def test_an_instance_hears_that_the_caller_gave_up(start: Start) -> None:
    front = start()
    promise = Promise(deadline=clock.now() + 5)
    front.request(Call("hear_of_it", {"customer": "ada"}), promise)
    gevent.sleep(0)
    assert promise.started
    promise.cancel()
    assert front.call("add", {"customer": "ada", "amount": 1})["seen"] == ["given up", 1]


@pytest.mark.parametrize("front_of_instance", [ThreadActor, ProcessActor])
def test_instances_may_be_threads_and_processes(front_of_instance: Any) -> None:
    from tests.actors.hosted import classes

    exports = exports_of(classes.Counter)
    where: dict[str, Any] = (
        {"actor_class": classes.Counter, "args": {}}
        if front_of_instance is ThreadActor
        else {"actor_class": "tests.actors.hosted.classes:Counter", "args": {}, "exports": exports}
    )
    supervisor = PartitionSupervisor.start(
        ChildSpec("bank", front_of_instance, kwargs=where, name="bank"),
        partitions=2,
        beside=[
            ChildSpec(
                "front",
                PartitionedActor,
                kwargs={"name": "bank", "instances": 2, "key": None, "exports": exports},
                name="bank",
            )
        ],
    )
    front = whereis("bank")
    assert front is not None
    places = [front.call("where", {}, timeout=10) for _ in range(4)]
    kind = "thread" if front_of_instance is ThreadActor else "pid"
    assert len({place[kind] for place in places}) == 2
    assert threading.get_ident() not in [place["thread"] for place in places]
    supervisor.stop()
