"""The cache actor, alone in memory and with a real Redis between two of them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import gevent
import pytest

from actors.resilience.cache import LOOKUPS, WAITS, Cache, Forget, Keep, LetGo, Lookup
from actors.resilience.shared import RedisLink
from actors.resilience.shared_shelf import LEASE_S, SharedShelf
from actors.resilience.shelf import Kept, Shelf
from config.secret import Secret
from regrow.protocol.errors import Unavailable
from regrow.testing import ManualClock
from runtime.promise import Promise
from runtime.ref import Ref
from tests.actors.resilience.conftest import Supervised, found
from tests.support.servers.redis import RedisServer

KEY = b"0123456789abcdef0123456789abcdef"


class Daemons:
    """Caches of as many daemons as the test wants, all of one API."""

    def __init__(self, server: RedisServer, supervised: Supervised) -> None:
        self.server = server
        self._supervised = supervised
        self.shared: list[SharedShelf] = []

    def cache(self, name: str) -> Ref:
        link = RedisLink(Secret(self.server.url), name)
        prefix = "regrow:{api:test}:answers:1"
        self.shared.append(SharedShelf(link, prefix, KEY, max_bytes=1 << 20, max_entry_bytes=1 << 16))
        return self._supervised(f"{name}/cache", Cache, name, Shelf(1 << 20), self.shared[-1])


@pytest.fixture
def daemons(redis: RedisServer, supervised: Supervised) -> Daemons:
    return Daemons(redis, supervised)


@pytest.fixture
def own(redis_server: RedisServer, supervised: Supervised) -> Daemons:
    return Daemons(redis_server, supervised)


@pytest.fixture
def memory(supervised: Supervised) -> Ref:
    return supervised("mine/cache", Cache, "mine", Shelf(1 << 20))


@pytest.fixture
def manual() -> Iterator[ManualClock]:
    with ManualClock() as clock:
        yield clock


def begin(ref: Ref, message: object) -> Promise:
    promise = Promise()
    ref.request(message, promise)
    gevent.sleep(0)
    return promise


def content(kept: object) -> bytes | None:
    assert kept is None or isinstance(kept, Kept)
    return None if kept is None else kept.content


def asking(key: str) -> Lookup:
    """The lookup of a caller that will ask the peer."""
    return Lookup(key, wait_s=5.0, among="callers")


def test_an_answer_that_is_kept_is_found(memory: Ref) -> None:
    assert memory.ask(Lookup("k")) is None
    memory.tell(Keep("k", b"value", fresh_s=10))
    assert content(memory.ask(Lookup("k"))) == b"value"
    memory.tell(Keep("k", b"newer", fresh_s=10, group="g"))
    memory.tell(Forget("g"))
    assert memory.ask(Lookup("k")) is None
    assert [LOOKUPS.value("mine", word) for word in ("miss", "fresh")] == [2, 1]


def test_an_answer_that_was_asked_for_before_a_change_is_not_kept(manual: ManualClock, memory: Ref) -> None:
    memory.ask(Lookup("k", wait_s=5.0, among="callers"))
    waiting = begin(memory, asking("k"))
    memory.tell(Forget("g"))
    manual.advance(1)
    memory.ask(Keep("k", b"old", fresh_s=10, group="g", took_s=2.0))
    assert waiting.value is None
    memory.ask(Keep("k", b"new", fresh_s=10, group="g", took_s=0.5))
    memory.ask(Keep("k", b"older", fresh_s=10, group="g", took_s=3.0))
    assert content(memory.ask(Lookup("k"))) == b"new"


def test_of_callers_at_a_cold_cache_one_asks_and_the_others_get_its_answer(memory: Ref) -> None:
    assert memory.ask(asking("k")) is None
    waiting = [begin(memory, asking("k")) for _ in range(100)]
    other = begin(memory, asking("another"))
    assert (other.done, [each.done for each in waiting]) == (True, [False] * 100)
    memory.tell(Keep("k", b"value", fresh_s=10))
    assert {content(each.wait(1.0)) for each in waiting} == {b"value"}


def test_when_the_one_who_asks_lets_go_the_next_one_asks(memory: Ref) -> None:
    memory.ask(asking("k"))
    waiting = [begin(memory, asking("k")) for _ in range(3)]
    for number in range(3):
        memory.ask(LetGo("k"))
        assert [each.done for each in waiting] == [True] * (number + 1) + [False] * (2 - number)
        assert waiting[number].value is None


def test_a_caller_that_gave_up_waiting_is_not_the_one_who_asks(memory: Ref) -> None:
    memory.ask(asking("k"))
    first, second = (begin(memory, asking("k")) for _ in range(2))
    first.cancel()
    memory.ask(LetGo("k"))
    assert second.done
    assert second.value is None


def test_nobody_waits_longer_than_it_said_for_one_who_never_answers(manual: ManualClock, memory: Ref) -> None:
    memory.ask(asking("k"))
    waiting = [begin(memory, Lookup("k", wait_s=2.0, among="callers")) for _ in range(2)]
    manual.advance(1.9)
    assert not any(each.done for each in waiting)
    manual.advance(0.2)
    assert [each.value for each in waiting] == [None, None]


def test_who_can_wait_for_less_long_than_those_before_it_does_so(manual: ManualClock, memory: Ref) -> None:
    memory.ask(asking("k"))
    patient = begin(memory, Lookup("k", wait_s=4.0, among="callers"))
    hasty = begin(memory, Lookup("k", wait_s=1.0, among="callers"))
    manual.advance(1.1)
    assert (hasty.done, hasty.value, patient.done) == (True, None, False)
    memory.ask(Keep("k", b"value", fresh_s=10))
    assert content(patient.wait(1.0)) == b"value"


def test_one_who_died_is_waited_for_no_longer_than_its_time(manual: ManualClock, memory: Ref) -> None:
    memory.ask(asking("k"))
    manual.advance(LEASE_S + 0.1)
    assert memory.ask(asking("k")) is None


def test_a_stale_answer_in_use_is_renewed_by_one(manual: ManualClock, memory: Ref) -> None:
    memory.tell(Keep("k", b"value", fresh_s=10, refresh_s=100))
    manual.advance(11)
    first, second = memory.ask(asking("k")), memory.ask(asking("k"))
    assert (first.content, first.asked, second.content, second.asked) == (b"value", False, b"value", True)


def test_answers_outlive_the_actor(supervised: Supervised) -> None:
    ref = supervised("mine/cache", Cache, "mine", Shelf(1 << 20))
    ref.tell(Keep("k", b"value", fresh_s=10))
    ref.ask(Lookup("k"))
    ref.kill()
    assert content(found("mine/cache").ask(Lookup("k"))) == b"value"


def test_callers_that_wait_when_it_dies_hear_of_it(supervised: Supervised) -> None:
    ref = supervised("mine/cache", Cache, "mine", Shelf(1 << 20))
    ref.ask(asking("k"))
    waiting = begin(ref, Lookup("k", wait_s=0.05, among="callers"))
    ref.kill()
    with pytest.raises(Exception, match="mine/cache|died|kill"):
        waiting.wait(1.0)
    gevent.sleep(0.07)  # its timer


def test_two_daemons_share_an_answer_and_send_it_once(daemons: Daemons) -> None:
    here, there = daemons.cache("here"), daemons.cache("there")
    here.tell(Keep("k", b"value", fresh_s=10))
    here.ask(Lookup("k"))
    for _ in range(3):
        assert content(there.ask(Lookup("k"))) == b"value"
    assert there.actor.status()["entries"] == 1


def test_a_daemon_waits_for_the_answer_that_another_one_asks_for(daemons: Daemons) -> None:
    here, there = daemons.cache("here"), daemons.cache("there")
    assert here.ask(Lookup("k", wait_s=5.0)) is None
    waiting = [begin(there, Lookup("k", wait_s=5.0)) for _ in range(20)]
    gevent.sleep(0.03)
    assert not any(each.done for each in waiting)
    here.ask(Keep("k", b"value", fresh_s=10))
    assert {content(each.wait(1.0)) for each in waiting} == {b"value"}
    assert WAITS.value("there") == 20


def test_of_two_daemons_one_renews_a_stale_answer_in_use(daemons: Daemons) -> None:
    here, there = daemons.cache("here"), daemons.cache("there")
    here.ask(Keep("k", b"value", fresh_s=0.0, refresh_s=60.0))
    first, second = (ref.ask(Lookup("k", wait_s=1.0)) for ref in (there, here))
    assert [(kept.content, kept.asked) for kept in (first, second)] == [(b"value", False), (b"value", True)]
    there.ask(LetGo("k"))
    assert not here.ask(Lookup("k", wait_s=1.0)).asked


def test_the_next_daemon_asks_when_the_first_one_lets_go(daemons: Daemons) -> None:
    here, there = daemons.cache("here"), daemons.cache("there")
    here.ask(Lookup("k", wait_s=5.0))
    waiting = begin(there, Lookup("k", wait_s=5.0))
    gevent.sleep(0.03)
    assert not waiting.done
    here.ask(LetGo("k"))
    assert waiting.wait(1.0) is None
    assert begin(here, Lookup("k", wait_s=0.1)).wait(1.0) is None


def test_a_caller_in_a_hurry_does_not_wait_as_long_as_one_that_came_before(daemons: Daemons) -> None:
    here, there = daemons.cache("here"), daemons.cache("there")
    here.ask(Lookup("k", wait_s=5.0))
    patient, hasty = begin(there, Lookup("k", wait_s=4.0)), begin(there, Lookup("k", wait_s=0.1))
    assert hasty.wait(1.0) is None
    assert not patient.done
    here.ask(Keep("k", b"value", fresh_s=10))
    assert content(patient.wait(1.0)) == b"value"


def test_a_daemon_waits_no_longer_than_its_caller_allows(daemons: Daemons) -> None:
    here, there = daemons.cache("here"), daemons.cache("there")
    here.ask(Lookup("k", wait_s=5.0))
    began = time.monotonic()
    assert there.ask(Lookup("k", wait_s=0.1)) is None
    assert 0.1 <= time.monotonic() - began < 1.0


def test_what_one_daemon_forgets_the_other_does_not_find(daemons: Daemons) -> None:
    here, there = daemons.cache("here"), daemons.cache("there")
    here.ask(Keep("k", b"value", fresh_s=10, group="g"))
    there.ask(Lookup("k"))
    here.ask(Forget("g"))
    assert there.ask(Lookup("k")) is None
    assert there.actor.status()["entries"] == 0


def test_clearing_it_clears_it_for_all(daemons: Daemons) -> None:
    here, there = daemons.cache("here"), daemons.cache("there")
    for key in "abc":
        here.ask(Keep(key, b"value", fresh_s=10))
    assert there.call("clear") == 3
    assert here.ask(Lookup("a")) is None


def test_while_redis_is_gone_memory_serves_and_nobody_waits_long(own: Daemons) -> None:
    here = own.cache("here")
    here.ask(Keep("k", b"value", fresh_s=60))
    own.server.kill()
    began = time.monotonic()
    for _ in range(50):
        assert content(here.ask(Lookup("k", wait_s=5.0))) == b"value"
        assert here.ask(Lookup("another", wait_s=5.0)) is None
    here.ask(Keep("another", b"more", fresh_s=60))
    assert content(here.ask(Lookup("another"))) == b"more"
    assert time.monotonic() - began < 1.0
    assert here.actor.status()["redis"] == "down"
    with pytest.raises(Unavailable, match="redis does not answer"):
        here.call("clear")


def test_after_redis_is_back_answers_are_shared_again(own: Daemons) -> None:
    here, there = own.cache("here"), own.cache("there")
    here.ask(Keep("k", b"value", fresh_s=60))
    own.server.kill()
    here.ask(Lookup("k"))
    own.server.start()
    time.sleep(1.05)
    # It lost everything, and what may have been forgotten meanwhile is not believed.
    assert here.ask(Lookup("k")) is None
    here.ask(Keep("k", b"newer", fresh_s=60))
    assert content(there.ask(Lookup("k"))) == b"newer"
    assert here.actor.status()["redis"] == "up"
