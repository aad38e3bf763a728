"""HTTP peers that are down, slow, or answer garbage, behind a daemon that goes on when they are well again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from regrow import CircuitOpen, ConnectionFailed, DecodeError, RegrowError, TimedOut, UpstreamError
from tests.faults.conftest import Caller, running
from tests.support.daemon import Daemon
from tests.support.http_peer import HttpPeer
from tests.support.ports import free_port

#: where the peers are; a peer that is down is one that does not listen
PORTS = {name: free_port() for name in ("down", "slow", "garbage", "circuit")}
INTEGRATION = """
[integrations.{name}]
type = "rest"
base_url = "http://127.0.0.1:{port}"
timeout = "{timeout}"
concurrency = 2
retry = {{ retries = 0 }}
breaker = {{ failures = {failures}, reset_after = "300ms" }}
[integrations.{name}.operations.get]
request = "GET /thing"
"""


@pytest.fixture(scope="module")
def served() -> Iterator[Daemon]:
    limits = {"slow": ("300ms", 100), "circuit": ("5s", 2)}
    parts = []
    for name, port in PORTS.items():
        timeout, failures = limits.get(name, ("5s", 100))
        parts.append(INTEGRATION.format(name=name, port=port, timeout=timeout, failures=failures))
    yield from running("".join(parts))


def peer_at(name: str) -> HttpPeer:
    made = HttpPeer()
    made.port = PORTS[name]
    made.reply("GET /thing", json={"ok": True}, close=True)
    return made


def test_a_peer_that_is_down_is_a_connection_error_that_never_started(caller: Caller) -> None:
    error = caller.error(ConnectionFailed, "down", "get")
    assert error.started == "no"
    peer = peer_at("down")
    peer.start()
    try:
        assert caller.ask("down", "get") == {"ok": True}
    finally:
        peer.stop()
    assert caller.error(ConnectionFailed, "down", "get").started == "no"


def test_a_slow_peer_is_a_timeout_that_may_have_happened(caller: Caller) -> None:
    peer = peer_at("slow")
    peer.start()
    try:
        peer.reply("GET /thing", hold=True, close=True, times=1)
        error = caller.error(TimedOut, "slow", "get")
        assert error.started != "no"
        assert caller.ask("slow", "get") == {"ok": True}
    finally:
        peer.release()
        peer.stop()


def test_a_dripping_peer_does_not_outlive_the_time_limit(caller: Caller) -> None:
    peer = peer_at("slow")
    peer.start()
    try:
        peer.reply("GET /thing", body=b"x" * 1000, drip_bytes=1, drip_pause_s=0.05, close=True, times=1)
        assert caller.error(TimedOut, "slow", "get").started == "yes"
        assert caller.ask("slow", "get") == {"ok": True}
    finally:
        peer.stop()


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ({"raw": b"\x00\xff\x13 this is no HTTP\r\n\r\n"}, (ConnectionFailed, DecodeError, UpstreamError)),
        ({"body": b"{not json", "headers": {"content-type": "application/json"}, "close": True}, (DecodeError,)),
        ({"body": b"x" * 10, "headers": {"content-length": "100"}, "close_after_bytes": 10}, (ConnectionFailed,)),
        ({"body": b"\xff\xfe", "headers": {"content-encoding": "gzip"}, "close": True}, (DecodeError,)),
        ({"status": 500, "close": True}, (UpstreamError,)),
        ({"status": 404, "json": {"message": "no"}, "close": True}, (UpstreamError,)),
    ],
    ids=["no HTTP", "no JSON", "cut off", "no gzip", "500", "404"],
)
def test_garbage_from_a_peer_is_one_typed_error(
    caller: Caller, reply: dict[str, object], kind: tuple[type[RegrowError], ...]
) -> None:
    peer = peer_at("garbage")
    peer.start()
    try:
        peer.reply("GET /thing", times=1, **reply)  # type: ignore[arg-type]
        with pytest.raises(RegrowError) as caught:
            caller.ask("garbage", "get")
        assert type(caught.value) in kind, repr(caught.value)
        assert caught.value.started == "yes"
        assert caller.ask("garbage", "get") == {"ok": True}
    finally:
        peer.stop()


def test_a_peer_that_keeps_failing_opens_the_circuit_and_a_probe_closes_it(caller: Caller) -> None:
    for _ in range(2):
        caller.error(ConnectionFailed, "circuit", "get")
    error = caller.error(CircuitOpen, "circuit", "get")
    assert error.started == "no"
    assert error.retry_after_s is not None
    assert error.retry_after_s <= 0.3
    peer = peer_at("circuit")
    peer.start()
    try:
        assert caller.recovered("circuit", "get") == {"ok": True}
        assert peer.count("GET /thing") == 1
    finally:
        peer.stop()
    shown = caller.daemon.get("/metrics").text
    assert 'regrow_breaker_transitions_total{actor="circuit",state="open"} 1.0' in shown
