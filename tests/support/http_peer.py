"""HTTP peers on real sockets, scripted by the test: they answer as told, slowly, wrongly or not at all.

    peer.reply("GET /users/ada", json={"login": "ada"})             # from now on
    peer.reply("GET /users/ada", status=503, times=2)               # the next two, then what was scripted before
    peer.reply("POST /orders", handler=lambda request: Reply(status=201, json=request.json()))
    peer.reply("GET /slow", hold=True)                              # answers after peer.release()
    peer.reply("GET /drip", body=b"x" * 100, drip_bytes=1, drip_pause_s=0.05)
    peer.reply("GET /cut", body=b"x" * 100, close_after_bytes=10)   # Content-Length says 100
    peer.reply("GET /noise", raw=b"\\x00\\xff not http")
    peer.reply("*", status=404)                                     # whatever is not scripted; the default is 404

`peer.requests` holds every request in the order of arrival, `peer.wait_for_requests(n)` returns when n have arrived.
"""

from __future__ import annotations

import json as json_module
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer
from gevent.server import StreamServer

from tests.support.ports import free_port

MAX_CONNECTIONS = 2_000
MAX_REQUESTS_KEPT = 100_000


@dataclass(frozen=True)
class Request:
    """One request as it arrived. `path` is still percent-encoded; `headers` has lower-case names."""

    method: str
    path: str
    query_string: str
    headers: Mapping[str, str]
    body: bytes
    at: float
    """Monotonic seconds of its arrival."""

    @property
    def query(self) -> dict[str, str]:
        """The decoded query; of a repeated name the last value."""
        return dict(parse_qsl(self.query_string, keep_blank_values=True))

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query_string}" if self.query_string else self.path

    def json(self) -> Any:
        """Return the decoded body."""
        return json_module.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """One answer. `json` or `body` is sent with its Content-Length, unless `headers` has one or `chunked` is set."""

    status: int = 200
    json: Any = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    chunked: bool = False
    delay_s: float = 0.0
    """Silence before the first byte."""
    hold: bool = False
    """Silence before the first byte until `HttpPeer.release()`."""
    drip_bytes: int = 0
    """Send the body in pieces of so many bytes, `drip_pause_s` apart; 0 sends it at once."""
    drip_pause_s: float = 0.05
    close_after_bytes: int | None = None
    """Close the connection after so many bytes of the body."""
    reset: bool = False
    """End the connection with a TCP reset, after the body or where `close_after_bytes` says, at once without either."""
    close: bool = False
    """Say Connection: close, and do it."""
    raw: bytes | None = None
    """Send these bytes in place of any HTTP, then close."""

    def head_and_body(self) -> tuple[bytes, bytes]:
        """Return what goes over the wire, chunked framing not yet applied."""
        body = self.body if self.json is None else json_module.dumps(self.json).encode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        headers.setdefault("date", formatdate(usegmt=True))
        if self.json is not None:
            headers.setdefault("content-type", "application/json")
        if self.chunked:
            headers.setdefault("transfer-encoding", "chunked")
        elif self.status >= 200 and self.status not in {204, 304}:
            headers.setdefault("content-length", str(len(body)))
        if self.close:
            headers.setdefault("connection", "close")
        try:
            phrase = HTTPStatus(self.status).phrase
        except ValueError:
            phrase = "Unknown"
        lines = [f"HTTP/1.1 {self.status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), body


Handler = Callable[[Request], Reply]

_NOT_SCRIPTED = Reply(status=404, json={"message": "this test peer was not told what to answer"})


@dataclass
class _Script:
    answer: Reply | Handler
    times: int | None


class HttpPeer:
    """A scripted HTTP/1.1 server on loopback, with keep-alive; the port stays the same over `stop` and `start`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.requests: list[Request] = []
        self.connections = 0
        """How many connections were ever accepted."""
        self._scripts: dict[str, list[_Script]] = {}
        self._arrived = Event()
        self._released = Event()
        self._open: set[socket.socket] = set()
        self._server: WSGIServer | None = None

    def __repr__(self) -> str:
        state = "running" if self._server is not None else "stopped"
        return f"<HttpPeer {self.url} {state} requests={len(self.requests)}>"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen; nothing happens when it does."""
        if self._server is not None:
            return
        peer = self

        class Connection(_ScriptedHandler):
            owner = peer

        self._server = WSGIServer(
            ("127.0.0.1", self.port),
            _never_called,
            log=None,
            error_log=None,
            handler_class=Connection,
            spawn=Pool(MAX_CONNECTIONS),
        )
        self._server.start()

    def stop(self) -> None:
        """Stop listening and cut every connection: the next connect is refused."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.stop(timeout=0)
        self.cut_connections()

    def cut_connections(self) -> None:
        """Close every open connection from this side; listening goes on."""
        for connection in list(self._open):
            _shut(connection)

    def reply(self, route: str, *, handler: Handler | None = None, times: int | None = None, **reply: Any) -> None:
        """Script the answer of "METHOD /path" (percent-encoded, without query) or of "*".

        The latest script answers first, `times` times or for ever. `reply` are the fields of `Reply`.
        """
        if handler is not None and reply:
            raise ValueError("a handler makes the whole reply: give one of both")
        self._scripts.setdefault(route, []).append(_Script(handler or Reply(**reply), times))

    def replies(self, route: str, answers: Sequence[Reply | Handler]) -> None:
        """Script answers that are given one after the other, each once; then what was scripted before is next again."""
        self._scripts.setdefault(route, []).extend(_Script(answer, 1) for answer in reversed(answers))

    def forget(self) -> None:
        """Forget scripts and recorded requests."""
        self._scripts.clear()
        self.requests.clear()

    def release(self) -> None:
        """Answer every request that is on hold, and hold none any more."""
        self._released.set()

    def hold_again(self) -> None:
        """Let scripts with `hold` hold again."""
        self._released.clear()

    def count(self, route: str = "*") -> int:
        """Return how many requests of "METHOD /path" arrived; "*" counts all."""
        return sum(route in {"*", f"{request.method} {request.path}"} for request in self.requests)

    def wait_for_requests(self, number: int, timeout_s: float = 10.0) -> None:
        """Return when `number` requests have arrived since the start; raise AssertionError after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while len(self.requests) < number:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise AssertionError(f"{len(self.requests)} of {number} requests arrived within {timeout_s} s")
            self._arrived.wait(remaining_s)

    def _answer(self, request: Request) -> Reply:
        if len(self.requests) >= MAX_REQUESTS_KEPT:
            raise AssertionError(f"more than {MAX_REQUESTS_KEPT} requests in one test: call forget() in between")
        self.requests.append(request)
        self._arrived.set()
        self._arrived.clear()
        answer = self._script(f"{request.method} {request.path}") or self._script("*") or _NOT_SCRIPTED
        return answer if isinstance(answer, Reply) else answer(request)

    def _script(self, route: str) -> Reply | Handler | None:
        scripts = self._scripts.get(route)
        if not scripts:
            return None
        latest = scripts[-1]
        if latest.times is not None:
            latest.times -= 1
            if latest.times <= 0:
                scripts.pop()
        return latest.answer

    def _send(self, connection: socket.socket, reply: Reply) -> bool:
        """Send a reply; return whether the connection may serve another request."""
        if reply.delay_s:
            gevent.sleep(reply.delay_s)
        if reply.hold:
            self._released.wait()
        if reply.raw is not None:
            connection.sendall(reply.raw)
            return False
        if reply.reset and not reply.body and reply.json is None:
            _reset(connection)
            return False
        head, body = reply.head_and_body()
        piece = reply.drip_bytes or max(len(body), 1)
        cut = len(body) if reply.close_after_bytes is None else reply.close_after_bytes
        pieces = [body[start : min(start + piece, cut)] for start in range(0, min(len(body), cut), piece)]
        connection.sendall(head + _framed(pieces.pop(0), reply.chunked) if pieces else head)
        for part in pieces:
            gevent.sleep(reply.drip_pause_s)
            connection.sendall(_framed(part, reply.chunked))
        if reply.reset:
            _reset(connection)
        if reply.reset or reply.close_after_bytes is not None:
            return False
        if reply.chunked:
            connection.sendall(b"0\r\n\r\n")
        return not reply.close


def _never_called(environ: object, start_response: object) -> list[bytes]:
    raise AssertionError("the scripted handler answers without an application")


class _ScriptedHandler(WSGIHandler):
    """pywsgi reads the request; what is sent, and whether the connection lives on, is the script's."""

    owner: HttpPeer

    def __init__(self, sock: socket.socket, address: str, server: WSGIServer) -> None:
        # pywsgi leaves Nagle's algorithm on, which costs each keep-alive request 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(sock, address, server)

    def handle(self) -> None:
        self.owner.connections += 1
        self.owner._open.add(self.socket)
        connection = self.socket
        try:
            super().handle()
        finally:
            self.owner._open.discard(connection)

    def handle_one_response(self) -> None:
        assert self.environ is not None and self.path is not None and self.command is not None
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.environ["wsgi.input"].read()
        request = Request(self.command, path, query, headers, body, time.monotonic())
        lives_on = False
        try:
            lives_on = self.owner._send(self.socket, self.owner._answer(request))
        except (BrokenPipeError, ConnectionResetError):
            pass
        if not lives_on or headers.get("connection", "").lower() == "close":
            self.close_connection = True


class RawPeer:
    """A TCP listener whose behaviour is a function of the accepted socket; for everything that is not HTTP.

    `garbage`, `silence`, `hang_up` and `reset` are ready-made; the socket is closed when the function returns.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.connections = 0
        self._behaviour: Callable[[socket.socket], None] = silence
        self._server: StreamServer | None = None
        self._pool = Pool(MAX_CONNECTIONS)

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def behave(self, behaviour: Callable[[socket.socket], None]) -> None:
        """Treat every connection accepted from now on with this function."""
        self._behaviour = behaviour

    def start(self) -> None:
        """Listen; nothing happens when it does."""
        if self._server is None:
            self._server = StreamServer(self.address, self._serve, spawn=self._pool)
            self._server.start()

    def stop(self) -> None:
        """Stop listening and cut every connection."""
        if self._server is not None:
            server, self._server = self._server, None
            server.stop(timeout=0)

    def _serve(self, connection: socket.socket, address: object) -> None:
        self.connections += 1
        with connection:
            try:
                self._behaviour(connection)
            except (BrokenPipeError, ConnectionResetError):
                pass


def garbage(data: bytes) -> Callable[[socket.socket], None]:
    """Read one piece of what the caller says, answer `data` and hang up."""

    def behave(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(data)

    return behave


def silence(connection: socket.socket) -> None:
    """Read and never answer, until the caller hangs up."""
    while connection.recv(65_536):
        pass


def hang_up(connection: socket.socket) -> None:
    """Close at once."""


def reset(connection: socket.socket) -> None:
    """End the connection with a TCP reset after the caller's first words."""
    connection.recv(65_536)
    _reset(connection)


def _framed(part: bytes, chunked: bool) -> bytes:
    return b"%x\r\n%s\r\n" % (len(part), part) if chunked and part else part


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
