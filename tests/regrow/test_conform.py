"""The conformance test passes a daemon of ours and a small server of another make, and catches each broken rule."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from regrow import conform
from regrow.protocol.exits import EX_FAILED, EX_OK, EX_UNREACHABLE, EX_USAGE
from tests.support.daemon import Daemon
from tests.support.fixtures import StartDaemon
from tests.support.ports import free_port

PROJECT = Path(__file__).parents[2]
TARGET = '[actors.conform]\nclass = "regrow.testing.conform:Target"\n'
#: what the server does wrong, and the check that must notice
BREAKS = {
    "changes ids": "ids",
    "drops envelopes": "envelope",
    "mixes up connections": "ids-of-others",
    "ignores bad messages": "bad-messages",
    "loses the ids of bad messages": "bad-messages",
    "takes bad bodies for none": "bad-bodies",
    "runs duplicates": "duplicate-id",
    "does not mark duplicates": "duplicate-id",
    "tells no limits": "hello",
    "changes its incarnation": "ping",
    "answers twice": "ask",
    "loses answers": "one-answer",
    "answers out of order": "one-answer",
    "calls anything": "unknown-target",
    "does not say what started": "unknown-target",
    "retries what cannot change": "unknown-target",
    "takes any arguments": "arguments",
    "knows no deadlines": "deadline",
    "answers again after the deadline": "deadline",
    "acknowledges every tell": "tell",
    "cannot cancel": "cancel",
    "answers every cancel": "cancel",
    "forgets idem keys": "idem",
    "takes any body for an idem key": "idem",
    "does not join": "idem-joins",
    "describes no arguments": "describe",
    "answers msgpack with json": "msgpack",
    "counts parts from one": "stream",
    "counts parts wrongly": "stream",
    "does not care for stream": "stream-refused",
    "sends without credit": "credit",
    "does not number": "sub",
    "ends what was not begun": "sub",
    "takes any topic": "sub-refused",
    "repeats events": "sub-since",
    "invents losses": "sub-since",
    "takes any number of subscriptions": "sub-room",
    "leaves tells of REQ sockets": "req",
    "has no limit of size": "too-large",
    "takes any size": "far-too-large",
    "takes any number": "in-flight",
}


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    command = [sys.executable, "-m", "tests.regrow.plain_server", "", *BREAKS]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.communicate()
    assert process.returncode == 0


def check(endpoint: str, *names: str, patience_s: float = 1.0) -> list[conform.Result]:
    server = conform.Server(endpoint, patience_s=patience_s)
    try:
        return list(conform.run(server, names))
    finally:
        server.close()


def test_another_servers_implementation_passes(servers: dict[str, str]) -> None:
    assert [str(result) for result in check(servers[""], patience_s=5.0) if result.outcome != "ok"] == []


@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_rule_is_caught_and_named(servers: dict[str, str], broken: str) -> None:
    (result,) = check(servers[broken], BREAKS[broken])
    assert result.outcome == "FAIL", result
    assert f"(PROTOCOL.md {result.rule})" in str(result)


def test_every_check_but_the_simplest_has_a_break_that_it_catches() -> None:
    assert set(conform.CHECKS) - set(BREAKS.values()) == {"frames", "stream-cancel"}


@pytest.fixture(scope="module")
def running() -> Iterator[Daemon]:
    made = Daemon(TARGET)
    made.start()
    yield made
    made.close()


def test_the_daemon_passes_every_check(running: Daemon) -> None:
    done = running.run("conform", running.endpoint, "--json", timeout_s=60)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result for result in results if result["outcome"] != "ok"] == []
    assert [result["check"] for result in results] == list(conform.CHECKS)
    assert (done.returncode, done.stderr) == (EX_OK, "")


def test_a_daemon_without_a_known_target_is_tested_as_far_as_that_goes(daemon: StartDaemon) -> None:
    made = daemon()
    done = made.run("conform", made.endpoint, timeout_s=60)
    assert done.returncode == EX_OK, done.stdout
    assert "no method plays the role echo, name one: --target echo=ACTOR.METHOD" in done.stdout
    assert "ok      bad-messages" in done.stdout


def test_a_role_may_be_played_by_a_method_of_any_name(running: Daemon) -> None:
    done = running.run("conform", running.endpoint, "--target", "echo=conform.tick", "--check", "ask")
    assert done.returncode == EX_FAILED
    assert done.stdout.startswith("FAIL    ask: ")


def keypair_with_a_dash() -> tuple[bytes, bytes]:
    """A pair whose public key looks like an option on a command line."""
    while True:
        public, secret = zmq.curve_keypair()
        if public.startswith(b"-"):
            return public, secret


def test_a_curve_socket_is_tested_with_a_key(daemon: StartDaemon, tmp_path: Path) -> None:
    (server_public, server_secret), (public, secret) = keypair_with_a_dash(), zmq.curve_keypair()
    key = tmp_path / "own.key"
    key.write_text(secret.decode())
    made = daemon(
        f'{TARGET}[gateway.curve]\nsecret_key_file = "server.key"\n[[gateway.curve.clients]]\nname = "tester"\n'
        f'public_key = "{public.decode()}"\nallow = ["conform"]\n',
        files={"server.key": server_secret.decode()},
    )
    keys = ("--server-key", server_public.decode(), "--key-file", str(key))
    only = [word for name in ("hello", "ask", "describe") for word in ("--check", name)]
    assert made.run("conform", made.endpoint, *keys, *only).stdout.endswith("3 ok, 0 failed, 0 skipped\n")
    assert made.run("conform", made.endpoint, "--patience", "0.3").returncode == EX_UNREACHABLE


def test_nobody_there_is_said(running: Daemon) -> None:
    done = running.run("conform", f"tcp://127.0.0.1:{free_port()}", "--patience", "0.2")
    assert done.returncode == EX_UNREACHABLE
    assert "cannot reach a server at tcp://" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--check", "nonsense"],
        ["--target", "conform"],
        ["--target", "dance=conform.echo"],
        ["--server-key", "x" * 40],
        ["--server-key", "short", "--key-file", "own.key"],
        ["--patience", "0"],
    ],
)
def test_wrong_words_are_usage(running: Daemon, words: list[str]) -> None:
    assert running.run("conform", running.endpoint, *words).returncode == EX_USAGE


def test_the_list_names_each_check_with_its_rule(running: Daemon) -> None:
    listed = running.run("conform", running.endpoint, "--list").stdout.splitlines()
    assert [line.split() for line in listed] == [[name, rule] for name, (rule, _check) in conform.CHECKS.items()]
