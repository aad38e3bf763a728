from __future__ import annotations

import gc
import gzip
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import gevent
import pytest

from actors.http import client as client_module
from actors.http.client import HttpClient, Request, is_inside
from config.secret import Secret
from regrow.protocol.errors import ConnectionFailed, DecodeError, RegrowError, TimedOut, TooLarge, UpstreamError
from tests.support.http_peer import HttpPeer, RawPeer, Reply, garbage, hang_up, reset
from tests.support.http_peer import Request as Arrived
from tests.support.ports import free_port


@pytest.fixture
def client() -> Iterator[HttpClient]:
    made = HttpClient(pool=4, connect_timeout_s=1.0, max_response_bytes=100_000, max_redirects=3)
    yield made
    made.close()


@pytest.fixture
def other_peer() -> Iterator[HttpPeer]:
    peer = HttpPeer()
    peer.start()
    yield peer
    peer.stop()


def get(
    client: HttpClient, url: str, *, limit_s: float = 5.0, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    response = client.send(Request("GET", url, headers or {}), limit_s=limit_s, doing="api.get")
    return response.status, response.body


def test_it_sends_what_it_is_given_and_returns_what_comes_back(client: HttpClient, http_peer: HttpPeer) -> None:
    http_peer.reply("POST /things", status=201, json={"id": 7}, headers={"X-Request-Id": "r1"})
    request = Request("POST", http_peer.url + "/things?a=b%2Fc", {"X-Api-Key": "k"}, b'{"x":1}')
    response = client.send(request, limit_s=5, doing="api.make")
    assert (response.status, response.body, response.headers["x-request-id"]) == (201, b'{"id": 7}', "r1")
    arrived = http_peer.requests[0]
    assert (arrived.target, arrived.body, arrived.headers["x-api-key"]) == ("/things?a=b%2Fc", b'{"x":1}', "k")


def interim(connection: socket.socket) -> None:
    """Answer each request with early hints first and the path a moment later."""
    with connection.makefile("rb") as lines:
        while request := lines.readline():
            while lines.readline() not in {b"\r\n", b""}:
                pass
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
            gevent.sleep(0.02)
            body = request.split()[1]
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def test_an_interim_answer_is_not_the_answer_and_shifts_none(client: HttpClient, raw_peer: RawPeer) -> None:
    raw_peer.behave(interim)
    for path in (b"/one", b"/two", b"/three"):
        assert get(client, raw_peer.url + path.decode()) == (200, path)
    assert raw_peer.connections == 1


@pytest.mark.parametrize("answer", [b"HTTP/1.1 100 Continue\r\n\r\n" * 50, b"HTTP/1.1 101 Switching Protocols\r\n\r\n"])
def test_nothing_but_interim_answers_is_a_connection_error(
    client: HttpClient, http_peer: HttpPeer, answer: bytes
) -> None:
    http_peer.reply("*", raw=answer)
    with pytest.raises(ConnectionFailed):
        get(client, http_peer.url)


@pytest.mark.parametrize("status", [200, 204, 304, 400, 404, 418, 429, 500, 503, 599])
def test_every_status_is_an_answer(client: HttpClient, http_peer: HttpPeer, status: int) -> None:
    http_peer.reply("GET /x", status=status)
    assert get(client, http_peer.url + "/x") == (status, b"")


def test_a_connection_is_used_again(client: HttpClient, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /x", body=b"y" * 1000)
    for _ in range(5):
        get(client, http_peer.url + "/x")
    assert http_peer.connections == 1


def test_no_more_connections_than_the_pool_holds(client: HttpClient, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /x", delay_s=0.02)
    jobs = [gevent.spawn(get, client, http_peer.url + "/x") for _ in range(20)]
    gevent.joinall(jobs, raise_error=True)
    assert http_peer.connections == 4


def test_a_peer_that_is_down_is_noticed_at_once_and_nothing_was_started(client: HttpClient) -> None:
    with pytest.raises(ConnectionFailed, match="connection refused") as caught:
        get(client, f"http://127.0.0.1:{free_port()}/x")
    assert caught.value.started == "no"


def test_a_host_that_does_not_resolve_is_named(client: HttpClient) -> None:
    with pytest.raises(ConnectionFailed, match=r"no-such-host\.invalid does not resolve") as caught:
        get(client, "http://no-such-host.invalid/x")
    assert caught.value.started == "no"


@pytest.mark.parametrize(
    "reply",
    [Reply(hold=True), Reply(body=b"x" * 1000, drip_bytes=1, drip_pause_s=0.02)],
    ids=["silent", "dripping"],
)
def test_the_time_limit_bounds_the_whole_exchange(client: HttpClient, http_peer: HttpPeer, reply: Reply) -> None:
    http_peer.reply("GET /slow", handler=lambda _: reply)
    began = time.monotonic()
    with pytest.raises(TimedOut, match=r"127\.0\.0\.1:\d+ within 0\.2 s") as caught:
        get(client, http_peer.url + "/slow", limit_s=0.2)
    assert 0.15 < time.monotonic() - began < 1.0
    assert caught.value.started == ("unknown" if reply.hold else "yes")
    http_peer.release()


def test_a_time_limit_in_the_callers_own_code_passes_through(client: HttpClient, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /slow", hold=True)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
        get(client, http_peer.url + "/slow", limit_s=5)
    http_peer.release()


def test_after_time_limits_passed_the_pool_is_whole(client: HttpClient, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /slow", hold=True)
    http_peer.reply("GET /x", body=b"ok")

    def too_slow() -> None:
        with pytest.raises(TimedOut):
            get(client, http_peer.url + "/slow", limit_s=0.1)

    gevent.joinall([gevent.spawn(too_slow) for _ in range(12)], raise_error=True)
    http_peer.release()
    assert [get(client, http_peer.url + "/x")[1] for _ in range(4)] == [b"ok"] * 4


def test_waiting_for_a_free_connection_is_within_the_limit_and_starts_nothing(
    client: HttpClient, http_peer: HttpPeer
) -> None:
    http_peer.reply("GET /slow", hold=True)
    holders = [gevent.spawn(get, client, http_peer.url + "/slow") for _ in range(4)]
    http_peer.wait_for_requests(4)
    with pytest.raises(TimedOut, match="no connection") as caught:
        get(client, http_peer.url + "/slow", limit_s=0.1)
    assert caught.value.started == "no"
    http_peer.release()
    gevent.joinall(holders, raise_error=True)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\x00\xff not http at all\r\n\r\n", "connection_error"),
        (b"HTTP/1.1 abc\r\n\r\n", "connection_error"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "connection_error"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nabc", "connection_error"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "connection_error"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope", "decode_error"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n", "connection_error"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", "connection_error"),
    ],
    ids=["noise", "status", "truncated", "chunk-size", "cut-chunk", "gzip", "many-headers", "long-header"],
)
def test_garbage_becomes_a_typed_error(client: HttpClient, raw_peer: RawPeer, raw: bytes, code: str) -> None:
    raw_peer.behave(garbage(raw))
    with pytest.raises(RegrowError) as caught:
        get(client, raw_peer.url + "/x?key=hidden-in-query")
    assert caught.value.code == code
    assert caught.value.started == "yes"
    assert "hidden-in-query" not in str(caught.value)


@pytest.mark.parametrize("behaviour", [hang_up, reset], ids=["hang-up", "reset"])
def test_a_connection_lost_before_the_answer_leaves_open_whether_work_began(
    client: HttpClient, raw_peer: RawPeer, behaviour: object
) -> None:
    raw_peer.behave(behaviour)  # type: ignore[arg-type]
    with pytest.raises(ConnectionFailed, match="closed the connection") as caught:
        get(client, raw_peer.url + "/x")
    assert caught.value.started == "unknown"


def test_the_foreign_text_of_a_failure_which_holds_the_url_is_left_out(client: HttpClient) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        get(client, f"http://127.0.0.1:{free_port()}/x?appid=hidden-in-query")
    assert "hidden-in-query" not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_an_announced_body_over_the_limit_is_not_read(client: HttpClient, raw_peer: RawPeer) -> None:
    raw_peer.behave(garbage(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nxxxx"))
    with pytest.raises(TooLarge, match="100000 bytes"):
        get(client, raw_peer.url + "/x", limit_s=2)


def test_an_endless_body_is_cut_at_the_limit(client: HttpClient, raw_peer: RawPeer) -> None:
    def endless(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"1000\r\n" + bytes(4096) + b"\r\n")

    raw_peer.behave(endless)
    with pytest.raises(TooLarge):
        get(client, raw_peer.url + "/x")


def test_a_compression_bomb_is_cut_at_the_limit(client: HttpClient, http_peer: HttpPeer) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    http_peer.reply("GET /x", body=bomb, headers={"Content-Encoding": "gzip"})
    with pytest.raises(TooLarge):
        get(client, http_peer.url + "/x")


def test_a_compressed_body_is_decompressed(client: HttpClient, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /x", body=gzip.compress(b"hello"), headers={"Content-Encoding": "gzip"})
    assert get(client, http_peer.url + "/x") == (200, b"hello")


def test_a_redirect_on_the_same_host_keeps_every_header(client: HttpClient, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /old", status=301, headers={"Location": "/new"})
    http_peer.reply("GET /new", body=b"here")
    assert get(client, http_peer.url + "/old", headers={"Authorization": "Bearer t"}) == (200, b"here")
    assert http_peer.requests[1].headers["authorization"] == "Bearer t"


def test_a_redirect_to_another_host_carries_none_of_our_secrets(
    client: HttpClient, http_peer: HttpPeer, other_peer: HttpPeer
) -> None:
    http_peer.reply("GET /old", status=302, headers={"Location": other_peer.url + "/new"})
    other_peer.reply("GET /new", body=b"there")
    headers = {
        "Authorization": "Bearer t", "X-Api-Key": "k", "Idempotency-Key": "i", "Cookie": "c=1", "X-Own": "o",
        "Accept": "text/plain",
    }  # fmt: skip
    assert get(client, http_peer.url + "/old", headers=headers) == (200, b"there")
    arrived = other_peer.requests[0].headers
    assert set(arrived) == {"accept", "accept-encoding", "user-agent", "host", "connection"} & set(arrived)
    assert arrived["accept"] == "text/plain"


def test_a_body_is_not_sent_to_another_host(client: HttpClient, http_peer: HttpPeer, other_peer: HttpPeer) -> None:
    http_peer.reply("POST /old", status=307, headers={"Location": other_peer.url + "/new"})
    with pytest.raises(UpstreamError, match="another host") as caught:
        client.send(Request("POST", http_peer.url + "/old", {}, b"private"), limit_s=5, doing="api.post")
    assert caught.value.status == 307
    assert other_peer.requests == []


@pytest.mark.parametrize("status", [303, 307])
def test_a_host_that_the_peer_made_of_our_secret_is_told_without_it(
    client: HttpClient, http_peer: HttpPeer, status: int
) -> None:
    secret = Secret("Tok-Of-The-Redirect-0123456789")
    there = f"http://{secret.reveal()}.invalid/x"
    http_peer.reply("*", status=status, headers={"Location": there})
    with pytest.raises(RegrowError, match="invalid") as caught:
        client.send(Request("POST", http_peer.url + "/x", {}, b"x"), limit_s=5, doing="api.post")
    assert secret.reveal().lower() not in caught.value.message.lower()


@pytest.mark.parametrize(
    ("status", "method", "body"), [(303, "GET", b""), (302, "GET", b""), (307, "POST", b"x"), (308, "POST", b"x")]
)
def test_a_redirected_post_keeps_or_loses_its_body_as_the_status_says(
    client: HttpClient, http_peer: HttpPeer, status: int, method: str, body: bytes
) -> None:
    http_peer.reply("POST /old", status=status, headers={"Location": "/new"})
    http_peer.reply("*", body=b"ok")
    client.send(Request("POST", http_peer.url + "/old", {"Content-Type": "text/plain"}, b"x"), limit_s=5, doing="p")
    second: Arrived = http_peer.requests[1]
    assert (second.method, second.path, second.body) == (method, "/new", body)
    assert ("content-type" in second.headers) is bool(body)


def test_a_redirect_loop_ends(client: HttpClient, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /loop", status=302, headers={"Location": "/loop"})
    with pytest.raises(UpstreamError, match="more than 3 times"):
        get(client, http_peer.url + "/loop")
    assert http_peer.count("GET /loop") == 4


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://[bad", "http://u:p@127.0.0.1/"])
def test_a_redirect_to_nowhere_good_is_a_typed_error(client: HttpClient, http_peer: HttpPeer, target: str) -> None:
    http_peer.reply("GET /old", status=302, headers={"Location": target})
    with pytest.raises(UpstreamError, match="redirected"):
        get(client, http_peer.url + "/old")


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("192.168.0.1", True),
        ("169.254.169.254", True),
        ("100.64.0.1", True),
        ("0.0.0.0", True),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("fd00::1", True),
        ("::ffff:10.0.0.1", True),
        ("64:ff9b::10.0.0.1", True),
        ("64:ff9b:1::a00:1", True),
        ("2002:a00:1::", True),
        ("::ffff:0:10.0.0.1", True),
        ("::10.0.0.1", True),
        ("64:ff9b::1.1.1.1", False),
        ("1.1.1.1", False),
        ("::ffff:1.1.1.1", False),
        ("2606:4700:4700::1111", False),
    ],
)
def test_an_address_is_of_a_private_network_or_of_everybody(address: str, inside: bool) -> None:
    assert is_inside(address) is inside


def test_nobody_outside_leads_us_to_an_address_inside(
    client: HttpClient, http_peer: HttpPeer, other_peer: HttpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both peers are on this machine: for this test its first address belongs to everybody, and its second one to us.
    real = socket.getaddrinfo
    known = {"api.example": "127.0.0.1", "internal.example": "127.0.0.2", "other.example": "127.0.0.1"}
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest: real(known[host], *rest))
    monkeypatch.setattr(client_module, "is_inside", lambda address: address == "127.0.0.2")
    other_peer.reply("*", body=b"what it keeps")

    def led_to(host: str) -> tuple[int, bytes]:
        target = f"http://{host}:{other_peer.port}/latest/meta-data"
        http_peer.reply("GET /x", status=302, headers={"Location": target})
        return get(client, f"http://api.example:{http_peer.port}/x")

    with pytest.raises(UpstreamError, match="address of a private network") as caught:
        led_to("internal.example")
    assert (caught.value.status, caught.value.retryable, other_peer.count()) == (302, False, 0)
    assert led_to("other.example") == (200, b"what it keeps")


@pytest.mark.parametrize("target", ["169.254.169.254", "[::1]", "127.1", "0x7f000001", "localhost", "a.localhost"])
def test_nobody_outside_leads_our_proxy_to_an_address_inside(http_peer: HttpPeer, target: str) -> None:
    http_peer.reply("*", status=302, headers={"Location": f"http://{target}/latest/meta-data"})
    proxied = HttpClient(pool=1, proxy=http_peer.url)
    with pytest.raises(UpstreamError, match="address of a private network"):
        get(proxied, "http://api.example.invalid/x")
    assert http_peer.count() == 1
    proxied.close()


def test_through_a_proxy_a_redirect_to_a_host_outside_is_followed(http_peer: HttpPeer) -> None:
    http_peer.reply("*", body=b"there")
    http_peer.reply("*", status=302, headers={"Location": "http://1.1.1.1/new"}, times=1)
    proxied = HttpClient(pool=1, proxy=http_peer.url)
    assert get(proxied, "http://api.example.invalid/x") == (200, b"there")
    assert http_peer.count() == 2
    proxied.close()


def test_between_two_hosts_inside_redirects_are_followed(
    client: HttpClient, http_peer: HttpPeer, other_peer: HttpPeer
) -> None:
    http_peer.reply("GET /x", status=302, headers={"Location": other_peer.url + "/y"})
    other_peer.reply("GET /y", body=b"there")
    assert get(client, http_peer.url + "/x") == (200, b"there")


def test_with_redirects_off_the_redirect_is_the_answer(http_peer: HttpPeer) -> None:
    client = HttpClient(pool=1, max_redirects=0)
    http_peer.reply("GET /old", status=302, headers={"Location": "/new"})
    assert get(client, http_peer.url + "/old")[0] == 302
    client.close()


def test_cookies_are_not_kept(client: HttpClient, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /x", headers={"Set-Cookie": "session=1"})
    get(client, http_peer.url + "/x")
    get(client, http_peer.url + "/x")
    assert "cookie" not in http_peer.requests[1].headers


def test_proxies_of_the_environment_are_not_used(
    client: HttpClient, http_peer: HttpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    http_peer.reply("GET /x", body=b"direct")
    assert get(client, http_peer.url + "/x")[1] == b"direct"


def test_a_keep_alive_connection_that_the_peer_closed_meanwhile_is_replaced(
    client: HttpClient, http_peer: HttpPeer
) -> None:
    http_peer.reply("GET /x", body=b"ok")
    get(client, http_peer.url + "/x")
    http_peer.cut_connections()
    gevent.sleep(0.01)
    assert get(client, http_peer.url + "/x")[1] == b"ok"


def test_a_name_with_several_addresses_is_tried_until_one_answers(
    client: HttpClient, http_peer: HttpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def several(host: str, port: int, *rest: int) -> object:
        return [*real("127.0.0.1", free_port(), *rest), *real("127.0.0.1", port, *rest)]

    monkeypatch.setattr(socket, "getaddrinfo", several)
    http_peer.reply("GET /x", body=b"second")
    assert get(client, f"http://several.example:{http_peer.port}/x") == (200, b"second")


def test_a_connect_that_hangs_ends_at_its_own_time_limit_and_starts_nothing(
    client: HttpClient, full_listener: int
) -> None:
    began = time.monotonic()
    with pytest.raises(ConnectionFailed, match=r"no connection to 127\.0\.0\.1:\d+ within 1 s") as caught:
        get(client, f"http://127.0.0.1:{full_listener}/x")
    assert 0.9 < time.monotonic() - began < 2.0
    assert caught.value.started == "no"


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_a_connect_that_is_cut_off_closes_its_socket(client: HttpClient, full_listener: int) -> None:
    for _ in range(3):
        with pytest.raises(TimedOut, match="no connection") as caught:
            get(client, f"http://127.0.0.1:{full_listener}/x", limit_s=0.05)
        assert caught.value.started == "no"
    gc.collect()


@pytest.fixture
def full_listener() -> Iterator[int]:
    """The port of a listener that accepts nobody and has no room for one more to wait."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = []
        for _ in range(8):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(address)
            waiting.append(one)
        gevent.sleep(0.05)
        yield address[1]
        for one in waiting:
            one.close()


@pytest.fixture(scope="module")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody else signed, and its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    command = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1",
        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem",
    ]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=30)
    both = folder / "both.pem"
    both.write_text(folder.joinpath("key.pem").read_text() + folder.joinpath("cert.pem").read_text())
    return both


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_a_certificate_nobody_signed_is_refused_before_anything_is_sent(
    client: HttpClient, raw_peer: RawPeer, self_signed: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed)
    heard: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        try:
            with context.wrap_socket(connection, server_side=True) as secured:
                heard.append(secured.recv(65536))
        except ssl.SSLError:
            pass

    raw_peer.behave(serve)
    with pytest.raises(ConnectionFailed, match=r"certificate of 127\.0\.0\.1:\d+ is not trusted") as caught:
        get(client, raw_peer.url.replace("http:", "https:") + "/x", headers={"Authorization": "Bearer t"})
    assert (caught.value.started, caught.value.retryable) == ("no", False)
    assert heard in ([], [b""])


def test_a_peer_that_speaks_no_tls_is_a_connection_error(client: HttpClient, raw_peer: RawPeer) -> None:
    raw_peer.behave(garbage(b"this is no tls"))
    with pytest.raises(ConnectionFailed, match="TLS failed") as caught:
        get(client, raw_peer.url.replace("http:", "https:") + "/x")
    assert caught.value.started == "no"


def test_a_body_that_does_not_decompress_is_a_decode_error(client: HttpClient, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /x", body=b"plain", headers={"Content-Encoding": "gzip"})
    with pytest.raises(DecodeError, match="does not decompress"):
        get(client, http_peer.url + "/x")
