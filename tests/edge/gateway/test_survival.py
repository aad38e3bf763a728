from __future__ import annotations

import stat
from pathlib import Path

import gevent
import msgspec
import pytest

from config.schema import Gateway as GatewayConfig
from config.schema import TcpEndpoint
from runtime import events
from runtime.directory import Directory
from runtime.edge.gateway import BindFailed, Drain, GatewaySockets, Identity, ipc_endpoint
from tests.edge.gateway.harness import PATIENCE_S, Wire, wire_on
from tests.edge.gateway.test_abuse import eventually


def test_an_ask_in_flight_is_answered_although_the_gateway_was_killed(wire: Wire) -> None:
    client = wire.client()
    client.ask("wait")
    wire.actor.entered.wait()
    wire.gateway.kill()
    wire.actor.gate.set()
    assert client.reply() == "waited"


def test_what_clients_send_while_there_is_no_gateway_is_read_by_the_next_one(wire: Wire) -> None:
    client = wire.client()
    client.request("PING")
    client.receive()
    wire.gateway.kill()
    client.ask("add", {"a": 1})
    assert client.is_silent()
    wire.start_gateway()
    assert client.reply() == 2


def test_connections_outlive_an_orderly_restart_of_the_gateway(wire: Wire) -> None:
    client = wire.client()
    client.ask("add", {"a": 1})
    client.reply()
    wire.gateway.stop()
    wire.start_gateway()
    client.ask("add", {"a": 2})
    assert client.reply() == 3


def test_a_drain_refuses_new_work_says_bye_and_waits_for_what_is_in_flight(wire: Wire) -> None:
    client = wire.client()
    client.ask("wait")
    wire.actor.entered.wait()
    draining = gevent.spawn(wire.drain, PATIENCE_S)
    bye = client.receive()
    assert (bye.op, bye.id, bye.header) == ("BYE", b"", {"grace_ms": PATIENCE_S * 1000})
    client.ask("add", {"a": 1})
    error = client.error()
    assert (error["code"], error["started"], error["retryable"]) == ("draining", "no", True)
    client.request("PING")
    assert client.receive().op == "PONG"
    wire.actor.gate.set()
    assert client.reply() == "waited"
    assert draining.get() == 0


def test_a_drain_answers_what_is_left_with_cancelled_and_whether_it_started(wire: Wire) -> None:
    client = wire.client()
    client.ask("wait", id=b"in hand")
    wire.actor.entered.wait()
    client.ask("add", {"a": 1}, id=b"queued")
    client.request("PING")
    client.receive()
    assert wire.drain(0.03) == 2
    assert client.receive().op == "BYE"
    answers = {answer.id: msgspec.json.decode(answer.body or b"") for answer in (client.receive(), client.receive())}
    assert {ask: (body["code"], body["started"]) for ask, body in answers.items()} == {
        b"in hand": ("cancelled", "yes"),
        b"queued": ("cancelled", "no"),
    }


def test_a_drain_waits_for_told_messages(wire: Wire) -> None:
    client = wire.client()
    for method in ("wait", "count"):
        client.request("TELL", {"to": "probe", "method": method, "ack": True})
        assert client.receive().op == "ACK"
    wire.actor.entered.wait()
    draining = gevent.spawn(wire.drain, PATIENCE_S)
    assert client.receive().op == "BYE"
    assert not draining.ready()
    assert wire.sockets.status()["told"] == 2
    wire.actor.gate.set()
    assert draining.get() == 0
    assert wire.sockets.status()["told"] == 0


def test_a_drain_waits_for_idem_work_whose_asker_is_gone(wire: Wire) -> None:
    client = wire.client()
    client.ask("wait", idem="k")
    wire.actor.entered.wait()
    client.close()
    eventually(lambda: not wire.sockets.peers())
    other = wire.client()
    other.request("PING")
    other.receive()
    draining = gevent.spawn(wire.drain, PATIENCE_S)
    assert other.receive().op == "BYE"
    assert not draining.ready()
    wire.actor.gate.set()
    assert draining.get() == 0


def test_a_drain_does_not_wait_longer_than_its_limit_for_what_nobody_asked_back(wire: Wire) -> None:
    client = wire.client()
    client.ask("wait", idem="k")
    wire.actor.entered.wait()
    client.request("TELL", {"to": "probe", "method": "count", "ack": True})
    assert client.receive().op == "ACK"
    client.close()
    eventually(lambda: not wire.sockets.peers())
    assert wire.drain(0.03) == 2
    assert wire.sockets.service.memory.orphans == 0


def test_told_messages_that_die_with_their_actor_are_counted_and_hold_up_no_drain(wire: Wire) -> None:
    client = wire.client()
    lost: list[int] = []
    unsubscribe = events.subscribe(lambda event: lost.append(event.fields.get("count", 0)))
    try:
        for method in ("wait", "count", "count"):
            client.request("TELL", {"to": "probe", "method": method, "ack": True})
            client.receive()
        wire.actor.entered.wait()
        wire.probe.kill()
        assert 2 in lost
        assert wire.drain(PATIENCE_S) == 0
    finally:
        unsubscribe()


def test_a_drain_with_nothing_in_flight_ends_at_once(wire: Wire) -> None:
    assert wire.gateway.ask(Drain(60.0), timeout=PATIENCE_S) == 0


def test_a_port_that_is_taken_is_named(wire: Wire, state_dir: Path) -> None:
    config = GatewayConfig(bind=[TcpEndpoint(wire.tcp)])
    second = GatewaySockets(config, Directory(), Identity("second", "0", "i"), state_dir=state_dir / "b")
    with pytest.raises(BindFailed, match=f"{wire.tcp} cannot be bound: another process listens there") as caught:
        second.open()
    assert caught.value.taken
    assert second.endpoints == []


def test_a_state_dir_whose_path_is_too_long_is_named(state_dir: Path) -> None:
    sockets = GatewaySockets(GatewayConfig(), Directory(), Identity("x", "0", "i"), state_dir=state_dir / ("d" * 100))
    with pytest.raises(BindFailed, match="use a shorter state_dir"):
        sockets.open()


def test_the_ipc_socket_is_for_its_owner_only(wire: Wire, state_dir: Path) -> None:
    path = Path(ipc_endpoint(state_dir).removeprefix("ipc://"))
    assert wire.ipc == ipc_endpoint(state_dir)
    assert path.is_socket()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_closing_twice_and_opening_again_works(state_dir: Path) -> None:
    with wire_on(state_dir) as wire:
        wire.gateway.kill()
        wire.sockets.close()
        wire.sockets.close()
        wire.start_gateway()
        client = wire.client()
        client.ask("add", {"a": 1})
        assert client.reply() == 2


def test_the_gateway_tells_operators_what_it_holds(wire: Wire) -> None:
    client = wire.client()
    client.ask("wait")
    wire.actor.entered.wait()
    status = wire.gateway.actor.status()
    assert (status["clients"], status["in_flight"], status["draining"]) == (1, 1, False)
    assert msgspec.json.encode(status)
