"""Faults of peers and of the world, each against a real socket."""

from __future__ import annotations

import gzip
import socket
import time
import zlib

import gevent
import pytest
from gevent.event import Event

from regrow.protocol.errors import ConnectionFailed, RateLimited, RegrowError, TimedOut, TooLarge, UpstreamError
from regrow.testing.clock import ManualClock
from tests.actors.rest.conftest import QUICKLY, Start, outcome
from tests.support.http_peer import HttpPeer, RawPeer, Reply
from tests.support.ports import free_port


def read_request(connection: socket.socket) -> bytes:
    """One request with its body, as far as its Content-Length says."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    wanted = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            wanted = int(line.partition(b":")[2])
    while len(body) < wanted:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def ok(body: bytes = b"{}", more: bytes = b"") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return head + body + more


def test_a_peer_that_drips_its_headers_is_cut_off_in_time(api: Start, raw_peer: RawPeer) -> None:
    def drip(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(b"X")
            gevent.sleep(0.02)

    raw_peer.behave(drip)
    began = time.monotonic()
    with pytest.raises(TimedOut):
        api(base_url=raw_peer.url, timeout="200ms").call("get_user", username="ada")
    assert time.monotonic() - began < 2.0


@pytest.mark.parametrize("reads", [True, False], ids=["reads", "does-not-even-read"])
def test_a_peer_that_accepts_and_says_nothing_is_a_timeout_that_may_have_started(
    api: Start, raw_peer: RawPeer, reads: bool
) -> None:
    over = Event()

    def stay_silent(connection: socket.socket) -> None:
        if reads:
            read_request(connection)
        over.wait(10.0)

    raw_peer.behave(stay_silent)
    began = time.monotonic()
    with pytest.raises(TimedOut) as caught:
        api(base_url=raw_peer.url, timeout="200ms").call("make_issue", title="x")
    assert (caught.value.started, caught.value.retryable) == ("unknown", True)
    assert time.monotonic() - began < 2.0
    over.set()


def test_a_peer_that_drips_its_body_is_cut_off_in_time_though_every_piece_is_quick(
    api: Start, http_peer: HttpPeer
) -> None:
    http_peer.reply("*", body=b"1" * 1000, drip_bytes=1, drip_pause_s=0.01)
    began = time.monotonic()
    with pytest.raises(TimedOut, match="did not end") as caught:
        api(timeout="200ms").call("get_user", username="ada")
    assert caught.value.started == "yes"
    assert time.monotonic() - began < 2.0


def test_bytes_beyond_the_announced_length_are_not_the_next_answer(api: Start, raw_peer: RawPeer) -> None:
    def too_much(connection: socket.socket) -> None:
        while read_request(connection):
            connection.sendall(ok(b'{"mine": true}', more=ok(b'{"poison": true}')))

    raw_peer.behave(too_much)
    made = api(base_url=raw_peer.url, concurrency=1)
    assert [made.call("get_user", username="ada") for _ in range(3)] == [{"mine": True}] * 3


def test_a_length_that_promises_more_than_comes_is_a_lost_connection(api: Start, raw_peer: RawPeer) -> None:
    def too_little(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(ok(b'{"whole": true}').replace(b": 15", b": 50"))

    raw_peer.behave(too_little)
    with pytest.raises(ConnectionFailed, match="was cut off"):
        api(base_url=raw_peer.url).call("get_user", username="ada")


@pytest.mark.parametrize(
    ("length", "ends"),
    [(b"-5", "value"), (b"five", "value"), (b"9" * 40, "too_large"), (b"1, 2", "connection_error")],
)
def test_a_length_that_is_none_is_ignored_or_a_typed_error(
    api: Start, raw_peer: RawPeer, length: bytes, ends: str
) -> None:
    def nonsense(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(ok().replace(b": 2", b": " + length))

    raw_peer.behave(nonsense)
    made = api(base_url=raw_peer.url, timeout="2s")
    if ends == "value":
        assert made.call("get_user", username="ada") == {}
        return
    with pytest.raises(RegrowError) as caught:
        made.call("get_user", username="ada")
    assert (caught.value.code, caught.value.started) == (ends, "yes")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "gzip, gzip"])
def test_a_compression_bomb_costs_no_more_than_the_limit(api: Start, http_peer: HttpPeer, encoding: str) -> None:
    bomb = zlib.compress(bytes(30_000_000)) if encoding == "deflate" else gzip.compress(bytes(30_000_000))
    if encoding.count("gzip") == 2:
        bomb = gzip.compress(bomb)
    http_peer.reply("*", body=bomb, headers={"Content-Encoding": encoding})
    made = api(max_response="64KiB")
    with pytest.raises(TooLarge):
        made.call("get_user", username="ada")
    http_peer.reply("*", json={"well": True})
    assert made.call("get_user", username="ada") == {"well": True}


def test_a_redirect_loop_ends_and_another_host_gets_no_secret(api: Start, http_peer: HttpPeer) -> None:
    other = HttpPeer()
    other.start()
    other.reply("GET /there", json={"there": True})
    http_peer.reply("GET /users/loop", status=302, headers={"Location": "/users/loop"})
    http_peer.reply("GET /users/away", status=302, headers={"Location": other.url + "/there"})
    made = api(auth={"bearer": "${TOKEN}"}, headers={"X-Api-Key": "key-of-the-test"})
    with pytest.raises(UpstreamError, match="more than 5 times") as caught:
        made.call("get_user", username="loop")
    assert (caught.value.retryable, http_peer.count()) == (False, 6)
    assert made.call("get_user", username="away") == {"there": True}
    assert not {"authorization", "x-api-key"} & other.requests[0].headers.keys()
    other.stop()


@pytest.mark.parametrize("there", ["nobody", "no-such-name"])
def test_a_post_that_was_redirected_to_where_nobody_is_was_heard_and_is_not_sent_again(
    api: Start, http_peer: HttpPeer, there: str
) -> None:
    place = f"127.0.0.1:{free_port()}" if there == "nobody" else "no-such-name.invalid"
    http_peer.reply("*", status=303, headers={"Location": f"http://{place}/made"})
    with pytest.raises(ConnectionFailed, match=place) as caught:
        api(retry=QUICKLY).call("make_issue", title="x")
    assert (caught.value.started, http_peer.count()) == ("yes", 1)


def test_a_limiter_killed_while_spent_is_spent_when_it_is_back(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    made = api(rate_limit={"requests": 3, "window": "1m"})
    for _ in range(3):
        made.call("get_user", username="ada")
    for _ in range(3):
        made.part("limiter").kill()
        with pytest.raises(RateLimited) as refused:
            made.call("get_user", timeout=5.0, username="ada")
        assert refused.value.started == "no"
    assert http_peer.count() == 3


def closing_at(second: bytes, peer: RawPeer) -> list[bytes]:
    """The peer answers each connection's first request and hangs up as it hears another one."""
    heard: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(ok())
        request = read_request(connection)
        if request:
            heard.append(request.split(b" ")[0])

    peer.behave(serve)
    return heard


def test_a_post_whose_kept_connection_closes_as_it_is_sent_is_not_sent_twice(api: Start, raw_peer: RawPeer) -> None:
    heard = closing_at(b"POST", raw_peer)
    made = api(base_url=raw_peer.url, concurrency=1, retry=QUICKLY)
    made.call("get_user", username="ada")
    with pytest.raises(ConnectionFailed) as caught:
        made.call("make_issue", title="x")
    assert caught.value.started == "unknown"
    assert heard == [b"POST"]


def test_a_get_whose_kept_connection_closes_as_it_is_sent_is_sent_again(api: Start, raw_peer: RawPeer) -> None:
    heard = closing_at(b"GET", raw_peer)
    made = api(base_url=raw_peer.url, concurrency=1, retry=QUICKLY)
    made.call("get_user", username="ada")
    assert made.call("get_user", username="ada") == {}
    assert heard == [b"GET"]


def test_a_name_that_does_not_resolve_fails_before_it_began_and_works_once_it_does(
    api: Start, http_peer: HttpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo
    known: list[bool] = []

    def resolve(host: str, port: int, *rest: int) -> object:
        if not known:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return real("127.0.0.1", port, *rest)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    http_peer.reply("*", json={})
    made = api(base_url=f"http://api.example:{http_peer.port}")
    with pytest.raises(ConnectionFailed, match="does not resolve") as caught:
        made.call("make_issue", title="x")
    assert (caught.value.started, caught.value.retryable) == ("no", True)
    known.append(True)
    assert made.call("make_issue", title="x") == {}


def test_one_slow_host_takes_none_of_another_ones_places(api: Start, http_peer: HttpPeer) -> None:
    other = HttpPeer()
    other.start()
    http_peer.reply("*", hold=True)
    other.reply("*", json={"quick": True})
    slow = api("slow", concurrency=2)
    quick = api("quick", base_url=other.url, concurrency=2)
    calls = [slow.begin("get_user", username="ada") for _ in range(20)]
    assert [quick.call("get_user", timeout=5.0, username="ada") for _ in range(20)] == [{"quick": True}] * 20
    http_peer.release()
    for call in calls:
        outcome(call)
    other.stop()


@pytest.mark.parametrize(
    "value",
    [
        "0",
        "-1",
        "1e9",
        "999999999",
        "99999999999999999999",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "tomorrow",
        "3600, 7200",
        "\x7f",
    ],
)
def test_no_retry_after_however_absurd_holds_a_caller_or_fails_it_otherwise(
    api: Start, http_peer: HttpPeer, value: str
) -> None:
    http_peer.reply("*", status=429, headers={"Retry-After": value})
    began = time.monotonic()
    with pytest.raises(RateLimited) as caught:
        api(retry={"retries": 1, "base": "5ms", "max": "10ms"}).call("get_user", timeout=2.0, username="ada")
    assert time.monotonic() - began < 1.9
    assert caught.value.retry_after_s is None or 0 <= caught.value.retry_after_s <= 6 * 3600


def test_a_wall_clock_that_jumps_changes_nothing_about_what_is_kept_or_allowed(
    api: Start, http_peer: HttpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ManualClock() as clock:
        http_peer.reply("*", handler=lambda _: Reply(json={}))
        operations = {"get_user": {"request": "GET /users/{username}", "cache": "5m"}}
        made = api(operations=operations, rate_limit={"requests": 2, "window": "1m"})
        made.call("get_user", username="ada")
        for jump_s in (-86400.0, 86400.0 * 400):
            monkeypatch.setattr(clock, "_wall_offset_s", clock._wall_offset_s + jump_s)
            assert made.full("get_user", username="ada").header["cache"] == "fresh"
        made.call("get_user", username="bob")
        with pytest.raises(RateLimited):
            made.call("get_user", timeout=5.0, username="eve")
        assert http_peer.count() == 2
