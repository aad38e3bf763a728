"""Actors written for pykka: they work when their base class is changed, and nothing else of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pykka
import pytest

from regrow.protocol.errors import DeadlineExceeded, Unavailable
from regrow.testing import ManualClock
from runtime import clock
from runtime.actor import Actor
from runtime.promise import Future
from runtime.ref import Ref
from supervisors import ChildSpec, Supervisor, which_children


class Greeter(Actor):
    """As in pykka's own introduction: state, attributes, methods, a nested object, messages."""

    def __init__(self, greeting: str = "Hi there!") -> None:
        super().__init__()
        self.greeting = greeting
        self.library = Library()
        self.shelf = pykka.traversable(Shelf())
        self.log: list[str] = []
        self._private = "hidden"

    def on_start(self) -> None:
        self.log.append("on_start")

    def on_stop(self) -> None:
        self.log.append("on_stop")

    def on_receive(self, message: Any) -> Any:
        if message == "stop":
            self.stop()
        return f"{self.greeting} {message}"

    def add(self, one: int, other: int = 0) -> int:
        return one + other

    def slow(self, seconds: float) -> str:
        clock.sleep(seconds)
        return "done"

    def me(self) -> Any:
        return self.actor_ref

    def fail(self) -> None:
        raise ValueError("as pykka's actors may")


@pykka.traversable
class Library:
    """A nested object that is open to proxies."""

    def __init__(self) -> None:
        self.books = 3

    def lend(self, number: int) -> int:
        self.books -= number
        return self.books


class Shelf:
    """A nested object that is opened where it is used."""

    height = 2


@pytest.fixture
def time() -> Iterator[ManualClock]:
    with ManualClock() as manual:
        yield manual


@pytest.fixture
def ref(time: ManualClock) -> Iterator[Ref]:
    actor: Ref = Greeter.start(greeting="Hello")
    yield actor
    actor.kill()
    time.settle()


def test_an_actor_is_a_pykka_actor_and_its_ref_a_pykka_ref(ref: Ref) -> None:
    assert issubclass(Greeter, pykka.Actor)
    assert isinstance(ref, pykka.ActorRef)
    assert ref.actor_class is Greeter


def test_start_passes_arguments_and_runs_on_start_before_any_message(ref: Ref) -> None:
    assert ref.ask("world") == "Hello world"
    assert ref.proxy().log.get() == ["on_start"]


def test_tell_returns_nothing_and_ask_may_return_a_future(ref: Ref) -> None:
    assert ref.tell("into the void") is None  # type: ignore[func-returns-value]
    future = ref.ask("later", block=False)
    assert isinstance(future, pykka.Future)
    assert future.get() == "Hello later"


def test_an_ask_that_takes_too_long_raises_pykka_s_timeout_which_is_ours_too(ref: Ref, time: ManualClock) -> None:
    future = ref.proxy().slow(10.0)
    waiting = gevent.spawn(_timeout_of, future)
    time.advance(2)
    assert waiting.get(block=False)


def _timeout_of(future: Any) -> bool:
    with pytest.raises(pykka.Timeout) as expired:
        future.get(timeout=1)
    return isinstance(expired.value, DeadlineExceeded)


def test_a_dead_actor_raises_pykka_s_error_which_is_ours_too(ref: Ref) -> None:
    ref.stop()
    for send in (ref.tell, ref.ask):
        with pytest.raises(pykka.ActorDeadError) as dead:
            send("anybody there")
        assert isinstance(dead.value, Unavailable)
    with pytest.raises(pykka.ActorDeadError):
        ref.proxy()


def test_stop_runs_on_stop_and_says_whether_there_was_anything_to_stop(ref: Ref) -> None:
    log = ref.proxy().log.get()
    assert ref.is_alive()
    assert ref.stop() is True
    assert log == ["on_start", "on_stop"]
    assert ref.stop() is False
    assert not ref.is_alive()


def test_stop_may_return_a_future(ref: Ref) -> None:
    assert ref.stop(block=False).get() is True


def test_an_actor_may_stop_itself(ref: Ref, time: ManualClock) -> None:
    ref.tell("stop")
    time.settle()
    assert not ref.is_alive()


def test_the_state_of_the_actor_itself_is_known_to_it(ref: Ref) -> None:
    proxy = ref.proxy()
    assert proxy.me().get() is ref
    assert ref.actor_urn.startswith("urn:")
    assert not ref.actor_stopped.is_set()
    assert ref.actor_inbox.empty()


def test_proxies_read_and_write_attributes(ref: Ref) -> None:
    proxy = ref.proxy()
    assert proxy.greeting.get() == "Hello"
    proxy.greeting = "Good evening"
    assert proxy.greeting.get() == "Good evening"
    with pytest.raises(AttributeError):
        _ = proxy.nothing_of_that_name


def test_proxies_call_methods_with_positional_and_named_arguments(ref: Ref) -> None:
    proxy = ref.proxy()
    assert proxy.add(1, other=2).get() == 3
    assert proxy.add.defer(1) is None
    assert "add" in dir(proxy)
    assert "_private" not in dir(proxy)


def test_proxies_go_through_traversable_objects(ref: Ref) -> None:
    proxy = ref.proxy()
    assert proxy.library.books.get() == 3
    assert proxy.library.lend(2).get() == 1
    assert proxy.library.books.get() == 1
    proxy.library.books = 9
    assert proxy.library.lend(1).get() == 8
    assert proxy.shelf.height.get() == 2


def test_a_proxy_of_the_same_actor_is_equal(ref: Ref) -> None:
    assert ref.proxy() == ref.proxy()
    assert ref.proxy().library != ref.proxy()


def test_an_actor_may_proxy_itself_in_on_start(time: ManualClock) -> None:
    class Delegating(Actor):
        def on_start(self) -> None:
            self.in_future = self.actor_ref.proxy()

        def begin(self) -> Any:
            return self.in_future.finish()

        def finish(self) -> str:
            return "finished"

    ref = Delegating.start()
    assert ref.proxy().begin().get().get() == "finished"
    ref.kill()


def test_proxies_of_two_actors_may_call_each_other_with_plain_values(time: ManualClock) -> None:
    class Front(Actor):
        def __init__(self, back: Any) -> None:
            super().__init__()
            self.back = back

        def double(self, number: int) -> int:
            total: int = self.back.add(number, number).get()
            return total

    back = Greeter.start()
    front = Front.start(back.proxy())
    assert front.proxy().double(4).get() == 8
    front.kill()
    back.kill()


def test_what_pykka_would_only_hand_on_is_a_crash_here_and_the_caller_still_gets_it(ref: Ref) -> None:
    with pytest.raises(ValueError, match="as pykka's actors may"):
        ref.proxy().fail().get()
    assert not ref.is_alive()


def test_a_pykka_actor_is_supervised_by_nothing_but_its_base_class(time: ManualClock) -> None:
    supervisor = Supervisor.start([ChildSpec("greeter", Greeter, kwargs={"greeting": "Hello"})])
    first = which_children(supervisor)[0][1]
    assert isinstance(first, Ref)
    with pytest.raises(ValueError, match="may"):
        first.proxy().fail().get()
    time.settle()
    again = which_children(supervisor)[0][1]
    assert isinstance(again, Ref)
    assert again.ask("again") == "Hello again"
    supervisor.stop()


# -- futures


def resolved(value: Any) -> Future:
    future = Future()
    future.set(value)
    return future


def test_a_future_keeps_its_value() -> None:
    future = resolved(1)
    assert [future.get(), future.get(timeout=0)] == [1, 1]


def test_a_future_is_set_once() -> None:
    future = resolved(1)
    with pytest.raises(Exception, match="set before"):
        future.set(2)


def test_a_future_may_be_set_to_an_exception_given_or_in_flight() -> None:
    given, in_flight = Future(), Future()
    given.set_exception((ValueError, ValueError("given"), None))
    try:
        raise KeyError("in flight")
    except KeyError:
        in_flight.set_exception()
    with pytest.raises(ValueError, match="given"):
        given.get()
    with pytest.raises(KeyError, match="in flight"):
        in_flight.get()


def test_a_future_without_a_value_times_out(time: ManualClock) -> None:
    waiting = gevent.spawn(_timeout_of, Future())
    time.advance(1)
    assert waiting.get(block=False)


def test_a_get_hook_makes_the_value_when_it_is_asked_for() -> None:
    future = Future()
    future.set_get_hook(lambda timeout: f"made within {timeout}")
    assert future.get(timeout=3) == "made within 3"


def test_futures_map_filter_join_and_reduce() -> None:
    assert resolved(10).map(lambda n: n + 10).get() == 20
    assert resolved([1, 2, 3, 4]).filter(lambda n: n % 2 == 0).get() == [2, 4]
    assert resolved(1).join(resolved(2), resolved(3)).get() == [1, 2, 3]
    assert resolved([1, 2, 3]).reduce(lambda a, b: a + b).get() == 6
    assert resolved([1, 2]).reduce(lambda a, b: a + b, 10).get() == 13


def test_futures_of_asks_can_be_mapped_and_joined(ref: Ref) -> None:
    one, other = ref.ask("one", block=False), ref.ask("other", block=False)
    assert one.map(str.upper).get() == "HELLO ONE"
    assert ref.ask("x", block=False).join(other).get() == ["Hello x", "Hello other"]
    assert pykka.get_all([ref.ask(n, block=False) for n in range(3)]) == ["Hello 0", "Hello 1", "Hello 2"]


def test_a_mapped_future_raises_what_the_first_one_raises(ref: Ref) -> None:
    future = ref.proxy().fail().map(str)
    with pytest.raises(ValueError, match="may"):
        future.get()
