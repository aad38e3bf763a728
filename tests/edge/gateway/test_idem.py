from __future__ import annotations

import msgspec
import pytest

from regrow.protocol.errors import Conflict, Overloaded
from runtime.edge.gateway.memory import IdemMemory, Key, digest
from runtime.edge.gateway.outcome import Outcome
from tests.edge.gateway.harness import Wire
from tests.edge.gateway.test_abuse import eventually

KEY: Key = ("", "probe", "add", "k")
REPLY = Outcome("REPLY", {}, b"12345")


def test_repeating_an_ask_gives_the_stored_answer_and_no_second_call(wire: Wire) -> None:
    client = wire.client()
    for _ in range(3):
        client.ask("add", {"a": 1}, idem="k")
        assert client.reply() == 2
    assert wire.actor.calls == 1


def test_another_connection_gets_the_stored_answer(wire: Wire) -> None:
    first, second = wire.client(), wire.client()
    first.ask("add", {"a": 1}, idem="k")
    first.reply()
    second.ask("add", {"a": 1}, idem="k")
    assert second.reply() == 2
    assert wire.actor.calls == 1


def test_the_work_of_a_vanished_client_goes_on_and_its_answer_waits(wire: Wire) -> None:
    first = wire.client()
    first.ask("wait", idem="k")
    wire.actor.entered.wait()
    first.close()
    eventually(lambda: not wire.sockets.peers())
    second = wire.client()
    second.ask("wait", idem="k")
    second.request("PING")
    assert second.receive().op == "PONG"
    wire.actor.gate.set()
    assert second.reply() == "waited"
    assert wire.actor.calls == 1


def test_a_repetition_joins_the_work_under_way(wire: Wire) -> None:
    first, second = wire.client(), wire.client()
    first.ask("wait", idem="k")
    wire.actor.entered.wait()
    second.ask("wait", idem="k")
    second.request("PING")
    second.receive()
    wire.actor.gate.set()
    assert [first.reply(), second.reply()] == ["waited", "waited"]
    assert wire.actor.calls == 1


def test_a_joined_ask_has_a_deadline_of_its_own(wire: Wire) -> None:
    first, second = wire.client(), wire.client()
    first.ask("wait", idem="k")
    wire.actor.entered.wait()
    second.ask("wait", idem="k", deadline_ms=30)
    error = second.error()
    assert (error["code"], error["started"]) == ("deadline_exceeded", "yes")
    wire.actor.gate.set()
    assert first.reply() == "waited"
    assert second.is_silent()


def test_cancelling_one_of_two_leaves_the_work_to_the_other(wire: Wire) -> None:
    first, second = wire.client(), wire.client()
    first.ask("wait", idem="k")
    wire.actor.entered.wait()
    joined = second.ask("wait", idem="k")
    second.request("CANCEL", id=joined)
    assert second.error()["code"] == "cancelled"
    wire.actor.gate.set()
    assert first.reply() == "waited"


def test_cancelling_the_only_one_cancels_the_work(wire: Wire) -> None:
    client = wire.client()
    asked = client.ask("wait", idem="k")
    wire.actor.entered.wait()
    client.request("CANCEL", id=asked)
    error = client.error()
    assert (error["code"], error["started"]) == ("cancelled", "yes")


def test_the_same_key_with_another_body_is_a_conflict(wire: Wire) -> None:
    client = wire.client()
    client.ask("add", {"a": 1}, idem="k")
    client.reply()
    client.ask("add", {"a": 2}, idem="k")
    assert client.error()["code"] == "conflict"


def test_the_same_key_for_another_method_is_another_key(wire: Wire) -> None:
    client = wire.client()
    client.ask("add", {"a": 1}, idem="k")
    client.ask("echo", {"value": 7}, idem="k")
    assert [client.reply(), client.reply()] == [2, 7]


def test_a_failure_that_started_is_remembered(wire: Wire) -> None:
    client = wire.client()
    client.ask("crash", idem="k")
    first = client.error()
    wire.start_probe()
    client.ask("crash", idem="k")
    assert client.error() == first
    assert wire.probe.is_alive()


def test_what_never_started_is_not_remembered(wire: Wire) -> None:
    client = wire.client()
    wire.probe.kill()
    client.ask("add", {"a": 1}, idem="k")
    assert client.error()["code"] == "unavailable"
    wire.start_probe()
    client.ask("add", {"a": 1}, idem="k")
    assert client.reply() == 2


def test_an_answer_from_memory_carries_the_id_of_the_repetition(wire: Wire) -> None:
    client = wire.client()
    client.ask("add", {"a": 1}, idem="k")
    client.reply()
    asked = client.ask("add", {"a": 1}, idem="k")
    answer = client.receive()
    assert (answer.id, msgspec.json.decode(answer.body or b"")) == (asked, 2)


def remember(memory: IdemMemory, key: Key) -> None:
    memory.begin(key, b"d").settle(REPLY)


def test_the_memory_is_bounded_in_number_and_the_oldest_goes_first() -> None:
    memory = IdemMemory(max_keys=2)
    for name in "abc":
        remember(memory, ("", "probe", "add", name))
    assert [memory.find(("", "probe", "add", name), b"d") is not None for name in "abc"] == [False, True, True]


def test_the_memory_is_bounded_in_bytes() -> None:
    memory = IdemMemory(max_bytes=12)
    for name in "abc":
        remember(memory, ("", "probe", "add", name))
    assert len(memory) == 2


def test_the_memory_is_bounded_in_time() -> None:
    memory = IdemMemory(kept_s=0.0)
    remember(memory, KEY)
    assert memory.find(KEY, b"d") is None
    remember(memory, KEY)
    memory.expire()
    assert len(memory) == 0


def test_keys_under_way_are_bounded_too() -> None:
    memory = IdemMemory(max_keys=1)
    memory.begin(KEY, b"d")
    with pytest.raises(Overloaded):
        memory.begin(("", "probe", "add", "other"), b"d")


def test_a_body_is_told_apart_by_its_bytes_and_codec() -> None:
    memory = IdemMemory()
    memory.begin(KEY, digest("json", b"1"))
    with pytest.raises(Conflict):
        memory.find(KEY, digest("msgpack", b"1"))
    assert memory.find(KEY, digest("json", b"1")) is not None
