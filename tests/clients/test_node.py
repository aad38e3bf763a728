"""The Node.js client beyond what all clients share: streams, concurrency, reconnecting, CURVE."""

from __future__ import annotations

import json
import re
from pathlib import Path

import gevent
import pytest
import zmq

import regrow
from tests.clients.callers import NodeCaller
from tests.regrow.relay import Relay
from tests.support import node
from tests.support.daemon import Daemon
from tests.support.fixtures import StartDaemon
from tests.support.ports import free_port

TARGET = '[actors.conform]\nclass = "regrow.testing.conform:Target"\n'


def test_it_has_less_than_150_lines_and_its_package_is_pinned() -> None:
    assert len((node.CLIENT / "regrow.mjs").read_text().splitlines()) < 150
    package = json.loads((node.CLIENT / "package.json").read_text())
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in package["dependencies"].values())


def test_asks_on_one_connection_do_not_wait_for_each_other(node_client: NodeCaller) -> None:
    slow = node_client.start("ask", "conform", "wait", {"seconds": 0.3})
    assert node_client.call("ping")["hub_lag_ms"] >= 0
    assert not slow.ready()
    assert node_client.result(slow) == 0.3


def test_a_stream_comes_in_order_and_asks_for_more_while_it_is_read(node_client: NodeCaller) -> None:
    parts = node_client.call("stream", "conform", "count", {"to": 1000}, {"credit": 7})
    assert parts == list(range(1000))


def test_a_stream_that_is_left_early_is_cancelled(node_client: NodeCaller) -> None:
    assert node_client.call("stream", "conform", "count", {"to": 100_000}, {"take": 3, "credit": 5}) == [0, 1, 2]
    assert node_client.ask("conform", "echo", {"value": "still here"}) == "still here"


def test_the_error_of_a_stream_is_typed(node_client: NodeCaller) -> None:
    with pytest.raises(regrow.BadRequest):
        node_client.call("stream", "conform", "echo", {"value": 1}, {})


def test_a_daemon_that_is_not_there_is_said_in_time(node_works: None, tmp_path: Path) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    with NodeCaller(endpoint, tmp_path, connectTimeoutMs=100) as client:
        with pytest.raises(regrow.ConnectionFailed) as caught:
            client.ask("conform", "tick", {})
        assert caught.value.started == "no"


def test_it_finds_the_daemon_that_came_back(node_works: None, daemon: StartDaemon, tmp_path: Path) -> None:
    server = daemon(TARGET)
    with NodeCaller(server.endpoint, tmp_path) as client:
        assert client.ask("conform", "tick", {}) == 1
        first = client.call("welcome")["incarnation"]
        server.kill()
        server.start()
        assert client.ask("conform", "tick", {}) == 1
        assert client.call("welcome")["incarnation"] != first


def wait_for_arrival(running: Daemon) -> None:
    """Wait until the ask that a test began is in its actor: the daemon counts it."""
    for _ in range(500):
        text = running.get("/metrics").text
        found = re.search(r"^regrow_wire_requests_in_flight (\d+)", text, re.MULTILINE)
        if found and int(found[1]) == 1:
            return
        gevent.sleep(0.01)
    raise AssertionError("the ask did not arrive")


def test_a_broken_connection_leaves_started_unknown(node_works: None, running: Daemon, tmp_path: Path) -> None:
    with Relay(running.endpoint) as relay, NodeCaller(relay.endpoint, tmp_path) as client:
        asking = client.start("ask", "conform", "wait", {"seconds": 1.0}, {})
        wait_for_arrival(running)
        relay.cut()
        with pytest.raises(regrow.ConnectionFailed) as caught:
            client.result(asking)
        assert caught.value.started == "unknown"
        assert client.ask("conform", "echo", {"value": 1}) == 1


def test_what_came_before_the_connection_ended_is_still_read(
    node_works: None, daemon: StartDaemon, tmp_path: Path
) -> None:
    server = daemon(TARGET)
    with NodeCaller(server.endpoint, tmp_path) as client:
        asking = client.start("ask", "conform", "wait", {"seconds": 0.5}, {})
        wait_for_arrival(server)
        blocked = client.start("block", 3000)

        server.stop()  # after the answer was sent, which the drain waits for

        assert not blocked.ready(), "the daemon took too long to stop"
        assert client.result(asking) == 0.5


def test_a_broken_connection_with_an_idem_key_is_made_anew_and_the_answer_fetched(
    node_works: None, running: Daemon, tmp_path: Path
) -> None:
    with Relay(running.endpoint) as relay, NodeCaller(relay.endpoint, tmp_path) as client:
        asking = client.start("ask", "conform", "wait", {"seconds": 0.6}, {"idem": "once"})
        wait_for_arrival(running)
        relay.cut()
        assert client.result(asking) == 0.6


def test_it_speaks_curve(node_works: None, daemon: StartDaemon, tmp_path: Path) -> None:
    (server_public, server_secret), (public, secret) = zmq.curve_keypair(), zmq.curve_keypair()
    server = daemon(
        f"""{TARGET}
[gateway.curve]
secret_key_file = "server.key"
[[gateway.curve.clients]]
name = "node"
public_key = "{public.decode()}"
allow = ["conform.echo"]
""",
        files={"server.key": server_secret.decode()},
    )
    keys = {"serverKey": server_public.decode(), "publicKey": public.decode(), "secretKey": secret.decode()}
    with NodeCaller(server.endpoint, tmp_path, **keys) as client:
        assert client.ask("conform", "echo", {"value": 1}) == 1
        with pytest.raises(regrow.Forbidden):
            client.ask("conform", "tick", {})


def test_without_npm_nothing_is_installed_and_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")

    def run(command: object) -> bool:
        raise AssertionError(command)

    assert node.install_client(run) == "there is no node with npm on this machine"
    assert node.why_not() == "there is no node on this machine"
