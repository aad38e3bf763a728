"""Kept answers in a real Redis: what two daemons see of each other's, its bounds, and bytes that are none of ours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.resilience.shared import RedisLink, SharedDown
from actors.resilience.shared_shelf import LEASE_S, MAX_OWED, SharedShelf, derive
from actors.resilience.shelf import ENTRY_BYTES, Kept, Shelf, kept_at
from config.secret import Secret
from runtime import clock
from tests.support.servers.redis import RedisServer

KEY = b"0123456789abcdef0123456789abcdef"
PREFIX = "regrow:{api:test}:answers:1"


class Daemons:
    """Shelves of as many daemons as the test wants."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.made: list[SharedShelf] = []

    def shelf(
        self, *, max_bytes: int = 1 << 20, max_entry_bytes: int = 1 << 20, key: bytes = KEY, prefix: str = PREFIX
    ) -> SharedShelf:
        link = RedisLink(Secret(self.server.url), "api")
        self.made.append(SharedShelf(link, prefix, key, max_bytes=max_bytes, max_entry_bytes=max_entry_bytes))
        return self.made[-1]

    def close(self) -> None:
        for each in self.made:
            each.link.close()


@pytest.fixture
def daemons(redis: RedisServer) -> Iterator[Daemons]:
    made = Daemons(redis)
    yield made
    made.close()


@pytest.fixture
def own(redis_server: RedisServer) -> Iterator[Daemons]:
    made = Daemons(redis_server)
    yield made
    made.close()


def answer(content: bytes = b"value", *, stamp: str = "a", group: str = "", **times: float) -> Kept:
    return kept_at(clock.now(), content, stamp=stamp, group=group, **{"fresh_s": 60.0, "stale_s": 0.0, **times})


def put(shelf: SharedShelf, key: str, kept: Kept) -> bool:
    return shelf.put(key, kept, clock.now())


def found(shelf: SharedShelf, key: str) -> Kept | None:
    return shelf.get(key, None, lease=False).kept


def names(server: RedisServer) -> list[bytes]:
    with server.connect() as client:
        return sorted(client.keys("*"))


def entry(server: RedisServer) -> bytes:
    (name,) = [name for name in names(server) if b":e:" in name]
    return name


def test_what_one_daemon_keeps_another_finds_with_its_times(daemons: Daemons) -> None:
    here, there = daemons.shelf(), daemons.shelf()
    kept = answer(b"content", group="g", fresh_s=60, stale_s=30, keep_s=500, age_s=7, refresh_s=20)
    assert put(here, "k", kept)
    theirs = found(there, "k")
    assert theirs is not None
    assert (theirs.content, theirs.stamp, theirs.group) == (b"content", "a", "g")
    for name in ("made_at", "fresh_until", "stale_until", "until", "refresh_until"):
        assert getattr(theirs, name) == pytest.approx(getattr(kept, name), abs=0.2)
    assert found(there, "another") is None


def test_an_answer_that_is_known_already_is_not_sent_again(daemons: Daemons) -> None:
    shelf = daemons.shelf()
    put(shelf, "k", answer(b"x" * 1000, stamp="one"))
    known = answer(b"x" * 1000, stamp="one")
    assert shelf.get("k", known, lease=False).kept is known
    put(shelf, "k", answer(b"new", stamp="two"))
    newer = shelf.get("k", known, lease=False).kept
    assert newer is not None
    assert newer.content == b"new"


def test_an_answer_lives_in_redis_no_longer_than_it_may_be_used(daemons: Daemons, redis: RedisServer) -> None:
    shelf = daemons.shelf()
    put(shelf, "k", answer(fresh_s=10, stale_s=20))
    with redis.connect() as client:
        assert 29_000 < client.pttl(entry(redis)) <= 30_000
    put(shelf, "k", answer(fresh_s=0.0, stale_s=0.03))
    time.sleep(0.05)
    assert found(shelf, "k") is None


def test_an_answer_that_may_not_be_kept_takes_the_older_one_away(daemons: Daemons) -> None:
    shelf = daemons.shelf(max_entry_bytes=100)
    put(shelf, "k", answer(b"old"))
    assert not put(shelf, "k", answer(b"x" * 200))
    assert found(shelf, "k") is None


def test_what_a_group_holds_is_forgotten_together_in_every_daemon(daemons: Daemons) -> None:
    here, there = daemons.shelf(), daemons.shelf()
    for key, group in (("a", "users"), ("b", "users"), ("c", "teams")):
        put(here, key, answer(group=group))
    there.drop_group("users")
    assert [found(here, key) is not None for key in "abc"] == [False, False, True]


def test_an_answer_asked_for_before_another_daemon_changed_the_thing_is_not_kept(daemons: Daemons) -> None:
    here, there = daemons.shelf(), daemons.shelf()
    there.drop_group("users")
    time.sleep(0.01)
    for key, group, took_s in (("a", "users", 5.0), ("b", "users", 0.0), ("c", "teams", 5.0), ("d", "", 5.0)):
        kept = here.put(key, answer(group=group), clock.now(), took_s)
        assert kept == (key != "a")
        assert (found(there, key) is not None) == kept
    assert not here.put("b", answer(b"from before", group="users"), clock.now(), 5.0)
    newer = found(there, "b")
    assert newer is not None
    assert newer.content == b"value"


def test_everything_is_forgotten_at_once(daemons: Daemons, redis: RedisServer) -> None:
    shelf = daemons.shelf()
    for number in range(1200):
        put(shelf, str(number), answer(group="g"))
    assert shelf.clear() == 1200
    assert [name for name in names(redis) if b":e:" in name] == []


def test_the_least_recently_used_answers_make_room(daemons: Daemons) -> None:
    shelf = daemons.shelf(max_bytes=4 * (ENTRY_BYTES + 400))
    for key in "abcd":
        put(shelf, key, answer(b"x" * 300))
        time.sleep(0.002)
    found(shelf, "a")
    time.sleep(0.002)
    put(shelf, "e", answer(b"x" * 300))
    assert [found(shelf, key) is not None for key in "abcde"] == [True, False, True, True, True]


def test_nothing_in_redis_shows_what_was_asked_for(daemons: Daemons, redis: RedisServer) -> None:
    shelf = daemons.shelf()
    put(shelf, "/users/ada?token=hush\nauthorization: Bearer hush", answer(group="/users/ada"))
    shelf.get("/x?token=hush", None, lease=True)
    everything = b"".join(names(redis))
    with redis.connect() as client:
        everything += b"".join(client.hgetall(PREFIX + ":meta"))
        everything += b"".join(client.zrange(PREFIX + ":index", 0, -1))
    assert b"hush" not in everything
    assert b"ada" not in everything


def test_other_credentials_find_nothing(daemons: Daemons) -> None:
    (here_place, here_key), (there_place, there_key) = derive(b"token one", "api"), derive(b"token two", "api")
    here = daemons.shelf(key=here_key, prefix=f"regrow:{{api}}:{here_place}")
    put(here, "k", answer())
    assert found(daemons.shelf(key=there_key, prefix=f"regrow:{{api}}:{there_place}"), "k") is None
    # Not even under a name that was found out.
    assert found(daemons.shelf(key=there_key, prefix=f"regrow:{{api}}:{here_place}"), "k") is None
    assert found(daemons.shelf(key=here_key, prefix=f"regrow:{{api}}:{here_place}"), "k") is not None
    assert here_key.hex() not in here_place


@pytest.mark.parametrize("garbage", [b"", b"\x93\x01", b"x" * 500, "text", "list", "field"])
def test_bytes_of_somebody_else_are_a_miss_and_are_replaced(
    daemons: Daemons, redis: RedisServer, garbage: bytes | str
) -> None:
    shelf = daemons.shelf()
    put(shelf, "k", answer())
    name = entry(redis)
    with redis.connect() as client:
        if isinstance(garbage, bytes):
            client.hset(name, "v", garbage)
        elif garbage == "field":
            client.hset(name, "at", "soon")
        else:
            client.delete(name)
            _ = client.set(name, "text") if garbage == "text" else client.lpush(name, "item")
    assert found(shelf, "k") is None
    assert shelf.link.state == "up"
    assert put(shelf, "k", answer(b"mine"))
    mine = found(shelf, "k")
    assert mine is not None
    assert mine.content == b"mine"


def test_an_answer_moved_under_another_name_is_not_believed(daemons: Daemons, redis: RedisServer) -> None:
    shelf = daemons.shelf()
    put(shelf, "mine", answer(b"of mine"))
    forged = entry(redis)
    put(shelf, "theirs", answer(b"of theirs"))
    (other,) = [name for name in names(redis) if b":e:" in name and name != forged]
    with redis.connect() as client:
        client.hset(forged, mapping=client.hgetall(other))
    assert found(shelf, "mine") is None


def test_one_daemon_asks_at_a_time_until_an_answer_is_there(daemons: Daemons) -> None:
    here, there = daemons.shelf(), daemons.shelf()
    assert here.get("k", None, lease=True).asks == "self"
    assert here.get("k", None, lease=True).asks == "self"
    assert there.get("k", None, lease=True).asks == "other"
    put(here, "k", answer())
    assert there.get("k", None, lease=True).asks == "nobody"


def test_whoever_lets_go_leaves_the_asking_to_others_but_only_its_own(daemons: Daemons) -> None:
    here, there = daemons.shelf(), daemons.shelf()
    here.get("k", None, lease=True)
    there.release("k")
    assert there.get("k", None, lease=True).asks == "other"
    here.release("k")
    assert there.get("k", None, lease=True).asks == "self"


def test_the_asking_of_a_daemon_that_died_ends_by_itself(daemons: Daemons, redis: RedisServer) -> None:
    here, there = daemons.shelf(), daemons.shelf()
    here.get("k", None, lease=True)
    (name,) = [name for name in names(redis) if b":l:" in name]
    with redis.connect() as client:
        assert 0 < client.pttl(name) <= LEASE_S * 1000
        client.pexpire(name, 20)
    time.sleep(0.04)
    assert there.get("k", None, lease=True).asks == "self"


@pytest.mark.parametrize("garbage", ["forever", "list"])
def test_a_lease_that_nobody_of_us_made_holds_nobody_up(daemons: Daemons, redis: RedisServer, garbage: str) -> None:
    shelf = daemons.shelf()
    shelf.get("k", None, lease=True)
    (name,) = [name for name in names(redis) if b":l:" in name]
    with redis.connect() as client:
        client.delete(name)
        _ = client.set(name, "x") if garbage == "forever" else client.lpush(name, "x")
    assert shelf.get("k", None, lease=True).asks == "self"


def test_without_room_in_redis_nothing_is_kept_and_reading_goes_on(own: Daemons) -> None:
    shelf = own.shelf()
    put(shelf, "k", answer())
    with own.server.connect() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "100kb")
    assert not put(shelf, "other", answer(b"x" * 10_000))
    assert shelf.link.state == "up"
    assert found(shelf, "k") is not None


def test_a_redis_that_is_gone_is_noticed_quickly_and_then_nobody_waits(own: Daemons) -> None:
    shelf = own.shelf()
    put(shelf, "k", answer())
    own.server.sigstop()
    began = time.monotonic()
    for _ in range(50):
        with pytest.raises(SharedDown):
            shelf.get("k", None, lease=True)
    assert time.monotonic() - began < 0.9
    own.server.sigcont()


def test_what_was_to_be_forgotten_while_redis_was_away_is_never_found_again(own: Daemons) -> None:
    shelf = own.shelf()
    for key, group in (("a", "users"), ("b", "teams")):
        put(shelf, key, answer(group=group))
    own.server.sigstop()
    shelf.drop_group("users")
    own.server.sigcont()
    time.sleep(1.05)
    assert found(shelf, "a") is None
    assert found(shelf, "b") is not None


def test_of_too_much_to_be_forgotten_later_everything_is(own: Daemons) -> None:
    shelf = own.shelf()
    put(shelf, "a", answer(group="never named"))
    own.server.sigstop()
    for number in range(MAX_OWED + 1):
        shelf.drop_group(str(number))
    own.server.sigcont()
    time.sleep(1.05)
    assert found(shelf, "a") is None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abcd"), st.sampled_from(["", "g", "h"]), st.integers(0, 3000)),
        st.tuples(st.just("get"), st.sampled_from("abcd")),
        st.tuples(st.just("drop"), st.sampled_from(["g", "h"])),
        st.tuples(st.just("clear")),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_it_finds_what_a_shelf_in_memory_finds(daemons: Daemons, steps: list[tuple[Any, ...]]) -> None:
    daemons.server.flush()
    shelf, model = daemons.shelf(max_bytes=1 << 20, max_entry_bytes=2000), Shelf(1 << 20, max_entry_bytes=2000)
    # What an answer weighs beside its content is not the same in both, so no size lies between the two bounds.
    for number, (what, *args) in enumerate(steps):
        if what == "put":
            key, group, size = args
            kept = answer(bytes(size if abs(size - 1950) > 100 else 0), stamp=str(number), group=group)
            assert put(shelf, key, kept) == model.place(key, kept)
        elif what == "get":
            theirs, ours = found(shelf, args[0]), model.get(args[0], clock.now())
            assert (theirs and theirs.content) == (ours and ours.content)
        elif what == "drop":
            shelf.drop_group(args[0])
            model.drop_group(args[0])
        else:
            assert shelf.clear() == model.clear()
    daemons.close()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 2500)), max_size=30))
def test_its_bytes_stay_within_their_bound_and_add_up(
    daemons: Daemons, redis: RedisServer, sizes: list[tuple[str, int]]
) -> None:
    redis.flush()
    shelf = daemons.shelf(max_bytes=6000)
    for key, size in sizes:
        put(shelf, key, answer(bytes(size), group="g"))
    with redis.connect() as client:
        kept = {name.removeprefix(PREFIX.encode() + b":e:") for name in client.keys("*:e:*")}
        meta = client.hgetall(PREFIX + ":meta")
        total = int(meta.pop(b"bytes", b"0"))
        assert total <= 6000
        assert total == sum(int(said.split()[0]) for said in meta.values())
        assert meta.keys() == kept == set(client.zrange(PREFIX + ":index", 0, -1))
        assert kept == client.smembers(next(iter(client.keys("*:g:*")), b"none"))
    daemons.close()


COURSE = st.lists(
    st.one_of(
        st.tuples(st.just("change")),
        st.tuples(st.just("read"), st.integers(0, 1), st.booleans()),
        st.tuples(st.just("arrive"), st.integers(0, 3)),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(course=COURSE)
def test_after_a_change_nobody_finds_what_was_before_it_however_late_it_came(
    daemons: Daemons, course: list[tuple[Any, ...]]
) -> None:
    """Two daemons read and change one thing; answers arrive at once, or late and in any order."""
    daemons.server.flush()
    both = [daemons.shelf(), daemons.shelf()]
    copies: list[Kept | None] = [None, None]
    version = 0
    on_their_way: list[tuple[int, int, float]] = []

    def arrive(who: int, seen: int, asked_at: float) -> None:
        now = clock.now()
        kept = answer(str(seen).encode(), stamp=f"{who}:{seen}:{now}", group="thing")
        if both[who].put("k", kept, now, now - asked_at):
            copies[who] = kept

    for number, (what, *args) in enumerate(course):
        if what == "change":
            version += 1
            both[number % 2].drop_group("thing")
            time.sleep(0.003)  # Redis counts milliseconds
        elif what == "read":
            who, at_once = args
            kept = both[who].get("k", copies[who], lease=False).kept
            copies[who] = kept
            if kept is not None:
                assert int(kept.content) == version
            elif at_once:
                arrive(who, version, clock.now())
            else:
                on_their_way.append((who, version, clock.now()))
                time.sleep(0.003)
        elif on_their_way:
            arrive(*on_their_way.pop(args[0] % len(on_their_way)))
    daemons.close()
