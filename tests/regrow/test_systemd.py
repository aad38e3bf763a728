"""What systemd is told: by the functions, and by a daemon that it might have started."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from regrow import systemd
from tests.support.fixtures import StartDaemon


@pytest.fixture
def listener() -> Iterator[tuple[socket.socket, str]]:
    with (
        tempfile.TemporaryDirectory(prefix="rg") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard,
    ):
        address = str(Path(folder) / "notify")
        heard.bind(address)
        heard.settimeout(10.0)
        yield heard, address


def test_without_systemd_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert systemd.notify("READY=1") is False


def test_states_go_as_one_datagram(listener: tuple[socket.socket, str], monkeypatch: pytest.MonkeyPatch) -> None:
    heard, address = listener
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert systemd.notify("READY=1", "STATUS=serving") is True
    assert heard.recv(1000) == b"READY=1\nSTATUS=serving"


def test_an_abstract_address_works(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0regrow-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@regrow-test-{os.getpid()}")
        assert systemd.notify("READY=1") is True
        heard.settimeout(5.0)
        assert heard.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all"])
def test_an_address_that_does_not_work_is_no_error(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert systemd.notify("READY=1") is False


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [("4000000", None, 2.0), ("4000000", "self", 2.0), ("4000000", "1", None), ("", None, None), ("x", None, None)],
)
def test_the_watchdog_is_pinged_at_half_its_time(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str | None, expected: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "self" else pid)
    assert systemd.watchdog_s() == expected


def test_a_daemon_tells_ready_watchdog_and_stopping(daemon: StartDaemon, listener: tuple[socket.socket, str]) -> None:
    heard, address = listener
    served = daemon("", env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"})
    assert heard.recv(1000).startswith(b"READY=1\n")
    assert [heard.recv(1000) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    served.send_signal(signal.SIGTERM)
    with gevent.Timeout(10.0):
        while True:
            told = heard.recv(1000)
            if told != b"WATCHDOG=1":
                break
    assert told.startswith(b"STOPPING=1\nEXTEND_TIMEOUT_USEC=")
    assert served.wait() == 0


def test_sigusr1_shows_the_tree_and_the_stacks_and_serving_goes_on(daemon: StartDaemon) -> None:
    served = daemon("")
    seen = served.process.lines_written
    served.send_signal(signal.SIGUSR1)
    served.process.wait_for_line(r"^root \(one_for_one\)", after_line=seen)
    served.process.wait_for_line("Greenlets", after_line=seen)
    assert served.get("/livez").status_code == 200


def test_serving_goes_on_after_sighup(daemon: StartDaemon) -> None:
    served = daemon("")
    served.send_signal(signal.SIGHUP)
    served.wait_for_log('"event":"daemon.reload')
    assert served.get("/livez").status_code == 200
