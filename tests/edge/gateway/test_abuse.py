from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gevent
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime import clock
from runtime.edge.gateway import counters, port
from tests.edge.gateway.harness import PATIENCE_S, Raw, Wire, wire_on


def eventually(what: Callable[[], bool]) -> None:
    """Wait for something that ZeroMQ's I/O thread brings about and of which it tells nobody."""
    deadline = clock.now() + PATIENCE_S
    while not what():
        assert clock.now() < deadline, "it did not happen"
        gevent.sleep(0.005)


PIECES = st.binary(max_size=30) | st.sampled_from(
    [b"", b"RG1", b"ASK", b"TELL", b"CANCEL", b"1", b"{}", b'{"to":"probe","method":"add"}', b'{"a":1}', b"\xff"]
)


def test_any_garbage_is_answered_or_ignored_and_harms_nobody(wire: Wire) -> None:
    attacker, bystander = wire.client(), wire.client()

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(PIECES, min_size=1, max_size=8))
    def attack(frames: list[bytes]) -> None:
        attacker.send(*frames)
        bystander.ask("add", {"a": 1})
        assert bystander.reply() == 2

    attack()
    assert wire.gateway.is_alive()
    assert wire.sockets.service.in_flight == 0


def test_a_malformed_message_is_answered_with_its_id(wire: Wire) -> None:
    client = wire.client()
    client.send(b"RG1", b"NONSENSE", b"id-9", b"{}")
    answer = client.receive()
    assert (answer.op, answer.id) == ("ERROR", b"id-9")
    assert msgspec.json.decode(answer.body or b"")["code"] == "bad_request"


def test_a_message_above_the_limit_is_too_large_and_the_connection_lives(state_dir: Path) -> None:
    with wire_on(state_dir, max_message=2048) as wire:
        client = wire.client()
        client.ask("echo", {"value": "x" * 3000})
        error = client.error()
        assert (error["code"], error["started"]) == ("too_large", "no")
        client.ask("echo", {"value": "x"})
        assert client.reply() == "x"


def test_a_frame_above_twice_the_limit_ends_only_its_own_connection(state_dir: Path) -> None:
    with wire_on(state_dir, max_message=2048) as wire:
        attacker, bystander = wire.client(), wire.client()
        attacker.request("PING")
        attacker.receive()
        before = counters.DISCONNECTS.value()
        attacker.ask("echo", {"value": "x" * 10_000})
        eventually(lambda: counters.DISCONNECTS.value() > before)
        bystander.ask("echo", {"value": "x"})
        assert bystander.reply() == "x"


def test_a_result_above_the_limit_is_too_large_and_says_that_it_started(state_dir: Path) -> None:
    with wire_on(state_dir, max_message=2048) as wire:
        client = wire.client()
        client.ask("big", {"size": 5000})
        error = client.error()
        assert (error["code"], error["started"]) == ("too_large", "yes")


def test_one_clients_asks_in_flight_are_bounded_and_others_go_on(state_dir: Path) -> None:
    with wire_on(state_dir, max_in_flight_per_client=2) as wire:
        greedy, modest = wire.client(), wire.client()
        for _ in range(3):
            greedy.ask("wait")
        error = greedy.error()
        assert (error["code"], error["started"]) == ("overloaded", "no")
        modest.request("PING")
        assert modest.receive().op == "PONG"
        wire.actor.gate.set()
        assert [greedy.reply(), greedy.reply()] == ["waited", "waited"]
        greedy.ask("add", {"a": 1})
        assert greedy.reply() == 2


def test_clients_are_bounded_and_a_place_is_free_again_when_one_goes(state_dir: Path) -> None:
    with wire_on(state_dir, max_clients=1) as wire:
        first, second = wire.client(), wire.client()
        first.request("PING")
        first.receive()
        second.request("PING")
        assert second.error()["code"] == "overloaded"
        first.close()
        eventually(lambda: not wire.sockets.peers())
        second.request("PING")
        assert second.receive().op == "PONG"


def test_the_ipc_socket_still_takes_the_command_line_when_all_places_are_taken(state_dir: Path) -> None:
    with wire_on(state_dir, max_clients=1) as wire:
        remote, local = wire.client(), wire.client(endpoint=wire.ipc)
        remote.request("PING")
        remote.receive()
        local.request("PING")
        assert local.receive().op == "PONG"


def test_a_client_that_vanishes_is_forgotten_and_its_ask_cancelled(wire: Wire) -> None:
    client = wire.client()
    client.ask("wait")
    wire.actor.entered.wait()
    before = counters.UNDELIVERED.value("gone")
    client.close()
    eventually(lambda: not wire.sockets.peers())
    assert wire.sockets.service.in_flight == 0
    assert counters.UNDELIVERED.value("gone") == before + 1
    wire.actor.gate.set()
    other = wire.client()
    other.ask("count")
    assert other.reply() == 1


def test_a_client_that_does_not_read_costs_bounded_memory_and_gets_each_answer_in_the_end(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port, "PIPE_MESSAGES", 2)
    with wire_on(state_dir, max_in_flight_per_client=40) as wire:
        lazy, bystander = Raw.made(rcvhwm=2), wire.client()
        try:
            lazy.connect(wire.tcp)
            size = 256 * 1024
            before = counters.ANSWERS.value("REPLY") + counters.ANSWERS.value("ERROR")
            asked = [lazy.ask("big", {"size": size}) for _ in range(40)]
            eventually(lambda: counters.ANSWERS.value("REPLY") + counters.ANSWERS.value("ERROR") == before + 40)
            (peer,) = wire.sockets.peers()
            assert peer.outbox
            assert peer.outbox_bytes <= 17 * 1024 * 1024
            bystander.request("PING")
            assert bystander.receive().op == "PONG"
            answered = [lazy.receive() for _ in asked]
            assert sorted(answer.id for answer in answered) == sorted(asked)
            assert {answer.op for answer in answered} <= {"REPLY", "ERROR"}
            assert not peer.outbox
            assert peer.outbox_bytes == 0
        finally:
            lazy.close()


def test_how_many_bytes_of_answers_wait_for_one_client_is_configured(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port, "PIPE_MESSAGES", 2)
    with wire_on(state_dir, max_message=64 * 1024, max_outbox_per_client=256 * 1024) as wire:
        lazy = Raw.made(rcvhwm=1, rcvbuf=4096)
        try:
            lazy.connect(wire.tcp)
            before = counters.ANSWERS.value("REPLY") + counters.ANSWERS.value("ERROR")
            asked = [lazy.ask("big", {"size": 60_000}) for _ in range(200)]
            eventually(lambda: counters.ANSWERS.value("REPLY") + counters.ANSWERS.value("ERROR") == before + 200)
            (peer,) = wire.sockets.peers()
            # what is over is answered with an error of a few hundred bytes
            assert 128 * 1024 < peer.outbox_bytes <= 256 * 1024 + 200 * 500
            answers = [lazy.receive() for _ in asked]
            assert {answer.op for answer in answers} == {"REPLY", "ERROR"}
            assert len({answer.id for answer in answers}) == 200
        finally:
            lazy.close()


def test_refusals_to_a_client_that_does_not_read_are_bounded_and_counted(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port, "PIPE_MESSAGES", 2)
    with wire_on(state_dir, max_in_flight_per_client=5) as wire:
        lazy = Raw.made(rcvhwm=1, rcvbuf=1024)
        try:
            lazy.connect(wire.tcp)
            before = counters.UNDELIVERED.value("slow_client")
            asks = 0
            while counters.UNDELIVERED.value("slow_client") == before:
                lazy.ask("nope" * 50)
                asks += 1
                gevent.sleep(0)
                assert asks < 100_000
            (peer,) = wire.sockets.peers()
            assert len(peer.outbox) <= 5 + 100
        finally:
            lazy.close()


def test_a_flood_by_one_client_does_not_starve_another(wire: Wire) -> None:
    flooder, victim = wire.client(), wire.client()
    stop = gevent.event.Event()

    def flood() -> None:
        while not stop.is_set():
            flooder.request("TELL", {"to": "probe", "method": "count"})
            gevent.sleep(0)

    flooding = gevent.spawn(flood)
    try:
        for _ in range(50):
            victim.request("PING")
            assert victim.receive().op == "PONG"
    finally:
        stop.set()
        flooding.join()


def test_a_batch_is_bounded_so_that_the_hub_gets_its_turn(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "BATCH", 3)
    client = wire.client()
    wire.sockets.pause()
    for _ in range(20):
        client.request("PING")
    turns: list[None] = []
    handled: list[int] = []
    wire.sockets._ports[1]._on_message = lambda peer, message: handled.append(len(turns))
    wire.sockets.read_for(wire.gateway)
    while len(handled) < 20:
        turns.append(None)
        gevent.sleep(0)
    assert max(handled.count(turn) for turn in handled) <= 3


def test_an_envelope_of_a_device_comes_back_with_the_answer(wire: Wire) -> None:
    client = wire.client()
    client.send(b"hop", b"", b"RG1", b"PING", b"1", b"{}")
    frames = client.receive_frames()
    assert frames[:5] == [b"hop", b"", b"RG1", b"PONG", b"1"]


def test_a_bug_in_the_service_is_answered_and_the_hub_lives(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("a bug with geheim in it")

    client = wire.client()
    monkeypatch.setattr(wire.directory, "find", broken)
    client.ask("add", {"a": 1})
    error = client.error()
    assert (error["code"], error["started"]) == ("actor_down", "unknown")
    assert "geheim" not in str(error)
    monkeypatch.undo()
    client.ask("add", {"a": 1})
    assert client.reply() == 2


def test_secrets_are_masked_in_errors(wire: Wire) -> None:
    from config.secret import Secret, forget_all

    Secret("sesame-open")
    try:
        client = wire.client()
        client.ask("sesame-open")
        assert "sesame-open" not in client.error()["message"]
    finally:
        forget_all()


def test_an_idle_client_that_waits_for_nothing_is_forgotten(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    client = wire.client()
    client.ask("wait")
    wire.actor.entered.wait()
    monkeypatch.setattr(port, "IDLE_PEER_S", -1.0)
    for one in wire.sockets._ports:
        one.forget_idle()
    assert len(wire.sockets.peers()) == 1
    wire.actor.gate.set()
    client.reply()
    for one in wire.sockets._ports:
        one.forget_idle()
    assert not wire.sockets.peers()
    client.request("PING")
    assert client.receive().op == "PONG"
