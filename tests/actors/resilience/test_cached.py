"""A value through a cache actor: made once for all who want it, and an older one while it cannot be had."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event

from actors.resilience.cache import Cache
from actors.resilience.cached import cached
from actors.resilience.shelf import Shelf
from regrow.protocol.errors import ConnectionFailed, InvalidArguments
from regrow.testing import ManualClock
from runtime import clock
from runtime.ref import Ref
from tests.actors.resilience.conftest import Supervised, found


@pytest.fixture
def manual() -> Iterator[ManualClock]:
    with ManualClock() as moved:
        yield moved


@pytest.fixture
def cache(supervised: Supervised) -> Ref:
    return supervised("mine/cache", Cache, "mine", Shelf(1 << 20))


class Maker:
    """Makes numbered values, or fails as told."""

    def __init__(self) -> None:
        self.made = 0
        self.error: Exception | None = None
        self.gate: Event | None = None

    def __call__(self) -> Any:
        self.made += 1
        number = self.made
        if self.gate is not None:
            self.gate.wait()
        if self.error is not None:
            raise self.error
        return {"number": number}


def get(make: Maker, *, fresh_s: float = 10.0, stale_s: float = 0.0, key: str = "k", group: str = "") -> Any:
    return cached("mine/cache", key, make, fresh_s=fresh_s, stale_s=stale_s, group=group, deadline=clock.now() + 5.0)


def test_a_value_is_made_once_while_it_is_fresh(manual: ManualClock, cache: Ref) -> None:
    make = Maker()
    assert [get(make), get(make)] == [{"number": 1}] * 2
    manual.advance(10)
    assert get(make) == {"number": 2}


def test_a_hundred_who_want_it_at_once_make_it_once(cache: Ref) -> None:
    make = Maker()
    make.gate = Event()
    calls: list[Any] = [gevent.spawn(get, make) for _ in range(100)]
    gevent.sleep(0.01)
    make.gate.set()
    gevent.joinall(calls, raise_error=True)
    assert {call.value["number"] for call in calls} == {1}
    assert make.made == 1


def test_when_one_fails_to_make_it_the_next_one_tries(cache: Ref) -> None:
    make = Maker()
    make.gate = Event()
    make.error = InvalidArguments("no")
    calls: list[Any] = [gevent.spawn(get, make) for _ in range(3)]
    gevent.sleep(0.01)
    make.gate.set()
    gevent.joinall(calls)
    assert [type(call.exception) for call in calls] == [InvalidArguments] * 3
    assert make.made == 3


def test_an_older_value_stands_in_only_while_the_peer_cannot_be_asked(manual: ManualClock, cache: Ref) -> None:
    make = Maker()
    get(make, stale_s=100)
    manual.advance(11)
    make.error = ConnectionFailed("away")
    assert get(make, stale_s=100) == {"number": 1}
    make.error = InvalidArguments("wrong")
    with pytest.raises(InvalidArguments):
        get(make, stale_s=100)
    manual.advance(100)
    make.error = ConnectionFailed("away")
    with pytest.raises(ConnectionFailed):
        get(make, stale_s=100)


def test_a_value_that_cannot_be_kept_holds_up_nobody_else(cache: Ref) -> None:
    with pytest.raises(TypeError):
        cached("mine/cache", "k", object, fresh_s=1.0, deadline=clock.now() + 5.0)
    assert get(Maker()) == {"number": 1}


def test_without_a_cache_actor_the_value_is_made_each_time() -> None:
    make = Maker()
    assert cached("nobody/cache", "k", make, fresh_s=9.0, deadline=clock.now() + 0.05) == {"number": 1}


def test_a_crash_of_the_cache_while_others_wait_is_no_failure_of_theirs(cache: Ref) -> None:
    make = Maker()
    make.gate = Event()
    calls: list[Any] = [gevent.spawn(get, make) for _ in range(3)]
    gevent.sleep(0.01)
    found("mine/cache").kill()
    gevent.sleep(0.1)
    make.gate.set()
    gevent.joinall(calls, raise_error=True)
    assert make.made >= 1
    assert all(call.value["number"] <= make.made for call in calls)
    gevent.sleep(2.6)  # the timer of those who waited
