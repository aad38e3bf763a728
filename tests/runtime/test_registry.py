"""Registries: keys of any kind, gone with their owner."""

from __future__ import annotations

from typing import Any

import pytest

from regrow.protocol.errors import Unavailable
from runtime.actor import Actor
from runtime.ref import Ref
from runtime.registry import AlreadyRegistered, Registry
from runtime.signals import Down, monitor


def _tell_value(entry: tuple[Ref, Any]) -> None:
    entry[0].tell(entry[1])


class Member(Actor):
    def __init__(self) -> None:
        super().__init__()
        self.got: list[Any] = []

    def on_receive(self, message: Any) -> Any:
        if callable(message):
            return message(self)
        self.got.append(message)
        return None


def test_a_unique_key_has_one_owner_and_names_it_to_the_second() -> None:
    registry = Registry()
    first, second = Member.start(), Member.start()
    registry.register(("user", 7), "v", owner=first)
    with pytest.raises(AlreadyRegistered) as caught:
        registry.register(("user", 7), owner=second)
    assert caught.value.holder is first
    assert registry.lookup(("user", 7)) == [(first, "v")]
    first.stop(), second.stop()


def test_an_actor_registers_itself() -> None:
    registry = Registry()
    ref: Ref = Member.start()
    ref.ask(lambda actor: registry.register("me", 1))
    assert registry.lookup("me") == [(ref, 1)]
    assert ref.ask(lambda actor: registry.keys()) == ["me"]
    ref.stop()


def test_outside_of_actors_an_owner_must_be_named() -> None:
    with pytest.raises(TypeError, match="outside of an actor"):
        Registry().register("key")


def test_entries_vanish_before_any_monitor_hears_of_the_owners_death() -> None:
    registry = Registry()
    ref: Ref = Member.start()
    seen: list[Any] = []

    def on_down(_down: Down) -> None:
        seen.append(registry.lookup("key"))

    monitor(ref, on_down)  # before the registry's own monitor, so it is told first
    registry.register("key", owner=ref)
    ref.kill()
    assert seen == [[]]
    assert len(registry) == 0


def test_a_freed_key_can_be_taken_again() -> None:
    registry = Registry()
    first, second = Member.start(), Member.start()
    registry.register("key", owner=first)
    first.kill()
    registry.register("key", owner=second)
    assert registry.lookup("key") == [(second, None)]
    registry.unregister("key", owner=second)
    assert registry.whereis("key") is None
    second.stop()


def test_a_dead_actor_cannot_be_registered() -> None:
    ref: Ref = Member.start()
    ref.stop()
    with pytest.raises(Unavailable):
        Registry().register("key", owner=ref)


def test_members_of_a_group_all_get_what_is_told_to_it() -> None:
    registry = Registry("duplicate")
    members = [Member.start() for _ in range(3)]
    for index, member in enumerate(members):
        registry.register("topic", index, owner=member)
    assert registry.dispatch("topic", lambda entries: list(map(_tell_value, entries))) == 3
    assert registry.tell_all("topic", "all") == 3
    assert [member.ask(lambda actor: actor.got) for member in members] == [[0, "all"], [1, "all"], [2, "all"]]
    assert registry.dispatch("nobody", lambda entries: pytest.fail("called without members")) == 0
    for member in members:
        member.stop()
    assert len(registry) == 0


def test_a_value_is_replaced_by_its_owner() -> None:
    registry = Registry()
    ref: Ref = Member.start()
    registry.register("key", 1, owner=ref)
    assert registry.update_value("key", lambda value: value + 1, owner=ref) == 2
    assert registry.lookup("key") == [(ref, 2)]
    ref.stop()
    with pytest.raises(KeyError):
        registry.update_value("key", lambda value: value, owner=ref)


def test_a_via_address_finds_the_owner_anew_for_each_message() -> None:
    registry = Registry()
    via = registry.via("key")
    with pytest.raises(Unavailable):
        via.tell("lost")
    for _ in range(2):
        ref = Member.start()
        registry.register("key", owner=ref)
        via.tell("hello")
        assert via.ask(lambda actor: actor.got) == ["hello"]
        ref.kill()


def test_a_listener_hears_of_each_change() -> None:
    heard: list[Any] = []
    registry = Registry(listener=lambda what, key, _ref, value: heard.append((what, key, value)))
    ref: Ref = Member.start()
    registry.register("key", 1, owner=ref)
    ref.kill()
    assert heard == [("registered", "key", 1), ("unregistered", "key", 1)]
