"""The server below the routes: gevent's WSGI server with limits on everything that a client controls.

Decisions. pywsgi does not switch Nagle's algorithm off, which costs keep-alive clients 40 ms an answer; it bounds
neither the time of a request nor the size of its headers, and reads an unread body to its end. So a connection's bytes
come through `_Reader`, which knows an absolute deadline, and `Handler` sets that for each phase of a request.
"""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from typing import Any

import msgspec
from gevent import GreenletExit, getcurrent
from gevent.pool import Pool
from gevent.pywsgi import Input, WSGIHandler, WSGIServer

from regrow.protocol.errors import BadRequest, Overloaded, RegrowError, TooLarge
from runtime.measure import Counter, Gauge

CONNECTIONS = Gauge("http_server_connections", "connections open now")
REFUSED_CONNECTIONS = Counter(
    "http_server_connections_refused_total", "connections ended before a request by reason", ("reason",)
)
for _reason in ("too_many", "timeout", "too_large", "malformed"):
    REFUSED_CONNECTIONS.declare(_reason)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may ask of the server; times in seconds."""

    max_connections: int = 200
    max_header_bytes: int = 32 * 1024
    max_body_bytes: int = 1024 * 1024
    idle_s: float = 75.0
    header_s: float = 10.0
    body_s: float = 30.0
    write_s: float = 30.0
    stop_s: float = 1.0


class HeadersTooLarge(ValueError):
    """The request line and headers are over their limit."""


class _Reader(io.RawIOBase):
    """The bytes of a connection, until a deadline that moves with the phases of a request."""

    def __init__(self, sock: Any, limits: Limits) -> None:
        super().__init__()
        self._sock = sock
        self._limits = limits
        self._deadline = 0.0
        self._budget = 0
        self.await_request()

    def await_request(self) -> None:
        """Wait for a request for `idle_s`; from its first byte on its headers have `header_s` and a bound."""
        self._deadline = time.monotonic() + self._limits.idle_s
        self._budget = self._limits.max_header_bytes
        self._idle = True

    def begin(self) -> None:
        """Give a request its time from now on; also called for one that came along with the request before it."""
        if self._idle:
            self._idle = False
            self._deadline = time.monotonic() + self._limits.header_s

    def await_body(self) -> None:
        """Give the body its own time; its size is the business of who reads it."""
        self._deadline = time.monotonic() + self._limits.body_s
        self._budget = -1
        self._idle = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        if self._budget == 0:
            raise HeadersTooLarge
        self._sock.settimeout(left_s)
        try:
            n: int = self._sock.recv_into(buffer, min(len(buffer), self._budget) if self._budget > 0 else len(buffer))
        finally:
            self._sock.settimeout(self._limits.write_s)
        if self._idle and n:
            self.begin()
        if self._budget > 0:
            self._budget -= n
        return n

    @property
    def idle(self) -> bool:
        """Whether nothing of the next request has come yet."""
        return self._idle


class _Body(Input):
    """A request's body; what the route left unread is not read for its sake."""

    __slots__ = ("handler", "started")

    def __init__(self, handler: Handler, inner: Any) -> None:
        super().__init__(inner.rfile, inner.content_length, inner.socket, inner.chunked_input)
        self.handler = handler
        self.started = False

    def read(self, length: int | None = None) -> bytes:
        if not self.started:
            self.started = True
            self.handler.reader.await_body()
        data: bytes = super().read(length)
        return data

    @property
    def unread(self) -> bool:
        if self.chunked_input:
            return bool(self.chunk_length != 0)
        return bool(self.position < (self.content_length or 0))

    def _discard(self) -> None:
        if self.unread:
            self.handler.close_connection = True
            self.handler.lingers = True


class Handler(WSGIHandler):
    """One connection."""

    server: Server
    limits: Limits

    def __init__(self, sock: Any, address: Any, server: Server) -> None:
        super().__init__(sock, address, server)
        self.limits = server.limits
        self.rfile.close()  # the stock reader keeps the socket open and knows no deadline
        self.reader = _Reader(sock, server.limits)
        self.rfile = io.BufferedReader(self.reader)
        self.lingers = False
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def is_idle(self) -> bool:
        """Whether the connection waits for a request of which nothing has come."""
        return self.reader.idle

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            pass  # the client went away or does not read; there is nobody to tell

    def handle_one_request(self) -> Any:
        self.reader.await_request()
        try:
            result = super().handle_one_request()
        except HeadersTooLarge as error:
            result = self._handle_client_error(error)
        if isinstance(result, tuple):
            status, answer = result
            if status == "414":
                REFUSED_CONNECTIONS.inc("too_large")
                answer = refusal(414, TooLarge("http: the request line is over 8192 bytes"))
            self.socket.sendall(answer)
            self.lingers, result = True, None
        if self.lingers:
            self._linger()
        return None if self.server.stopping else result

    def read_requestline(self) -> str:
        try:
            line = super().read_requestline()
            self.reader.begin()
            return line
        except TimeoutError as error:
            if not self.reader.idle:
                self.socket.sendall(self._handle_client_error(error)[1])
            raise

    def read_request(self, raw_requestline: str) -> Any:
        if len(raw_requestline.split()) != 3:
            raise ValueError("the request line is not METHOD PATH VERSION")
        super().read_request(raw_requestline)
        headers = self.headers
        if self.request_version == "HTTP/1.1" and len(headers.get_all("host", [])) != 1:
            raise ValueError("HTTP/1.1 needs exactly one Host header")
        coding = headers.get("transfer-encoding")
        if coding is not None and coding.strip().lower() != "chunked":
            raise ValueError("the only transfer coding served is chunked")
        if len(headers.get_all("content-length", [])) > 1:
            raise ValueError("more than one Content-Length")
        return True

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        self.wsgi_input = environ["wsgi.input"] = _Body(self, self.wsgi_input)
        return environ

    def _connection_upgrade_requested(self) -> bool:
        return False  # nothing here upgrades; else a body would be read without any bound

    def _handle_client_error(self, ex: Exception) -> tuple[str, bytes]:
        if isinstance(ex, TimeoutError):
            REFUSED_CONNECTIONS.inc("timeout")
            return "408", refusal(408, BadRequest("http: the request did not arrive in time"))
        if isinstance(ex, HeadersTooLarge | HTTPException):
            REFUSED_CONNECTIONS.inc("too_large")
            limit = self.limits.max_header_bytes
            return "431", refusal(431, TooLarge(f"http: the headers are over {limit} bytes, or more than 100"))
        REFUSED_CONNECTIONS.inc("malformed")
        return "400", refusal(400, BadRequest("http: the request is malformed"))

    def handle_error(self, t: Any, v: Any, tb: Any) -> None:
        if issubclass(t, OSError | GreenletExit):  # the client does not read, or the server stops
            self.close_connection = True
        else:
            super().handle_error(t, v, tb)

    def _send_error_response_if_possible(self, error_code: int) -> None:
        self.close_connection = True
        if self.response_length or self.headers_sent:
            return
        error = (
            BadRequest("http: the request is malformed") if error_code == 400 else RegrowError("http: internal error")
        )
        try:
            self.socket.sendall(refusal(error_code, error))
        except OSError:
            pass

    def _linger(self) -> None:
        """Take in what the client still sends, within bounds: closing at once would reset the answer away."""
        sock, until, left = self.socket, time.monotonic() + 1.0, 1 << 20
        try:
            sock.shutdown(socket.SHUT_WR)
            while left > 0 and time.monotonic() < until:
                sock.settimeout(max(0.01, until - time.monotonic()))
                n = len(sock.recv(65536))
                if not n:
                    break
                left -= n
        except OSError:
            pass
        finally:
            self.lingers = False


class Server(WSGIServer):
    """Accepts connections on a listener; over `max_connections` a client is told so and let go."""

    handler_class = Handler

    def __init__(self, listener: Any, app: Callable[..., Any], limits: Limits) -> None:
        self.limits = limits
        self.stopping = False
        self._greenlets: Pool = Pool()
        self._handlers: dict[Any, Handler] = {}
        self._refusing = 0
        super().__init__(listener, app, spawn=self._greenlets, log=None, error_log=None)

    @property
    def connections(self) -> int:
        return len(self._handlers)

    def do_handle(self, *args: Any) -> None:
        if len(self._greenlets) - self._refusing < self.limits.max_connections:
            super().do_handle(*args)
            return
        REFUSED_CONNECTIONS.inc("too_many")
        if self._refusing >= self.limits.max_connections:
            self.do_close(*args)
        else:
            self._refusing += 1
            self._greenlets.spawn(self._refuse, *args)

    def handle(self, sock: Any, address: Any) -> None:
        me, handler = getcurrent(), Handler(sock, address, self)
        self._handlers[me] = handler
        CONNECTIONS.set(len(self._handlers))
        try:
            handler.handle()
        finally:
            del self._handlers[me]
            CONNECTIONS.set(len(self._handlers))

    def _refuse(self, sock: Any, *_address: Any) -> None:
        try:
            sock.settimeout(1.0)
            sock.recv(8192)
            many = f"http: {self.limits.max_connections} connections are open already"
            sock.sendall(refusal(503, Overloaded(many, retry_after_s=1.0), "Retry-After: 1\r\n"))
        except OSError:
            pass
        finally:
            self._refusing -= 1
            sock.close()

    def update_environ(self) -> None:
        # the stock one looks up the machine's name, which may take seconds where DNS is broken
        address: Any = self.address
        self.environ.update(SERVER_NAME=str(address[0]), SERVER_PORT=str(address[1]))

    def stop(self, timeout: float | None = None) -> None:
        """Close the listener, let answers in progress finish for `timeout` seconds, end the rest.

        Switches greenlets.
        """
        self.stopping = True
        for greenlet, handler in list(self._handlers.items()):
            if handler.is_idle:
                greenlet.kill(block=False)
        super().stop(timeout)

    def abandon(self) -> None:
        """Close the listener and end every connection at once, without waiting. Never switches."""
        self.stopping = True
        self.close()
        self._greenlets.kill(block=False)


def error_body(error: RegrowError) -> bytes:
    """Return a typed error as the body of an answer. Never switches."""
    return msgspec.json.encode(error.to_wire(), enc_hook=str) + b"\n"


def refusal(status: int, error: RegrowError, headers: str = "") -> bytes:
    """Return a whole answer, for what is not even a request. Never switches."""
    body = error_body(error)
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{headers}Connection: close\r\n\r\n"
    )
    return head.encode() + body
