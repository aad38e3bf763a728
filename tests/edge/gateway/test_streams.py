from __future__ import annotations

from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest
import zmq

from runtime.edge.gateway import port, streaming
from tests.edge.gateway.harness import Raw, Wire, wire_on
from tests.edge.gateway.test_abuse import eventually


def parts_of(client: Raw, count: int) -> list[Any]:
    found = []
    for _ in range(count):
        answer = client.receive()
        assert answer.op == "PART", (answer, answer.body)
        found.append(msgspec.json.decode(answer.body or b""))
    return found


def test_a_stream_comes_in_numbered_parts_and_ends(wire: Wire) -> None:
    client = wire.client()
    asked = client.ask("numbers", {"to": 3}, stream=True)
    answers = [client.receive() for _ in range(4)]
    assert [(answer.op, answer.header, answer.body) for answer in answers] == [
        ("PART", {"seq": 0}, b"0"),
        ("PART", {"seq": 1}, b"1"),
        ("PART", {"seq": 2}, b"2"),
        ("END", {"parts": 3}, None),
    ]
    assert {answer.id for answer in answers} == {asked}
    assert wire.sockets.service.in_flight == 0


def test_an_empty_stream_only_ends(wire: Wire) -> None:
    client = wire.client()
    client.ask("numbers", {"to": 0}, stream=True)
    assert (client.receive().op, client.is_silent()) == ("END", True)


def test_no_more_parts_are_made_than_the_client_gave_credit_for_and_the_actor_serves_others(wire: Wire) -> None:
    client = wire.client()
    asked = client.ask("numbers", {"to": 10}, stream=True, credit=4)
    assert parts_of(client, 4) == [0, 1, 2, 3]
    assert client.is_silent()
    assert wire.actor.made == 4
    client.ask("add", {"a": 1})
    assert client.reply() == 2
    client.request("CREDIT", {"n": 2}, id=asked)
    assert parts_of(client, 2) == [4, 5]
    client.request("CREDIT", {"n": 100}, id=asked)
    assert parts_of(client, 4) == [6, 7, 8, 9]
    assert client.receive().op == "END"


def test_without_credit_nothing_begins_to_be_made(wire: Wire) -> None:
    client = wire.client()
    asked = client.ask("numbers", {"to": 1}, stream=True, credit=0)
    assert client.is_silent()
    assert wire.actor.made == 0
    client.request("CREDIT", {"n": 1}, id=asked)
    assert parts_of(client, 1) == [0]


def test_a_long_stream_arrives_whole_and_in_order(wire: Wire) -> None:
    client = wire.client()
    client.ask("numbers", {"to": 5000}, stream=True, credit=100_000)
    assert parts_of(client, 5000) == list(range(5000))
    assert client.receive().header == {"parts": 5000}


def test_a_client_that_does_not_read_holds_up_its_own_stream_only(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port, "PIPE_MESSAGES", 2)
    with wire_on(state_dir) as wire:
        lazy, bystander = Raw.made(rcvhwm=2, rcvbuf=4096), wire.client()
        try:
            lazy.connect(wire.tcp)
            lazy.ask("pages", {"count": 400, "size": 100_000}, stream=True, credit=1000)
            eventually(lambda: any(peer.paused for peer in wire.sockets.peers()))
            made = wire.actor.made
            assert made < 400
            bystander.ask("add", {"a": 1})
            assert bystander.reply() == 2
            (peer,) = [peer for peer in wire.sockets.peers() if peer.paused]
            assert peer.outbox_bytes < 4 * 1024 * 1024
            assert len(parts_of(lazy, 400)) == 400
            assert lazy.receive().op == "END"
        finally:
            lazy.close()


def test_cancelling_a_stream_closes_the_generator_and_ends_it_once(wire: Wire) -> None:
    client = wire.client()
    asked = client.ask("numbers", {"to": 10}, stream=True, credit=2)
    parts_of(client, 2)
    client.request("CANCEL", id=asked)
    error = client.error()
    assert (error["code"], error["started"]) == ("cancelled", "yes")
    assert wire.actor.closed.wait(5)
    client.request("CREDIT", {"n": 5}, id=asked)
    assert client.is_silent()


def test_a_client_that_vanishes_closes_its_generator(wire: Wire) -> None:
    client = wire.client()
    client.ask("numbers", {"to": 10}, stream=True, credit=2)
    parts_of(client, 2)
    client.close()
    assert wire.actor.closed.wait(5)
    assert wire.sockets.service.in_flight == 0


def test_a_stream_whose_client_gives_no_credit_is_ended(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "IDLE_S", 0.03)
    client = wire.client()
    client.ask("numbers", {"to": 10}, stream=True, credit=1)
    parts_of(client, 1)
    error = client.error()
    assert error["code"] == "cancelled"
    assert "gave no credit" in error["message"]
    assert wire.actor.closed.wait(5)


@pytest.mark.parametrize(
    ("how", "code"), [("refuse", "rate_limited"), ("nan", "execution_error"), ("crash", "actor_down")]
)
def test_what_ends_a_stream_early_is_its_one_terminal_answer(wire: Wire, how: str, code: str) -> None:
    client = wire.client()
    client.ask("broken", {"after": 2, "how": how}, stream=True)
    answers = [client.receive()]
    while answers[-1].op == "PART":
        answers.append(client.receive())
    assert answers[-1].op == "ERROR"
    assert msgspec.json.decode(answers[-1].body or b"")["code"] == code
    assert client.is_silent()


def test_the_death_of_the_actor_ends_its_streams_at_once_and_each_exactly_once(wire: Wire) -> None:
    client = wire.client()
    asked = [client.ask("numbers", {"to": 10}, stream=True, credit=1) for _ in range(2)]
    parts_of(client, 2)
    wire.probe.kill()
    for _ in asked:
        error = client.error()
        assert (error["code"], error["started"], error["actor"]) == ("actor_down", "yes", "probe")
    for ask in asked:
        client.request("CREDIT", {"n": 1}, id=ask)
    assert client.is_silent()
    assert wire.sockets.service.in_flight == 0


def test_a_pull_that_waits_while_the_actor_crashes_ends_the_stream_with_actor_down(wire: Wire) -> None:
    client, other = wire.client(), wire.client()
    asked = client.ask("numbers", {"to": 10}, stream=True, credit=1)
    parts_of(client, 1)
    other.ask("wait")
    wire.actor.entered.wait()
    client.request("CREDIT", {"n": 5}, id=asked)
    client.request("PING")
    assert client.receive().op == "PONG"
    wire.probe.kill()
    assert client.error()["code"] == "actor_down"
    assert client.is_silent()


def test_the_crash_of_the_actor_names_its_record(wire: Wire) -> None:
    client, other = wire.client(), wire.client()
    client.ask("numbers", {"to": 10}, stream=True, credit=1)
    parts_of(client, 1)
    other.ask("crash")
    crash = other.error()["crash_id"]
    assert client.error()["crash_id"] == crash


def test_a_stream_that_is_over_watches_its_actor_no_more(wire: Wire) -> None:
    client = wire.client()
    client.ask("numbers", {"to": 1}, stream=True)
    parts_of(client, 1)
    assert client.receive().op == "END"
    assert not wire.probe.watchers


def test_a_large_stream_does_not_delay_the_answers_of_others(wire: Wire) -> None:
    reader, bystander = wire.client(), wire.client()
    size, count = 256 * 1024, 256
    read = gevent.spawn(_read_all, reader, size, count)
    lags = []
    while not read.ready():
        made = wire.actor.made
        bystander.request("PING")
        assert bystander.receive().op == "PONG"
        lags.append(wire.actor.made - made)
    assert read.get() == count
    # 64 MiB in all; a batch is about 1 MiB, and a PING waits for no more than a few of them
    assert len(lags) >= 10
    assert sorted(lags)[len(lags) // 2] <= 16


def _read_all(reader: Raw, size: int, count: int) -> int:
    asked = reader.ask("pages", {"count": count, "size": size}, stream=True, credit=16)
    read = 0
    while (answer := reader.receive()).op == "PART":
        read += 1
        assert len(answer.body or b"") == size + 2
        if read % 8 == 0:
            reader.request("CREDIT", {"n": 8}, id=asked)
    assert answer.op == "END"
    return read


def test_the_deadline_ends_a_stream_in_the_middle_of_a_pull(wire: Wire) -> None:
    client = wire.client()
    client.ask("broken", {"after": 0, "how": "wait"}, stream=True, deadline_ms=50)
    error = client.error()
    assert (error["code"], error["started"]) == ("deadline_exceeded", "yes")
    wire.actor.gate.set()


def test_a_drain_ends_the_streams_that_are_left(wire: Wire) -> None:
    client = wire.client()
    client.ask("numbers", {"to": 10}, stream=True, credit=1)
    parts_of(client, 1)
    draining = gevent.spawn(wire.drain, 0.03)
    assert client.receive().op == "BYE"
    assert client.error()["code"] == "cancelled"
    assert draining.get() == 1


@pytest.mark.parametrize(
    ("method", "body", "header"),
    [
        ("add", {"a": 1}, {"stream": True}),
        ("numbers", {"to": 1}, {}),
        ("numbers", {"to": 1}, {"stream": True, "idem": "k"}),
    ],
)
def test_streams_and_asks_are_not_confused(wire: Wire, method: str, body: Any, header: dict[str, Any]) -> None:
    client = wire.client()
    client.ask(method, body, **header)
    assert client.error()["code"] == "bad_request"


def test_a_stream_cannot_be_told_nor_read_by_a_req_socket(wire: Wire) -> None:
    client = wire.client()
    client.request("TELL", {"to": "probe", "method": "numbers", "ack": True}, {"to": 1})
    assert client.error()["code"] == "bad_request"
    req = wire.client(zmq.REQ)
    req.ask("numbers", {"to": 1}, stream=True)
    assert "DEALER" in req.error()["message"]


def test_credit_without_a_number_is_refused_and_credit_for_nothing_is_ignored(wire: Wire) -> None:
    client = wire.client()
    client.request("CREDIT")
    assert client.error()["code"] == "bad_request"
    client.request("CREDIT", {"n": 5}, id=b"nothing")
    client.request("PING")
    assert client.receive().op == "PONG"


def test_parts_have_the_codec_of_the_ask(wire: Wire) -> None:
    client = wire.client()
    client.ask("numbers", msgspec.msgpack.encode({"to": 1}), stream=True, codec="msgpack")
    answer = client.receive()
    assert (answer.header, answer.body) == ({"seq": 0, "codec": "msgpack"}, b"\x00")
    assert client.receive().op == "END"
