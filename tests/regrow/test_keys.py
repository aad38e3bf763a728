"""Key pairs: files that only their owner reads, never overwritten, and text to paste that works."""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path

import gevent
import pytest
import zmq

import regrow
from regrow import cli, keys
from regrow.protocol.exits import EX_FAILED, EX_OK, EX_USAGE
from tests.edge.gateway.harness import Raw
from tests.support.daemon import Daemon
from tests.support.fixtures import StartDaemon

TARGET = '[actors.conform]\nclass = "regrow.testing.conform:Target"\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def secret_of(path: Path) -> str:
    return path.read_text().strip()


def test_the_secret_key_is_in_a_file_that_only_its_owner_reads(folder: Path) -> None:
    before = os.umask(0)
    try:
        assert cli.main(["keys", "server"]) == EX_OK
    finally:
        os.umask(before)
    file = folder / "server.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert keys.KEY.fullmatch(secret_of(file))


def test_no_secret_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["keys", "billing"])
    cli.main(["keys", "billing", "--json"])
    shown = capsys.readouterr()
    assert secret_of(folder / "billing.key") not in shown.out + shown.err


def test_the_public_key_belongs_to_the_secret_one_and_the_text_is_toml(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["keys", "server"])
    cli.main(["keys", "billing"])
    curve = tomllib.loads(capsys.readouterr().out)["gateway"]["curve"]
    assert curve["secret_key_file"] == "server.key"
    (client,) = curve["clients"]
    assert (client["name"], client["allow"]) == ("billing", [])
    assert client["public_key"] == zmq.curve_public(secret_of(folder / "billing.key").encode()).decode()


def test_a_file_that_is_there_is_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["keys", "billing", "--json"])
    cli.main(["keys", "billing", "--json"])
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["made"], second["made"]) == (True, False)
    assert first["public_key"] == second["public_key"]


def test_a_file_that_others_may_read_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["keys", "billing"])
    (folder / "billing.key").chmod(0o644)
    assert cli.main(["keys", "billing"]) == EX_OK
    assert "chmod 600 billing.key" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 40, b"x" * 41, b"~" * 40])
def test_a_file_that_holds_something_else_is_neither_used_nor_overwritten(folder: Path, content: bytes) -> None:
    file = folder / "billing.key"
    file.write_bytes(content)
    assert cli.main(["keys", "billing"]) == EX_FAILED
    assert file.read_bytes() == content


def test_a_folder_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["keys", "server", "--file", "nowhere/server.key"]) == EX_FAILED
    assert "nowhere/server.key cannot be made: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["Billing", "a b", "../x", ""])
def test_a_name_that_is_none_is_usage(folder: Path, name: str) -> None:
    assert cli.main(["keys", name]) == EX_USAGE
    assert list(folder.iterdir()) == []


@pytest.fixture
def guarded(folder: Path, daemon: StartDaemon, capsys: pytest.CaptureFixture[str]) -> Daemon:
    """A daemon configured by what was printed, with a right for the client."""
    for whose in ("server", "billing"):
        assert cli.main(["keys", whose]) == EX_OK
    printed = capsys.readouterr().out.replace("allow = []", 'allow = ["conform.echo"]')
    return daemon(TARGET + printed, files={"server.key": (folder / "server.key").read_text()})


def metric(made: Daemon, line: str) -> float:
    found = re.search(rf"^{re.escape(line)} (\S+)$", made.get("/metrics").text, re.MULTILINE)
    assert found, line
    return float(found[1])


def eventually(what: Callable[[], bool]) -> None:
    """Wait for what ZeroMQ's I/O thread in another process brings about."""
    for _ in range(300):
        if what():
            return
        gevent.sleep(0.02)
    raise AssertionError("it did not happen")


def test_what_was_printed_makes_a_daemon_that_knows_this_client_and_no_other(guarded: Daemon, folder: Path) -> None:
    server_key = keys.read(folder / "server.key").public
    with regrow.connect(
        guarded.endpoint, server_key=server_key, secret_key=secret_of(folder / "billing.key")
    ) as client:
        assert client.ask("conform", "echo", value=1) == 1
        with pytest.raises(regrow.Forbidden):
            client.ask("conform", "tick")
    assert metric(guarded, 'regrow_wire_refused_total{reason="forbidden"}') == 1

    strangers = 'regrow_wire_strangers_total{reason="unknown_key"}'
    assert metric(guarded, strangers) == 0
    with Raw(guarded.endpoint, keys=(server_key.encode(), *zmq.curve_keypair())) as stranger:
        stranger.request("PING")
        eventually(lambda: metric(guarded, strangers) > 0)
        assert stranger.is_silent()
    with Raw(guarded.endpoint) as stranger:
        stranger.request("PING")
        assert stranger.is_silent(0.3)
    assert metric(guarded, "regrow_wire_clients") <= 1


def test_the_log_tells_of_strangers_and_forbidden_without_any_key(guarded: Daemon, folder: Path) -> None:
    server_key = keys.read(folder / "server.key").public
    secret = secret_of(folder / "billing.key")
    with regrow.connect(guarded.endpoint, server_key=server_key, secret_key=secret) as client:
        with pytest.raises(regrow.Forbidden):
            client.ask("conform", "tick")
        with Raw(guarded.endpoint, keys=(server_key.encode(), *zmq.curve_keypair())) as stranger:
            stranger.request("PING")
            guarded.wait_for_log("wire.stranger_refused")
        guarded.wait_for_log("wire.access_denied")
    for known in (secret, secret_of(folder / "server.key")):
        assert known not in guarded.log
