from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

import regrow
from config.schema import Curve, CurveClient, TcpEndpoint
from config.schema import Gateway as GatewayConfig
from runtime.directory import Directory
from runtime.edge.gateway import BindFailed, GatewaySockets, Identity, counters
from runtime.edge.gateway.rights import Rights
from tests.edge.gateway.harness import Raw, Wire, curve_config, wire_on
from tests.edge.gateway.test_abuse import eventually

Keys = tuple[bytes, bytes, bytes]


@pytest.fixture
def guarded(state_dir: Path) -> Iterator[tuple[Wire, Keys]]:
    curve, keys = curve_config(state_dir, ["probe.add", "probe.refuse"])
    with wire_on(state_dir, curve=curve) as wire:
        yield wire, keys


def test_a_known_client_may_ask_what_it_is_allowed(guarded: tuple[Wire, Keys]) -> None:
    wire, keys = guarded
    with Raw(wire.tcp, keys=keys) as client:
        client.ask("add", {"a": 1})
        assert client.reply() == 2
        (peer,) = wire.sockets.peers()
        assert peer.key_name == "billing"


def test_a_known_client_that_asks_for_more_is_forbidden_whether_it_exists_or_not(guarded: tuple[Wire, Keys]) -> None:
    wire, keys = guarded
    with Raw(wire.tcp, keys=keys) as client:
        for to, method in [("probe", "echo"), ("absent", "add"), ("nobody", "add")]:
            client.ask(method, {}, to=to)
            assert client.error()["code"] == "forbidden"
    assert wire.actor.calls == 0


def test_describe_shows_only_what_is_allowed(guarded: tuple[Wire, Keys]) -> None:
    wire, keys = guarded
    with Raw(wire.tcp, keys=keys) as client:
        client.request("DESCRIBE")
        (actor,) = client.reply()["actors"]
        assert [method["name"] for method in actor["methods"]] == ["add", "refuse"]
        client.request("DESCRIBE", {"to": "absent"})
        error = client.error()
        assert error["code"] == "not_found"
        assert "absent" not in error["message"].replace("'absent'", "")


def test_a_stranger_hears_nothing_and_is_counted(guarded: tuple[Wire, Keys]) -> None:
    wire, (server, _public, _secret) = guarded
    before = counters.STRANGERS.value("unknown_key")
    with Raw(wire.tcp, keys=(server, *zmq.curve_keypair())) as stranger:
        stranger.request("PING")
        eventually(lambda: counters.STRANGERS.value("unknown_key") > before)
        assert stranger.is_silent()
    assert not wire.sockets.peers()


def test_a_client_without_curve_hears_nothing(guarded: tuple[Wire, Keys]) -> None:
    wire, _keys = guarded
    with Raw(wire.tcp) as stranger:
        stranger.request("PING")
        assert stranger.is_silent(0.2)
    assert not wire.sockets.peers()


def test_the_ipc_socket_stays_keyless_and_may_everything(guarded: tuple[Wire, Keys]) -> None:
    wire, _keys = guarded
    client = wire.client(endpoint=wire.ipc)
    client.ask("echo", {"value": 1})
    assert client.reply() == 1


def test_the_python_client_speaks_curve(guarded: tuple[Wire, Keys]) -> None:
    wire, (server, _public, secret) = guarded
    with regrow.connect(wire.tcp, server_key=server.decode(), secret_key=secret.decode()) as client:
        assert client.ask("probe", "add", a=1) == 2
        with pytest.raises(regrow.Forbidden):
            client.ask("probe", "echo")


def test_the_python_client_with_a_wrong_key_is_told_in_time(guarded: tuple[Wire, Keys]) -> None:
    wire, (server, _public, _secret) = guarded
    _public, other = zmq.curve_keypair()
    with (
        regrow.connect(wire.tcp, server_key=server.decode(), secret_key=other.decode(), connect_timeout=0.5) as client,
        pytest.raises((regrow.ConnectionFailed, regrow.Unauthorized)) as caught,
    ):
        client.ask("probe", "add", a=1)
    assert caught.value.started == "no"


def test_a_taken_over_routing_id_does_not_bring_the_rights_of_its_former_owner(state_dir: Path) -> None:
    curve, keys = curve_config(state_dir, ["probe"])
    public, secret = zmq.curve_keypair()
    curve = Curve(
        secret_key_file=curve.secret_key_file,
        clients=[*curve.clients, CurveClient(name="poor", public_key=public.decode(), allow=["absent"])],
    )
    with wire_on(state_dir, curve=curve) as wire:
        with Raw.made(routing_id=b"same", keys=keys) as rich:
            rich.connect(wire.tcp)
            rich.ask("add", {"a": 1})
            assert rich.reply() == 2
            wire.sockets._ports[1]._by_descriptor.clear()  # as if its end were not heard
            before = counters.DISCONNECTS.value()
        eventually(lambda: counters.DISCONNECTS.value() > before)
        with Raw.made(routing_id=b"same", keys=(keys[0], public, secret)) as poor:
            poor.connect(wire.tcp)
            poor.ask("add", {"a": 1})
            assert poor.error()["code"] == "forbidden"


def test_a_certificate_file_of_zeromq_is_read_as_well(state_dir: Path) -> None:
    curve, keys = curve_config(state_dir, ["*"])
    secret = curve.secret_key_file.read_text().strip()
    curve.secret_key_file.write_text(
        f'metadata\ncurve\n    public-key = "{keys[0].decode()}"\n    secret-key = "{secret}"\n'
    )
    with wire_on(state_dir, curve=curve) as wire, Raw(wire.tcp, keys=keys) as client:
        client.ask("add", {"a": 1})
        assert client.reply() == 2


@pytest.mark.parametrize("text", ["", "short", "x" * 41])
def test_a_file_that_holds_no_key_is_named(state_dir: Path, text: str) -> None:
    file = state_dir / "server.key"
    file.write_text(text)
    config = GatewayConfig(bind=[TcpEndpoint("tcp://127.0.0.1:0")], curve=Curve(secret_key_file=file))
    sockets = GatewaySockets(config, Directory(), Identity("x", "0", "i"))
    with pytest.raises(BindFailed, match=r"server.key holds no secret key"):
        sockets.open()


@pytest.mark.parametrize(
    ("allow", "target", "method", "may"),
    [
        ([], "github", "get_user", False),
        (["*"], "github", "get_user", True),
        (["github"], "github", "get_user", True),
        (["github.*"], "github", "get_user", True),
        (["github.*"], "github2", "get_user", False),
        (["github.get_user"], "github", "get_user", True),
        (["github.get_user"], "github", "get_users", False),
        (["github.get_user"], "gitlab", "get_user", False),
    ],
)
def test_rights_follow_the_allow_list(allow: list[str], target: str, method: str, may: bool) -> None:
    assert Rights(allow).may(target, method) is may


def second_client(curve: Curve, name: str, allow: list[str]) -> tuple[CurveClient, bytes, bytes]:
    public, secret = zmq.curve_keypair()
    return CurveClient(name=name, public_key=public.decode(), allow=allow), public, secret


def test_clients_may_be_replaced_while_it_runs_and_removed_ones_are_cut(state_dir: Path) -> None:
    curve, keys = curve_config(state_dir, ["probe"])
    added, public, secret = second_client(curve, "added", ["probe.add"])
    with wire_on(state_dir, curve=curve) as wire, Raw(wire.tcp, keys=keys) as removed:
        removed.ask("wait", id=b"waits")
        wire.actor.entered.wait()
        strangers = counters.STRANGERS.value("unknown_key")
        disconnects = counters.DISCONNECTS.value()
        new = Curve(secret_key_file=curve.secret_key_file, clients=[added])
        assert wire.sockets.replace_clients(new) == ["billing"]
        eventually(lambda: counters.DISCONNECTS.value() > disconnects)
        # the client's socket comes back by itself, and is a stranger now
        eventually(lambda: counters.STRANGERS.value("unknown_key") > strangers)
        assert wire.sockets.service.in_flight == 0
        wire.actor.gate.set()
        with Raw(wire.tcp, keys=(keys[0], public, secret)) as client:
            client.ask("add", {"a": 1})
            assert client.reply() == 2
        assert removed.is_silent()
        assert not {peer for peer in wire.sockets.peers() if peer.key_name == "billing"}


def test_a_client_that_stays_keeps_its_connection_and_gets_its_new_rights(guarded: tuple[Wire, Keys]) -> None:
    wire, keys = guarded
    with Raw(wire.tcp, keys=keys) as client:
        client.ask("echo", {"value": 1})
        assert client.error()["code"] == "forbidden"
        (peer,) = wire.sockets.peers()
        curve = wire.sockets.config.curve
        assert curve is not None
        renamed = CurveClient(name="renamed", public_key=curve.clients[0].public_key, allow=["probe.echo"])
        assert wire.sockets.replace_clients(Curve(secret_key_file=curve.secret_key_file, clients=[renamed])) == []
        client.ask("echo", {"value": 1})
        assert client.reply() == 1
        client.ask("add", {"a": 1})
        assert client.error()["code"] == "forbidden"
        assert wire.sockets.peers() == [peer]
        assert peer.key_name == "renamed"


def test_a_client_with_a_new_key_is_not_taken_for_the_old_one(guarded: tuple[Wire, Keys]) -> None:
    wire, keys = guarded
    curve = wire.sockets.config.curve
    assert curve is not None
    rotated, public, secret = second_client(curve, "billing", ["probe.add"])
    with Raw(wire.tcp, keys=keys) as old:
        old.ask("add", {"a": 1})
        assert old.reply() == 2
        config = Curve(secret_key_file=curve.secret_key_file, clients=[rotated])
        assert wire.sockets.replace_clients(config) == ["billing"]
        with Raw(wire.tcp, keys=(keys[0], public, secret)) as new:
            new.ask("add", {"a": 2})
            assert new.reply() == 3
            assert old.is_silent()
            assert len(wire.sockets.peers()) == 1


def test_a_connection_that_had_said_nothing_is_cut_at_its_first_word(guarded: tuple[Wire, Keys]) -> None:
    wire, keys = guarded
    curve = wire.sockets.config.curve
    assert curve is not None
    with Raw(wire.tcp, keys=keys) as quiet:
        quiet.request("PING")
        quiet.receive()
        wire.sockets._ports[1]._forget(wire.sockets.peers()[0])  # as if it had never said a word
        wire.sockets.replace_clients(Curve(secret_key_file=curve.secret_key_file, clients=[]))
        before = counters.DISCONNECTS.value()
        quiet.request("PING")
        eventually(lambda: counters.DISCONNECTS.value() > before)
        assert not wire.sockets.peers()


def test_without_curve_there_are_no_clients_to_replace(wire: Wire, state_dir: Path) -> None:
    with pytest.raises(ValueError, match="without curve"):
        wire.sockets.replace_clients(Curve(secret_key_file=state_dir / "x"))


def test_all_connections_with_one_key_are_one_client(state_dir: Path) -> None:
    curve, keys = curve_config(state_dir, ["probe.who"])
    with wire_on(state_dir, curve=curve) as wire:
        for _ in range(2):
            with Raw(wire.tcp, keys=keys) as client:
                client.ask("who")
                assert client.reply() == "key billing"
