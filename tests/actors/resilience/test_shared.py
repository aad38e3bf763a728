"""Circuits and quotas in a real Redis, shared by two daemons' worth of actors, and what happens when Redis goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import gevent
import pytest

from actors.resilience.breaker import Breaker, CircuitTable, Permit, Settled
from actors.resilience.circuit import CircuitRecord, Granted
from actors.resilience.limiter import Admit, GiveBack, Limiter, QuotaTable
from actors.resilience.policy import BreakerPolicy, OnRedisDown, RatePolicy
from actors.resilience.quota import Admitted, Lesson, Quota, QuotaRecord, Wait
from actors.resilience.shared import RedisLink, SharedCircuit, SharedDown, SharedQuota, shared_key
from config.schema import PositiveDuration
from config.secret import Secret
from regrow.protocol.errors import CircuitOpen, RateLimited, Unavailable
from runtime import clock, events
from runtime.promise import Promise
from runtime.ref import Ref
from tests.actors.resilience.conftest import Supervised, found
from tests.support.servers.redis import RedisServer

SLOW = BreakerPolicy(failures=5, reset_after=PositiveDuration(30.0))
QUICK = BreakerPolicy(failures=5, reset_after=PositiveDuration(0.2))

Links = Callable[[RedisServer], RedisLink]


@pytest.fixture
def link() -> Iterator[Links]:
    made: list[RedisLink] = []

    def open_link(server: RedisServer) -> RedisLink:
        made.append(RedisLink(Secret(server.url), "api"))
        return made[-1]

    yield open_link
    for each in made:
        each.close()


def two_limiters(
    supervised: Supervised, link: Links, server: RedisServer, requests: int, *, down: OnRedisDown = "open"
) -> tuple[Ref, Ref]:
    policy = RatePolicy(requests=requests, window=PositiveDuration(60.0))

    def start(name: str) -> Ref:
        quota = SharedQuota(link(server), "regrow:test:quota", requests, 60.0)
        return supervised(name, Limiter, "api", policy, QuotaTable(shared=quota), on_redis_down=down)

    return start("here/limiter"), start("there/limiter")


def two_breakers(
    supervised: Supervised,
    link: Links,
    server: RedisServer,
    policy: BreakerPolicy = SLOW,
    *,
    down: OnRedisDown = "open",
) -> tuple[Ref, Ref]:
    def start(name: str) -> Ref:
        table = CircuitTable(shared=SharedCircuit(link(server), "regrow:test:circuit"))
        return supervised(name, Breaker, "api", policy, table, on_redis_down=down)

    return start("here/breaker"), start("there/breaker")


def fail(ref: Ref, times: int) -> None:
    for _ in range(times):
        ref.ask(Settled(ref.ask(Permit()), "failed"))


def test_two_daemons_never_send_more_than_the_limit_together(
    supervised: Supervised, link: Links, redis: RedisServer
) -> None:
    here, there = two_limiters(supervised, link, redis, requests=10)
    outcomes: list[str] = []

    def ask(ref: Ref) -> None:
        try:
            ref.ask(Admit(), timeout=1.0)
        except RateLimited:
            outcomes.append("refused")
        else:
            outcomes.append("admitted")

    gevent.joinall([gevent.spawn(ask, ref) for ref in (here, there) * 15], raise_error=True)
    assert (outcomes.count("admitted"), outcomes.count("refused")) == (10, 20)


def test_what_one_daemon_learns_from_the_peer_holds_for_the_other(
    supervised: Supervised, link: Links, redis: RedisServer
) -> None:
    here, there = two_limiters(supervised, link, redis, requests=1000)
    here.ask(Lesson(here.ask(Admit()), remaining=1, reset_s=50.0))
    there.ask(Admit())
    with pytest.raises(RateLimited) as caught:
        there.ask(Admit())
    assert caught.value.retry_after_s == pytest.approx(50.0, abs=2.0)


def test_a_pause_that_one_daemon_is_asked_for_holds_for_the_other(
    supervised: Supervised, link: Links, redis: RedisServer
) -> None:
    here, there = two_limiters(supervised, link, redis, requests=1000)
    here.ask(Lesson(here.ask(Admit()), pause_s=40.0))
    with pytest.raises(RateLimited) as caught:
        there.ask(Admit())
    assert caught.value.retry_after_s == pytest.approx(40.0, abs=2.0)


def test_a_limiter_that_waits_is_served_when_redis_says_so(
    link: Links, supervised: Supervised, redis: RedisServer
) -> None:
    policy = RatePolicy(requests=1, window=PositiveDuration(0.2))
    quota = SharedQuota(link(redis), "regrow:test:quota", 1, 0.2)
    ref = supervised("here/limiter", Limiter, "api", policy, QuotaTable(shared=quota))
    began = time.monotonic()
    assert [ref.ask(Admit(), timeout=5.0) for _ in range(3)] == [1, 2, 3]
    assert time.monotonic() - began >= 0.4


def test_the_shared_arithmetic_is_the_local_one(link: Links, redis: RedisServer) -> None:
    shared, local = SharedQuota(link(redis), "regrow:test:same", 3, 1000.0), Quota(3, 1000.0, QuotaRecord())
    now = 5.0
    for _ in range(5):
        theirs, ours = shared.admit(), local.admit(now)
        assert type(theirs) is type(ours)
        if isinstance(theirs, Admitted):
            assert theirs == ours
    for nth in (1, 2, 3, 4, 7):
        assert shared.wait_s(nth) == pytest.approx(local.wait_s(now, nth), abs=11.0)
    for lesson in (Lesson(2, remaining=5, reset_s=3000.0), Lesson(1, remaining=0), Lesson(3, pause_s=2000.0)):
        shared.learn(lesson)
        local.learn(now, lesson)
        theirs, ours = shared.admit(), local.admit(now)
        assert isinstance(theirs, Wait)
        assert isinstance(ours, Wait)
        assert theirs.wait_s == pytest.approx(ours.wait_s, abs=11.0)
    shared.forget()
    local.forget()
    shared.admit()
    local.admit(now)
    shared.give_back()
    local.give_back()
    assert shared.admit() == local.admit(now) == Admitted(4)


def bucket_of(
    link: Links, server: RedisServer, *, requests: int = 10, window_s: float = 1000.0, burst: int
) -> SharedQuota:
    return SharedQuota(link(server), "regrow:test:bucket", requests, window_s, burst=burst)


def test_costs_count_in_redis_as_they_do_here(link: Links, redis: RedisServer) -> None:
    for burst in (None, 9):
        shared = SharedQuota(link(redis), f"regrow:test:cost:{burst}", 9, 1000.0, burst=burst)
        local = Quota(9, 1000.0, QuotaRecord(), burst=burst)
        now = 5.0
        for cost in (4, 3, 3, 2, 1):
            theirs, ours = shared.admit(cost), local.admit(now, cost)
            assert type(theirs) is type(ours)
            if isinstance(theirs, Admitted):
                assert theirs == ours
        shared.learn(Lesson(7, remaining=1, reset_s=3000.0))
        local.learn(now, Lesson(7, remaining=1, reset_s=3000.0))
        for tokens in (1, 2, 9, 12, 30):
            assert shared.wait_s(tokens) == pytest.approx(local.wait_s(now, tokens), abs=11.0)
        shared.forget()
        local.forget()
        for quota in (shared, local):
            quota.give_back(5)
        shared.admit(9)
        local.admit(now, 9)
        shared.give_back(4)
        local.give_back(4)
        assert shared.used() == local.used(now) == 5
        assert shared.admit(4) == local.admit(now, 4)
        assert isinstance(shared.admit(1), Wait)


def test_a_shared_bucket_lets_a_burst_go_and_then_as_many_as_come_back(link: Links, redis: RedisServer) -> None:
    here, there = (bucket_of(link, redis, requests=20, window_s=1.0, burst=3) for _ in range(2))
    began = time.monotonic()
    gone = 0
    while time.monotonic() - began < 0.5:
        for each in (here, there):
            gone += isinstance(each.admit(), Admitted)
    took_s = time.monotonic() - began
    assert 3 + 0.5 * 20 - 1 <= gone <= 3 + took_s * 20


def test_a_shared_bucket_that_is_spent_says_when_its_tokens_come(link: Links, redis: RedisServer) -> None:
    quota = bucket_of(link, redis, burst=3)
    assert quota.admit(3) == Admitted(3)
    waits = [quota.admit(1), quota.admit(3)]
    assert [wait.wait_s for wait in waits if isinstance(wait, Wait)] == pytest.approx([100.0, 300.0], abs=2.0)
    assert quota.wait_s(10) == pytest.approx(1000.0, abs=2.0)


def test_a_shared_bucket_is_kept_for_as_long_as_it_takes_to_fill(link: Links, redis: RedisServer) -> None:
    quota = bucket_of(link, redis, requests=1, window_s=10.0, burst=100)
    quota.admit(100)
    with redis.connect() as client:
        assert 1000 <= client.ttl("regrow:test:bucket") <= 1070


def test_after_the_clock_of_redis_was_set_back_tokens_come_back_all_the_same(link: Links, redis: RedisServer) -> None:
    quota = bucket_of(link, redis, requests=1000, window_s=10.0, burst=2)
    quota.admit(2)
    window = SharedQuota(link(redis), "regrow:test:window", 2, 0.2)
    window.admit(2)
    with redis.connect() as client:
        client.hset("regrow:test:bucket", "spent_at", int((time.time() + 86400) * 1e6))
        for name in client.hkeys("regrow:test:window"):
            if name.startswith(b"s:"):
                client.hdel("regrow:test:window", name)
        client.hset("regrow:test:window", f"s:{int((time.time() + 86400) / 0.002)}", 2)
    for each in (quota, window):
        assert isinstance(each.admit(), Wait)
    gevent.sleep(0.25)
    for each in (quota, window):
        assert isinstance(each.admit(), Admitted)


def test_two_limiters_share_a_bucket_and_its_costs(supervised: Supervised, link: Links, redis: RedisServer) -> None:
    policy = RatePolicy(requests=10, window=PositiveDuration(3600.0), algorithm="token_bucket", burst=6)

    def start(name: str) -> Ref:
        quota = bucket_of(link, redis, window_s=3600.0, burst=6)
        return supervised(name, Limiter, "api", policy, QuotaTable(shared=quota))

    here, there = start("here/limiter"), start("there/limiter")
    assert [here.ask(Admit(4)), there.ask(Admit(2))] == [4, 6]
    with pytest.raises(RateLimited):
        here.ask(Admit())
    there.ask(GiveBack(2))
    assert here.ask(Admit(2)) == 6
    here.kill()
    gevent.idle()
    with pytest.raises(RateLimited):
        found("here/limiter").ask(Admit())


def test_a_token_that_redis_grants_to_one_who_gave_up_meanwhile_is_given_back(
    supervised: Supervised, link: Links, redis_server: RedisServer
) -> None:
    policy = RatePolicy(requests=1, window=PositiveDuration(3600.0))
    quota = SharedQuota(link(redis_server), "regrow:test:quota", 1, 3600.0)
    ref = supervised("here/limiter", Limiter, "api", policy, QuotaTable(shared=quota))
    ref.ask(Admit())
    promise = Promise(deadline=clock.now() + 7200.0)
    ref.request(Admit(), promise)
    gevent.sleep(0.05)
    redis_server.sigstop()
    ref.tell(GiveBack())
    gevent.sleep(0.02)
    promise.cancel()
    redis_server.sigcont()
    gevent.sleep(0.1)
    assert quota.used() == 0


def test_different_addresses_share_nothing() -> None:
    assert shared_key("api", "https://a.example", "quota") != shared_key("api", "https://b.example", "quota")
    assert shared_key("api", "https://a.example", "quota") == shared_key("api", "https://a.example", "quota")


def test_failures_seen_by_two_daemons_open_the_circuit_for_both(
    supervised: Supervised, link: Links, redis: RedisServer
) -> None:
    here, there = two_breakers(supervised, link, redis)
    fail(here, 3)
    fail(there, 2)
    for ref in (here, there):
        with pytest.raises(CircuitOpen) as caught:
            ref.ask(Permit())
        assert caught.value.retry_after_s == pytest.approx(30.0, abs=2.0)


def test_a_half_open_circuit_lets_one_probe_go_over_all_daemons(
    supervised: Supervised, link: Links, redis: RedisServer
) -> None:
    here, there = two_breakers(supervised, link, redis, QUICK)
    fail(here, 5)
    gevent.sleep(0.25)
    granted: list[tuple[Ref, Granted]] = []

    def ask(ref: Ref) -> None:
        try:
            granted.append((ref, ref.ask(Permit())))
        except CircuitOpen:
            pass

    gevent.joinall([gevent.spawn(ask, ref) for ref in (here, there) * 20], raise_error=True)
    assert len(granted) == 1
    ref, probe = granted[0]
    ref.ask(Settled(probe, "ok"))
    assert [each.ask(Permit()).probe for each in (here, there)] == [None, None]


def test_a_probe_granted_to_a_caller_that_gave_up_meanwhile_is_free_again_at_once(
    supervised: Supervised, link: Links, redis_server: RedisServer
) -> None:
    here, there = two_breakers(supervised, link, redis_server, QUICK)
    fail(here, 5)
    gevent.sleep(0.25)
    redis_server.sigstop()
    promise = Promise(deadline=clock.now() + 10)
    here.request(Permit(), promise)
    gevent.sleep(0.02)
    promise.cancel()
    redis_server.sigcont()
    gevent.sleep(0.2)
    assert there.ask(Permit()).probe is not None


def test_many_failures_at_once_from_two_daemons_are_all_counted(
    supervised: Supervised, link: Links, redis: RedisServer
) -> None:
    policy = BreakerPolicy(failures=40)
    here, there = two_breakers(supervised, link, redis, policy)
    permits = [(ref, ref.ask(Permit())) for ref in (here, there) * 20]
    gevent.joinall([gevent.spawn(ref.ask, Settled(permit, "failed")) for ref, permit in permits], raise_error=True)
    with pytest.raises(CircuitOpen):
        here.ask(Permit())


def test_calls_of_two_daemons_count_together_where_a_share_decides(
    supervised: Supervised, link: Links, redis: RedisServer
) -> None:
    here, there = two_breakers(supervised, link, redis, BreakerPolicy(failure_ratio=0.5, min_calls=10))
    for _ in range(5):
        here.ask(Settled(here.ask(Permit()), "ok"))
    fail(there, 4)
    here.ask(Permit())
    fail(there, 1)
    with pytest.raises(CircuitOpen):
        here.ask(Permit())


def test_a_change_made_elsewhere_is_announced_here(
    supervised: Supervised, link: Links, redis: RedisServer, heard: list[events.Event]
) -> None:
    here, there = two_breakers(supervised, link, redis)
    fail(here, 5)
    heard.clear()
    with pytest.raises(CircuitOpen):
        there.ask(Permit())
    assert [event.topic for event in heard if event.topic.startswith("breaker.")] == ["breaker.opened"]


def test_disabled_by_one_daemon_it_lets_the_calls_of_all_go(
    supervised: Supervised, link: Links, redis: RedisServer, heard: list[events.Event]
) -> None:
    here, there = two_breakers(supervised, link, redis)
    fail(here, 5)
    here.call("disable", {"for_s": 60.0})
    fail(there, 20)
    assert there.actor.status()["disabled_s"] == pytest.approx(60.0, abs=2.0)
    there.call("reset")
    fail(here, 5)
    with pytest.raises(CircuitOpen):
        there.ask(Permit())
    assert [event.topic for event in heard].count("breaker.disabled") == 2


def test_killed_while_open_it_is_still_open_in_redis(supervised: Supervised, link: Links, redis: RedisServer) -> None:
    here, _ = two_breakers(supervised, link, redis)
    fail(here, 5)
    here.kill()
    gevent.idle()
    with pytest.raises(CircuitOpen):
        found("here/breaker").ask(Permit())


def test_a_record_that_someone_else_saved_meanwhile_is_not_overwritten(link: Links, redis: RedisServer) -> None:
    circuit = SharedCircuit(link(redis), "regrow:test:versions")
    first, second = circuit.load(), circuit.load()
    assert circuit.save(first)
    assert not circuit.save(second)
    assert circuit.load().record == CircuitRecord()


@pytest.mark.parametrize(
    "found_there",
    [
        {"v": "7", "r": "no json"},
        {"v": "7", "r": b"\xff\xfe"},
        {"v": "7", "r": '{"state": "ajar", "trips": []}'},
        {"v": "seven", "r": "{}"},
        {"v": "9" * 40, "r": "{}"},
        None,
    ],
    ids=["no-json", "no-text", "other-fields", "no-version", "absurd-version", "another-type"],
)
def test_what_is_no_circuit_in_redis_crashes_no_breaker_and_a_new_one_takes_its_place(
    supervised: Supervised, link: Links, redis: RedisServer, found_there: dict[str, str | bytes] | None
) -> None:
    here, there = two_breakers(supervised, link, redis)
    with redis.connect() as client:
        if found_there is None:
            client.lpush("regrow:test:circuit", "x")
        else:
            client.hset("regrow:test:circuit", mapping=found_there)
    fail(here, 5)
    with pytest.raises(CircuitOpen):
        there.ask(Permit())
    assert here.is_alive()
    assert there.is_alive()


def test_without_redis_an_open_policy_goes_on_with_its_own_window(
    supervised: Supervised, link: Links, redis_server: RedisServer
) -> None:
    here, there = two_limiters(supervised, link, redis_server, requests=2)
    redis_server.stop()
    assert [ref.ask(Admit()) for ref in (here, here, there, there)] == [1, 2, 1, 2]
    with pytest.raises(RateLimited):
        here.ask(Admit())


def test_without_redis_a_closed_policy_refuses_at_once_and_says_when_to_come_back(
    supervised: Supervised, link: Links, redis_server: RedisServer
) -> None:
    limiter, _ = two_limiters(supervised, link, redis_server, requests=2, down="closed")
    breaker, _ = two_breakers(supervised, link, redis_server, down="closed")
    redis_server.stop()
    began = time.monotonic()
    for ref, message in ((limiter, Admit()), (breaker, Permit())):
        for _ in range(20):
            with pytest.raises(Unavailable, match="redis") as caught:
                ref.ask(message)
            assert 0 < (caught.value.retry_after_s or 0) <= 1.0
    assert time.monotonic() - began < 1.0


def test_a_frozen_redis_costs_a_quarter_of_a_second_once(
    supervised: Supervised, link: Links, redis_server: RedisServer
) -> None:
    here, _ = two_limiters(supervised, link, redis_server, requests=100)
    here.ask(Admit())
    redis_server.sigstop()
    began = time.monotonic()
    for _ in range(50):
        here.ask(Admit())
    assert time.monotonic() - began < 0.9
    redis_server.sigcont()


def test_after_redis_came_back_it_is_shared_again_without_a_restart(
    supervised: Supervised, link: Links, redis_server: RedisServer, heard: list[events.Event]
) -> None:
    here, there = two_limiters(supervised, link, redis_server, requests=3)
    here.ask(Admit())
    redis_server.stop()
    here.ask(Admit())
    redis_server.start()
    gevent.sleep(1.05)
    assert [ref.ask(Admit()) for ref in (here, there, here)] == [1, 2, 3]
    with pytest.raises(RateLimited):
        there.ask(Admit())
    assert [event.topic for event in heard if event.topic.startswith("redis.")] == ["redis.lost", "redis.found"]


def test_a_restart_of_redis_between_two_calls_is_not_even_noticed(
    supervised: Supervised, link: Links, redis_server: RedisServer, heard: list[events.Event]
) -> None:
    here, _ = two_limiters(supervised, link, redis_server, requests=3)
    here.ask(Admit())
    redis_server.restart()
    assert here.ask(Admit()) == 1
    assert [event.topic for event in heard if event.topic.startswith("redis.")] == []


def test_an_open_circuit_stays_open_when_redis_goes(
    supervised: Supervised, link: Links, redis_server: RedisServer
) -> None:
    here, _ = two_breakers(supervised, link, redis_server)
    fail(here, 5)
    redis_server.stop()
    with pytest.raises(CircuitOpen) as caught:
        here.ask(Permit())
    assert caught.value.retry_after_s == pytest.approx(30.0, abs=2.0)


def test_without_redis_an_open_policy_counts_failures_by_itself(
    supervised: Supervised, link: Links, redis_server: RedisServer
) -> None:
    here, there = two_breakers(supervised, link, redis_server)
    redis_server.stop()
    fail(here, 5)
    with pytest.raises(CircuitOpen):
        here.ask(Permit())
    assert there.ask(Permit()) == Granted(0)


def test_a_link_without_redis_says_so_and_shows_no_url(link: Links, redis_server: RedisServer) -> None:
    redis_server.stop()
    broken = link(redis_server)
    circuit = SharedCircuit(broken, "k")
    with pytest.raises(SharedDown, match="does not answer"):
        circuit.load()
    assert broken.state == "down"
    assert "redis://" not in repr(broken)
