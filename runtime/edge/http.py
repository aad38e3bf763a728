"""The HTTP edge: requests, routes, and the actor that owns the server.

Read: `Request` and `Response`, `Routes` (who adds what), `App` (what a request goes through), `Http` (the actor). The
connection itself, with its limits against slow and endless clients, is in `http_server`; the built-in routes are in
`http_routes`. A later part of the edge adds its own routes to the same `Routes` before the actor starts.

Order of checks: host, path, method, token. Errors are JSON objects of the same shape as on the wire.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeAlias

import msgspec

from regrow.protocol.errors import BadRequest, NotFound, RegrowError, TooLarge
from runtime import clock, events
from runtime.actor import Actor, exported
from runtime.edge.auth import Access, Auth, Caller
from runtime.edge.http_server import Limits, Server, error_body
from runtime.edge.ports import is_loopback, listen
from runtime.measure import Counter, Histogram
from runtime.reasons import ExitReason
from runtime.signals import monitor

REQUESTS = Counter("http_server_requests_total", "answers by route, method and status", ("route", "method", "status"))
SECONDS = Histogram(
    "http_server_request_seconds", "from the headers of a request to the start of its answer", ("route",)
)
REFUSED = Counter("http_server_refused_total", "requests and connections refused before any route", ("reason",))
for _reason in ("host", "not_found", "method", "unauthorized", "forbidden"):
    REFUSED.declare(_reason)

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

#: the status of an error by its code; what is not listed is 500
STATUS: Mapping[str, int] = {
    "overloaded": 503,
    "rate_limited": 429,
    "circuit_open": 503,
    "unavailable": 503,
    "draining": 503,
    "bad_request": 400,
    "not_found": 404,
    "invalid_arguments": 422,
    "unauthorized": 401,
    "forbidden": 403,
    "conflict": 409,
    "too_large": 413,
    "upstream_error": 502,
    "connection_error": 502,
    "decode_error": 502,
    "timeout": 504,
    "deadline_exceeded": 504,
    "cancelled": 503,
}

_log = logging.getLogger("regrow.http")

Headers: TypeAlias = list[tuple[str, str]]
StartResponse: TypeAlias = Callable[[str, Headers], object]


class Request:
    """One request as a route sees it. `params` are the parts of the path that the route's pattern names."""

    __slots__ = ("_environ", "_limit_bytes", "caller", "method", "params", "path")

    def __init__(self, environ: dict[str, Any], method: str, path: str, limit_bytes: int) -> None:
        self._environ = environ
        self._limit_bytes = limit_bytes
        self.method = method
        self.path = path
        self.params: Mapping[str, str] = {}
        self.caller = Caller("anonymous", str(environ.get("REMOTE_ADDR", "")), reads=False, changes=False)

    def header(self, name: str, default: str = "") -> str:
        """Return a header by its name in any case. Never switches."""
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        return str(self._environ.get(key, default))

    def query(self) -> dict[str, list[str]]:
        """Return the query's parameters, each with all its values. Never switches."""
        try:
            return urllib.parse.parse_qs(str(self._environ.get("QUERY_STRING", "")), True, max_num_fields=100)
        except ValueError:
            raise BadRequest("http: the query has more than 100 parameters") from None

    def body(self) -> bytes:
        """Read the whole body; raises `TooLarge` and `BadRequest`. Switches greenlets."""
        limit = self._limit_bytes
        length = str(self._environ.get("CONTENT_LENGTH") or "0")
        if length.isdecimal() and int(length) > limit:
            raise TooLarge(f"http: a body of {int(length)} bytes is over the limit of {limit}")
        try:
            body: bytes = self._environ["wsgi.input"].read(limit + 1)
        except TimeoutError:
            raise BadRequest("http: the body did not arrive in time") from None
        except OSError as error:
            raise BadRequest("http: the body ended early or is not chunked as announced") from error
        if len(body) > limit:
            raise TooLarge(f"http: the body is over the limit of {limit} bytes")
        return body

    def json(self) -> Any:
        """Read the body as JSON; raises `TooLarge` and `BadRequest`. Switches greenlets."""
        try:
            return msgspec.json.decode(self.body())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequest(f"http: the body is not JSON: {error}") from None


@dataclass(slots=True)
class Response:
    """An answer; a body that is an iterator is sent piece by piece and closed at the end."""

    body: bytes | Iterator[bytes] = b""
    content_type: str = "application/json"
    status: int = 200
    headers: Headers = field(default_factory=list)


def json_response(value: object, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Response:
    """Return a value as JSON; what JSON does not know becomes text. Never switches."""
    return Response(msgspec.json.encode(value, enc_hook=str) + b"\n", "application/json", status, list(headers))


def text_response(text: str, status: int = 200) -> Response:
    """Return plain text. Never switches."""
    return Response(text.encode(), "text/plain; charset=utf-8", status)


def error_response(error: RegrowError, status: int | None = None, headers: Iterable[tuple[str, str]] = ()) -> Response:
    """Return a typed error in the wire's shape, with the status of its code. Never switches."""
    status = STATUS.get(error.code, 500) if status is None else status
    extra = list(headers)
    if error.retry_after_s is not None:
        extra.append(("Retry-After", str(max(1, round(error.retry_after_s)))))
    if status == 401:
        extra.append(("WWW-Authenticate", 'Bearer realm="regrow"'))
    return Response(error_body(error), "application/json", status, extra)


Handler: TypeAlias = Callable[[Request], Response]


@dataclass(frozen=True, slots=True)
class Route:
    """What answers a method on a pattern of paths, for callers with the named access."""

    method: str
    pattern: str
    handler: Handler
    access: Access


class Routes:
    """The table of routes. `{name}` in a pattern is one segment of the path, `{name...}` at its end is the rest."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[str, Route]] = {}
        self._patterns: list[tuple[re.Pattern[str], dict[str, Route]]] = []
        self._by_pattern: dict[str, dict[str, Route]] = {}

    def add(self, method: str, pattern: str, handler: Handler, *, access: Access) -> None:
        """Register a route; raises ValueError for one that exists or cannot be matched. Never switches."""
        if method not in METHODS or method in ("HEAD", "OPTIONS"):
            raise ValueError(f"route {method} {pattern}: the method must be one of GET, POST, PUT, PATCH, DELETE")
        if method != "GET" and access != "admin":
            raise ValueError(f"route {method} {pattern}: what is not GET changes something and needs access 'admin'")
        methods = self._by_pattern.get(pattern)
        if methods is None:
            methods = self._by_pattern[pattern] = {}
            if "{" in pattern:
                self._patterns.append((_compile(pattern), methods))
            else:
                self._exact[pattern] = methods
        if method in methods:
            raise ValueError(f"route {method} {pattern} exists already")
        methods[method] = Route(method, pattern, handler, access)
        REQUESTS.declare(pattern, method, "200")
        SECONDS.declare(pattern)

    def match(self, path: str) -> tuple[Mapping[str, Route], Mapping[str, str]] | None:
        """Return the routes of a path by method, and its named parts; None when nothing matches. Never switches."""
        methods = self._exact.get(path)
        if methods is not None:
            return methods, {}
        for regex, candidates in self._patterns:
            found = regex.fullmatch(path)
            if found is not None:
                return candidates, found.groupdict()
        return None

    def __iter__(self) -> Iterator[Route]:
        return (route for methods in self._by_pattern.values() for route in methods.values())


def _compile(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"\{([a-z_]+)(\.\.\.)?\}", pattern)
    regex = re.escape(parts[0])
    for name, rest, literal in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        if rest and literal:
            raise ValueError(f"route {pattern}: {{{name}...}} must be the end of the pattern")
        regex += f"(?P<{name}>{'.+' if rest else '[^/]+'}){re.escape(literal)}"
    return re.compile(regex, re.DOTALL)


class App:
    """The WSGI application: what every request goes through."""

    def __init__(self, routes: Routes, auth: Auth, *, limits: Limits, local: bool, hosts: Sequence[str] = ()) -> None:
        self.routes = routes
        self.auth = auth
        self.limits = limits
        self._local = local
        self._hosts = frozenset(host.lower() for host in hosts)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request. Switches greenlets."""
        began = clock.now()
        method = str(environ["REQUEST_METHOD"])
        pattern, response = self._answer(environ, method)
        body = response.body
        headers = [("Content-Type", response.content_type), *response.headers, ("X-Content-Type-Options", "nosniff")]
        if not any(name.lower() == "cache-control" for name, _ in headers):
            headers.append(("Cache-Control", "no-store"))
        if isinstance(body, bytes) and response.status != 204:
            headers.append(("Content-Length", str(len(body))))
        REQUESTS.inc(pattern, method if method in METHODS else "other", str(response.status))
        SECONDS.observe(clock.now() - began, pattern)
        start_response(f"{response.status} {_phrase(response.status)}", headers)
        if method == "HEAD" or response.status == 204:
            close = getattr(body, "close", None)
            if close is not None:
                close()
            return []
        return [body] if isinstance(body, bytes) else body

    def _answer(self, environ: dict[str, Any], method: str) -> tuple[str, Response]:
        pattern = ""
        try:
            request = Request(environ, method, _path_of(environ), self.limits.max_body_bytes)
            self._check_host(request)
            found = self.routes.match(request.path)
            if found is None:
                REFUSED.inc("not_found")
                raise NotFound(f"http: nothing is served at {request.path[:200]!r}")
            methods, request.params = found
            pattern = next(iter(methods.values())).pattern
            route = methods.get("GET" if method == "HEAD" else method)
            if route is None:
                return pattern, _not_allowed(methods, request)
            request.caller = self._caller(request, route.access)
            return pattern, route.handler(request)
        except RegrowError as error:
            if error.code in ("unauthorized", "forbidden"):
                REFUSED.inc(error.code)
            return pattern, error_response(error, _HOST_STATUS if isinstance(error, WrongHost) else None)
        except Exception:  # noqa: BLE001 - an edge: one broken route must not cost the connection, and tells no internals
            _log.exception("a route failed", extra={"event": "http.failed", "actor": "http", "route": pattern})
            return pattern, error_response(RegrowError("http: internal error, the daemon's log has the cause"))

    def _caller(self, request: Request, access: Access) -> Caller:
        if access == "open":
            # a probe must not fail for a stale token; what the caller may see is still told by a good one
            try:
                return self.auth.caller(request.header("authorization"), request.caller.address)
            except RegrowError:
                return request.caller
        caller = self.auth.caller(request.header("authorization"), request.caller.address)
        self.auth.check(caller, access)
        return caller

    def _check_host(self, request: Request) -> None:
        """Refuse a host name that is not ours: a web page whose name was rebound to this address (DNS rebinding).

        An address needs no name, so it cannot be rebound; names are checked where reading is open to this machine.
        """
        host = request.header("host")
        if not host:
            return  # HTTP/1.0; a browser always sends it, and HTTP/1.1 without it was refused before
        name = _host_name(host)
        if name is None:
            REFUSED.inc("host")
            raise BadRequest("http: the Host header is not a host")
        if not self._local or name in self._hosts or name == "localhost" or _is_address(name):
            return
        REFUSED.inc("host")
        raise WrongHost(f"http: host {name[:100]!r} is not served here, use the address or localhost")


class WrongHost(BadRequest):
    """The Host header names somebody else."""

    code = "bad_request"


_HOST_STATUS = HTTPStatus.MISDIRECTED_REQUEST.value


class Http(Actor):
    """Owns the HTTP server: the socket is bound when its start is acknowledged, and closed when it ends in any way.

    Its start fails with `ports.PortTaken` when somebody else has the port. A stop lets answers in progress finish for
    `limits.stop_s` seconds.
    """

    def __init__(
        self,
        host: str,
        port: int,
        routes: Routes,
        auth: Auth,
        *,
        limits: Limits | None = None,
        hosts: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._host = host
        self._port = port
        self._limits = limits or Limits()
        self._app = App(routes, auth, limits=self._limits, local=is_loopback(host), hosts=[host, *hosts])
        self._server: Server | None = None

    def on_start(self) -> None:
        listener = listen(self._host, self._port, who="http", key="http.bind")
        self._port = listener.getsockname()[1]
        server = self._server = Server(listener, self._app, self._limits)
        server.start()
        # however this actor ends, a kill included, its socket is free before a successor binds it
        monitor(self.ref, lambda _down: server.abandon())
        events.publish("http.bound", actor="http", address=self.address())

    def on_terminate(self, reason: ExitReason) -> None:
        if self._server is not None:
            self._server.stop(self._limits.stop_s)

    @exported
    def address(self) -> str:
        """The address it listens on, as the start of a URL."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def status(self) -> dict[str, object]:
        """Return the address and the connections open now. Never switches."""
        return {"address": self.address(), "connections": self._server.connections if self._server else 0}


def audit(caller: Caller, what: str, before: object, after: object) -> None:
    """Record a change that came over HTTP: who, what, and its effect; every route with access `admin` calls it.

    `before` and `after` are JSON-safe. Never switches.
    """
    events.publish("admin.changed", who=caller.name, address=caller.address, what=what, before=before, after=after)


def _not_allowed(methods: Mapping[str, Route], request: Request) -> Response:
    allowed = {*methods, "OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    allow = ("Allow", ", ".join(name for name in METHODS if name in allowed))
    if request.method == "OPTIONS":
        return Response(b"", status=204, headers=[allow])
    REFUSED.inc("method")
    error = BadRequest(f"http: {request.method[:20]} is not allowed here, use {allow[1]}")
    return error_response(error, HTTPStatus.METHOD_NOT_ALLOWED.value, [allow])


def _path_of(environ: Mapping[str, Any]) -> str:
    try:
        path = str(environ.get("PATH_INFO", "")).encode("latin-1").decode()
    except UnicodeDecodeError:
        raise BadRequest("http: the path is not UTF-8") from None
    return path.rstrip("/") or "/"


def _host_name(host: str) -> str | None:
    """The name in a Host header, without port and brackets; None when it is malformed."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?", host.strip())
    return found[1].strip("[]").rstrip(".").lower() if found else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
