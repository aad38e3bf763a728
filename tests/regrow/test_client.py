from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

import regrow
from regrow.protocol import exchange
from regrow.protocol.exchange import Welcome
from tests.edge.gateway.harness import INCARNATION, PATIENCE_S, Wire, wire_on
from tests.edge.gateway.test_abuse import eventually
from tests.regrow.relay import Relay
from tests.support.ports import free_port


@pytest.fixture
def client(wire: Wire) -> Iterator[regrow.Client]:
    with regrow.connect(wire.tcp) as client:
        yield client


@pytest.fixture
def relay(wire: Wire) -> Iterator[Relay]:
    with Relay(wire.tcp) as relay:
        yield relay


def test_an_ask_returns_the_value(client: regrow.Client) -> None:
    assert client.ask("probe", "add", {"a": 1, "b": 2}) == 3
    assert client.ask("probe", "add", a=1) == 2
    assert client.ask("probe", "add", {"a": 1}, b=5) == 6


def test_an_argument_given_twice_is_the_callers_mistake(client: regrow.Client) -> None:
    with pytest.raises(TypeError, match="given twice: a"):
        client.ask("probe", "add", {"a": 1}, a=2)


def test_arguments_may_be_named_as_ours_when_they_come_in_a_mapping(client: regrow.Client) -> None:
    with pytest.raises(regrow.InvalidArguments):
        client.ask("probe", "add", {"timeout": 1, "a": 1})


def test_the_ipc_endpoint_works_the_same(wire: Wire) -> None:
    with regrow.connect(wire.ipc) as client:
        assert client.ask("probe", "add", a=1) == 2


def test_the_endpoint_comes_from_the_environment(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGROW_ENDPOINT", wire.tcp)
    with regrow.connect() as client:
        assert client.ask("probe", "add", a=1) == 2


def test_without_any_endpoint_it_is_the_default_port_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REGROW_ENDPOINT", raising=False)
    with regrow.connect() as client:
        assert client.endpoint == "tcp://127.0.0.1:5757"


def test_the_whole_reply_has_the_header_of_the_target(client: regrow.Client) -> None:
    reply = client.request("probe", "with_header")
    assert (reply.value, reply.header) == ({"login": "ada"}, {"status": 200})


def test_msgpack_carries_bytes_and_nan(client: regrow.Client) -> None:
    value = client.ask("probe", "echo", value=[b"\xff", math.inf], codec="msgpack")
    assert value == [b"\xff", math.inf]


def test_raw_gives_bytes(client: regrow.Client) -> None:
    assert client.ask("probe", "blob", codec="raw") == b"\x00\x01"


def test_errors_are_rebuilt_with_everything_they_carry(wire: Wire, client: regrow.Client) -> None:
    with pytest.raises(regrow.RateLimited, match="no token within 1 s") as caught:
        client.ask("probe", "refuse")
    error = caught.value
    assert (error.started, error.retryable, error.retry_after_s, error.actor) == ("no", True, 1.5, "probe")
    assert error.details == {"limit": 5}
    assert error.incarnation == str(wire.probe.serial)


@pytest.mark.parametrize(
    ("target", "method", "kind"),
    [
        ("nobody", "add", regrow.NotFound),
        ("probe", "add", regrow.InvalidArguments),
        ("absent", "add", regrow.InvalidArguments),
        ("absent", "count", regrow.Unavailable),
        ("probe", "crash", regrow.ActorDown),
        ("probe", "nan", regrow.ExecutionError),
    ],
)
def test_each_failure_is_its_own_class(client: regrow.Client, target: str, method: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        client.ask(target, method)


def test_arguments_that_cannot_be_sent_are_refused_here(client: regrow.Client) -> None:
    with pytest.raises(regrow.InvalidArguments, match="nan or infinity"):
        client.ask("probe", "echo", value=math.nan)


def test_a_message_that_the_daemon_would_refuse_is_refused_here(state_dir: Path) -> None:
    with wire_on(state_dir, max_message=2048) as wire, regrow.connect(wire.tcp) as client:
        with pytest.raises(regrow.TooLarge, match="at most 2048") as caught:
            client.ask("probe", "echo", value="x" * 10_000)
        assert caught.value.started == "no"
        assert client.ask("probe", "echo", value="x") == "x"


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf])
def test_a_timeout_that_is_none_is_the_callers_mistake(client: regrow.Client, timeout: float) -> None:
    with pytest.raises(ValueError, match="expected seconds above 0"):
        client.ask("probe", "count", timeout=timeout)


def test_tell_returns_once_the_message_is_in_the_mailbox(wire: Wire, client: regrow.Client) -> None:
    client.tell("probe", "add", a=1)
    assert client.ask("probe", "count") == 1


def test_tell_raises_what_kept_the_message_out(client: regrow.Client) -> None:
    with pytest.raises(regrow.NotFound):
        client.tell("probe", "nope")


def test_tell_without_ack_raises_nothing_and_survives_an_early_close(wire: Wire) -> None:
    with regrow.connect(wire.tcp) as client:
        client.tell("probe", "nope", ack=False)
        client.tell("probe", "wait", ack=False)
    assert wire.actor.entered.wait(PATIENCE_S)
    wire.actor.gate.set()


def test_describe_ping_and_welcome(client: regrow.Client) -> None:
    assert [actor["name"] for actor in client.describe()["actors"]] == ["probe", "absent"]
    assert [actor["name"] for actor in client.describe("probe")["actors"]] == ["probe"]
    assert client.ping()["incarnation"] == INCARNATION
    welcome = client.welcome()
    assert (welcome.server, welcome.http, welcome.max_message_bytes) == ("orders", "http://127.0.0.1:5758", 8 << 20)


def test_the_deadline_travels_to_the_daemon(client: regrow.Client) -> None:
    with pytest.raises(regrow.DeadlineExceeded) as caught:
        client.ask("probe", "wait", timeout=0.03)
    assert caught.value.started == "yes"


def test_the_clients_own_timeout_is_the_default(wire: Wire) -> None:
    with regrow.connect(wire.tcp, timeout=0.03) as client, pytest.raises(regrow.DeadlineExceeded):
        client.ask("probe", "wait")


def test_nobody_there_is_said_in_time_and_never_started() -> None:
    with regrow.connect(f"tcp://127.0.0.1:{free_port()}", connect_timeout=0.5) as client:
        began = time.monotonic()
        with pytest.raises(regrow.ConnectionFailed, match="cannot reach a daemon at tcp") as caught:
            client.ask("probe", "count")
        assert caught.value.started == "no"
        assert time.monotonic() - began < 1.0


def test_an_endpoint_that_is_none_is_said_at_the_first_request() -> None:
    with regrow.connect("nonsense") as client, pytest.raises(regrow.ConnectionFailed, match="nonsense"):
        client.ping()


def test_a_peer_that_speaks_something_else_is_said(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "hello", lambda _name: exchange.PING)
    with regrow.connect(wire.tcp) as client, pytest.raises(regrow.BadRequest, match="does not speak RG1"):
        client.ping()


def test_a_daemon_that_does_not_answer_is_given_up(wire: Wire, client: regrow.Client, monkeypatch: Any) -> None:
    monkeypatch.setattr(exchange, "GRACE_S", 0.05)
    client.ping()
    wire.sockets.pause()
    with pytest.raises(regrow.DeadlineExceeded) as caught:
        client.ask("probe", "add", a=1, timeout=0.03)
    assert caught.value.started == "unknown"


def test_a_late_answer_is_not_taken_for_the_next_one(wire: Wire, client: regrow.Client, monkeypatch: Any) -> None:
    monkeypatch.setattr(exchange, "GRACE_S", 0.05)
    client.ping()
    wire.sockets.pause()
    with pytest.raises(regrow.DeadlineExceeded):
        client.ask("probe", "echo", value="late", timeout=0.03)
    wire.sockets.read_for(wire.gateway)
    assert client.ask("probe", "echo", value="next") == "next"


def test_a_daemon_that_goes_away_ends_the_request_at_once_with_started_unknown(
    wire: Wire, client: regrow.Client
) -> None:
    asking = gevent.spawn(client.ask, "probe", "wait", timeout=60)
    wire.actor.entered.wait()
    wire.sockets.close()
    with pytest.raises(regrow.ConnectionFailed) as caught:
        asking.get(timeout=PATIENCE_S)
    assert caught.value.started == "unknown"


def test_the_next_request_finds_the_daemon_that_came_back(state_dir: Path) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    with regrow.connect(endpoint) as client:
        for _ in range(2):
            with wire_on(state_dir, endpoint=endpoint):
                assert client.ask("probe", "add", a=1) == 2


def test_a_broken_connection_without_idem_key_leaves_started_unknown(wire: Wire, relay: Relay) -> None:
    with regrow.connect(relay.endpoint) as client:
        asking = gevent.spawn(client.ask, "probe", "wait")
        wire.actor.entered.wait()
        relay.cut()
        with pytest.raises(regrow.ConnectionFailed) as caught:
            asking.get(timeout=PATIENCE_S)
        assert caught.value.started == "unknown"
        wire.actor.gate.set()
        assert client.ask("probe", "add", a=1) == 2


def test_a_broken_connection_with_an_idem_key_is_made_anew_and_the_answer_fetched(wire: Wire, relay: Relay) -> None:
    with regrow.connect(relay.endpoint) as client:
        asking = gevent.spawn(client.ask, "probe", "wait", idem="k")
        wire.actor.entered.wait()
        relay.cut()
        wire.actor.gate.set()
        assert asking.get(timeout=PATIENCE_S) == "waited"
        assert wire.actor.calls == 1


def test_an_idem_key_is_not_repeated_to_another_incarnation(wire: Wire, relay: Relay, monkeypatch: Any) -> None:
    with regrow.connect(relay.endpoint) as client:
        asking = gevent.spawn(client.ask, "probe", "wait", idem="k")
        wire.actor.entered.wait()
        real = Welcome.of
        monkeypatch.setattr(Welcome, "of", lambda answer: Welcome(incarnation="another", limits=real(answer).limits))
        relay.cut()
        with pytest.raises(regrow.ConnectionFailed) as caught:
            asking.get(timeout=PATIENCE_S)
        assert caught.value.started == "unknown"
        assert wire.actor.calls == 1


def test_an_idem_key_whose_daemon_stays_away_leaves_started_unknown(wire: Wire, relay: Relay) -> None:
    with regrow.connect(relay.endpoint, connect_timeout=0.5) as client:
        asking = gevent.spawn(client.ask, "probe", "wait", idem="k")
        wire.actor.entered.wait()
        relay.accepting = False
        relay.cut()
        with pytest.raises(regrow.ConnectionFailed) as caught:
            asking.get(timeout=PATIENCE_S)
        assert caught.value.started == "unknown"


def test_requests_of_several_threads_are_under_way_at_once(wire: Wire, client: regrow.Client) -> None:
    waiting = gevent.spawn(client.ask, "probe", "wait")
    wire.actor.entered.wait()
    assert client.ping()["incarnation"] == INCARNATION
    wire.actor.gate.set()
    assert waiting.get(timeout=PATIENCE_S) == "waited"


def test_connections_are_bounded_and_reused(wire: Wire) -> None:
    with regrow.connect(wire.tcp, max_connections=2, connect_timeout=0.5) as client:
        asked = [gevent.spawn(client.ask, "probe", "add", a=n) for n in range(20)]
        assert [one.get(timeout=PATIENCE_S) for one in asked] == [n + 1 for n in range(20)]
        assert len(wire.sockets.peers()) <= 2


def test_no_free_connection_in_time_is_overloaded(wire: Wire) -> None:
    with regrow.connect(wire.tcp, max_connections=1, connect_timeout=0.05) as client:
        waiting = gevent.spawn(client.ask, "probe", "wait")
        wire.actor.entered.wait()
        with pytest.raises(regrow.Overloaded, match="all 1 connections"):
            client.ping()
        wire.actor.gate.set()
        assert waiting.get(timeout=PATIENCE_S) == "waited"


def test_a_caller_that_is_killed_leaves_a_client_that_works(wire: Wire, client: regrow.Client) -> None:
    waiting = gevent.spawn(client.ask, "probe", "wait")
    wire.actor.entered.wait()
    waiting.kill()
    wire.actor.gate.set()
    assert client.ask("probe", "add", a=1) == 2


def test_a_closed_client_says_so(wire: Wire) -> None:
    client = regrow.connect(wire.tcp)
    client.ping()
    client.close()
    client.close()
    with pytest.raises(regrow.ConnectionFailed, match="this client is closed") as caught:
        client.ping()
    assert caught.value.started == "no"


def test_closing_during_a_request_ends_with_that_request(wire: Wire) -> None:
    client = regrow.connect(wire.tcp)
    waiting = gevent.spawn(client.ask, "probe", "wait")
    wire.actor.entered.wait()
    client.close()
    wire.actor.gate.set()
    assert waiting.get(timeout=PATIENCE_S) == "waited"
    assert "closed" in repr(client)


@pytest.mark.parametrize(
    "keys", [{"server_key": "x" * 40}, {"secret_key": "x" * 40}, {"server_key": "x", "secret_key": "y"}]
)
def test_half_a_pair_of_keys_is_the_callers_mistake(keys: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="CURVE"):
        regrow.connect("tcp://127.0.0.1:1", **keys)  # type: ignore[arg-type]


def test_a_client_shows_no_key(wire: Wire) -> None:
    import zmq

    _public, secret = zmq.curve_keypair()
    client = regrow.connect(wire.tcp, server_key=secret.decode(), secret_key=secret.decode())
    assert secret.decode() not in repr(client)
    client.close()


def test_a_stream_is_an_iterator_of_its_parts(client: regrow.Client) -> None:
    assert list(client.stream("probe", "numbers", to=500, credit=10)) == list(range(500))
    assert list(client.stream("probe", "numbers", to=0)) == []
    assert client.ask("probe", "add", a=1) == 2


def test_a_stream_is_made_no_faster_than_it_is_read(wire: Wire, client: regrow.Client) -> None:
    with client.stream("probe", "numbers", to=1000, credit=4) as parts:
        assert next(parts) == 0
        eventually(lambda: wire.actor.made == 4)
        assert [next(parts) for _ in range(3)] == [1, 2, 3]
        assert wire.actor.made <= 8


def test_leaving_a_stream_early_closes_it_there_and_frees_its_connection(wire: Wire) -> None:
    with regrow.connect(wire.tcp, max_connections=1) as client:
        with client.stream("probe", "numbers", to=1000, credit=4) as parts:
            assert next(parts) == 0
        assert wire.actor.closed.wait(PATIENCE_S)
        assert client.ask("probe", "add", a=1) == 2
        assert list(parts) == []


def test_a_stream_that_nobody_begins_costs_nothing(wire: Wire, client: regrow.Client) -> None:
    parts = client.stream("probe", "numbers", to=3)
    parts.close()
    assert list(parts) == []
    assert not wire.sockets.peers()


def test_a_stream_that_was_dropped_without_closing_is_closed(wire: Wire, client: regrow.Client) -> None:
    for part in client.stream("probe", "numbers", to=1000, credit=4):
        assert part == 0
        break
    gc.collect()
    assert wire.actor.closed.wait(PATIENCE_S)


def test_what_ends_a_stream_early_is_raised_after_the_parts_before(client: regrow.Client) -> None:
    found: list[int] = []
    with pytest.raises(regrow.RateLimited):
        found.extend(client.stream("probe", "broken", after=0, how="refuse"))
    with pytest.raises(regrow.ActorDown):
        found.extend(client.stream("probe", "broken", after=0, how="crash"))
    assert found == []


def test_a_stream_of_a_daemon_that_goes_away_ends_with_started_unknown(wire: Wire, client: regrow.Client) -> None:
    parts = client.stream("probe", "numbers", to=1000, credit=1)
    assert next(parts) == 0
    wire.sockets.close()
    with pytest.raises(regrow.ConnectionFailed) as caught:
        list(parts)
    assert caught.value.started == "unknown"


def test_what_came_before_the_connection_ended_is_still_read(wire: Wire, client: regrow.Client) -> None:
    parts = client.stream("probe", "numbers", to=50, credit=60)
    assert next(parts) == 0
    wire.drain(PATIENCE_S)
    wire.sockets.close()
    connection: Any = parts._connection
    assert connection._monitor.poll(PATIENCE_S * 1000), "the end of the connection was not told"

    assert list(parts) == list(range(1, 50))


def test_a_stream_whose_daemon_went_away_gives_what_came_before_it_fails(wire: Wire, client: regrow.Client) -> None:
    parts = client.stream("probe", "numbers", to=1000, credit=20)
    assert next(parts) == 0
    eventually(lambda: wire.actor.made >= 20)
    wire.drain(0.1)  # the whole credit was sent, and nothing follows
    wire.sockets.close()
    connection: Any = parts._connection
    assert connection._monitor.poll(PATIENCE_S * 1000), "the end of the connection was not told"

    assert [next(parts) for _ in range(19)] == list(range(1, 20))
    with pytest.raises(regrow.RegrowError):
        next(parts)


def test_nothing_waits_for_a_daemon_that_was_not_there(state_dir: Path) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    with regrow.connect(endpoint, connect_timeout=0.1) as client:
        for _ in range(3):
            with pytest.raises(regrow.ConnectionFailed) as caught:
                client.tell("probe", "add", a=1, ack=False)
            assert caught.value.started == "no"
        with wire_on(state_dir, endpoint=endpoint) as wire:
            eventually(lambda: _asked(client))
            assert wire.actor.calls == 1


def _asked(client: regrow.Client) -> bool:
    try:
        client.ask("probe", "add", a=1)
    except regrow.ConnectionFailed:
        return False
    return True


def test_the_timeout_bounds_the_whole_stream(client: regrow.Client) -> None:
    with pytest.raises(regrow.DeadlineExceeded):
        list(client.stream("probe", "broken", after=1, how="wait", timeout=0.05))


@pytest.mark.parametrize("credit", [0, -1, 10**9])
def test_a_credit_that_is_none_is_the_callers_mistake(client: regrow.Client, credit: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to"):
        client.stream("probe", "numbers", to=1, credit=credit)
