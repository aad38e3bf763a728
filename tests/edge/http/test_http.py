"""The HTTP edge on real sockets: routes, errors, tokens, hosts, limits, and the actor that owns it all."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.event
import pytest
import requests

from config.secret import Secret, forget_all
from regrow.protocol.errors import Overloaded, TooLarge
from runtime import events
from runtime.edge import http as http_module
from runtime.edge import http_server
from runtime.edge.auth import Auth
from runtime.edge.http import Http, Request, Response, Routes, audit, json_response, text_response
from runtime.edge.http_server import Limits
from runtime.edge.ports import PortTaken
from runtime.measure import Counter

READ, ADMIN = "read-token-0123", "admin-token-4567"


class Edge:
    """A running HTTP actor and how to talk to it."""

    def __init__(self, ref: Any) -> None:
        self.ref = ref
        self.url: str = ref.call("address", {}, timeout=5)
        self.port = int(self.url.rpartition(":")[2])

    def get(self, path: str, method: str = "GET", token: str = "", **kwargs: Any) -> requests.Response:
        headers = kwargs.pop("headers", {})
        if token:
            headers["Authorization"] = f"Bearer {token}"
        # no session: each test sees a connection of its own
        return requests.request(method, self.url + path, headers=headers, timeout=10, **kwargs)

    def raw(self, data: bytes, *, until_closed: bool = True) -> bytes:
        with self.connect() as sock:
            sock.sendall(data)
            return read_all(sock) if until_closed else sock.recv(65536)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def body_of(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def some_routes() -> Routes:
    routes = Routes()

    def echo(request: Request) -> Response:
        return json_response({"params": dict(request.params), "query": request.query(), "path": request.path})

    def change(request: Request) -> Response:
        audit(request.caller, "thing.changed", before=1, after=request.json())
        return json_response({"who": request.caller.name})

    def overloaded(_request: Request) -> Response:
        raise Overloaded("pool: 5 calls wait, come back later", retry_after_s=2.4, actor="ml")

    def broken(_request: Request) -> Response:
        raise RuntimeError("secret detail")

    def stream(_request: Request) -> Response:
        def pieces() -> Iterator[bytes]:
            try:
                yield b"one\n"
                yield b"two\n"
            finally:
                closed.append(True)

        return Response(pieces(), "text/plain")

    routes.add("GET", "/open", lambda request: text_response(request.caller.name), access="open")
    routes.add("GET", "/echo", echo, access="read")
    routes.add("GET", "/things/{name}/parts/{part...}", echo, access="read")
    routes.add("POST", "/change", change, access="admin")
    routes.add("GET", "/overloaded", overloaded, access="read")
    routes.add("GET", "/broken", broken, access="read")
    routes.add("GET", "/stream", stream, access="read")
    return routes


closed: list[bool] = []
Start = Callable[..., Edge]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Any] = []

    def start_one(
        routes: Routes | None = None, *, read: str = "", admin: str = ADMIN, port: int = 0, **limits: Any
    ) -> Edge:
        auth = Auth(Secret(read) if read else None, Secret(admin) if admin else None)
        ref = Http.start("127.0.0.1", port, routes or some_routes(), auth, limits=Limits(**limits))
        started.append(ref)
        return Edge(ref)

    yield start_one
    for ref in started:
        if ref.is_alive():
            ref.stop()
    forget_all()


@pytest.fixture
def edge(start: Start) -> Edge:
    return start()


# -- routes


def test_a_route_gets_the_named_parts_of_the_path_decoded(edge: Edge) -> None:
    answer = edge.get("/things/a%20b/parts/x/y%2Fz/%C3%BC?q=1&q=2&empty=")
    assert answer.json() == {
        "params": {"name": "a b", "part": "x/y/z/\u00fc"},
        "query": {"q": ["1", "2"], "empty": [""]},
        "path": "/things/a b/parts/x/y/z/\u00fc",
    }
    assert answer.headers["Content-Type"] == "application/json"


def test_a_slash_at_the_end_of_a_path_does_not_matter(edge: Edge) -> None:
    assert edge.get("/echo/").status_code == 200


def test_an_unknown_path_is_not_found_in_the_shape_of_the_wire(edge: Edge) -> None:
    answer = edge.get("/nowhere")
    assert answer.status_code == 404
    assert answer.json() == {
        "code": "not_found",
        "message": "http: nothing is served at '/nowhere'",
        "retryable": False,
        "started": "no",
    }


def test_a_method_that_is_not_served_is_405_and_allow_names_the_others(edge: Edge) -> None:
    answer = edge.get("/echo", "DELETE")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    assert answer.json()["code"] == "bad_request"
    assert edge.get("/change").headers["Allow"] == "POST, OPTIONS"


def test_options_tells_the_methods(edge: Edge) -> None:
    answer = edge.get("/echo", "OPTIONS")
    assert (answer.status_code, answer.headers["Allow"], answer.content) == (204, "GET, HEAD, OPTIONS", b"")


def test_head_is_get_without_the_body(edge: Edge) -> None:
    got, head = edge.get("/echo"), edge.get("/echo", "HEAD")
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["Content-Length"] == str(len(got.content)) != "0"


def test_head_of_a_stream_closes_it(edge: Edge) -> None:
    closed.clear()
    assert edge.get("/stream", "HEAD").content == b""
    assert edge.get("/stream").content == b"one\ntwo\n"
    assert closed == [True]  # the one that began; a generator that never ran has nothing to close


def test_a_typed_error_becomes_its_status_and_retry_after(edge: Edge) -> None:
    answer = edge.get("/overloaded")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    body = answer.json()
    assert (body["code"], body["actor"], body["retry_after_ms"]) == ("overloaded", "ml", 2400)


def test_a_broken_route_is_500_without_internals_and_the_server_goes_on(edge: Edge) -> None:
    answer = edge.get("/broken")
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert answer.json()["message"].endswith("the daemon's log has the cause")
    assert edge.get("/echo").status_code == 200


def test_requests_are_counted_by_route_and_status(edge: Edge) -> None:
    key = ("/things/{name}/parts/{part...}", "GET", "200")
    before, missing = http_module.REQUESTS.value(*key), http_module.REQUESTS.value("", "GET", "404")
    edge.get("/things/a/parts/b")
    edge.get("/nowhere/else")
    assert http_module.REQUESTS.value(*key) == before + 1
    assert http_module.REQUESTS.value("", "GET", "404") == missing + 1


@pytest.mark.parametrize(
    ("method", "pattern", "access"),
    [("HEAD", "/x", "open"), ("POST", "/x", "read"), ("GET", "/x/{rest...}/y", "read"), ("GET", "/echo", "read")],
)
def test_a_route_that_makes_no_sense_is_refused_when_it_is_added(method: str, pattern: str, access: Any) -> None:
    with pytest.raises(ValueError, match="route"):
        some_routes().add(method, pattern, lambda _request: Response(), access=access)


# -- tokens


def test_without_a_read_token_this_machine_may_read(edge: Edge) -> None:
    assert edge.get("/echo").status_code == 200


def test_with_a_read_token_reading_needs_it(start: Start) -> None:
    edge = start(read=READ)
    refused = edge.get("/echo")
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, 'Bearer realm="regrow"')
    assert refused.json()["code"] == "unauthorized"
    assert edge.get("/echo", token=READ).status_code == 200
    assert edge.get("/echo", token=ADMIN).status_code == 200


@pytest.mark.parametrize("header", ["Bearer wrong", "Bearer", "Basic cmVhZC10b2tlbi0wMTIz", READ, "Bearer \u00fc"])
def test_a_wrong_token_is_401_even_where_reading_is_open(edge: Edge, header: str) -> None:
    assert edge.get("/echo", headers={"Authorization": header.encode()}).status_code == 401


def test_changing_needs_the_admin_token_also_on_this_machine(edge: Edge) -> None:
    refused = edge.get("/change", "POST", json=2)
    assert refused.status_code == 401
    assert "admin token" in refused.json()["message"]
    assert edge.get("/change", "POST", token=ADMIN, json=2).json() == {"who": "admin"}


def test_the_read_token_changes_nothing(start: Start) -> None:
    edge = start(read=READ)
    refused = edge.get("/change", "POST", token=READ, json=2)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


def test_without_any_admin_token_nobody_changes_anything(start: Start) -> None:
    edge = start(admin="")
    for token in ("", "x", ADMIN):
        assert edge.get("/change", "POST", token=token, json=2).status_code == 401


def test_a_stale_token_does_not_fail_a_probe(edge: Edge) -> None:
    assert edge.get("/open", token="stale").text == "anonymous"
    assert edge.get("/open", token=ADMIN).text == "admin"
    assert edge.get("/open").text == "local"


def test_a_change_is_recorded_with_who_what_before_and_after(edge: Edge) -> None:
    seen: list[events.Event] = []
    unsubscribe = events.subscribe(seen.append)
    edge.get("/change", "POST", token=ADMIN, json={"limit": 5})
    unsubscribe()
    (change,) = [event.fields for event in seen if event.topic == "admin.changed"]
    assert change == {
        "who": "admin",
        "address": "127.0.0.1",
        "what": "thing.changed",
        "before": 1,
        "after": {"limit": 5},
    }


# -- hosts


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:5758", "10.1.2.3", "localhost."])
def test_addresses_and_localhost_are_hosts_of_ours(edge: Edge, host: str) -> None:
    assert edge.get("/echo", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:5758", "localhost.evil.example", "127.0.0.1.evil.example"]
)
def test_a_rebound_name_is_misdirected(edge: Edge, host: str) -> None:
    answer = edge.get("/open", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (421, "bad_request")


@pytest.mark.parametrize("host", ["a b", "user@localhost", "local/host", "[zz]", ""])
def test_a_host_that_is_none_is_refused(edge: Edge, host: str) -> None:
    answer = edge.raw(f"GET /echo HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert status_of(answer) == (200 if not host else 400)


def test_a_host_named_in_the_configuration_is_served() -> None:
    ref = Http.start("127.0.0.1", 0, some_routes(), Auth(None, None), hosts=["regrow.internal"])
    answer = Edge(ref).get("/echo", headers={"Host": "Regrow.Internal:80"})
    ref.stop()
    assert answer.status_code == 200


# -- limits


def test_keep_alive_answers_come_without_delay(edge: Edge) -> None:
    with edge.connect() as sock:
        took = []
        for _ in range(10):
            began = time.monotonic()
            sock.sendall(b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert status_of(sock.recv(65536)) == 200
            took.append(time.monotonic() - began)
    assert sorted(took)[5] < 0.03  # with Nagle's algorithm each but the first takes 40 ms


def test_two_requests_sent_at_once_are_answered_in_order(edge: Edge) -> None:
    answer = edge.raw(
        b"GET /things/a/parts/1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        b"GET /things/a/parts/2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.index(b'"part":"1"') < answer.index(b'"part":"2"')


def test_a_long_request_line_is_414(edge: Edge) -> None:
    answer = edge.raw(b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert status_of(answer) == 414
    assert body_of(answer)["code"] == "too_large"


@pytest.mark.parametrize(
    "headers", [b"X: " + b"x" * 40_000 + b"\r\n", b"".join(b"X%d: y\r\n" % n for n in range(200)), b"X: y\r\n" * 20_000]
)
def test_headers_over_their_limit_are_431(edge: Edge, headers: bytes) -> None:
    answer = edge.raw(b"GET /echo HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n")
    assert status_of(answer) == 431
    assert body_of(answer)["code"] == "too_large"


def test_an_announced_body_over_the_limit_is_413_unread(start: Start) -> None:
    edge = start(max_body_bytes=1000)
    head = f"POST /change HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN}\r\n"
    head += "Content-Length: 99999999999\r\n\r\n"
    answer = edge.raw(head.encode() + b"x" * 100_000)
    assert status_of(answer) == 413
    assert body_of(answer)["message"] == "http: a body of 99999999999 bytes is over the limit of 1000"


def test_a_chunked_body_over_the_limit_is_413(start: Start) -> None:
    edge = start(max_body_bytes=1000)
    answer = edge.get("/change", "POST", token=ADMIN, data=(b"x" * 100 for _ in range(50)))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_a_body_at_the_limit_is_read_plain_and_chunked(start: Start) -> None:
    edge = start(max_body_bytes=1000)
    body = json.dumps("x" * 998).encode()
    assert edge.get("/change", "POST", token=ADMIN, data=body).status_code == 200
    assert edge.get("/change", "POST", token=ADMIN, data=iter([body[:10], body[10:]])).status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_not_json_is_400(edge: Edge, body: bytes) -> None:
    answer = edge.get("/change", "POST", token=ADMIN, data=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


def test_a_body_nobody_reads_ends_the_connection_not_the_server(edge: Edge) -> None:
    before = time.monotonic()
    answer = edge.raw(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 10_000)
    assert status_of(answer) == 404
    assert time.monotonic() - before < 5
    assert edge.get("/echo").status_code == 200


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02garbage\r\n\r\n",
        b"GET /echo\r\n\r\n",
        b"GET /echo HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /echo HTTP/x\r\nHost: localhost\r\n\r\n",
        b"GET /echo HTTP/1.1\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: five\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: localhost\r\nno colon here\r\n\r\n",
        b"GET /%ff%fe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"POST /change HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + ADMIN.encode() + b"\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_request_is_refused_and_harms_nobody(edge: Edge, data: bytes) -> None:
    with edge.connect() as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        answer = read_all(sock)
    assert status_of(answer) in (400, 404)
    assert body_of(answer)["code"] in ("bad_request", "not_found")
    assert edge.get("/echo").status_code == 200


def test_a_client_that_drips_its_headers_is_cut_off_though_every_piece_is_in_time(start: Start) -> None:
    edge = start(header_s=0.3)
    before = http_server.REFUSED_CONNECTIONS.value("timeout")
    with edge.connect() as sock:
        sock.sendall(b"GET /echo HTTP/1.1\r\nHost: localhost\r\n")
        began = time.monotonic()
        answer = b""
        while time.monotonic() - began < 5 and not answer:
            try:
                sock.sendall(b"X: y\r\n")
                sock.settimeout(0.05)
                answer = sock.recv(65536)
            except TimeoutError:
                continue
    assert status_of(answer) == 408
    assert time.monotonic() - began < 2
    assert http_server.REFUSED_CONNECTIONS.value("timeout") == before + 1


def test_a_client_that_drips_its_request_line_is_told_too(start: Start) -> None:
    edge = start(header_s=0.1)
    assert status_of(edge.raw(b"GET /ec")) == 408


def test_a_client_that_drips_its_body_is_cut_off(start: Start) -> None:
    edge = start(body_s=0.1)
    head = f"POST /change HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN}\r\nContent-Length: 10\r\n\r\n1"
    answer = edge.raw(head.encode())
    assert status_of(answer) == 400
    assert "did not arrive in time" in body_of(answer)["message"]


def test_an_idle_connection_is_closed_in_silence(start: Start) -> None:
    edge = start(idle_s=0.1)
    assert edge.raw(b"") == b""


def test_a_client_that_does_not_read_is_let_go(start: Start) -> None:
    routes = Routes()
    routes.add("GET", "/big", lambda _request: Response(b"x" * 50_000_000), access="read")
    edge = start(routes, write_s=0.2)
    with edge.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until = time.monotonic() + 5
        while edge.ref.actor.status()["connections"] and time.monotonic() < until:
            gevent.sleep(0.02)
        assert edge.ref.actor.status()["connections"] == 0


def test_connections_over_the_limit_are_told_so_and_the_others_go_on(start: Start) -> None:
    edge = start(max_connections=2)
    before = http_server.REFUSED_CONNECTIONS.value("too_many")
    with edge.connect() as one, edge.connect() as two:
        for sock in (one, two):
            sock.sendall(b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert status_of(sock.recv(65536)) == 200
        refused = edge.get("/echo")
        assert (refused.status_code, refused.json()["code"], refused.headers["Retry-After"]) == (503, "overloaded", "1")
        one.sendall(b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert status_of(one.recv(65536)) == 200
    assert http_server.REFUSED_CONNECTIONS.value("too_many") == before + 1
    assert edge.get("/echo").status_code == 200


# -- the actor


def test_a_taken_port_fails_the_start_and_names_its_holder(start: Start) -> None:
    edge = start()
    with pytest.raises(PortTaken) as caught:
        start(port=edge.port)
    assert caught.value.holder is not None
    assert caught.value.holder.pid == os.getpid()
    assert f"127.0.0.1:{edge.port} is taken by process {os.getpid()} (" in str(caught.value)
    assert str(caught.value).endswith("stop it or change http.bind")


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_port_is_free_once_the_actor_has_ended_in_any_way(start: Start, end: str) -> None:
    edge = start()
    with edge.connect() as idle:
        idle.sendall(b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert status_of(idle.recv(65536)) == 200
        getattr(edge.ref, end)()
        again = start(port=edge.port)
        assert again.get("/echo").status_code == 200
        assert idle.recv(1) == b""


def test_a_stop_lets_an_answer_in_progress_finish(start: Start) -> None:
    began, go = gevent.event.Event(), gevent.event.Event()
    routes = Routes()

    def slow(_request: Request) -> Response:
        began.set()
        go.wait(5)
        return text_response("done")

    routes.add("GET", "/slow", slow, access="read")
    edge = start(routes, stop_s=5.0)
    asking = gevent.spawn(edge.get, "/slow")
    assert began.wait(5)
    stopping = gevent.spawn(edge.ref.stop)
    gevent.sleep(0)
    go.set()
    assert asking.get(timeout=5).text == "done"
    stopping.get(timeout=5)


def test_a_stop_does_not_wait_for_idle_connections(start: Start) -> None:
    edge = start(stop_s=10.0)
    with edge.connect() as idle:
        idle.sendall(b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert status_of(idle.recv(65536)) == 200
        began = time.monotonic()
        edge.ref.stop()
        assert time.monotonic() - began < 2


def test_errors_know_their_status() -> None:
    assert http_module.error_response(TooLarge("x")).status == 413
    assert isinstance(http_module.REQUESTS, Counter)
