"""Ports: who holds one, and errors that name it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from runtime.edge import ports
from runtime.edge.ports import BindFailed, PortTaken, holder_of, is_loopback, listen
from tests.support.ports import free_port

LISTEN = """
import socket, sys
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
sys.stdin.read()
"""


def test_the_holder_of_a_port_is_another_process_by_pid_and_program() -> None:
    port = free_port()
    command = [sys.executable, "-c", LISTEN, str(port), "--password=hunter2", "postgresql://u:secret@h/db"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"listening\n"
        holder = holder_of(port)
        with pytest.raises(PortTaken) as caught:
            listen("127.0.0.1", port, who="gateway", key="gateway.bind")
        child.stdin.close()
    assert holder is not None
    assert holder.pid == child.pid
    assert holder.command.startswith("python")
    assert "hunter2" not in str(holder)
    assert "secret" not in str(holder)
    assert str(caught.value) == f"gateway: 127.0.0.1:{port} is taken by {holder}, stop it or change gateway.bind"


def test_a_free_port_has_no_holder() -> None:
    assert holder_of(free_port()) is None


def test_a_port_held_over_ipv6_is_found() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with listener:
        holder = holder_of(listener.getsockname()[1])
    assert holder is not None
    assert holder.pid == os.getpid()


def test_a_holder_that_cannot_be_found_is_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "holder_of", lambda _port: None)
    with listen("127.0.0.1", 0, who="http", key="http.bind") as listener, pytest.raises(PortTaken) as caught:
        listen("127.0.0.1", listener.getsockname()[1], who="http", key="http.bind")
    assert "is taken by another process" in str(caught.value)
    assert caught.value.holder is None


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_not_of_this_machine_is_told(host: str) -> None:
    with pytest.raises(BindFailed, match=rf"^http: cannot listen on {host}:5758: .*, change http.bind$") as caught:
        listen(host, 5758, who="http", key="http.bind")
    assert not isinstance(caught.value, PortTaken)


def test_port_zero_gives_a_port_that_accepts() -> None:
    with listen("127.0.0.1", 0, who="http", key="http.bind") as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            accepted, _ = listener.accept()
            accepted.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", "localhost"])
def test_loopback_addresses(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1", "example.org", "fe80::1%eth0", ""])
def test_addresses_beyond_loopback(address: str) -> None:
    assert not is_loopback(address)
