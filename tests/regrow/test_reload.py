"""SIGHUP: client keys are taken over, everything else is told, and systemd hears of both ends."""

from __future__ import annotations

import json
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

import regrow
from config.load import Config
from regrow.daemon import load_config
from regrow.reload import client_changes, new_clients, taken_over, waiting_for_restart
from tests.support.fixtures import StartDaemon

SERVER_PUBLIC, SERVER_SECRET = zmq.curve_keypair()
PUBLIC, SECRET = zmq.curve_keypair()
OTHER_PUBLIC, OTHER_SECRET = zmq.curve_keypair()


def client(name: str, key: bytes, allow: str = "*") -> str:
    return f"""
[[gateway.curve.clients]]
name = "{name}"
public_key = "{key.decode()}"
allow = ["{allow}"]
"""


CURVE = """
[gateway.curve]
secret_key_file = "server.key"
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rg") as name:
        for file in ("server.key", "other.key"):
            (Path(name) / file).write_text(SERVER_SECRET.decode())
        yield Path(name)


def loaded(folder: Path, text: str) -> Config:
    file = folder / "regrow.toml"
    file.write_text(text)
    return load_config(file)


def test_only_client_keys_are_taken_over(folder: Path) -> None:
    old = loaded(folder, CURVE + client("billing", PUBLIC))
    new = loaded(folder, '[daemon]\nname = "other"\n' + CURVE + client("orders", OTHER_PUBLIC))
    curve = new_clients(old, new)
    assert curve is not None
    assert waiting_for_restart(old, new) == ["daemon.name"]
    assert client_changes(old, new) == {
        "clients_added": ["orders"],
        "clients_removed": ["billing"],
        "clients_changed": [],
    }
    assert waiting_for_restart(taken_over(old, curve), new) == ["daemon.name"]
    assert new_clients(taken_over(old, curve), new) is None


def test_a_client_with_another_key_or_list_has_changed(folder: Path) -> None:
    old = loaded(folder, CURVE + client("billing", PUBLIC))
    new = loaded(folder, CURVE + client("billing", PUBLIC, "github"))
    assert client_changes(old, new)["clients_changed"] == ["billing"]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("", "", []),
        ("", CURVE, ["gateway.curve"]),
        (CURVE, "", ["gateway.curve"]),
        (CURVE, CURVE.replace("server.key", "other.key"), ["gateway.curve.secret_key_file"]),
        ('[http]\nread_token = "one-secret"', '[http]\nread_token = "two-secret"', ["http (a secret)"]),
        ("", '[gateway]\nmax_clients = 5\n[daemon]\nname = "x"', ["daemon.name", "gateway.max_clients"]),
    ],
)
def test_everything_else_is_told_by_its_key_and_never_by_its_value(
    folder: Path, before: str, after: str, told: list[str]
) -> None:
    old, new = loaded(folder, before), loaded(folder, after)
    assert waiting_for_restart(old, new) == told
    assert new_clients(old, new) is None


@pytest.mark.slow
def test_sighup_takes_over_client_keys_and_tells_systemd(daemon: StartDaemon, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(folder / "notify"))
        heard.settimeout(10.0)
        running = daemon(
            CURVE + client("billing", PUBLIC),
            env={"NOTIFY_SOCKET": str(folder / "notify")},
            files={"server.key": SERVER_SECRET.decode()},
        )
        assert heard.recv(1000).startswith(b"READY=1")
        key = SERVER_PUBLIC.decode()
        with regrow.connect(
            running.endpoint, server_key=key, secret_key=SECRET.decode(), connect_timeout=0.5
        ) as billing:
            billing.ping()
            text = running.config.read_text()
            changed = text.replace(PUBLIC.decode(), OTHER_PUBLIC.decode()).replace('"billing"', '"orders"')
            running.config.write_text(changed + '\n[daemon]\nname = "renamed"\n')
            running.send_signal(signal.SIGHUP)
            first, second = heard.recv(1000).decode().splitlines()
            assert first == "RELOADING=1"
            assert second.startswith("MONOTONIC_USEC=") and int(second.partition("=")[2]) > 0
            assert heard.recv(1000).startswith(b"READY=1\nSTATUS=serving")
            running.wait_for_log("daemon.name was changed, restart the daemon to apply it")
            with pytest.raises((regrow.ConnectionFailed, regrow.Unauthorized)):
                billing.ping()
        with regrow.connect(running.endpoint, server_key=key, secret_key=OTHER_SECRET.decode()) as orders:
            assert orders.welcome().server != "renamed"
        running.config.write_text("[nonsense")
        running.send_signal(signal.SIGHUP)
        assert heard.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert heard.recv(1000).startswith(b"READY=1")
        running.wait_for_log("nothing was changed, the file is wrong")
        running.config.write_text(changed)
        ipc = f"ipc://{running.state_dir}/ipc/gateway.sock"
        told = running.run("events", "daemon.reloaded", "--endpoint", ipc, "--since", "0", "--count", "1", "--json")
        assert json.loads(told.stdout.splitlines()[-1])["fields"] == {
            "clients_added": ["orders"],
            "clients_removed": ["billing"],
            "clients_changed": [],
            "connections_cut": 1,
            "restart_needed": ["daemon.name"],
        }
