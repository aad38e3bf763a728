"""Bad requests and failing handlers: each is answered once, with its type, and the daemon serves on."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
import zmq.green as zmq

from regrow import (
    ActorDown,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidArguments,
    NotFound,
    TooLarge,
    Unavailable,
)
from tests.faults.conftest import Caller, running
from tests.support.daemon import Daemon

CONFIG = """
[daemon]
path = ["."]

[gateway]
max_message = "64KiB"

[actors.worker]
class = "faulty:Faulty"
timeout = "800ms"
mailbox = 3
backoff = { base = "10ms", max = "50ms" }
max_restarts = 100

[integrations.ml]
type = "python"
path = ["priv"]
functions = ["user_code:*"]
workers = 1
"""
FILES = {
    "faulty.py": """
import gevent
from regrow import Actor, exported


class Faulty(Actor):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.gate = gevent.event.Event()

    @exported
    def add(self, one: int, other: int) -> int:
        self.calls += 1
        return one + other

    @exported
    def count(self) -> int:
        return self.calls

    @exported
    def fail(self) -> None:
        raise RuntimeError("the secret of this failure stays in its crash report")

    @exported
    def leave(self) -> None:
        raise SystemExit(3)

    @exported
    def hang(self, seconds: float = 3600.0) -> str:
        print("a handler hangs", flush=True)
        gevent.sleep(seconds)
        return "done"
""",
    "priv/user_code.py": """
import os
import time


def hang() -> None:
    print("a function hangs in", os.getpid(), flush=True)
    time.sleep(3600)


def add(one: int, other: int) -> int:
    return one + other
""",
}


@pytest.fixture(scope="module")
def served() -> Iterator[Daemon]:
    yield from running(CONFIG, FILES)


def test_an_unknown_actor_is_not_found_and_the_nearest_name_is_told(caller: Caller) -> None:
    error = caller.error(NotFound, "wroker", "add", one=1, other=2)
    assert error.started == "no"
    assert "worker" in str(error)
    assert caller.ask("worker", "add", one=1, other=2) == 3


def test_an_unknown_method_is_not_found_and_the_methods_are_told(caller: Caller) -> None:
    error = caller.error(NotFound, "worker", "ad", one=1, other=2)
    assert error.started == "no"
    assert "add" in str(error)
    assert caller.ask("worker", "add", one=1, other=2) == 3


@pytest.mark.parametrize("method", ["calls", "stop", "on_receive", "__init__", "ref"])
def test_what_is_not_exported_cannot_be_reached(caller: Caller, method: str) -> None:
    assert caller.error(NotFound, "worker", method).started == "no"


@pytest.mark.parametrize(
    "arguments",
    [{"one": "1", "other": 2}, {"one": 1}, {"one": 1, "other": 2, "third": 3}, {"one": None, "other": 2}, {}],
    ids=str,
)
def test_wrong_arguments_are_refused_before_the_actor_sees_them(caller: Caller, arguments: dict[str, Any]) -> None:
    before = caller.ask("worker", "count")
    error = caller.error(InvalidArguments, "worker", "add", **arguments)
    assert (error.started, error.retryable) == ("no", False)
    assert caller.ask("worker", "count") == before


def test_a_message_above_the_limit_is_too_large(caller: Caller) -> None:
    with raw_socket(caller.daemon) as peer:
        header = json.dumps({"to": "worker", "method": "add"}).encode()
        peer.send_multipart([b"RG1", b"ASK", b"big", header, b'"' + b"x" * (64 << 10) + b'"'])
        op, request_id, body = answer(peer)
        assert (op, request_id, body["code"], body["started"]) == ("ERROR", b"big", "too_large", "no")
        peer.send_multipart([b"RG1", b"ASK", b"2", header, b'{"one": 1, "other": 2}'])
        assert answer(peer) == ("REPLY", b"2", 3)


def test_the_client_library_refuses_what_the_daemon_would_refuse(caller: Caller) -> None:
    caller.client.welcome()
    assert caller.error(TooLarge, "worker", "add", one="x" * (80 << 10), other=1).started == "no"
    assert caller.ask("worker", "add", one=1, other=2) == 3


def test_a_frame_far_above_the_limit_ends_its_senders_connection_and_nobody_elses(caller: Caller) -> None:
    with raw_socket(caller.daemon) as sender:
        sender.setsockopt(zmq.RECONNECT_IVL, -1)
        monitor = sender.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        header = json.dumps({"to": "worker", "method": "add"}).encode()
        sender.send_multipart([b"RG1", b"ASK", b"1", header, b"x" * (1 << 20)])
        with gevent.Timeout(5.0):
            monitor.recv_multipart()
        sender.disable_monitor()
        monitor.close()
    assert caller.ask("worker", "add", one=1, other=2) == 3


GARBAGE = [
    [b""],
    [b"", b"", b""],
    [b"RG1"],
    [b"RG1", b"ASK"],
    [b"RG1", b"ASK", b"", b"{}", b"{}"],
    [b"RG2", b"ASK", b"1", b"{}", b"{}"],
    [b"RG1", b"NOPE", b"1", b"{}", b"{}"],
    [b"RG1", b"ASK", b"1", b"not json", b"{}"],
    [b"RG1", b"ASK", b"1", b"[]", b"{}"],
    [b"RG1", b"ASK", b"1", b'{"to": 5}', b"{}"],
    [b"RG1", b"ASK", b"1", b'{"to": "worker", "method": "add"}', b"\xff\xfe"],
    [b"RG1", b"ASK", b"1", b'{"to": "worker", "method": "add", "codec": "pickle"}', b"\x80\x04."],
    [b"RG1", b"ASK", b"1", b'{"to": "worker", "method": "add"}', b"[" * 30_000],
    [b"RG1", b"ASK", b"x" * 65, b"{}", b"{}"],
    [b"\x00" * 5000] * 40,
]


@pytest.mark.parametrize("frames", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_frames_are_a_bad_request_and_harm_nobody(caller: Caller, frames: list[bytes]) -> None:
    pending = caller.later("worker", "hang", seconds=0.1)
    with raw_socket(caller.daemon) as peer:
        peer.send_multipart(frames)
        # Whatever it was answered with: the same connection is served on.
        peer.send_multipart([b"RG1", b"PING", b"after", b"{}"])
        answers: list[tuple[str, bytes, Any]] = []
        while not answers or answers[-1][1] != b"after":
            answers.append(answer(peer))
    assert all(body["code"] in {"bad_request", "invalid_arguments"} for op, _, body in answers if op == "ERROR")
    assert answers[-1][0] == "PONG"
    assert pending.value() == "done"


def test_bytes_that_are_not_zeromq_harm_nobody(caller: Caller) -> None:
    host, port = caller.daemon.endpoint.removeprefix("tcp://").split(":")
    for noise in (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        os.urandom(4096),
        b"\xff" + struct.pack(">Q", 1 << 62) + b"\x7f",
    ):
        with socket.create_connection((host, int(port)), timeout=5.0) as connection:
            connection.sendall(noise)
    assert caller.ask("worker", "add", one=1, other=2) == 3


@pytest.mark.parametrize("method", ["fail", "leave"])
def test_a_handler_that_raises_is_actor_down_and_its_successor_answers(caller: Caller, method: str) -> None:
    error = caller.error(ActorDown, "worker", method)
    assert error.started == "yes"
    assert "secret" not in str(error)
    assert error.crash_id is not None
    report = caller.daemon.get(f"/crashes/{error.crash_id}").json()
    assert (report["actor"], report["last_message"]) == ("worker", f"call {method}()")
    assert caller.recovered("worker", "add", one=1, other=2) == 3


def test_a_handler_that_hangs_is_answered_at_the_deadline_and_then_ended(caller: Caller) -> None:
    caller.recovered("worker", "count")
    error = caller.error(DeadlineExceeded, "worker", "hang", timeout=0.1)
    assert error.started == "yes"
    caller.daemon.wait_for_log(r'"event":"actor.restarted","actor":"worker".*HandlerOverran')
    assert caller.recovered("worker", "add", one=1, other=2) == 3


def test_a_short_deadline_does_not_end_the_actor(caller: Caller) -> None:
    caller.recovered("worker", "add", one=1, other=2)
    before = caller.ask("worker", "count")
    assert caller.error(DeadlineExceeded, "worker", "hang", timeout=0.05, seconds=0.15).started == "yes"
    assert caller.recovered("worker", "count") == before


def test_a_full_mailbox_is_overloaded_and_empties_again(caller: Caller) -> None:
    caller.recovered("worker", "count")
    seen = caller.daemon.process.lines_written
    with raw_socket(caller.daemon) as peer:
        hang = json.dumps({"to": "worker", "method": "hang"}).encode()
        add = json.dumps({"to": "worker", "method": "add"}).encode()
        peer.send_multipart([b"RG1", b"ASK", b"hang", hang, b'{"seconds": 0.2}'])
        caller.daemon.process.wait_for_line("a handler hangs", after_line=seen)
        for n in range(5):
            peer.send_multipart([b"RG1", b"ASK", b"%d" % n, add, b'{"one": %d, "other": 0}' % n])
        refused = [answer(peer), answer(peer)]
        assert [(op, n, body["code"], body["started"]) for op, n, body in refused] == [
            ("ERROR", b"3", "overloaded", "no"),
            ("ERROR", b"4", "overloaded", "no"),
        ]
        assert all(body["retry_after_ms"] > 0 for _, _, body in refused)
        assert answer(peer) == ("REPLY", b"hang", "done")
        assert [answer(peer) for _ in range(3)] == [("REPLY", b"%d" % n, n) for n in range(3)]
    assert caller.ask("worker", "add", one=1, other=2) == 3


def test_asks_behind_a_crash_are_answered_as_not_started(caller: Caller) -> None:
    caller.recovered("worker", "count")
    seen = caller.daemon.process.lines_written
    # The deadline and the actor's own limit of 800 ms pass: then it is ended as a crash.
    hanging = caller.later("worker", "hang", timeout=0.2)
    caller.daemon.process.wait_for_line("a handler hangs", after_line=seen)
    waiting = [caller.later("worker", "add", one=n, other=0, timeout=20.0) for n in range(2)]
    assert hanging.error(DeadlineExceeded).started == "yes"
    assert [each.error(Unavailable).started for each in waiting] == ["no", "no"]
    assert caller.recovered("worker", "add", one=1, other=2) == 3


def test_a_worker_killed_during_a_call_is_actor_down_at_once(caller: Caller) -> None:
    seen = caller.daemon.process.lines_written
    pending = caller.later("ml", "call", function="user_code:hang")
    found = caller.daemon.process.wait_for_line(r"a function hangs in (\d+)", after_line=seen)
    os.kill(int(found[1]), signal.SIGKILL)
    error = pending.error(ActorDown)
    assert error.started == "yes"
    assert error.details["signal"] == "SIGKILL"
    assert caller.recovered("ml", "call", function="user_code:add", args=[1, 2]) == 3
    metrics = caller.daemon.get("/metrics").text
    assert 'regrow_actor_restarts_total{actor="ml/worker-1",reason="crashed"} 1.0' in metrics


def test_a_daemon_that_is_gone_is_a_connection_error() -> None:
    other = Daemon(CONFIG, files=FILES)
    try:
        other.start()
        orphan = Caller(other)
        pending = orphan.later("worker", "hang", seconds=0.25)
        other.wait_for_log("a handler hangs")
        other.kill()
        assert pending.error(ConnectionFailed).started == "unknown"
        other.start()
        assert orphan.ask("worker", "add", one=1, other=2) == 3
        orphan.close()
    finally:
        other.close()


class raw_socket:  # noqa: N801 - a context manager that reads as a function
    """A DEALER socket, for frames that no client library would send."""

    def __init__(self, daemon: Daemon) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(daemon.endpoint)

    def __enter__(self) -> Any:
        return self._socket

    def __exit__(self, *_error: object) -> None:
        self._socket.close()
        self._context.term()


def answer(peer: Any) -> tuple[str, bytes, Any]:
    """Return op, id and body of the next answer, which must come within seconds."""
    with gevent.Timeout(5.0, AssertionError("no answer")):
        frames = peer.recv_multipart()
    if frames[0] == b"":  # what was sent began like a message of a REQ socket, and so does its answer
        del frames[0]
    protocol, op, request_id, header, *body = frames
    assert protocol == b"RG1"
    json.loads(header or b"{}")
    return op.decode(), request_id, json.loads(body[0]) if body and body[0] else None
