"""The HTTP client of all integrations: requests' connection pools within hard limits of time, size and redirects.

Three decisions. Time: requests' own timeouts are per read, so one bare `gevent.Timeout` bounds the whole exchange and
is converted outside of it (as an Exception it would be swallowed inside urllib3). Truth: whether the first byte of a
request went out is noted at the socket, so that `started` = no is certain. Redirects: followed here, never by requests,
which would hand our secrets to other hosts and read bodies without bound.
"""

from __future__ import annotations

import http.client
import ipaddress
import select
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import gevent
import requests
import requests.adapters
import urllib3
from gevent.local import local
from gevent.lock import BoundedSemaphore
from gevent.monkey import get_original
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection, HTTPSConnection

from actors.resilience.normaliser import normalise
from config.secret import redact
from regrow.protocol.errors import (
    Started,
    TimedOut,
    TooLarge,
    UpstreamError,
)

_poll = get_original("select", "poll")
_getaddrinfo = get_original("socket", "getaddrinfo")

CONNECT_TIMEOUT_S = 5.0
MAX_RESPONSE_BYTES = 8 << 20
MAX_REDIRECTS = 5
# So many interim answers (1xx) may come before the one that counts.
MAX_INTERIM = 20
CHUNK_BYTES = 65536
REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Addresses whose last 32 bits are one of IPv4, at which a gateway on the way may look: RFC 6052, RFC 7915, RFC 4291.
_WITH_IPV4 = tuple(ipaddress.IPv6Network(each) for each in ("64:ff9b::/96", "::ffff:0:0:0/96", "::/96"))
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
# All that another host learns of a request that was redirected to it.
HARMLESS_HEADERS = frozenset({"accept", "accept-encoding", "accept-language", "content-type", "user-agent"})


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent: an absolute url with its query, headers, and the encoded body."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """What came back: status, headers by lower-case name, the whole body (decompressed)."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    redirected: bool = False


class _Wire(local):
    """What happened on the socket in the exchange of the running greenlet."""

    host = ""
    sent = False
    answered = False
    outside_only = False

    @property
    def started(self) -> Started:
        # An answer that redirected us is one too, wherever the next request has got to.
        if self.answered:
            return "yes"
        return "unknown" if self.sent else "no"


_wire = _Wire()


class _LedInside(Exception):
    """A redirect of somebody outside led to an address of a network that only we can reach."""


class _Answer(http.client.HTTPResponse):
    def _read_status(self) -> tuple[str, int, str]:
        # The standard library takes an interim answer (103 Early Hints) for the answer itself; the real one, still on
        # its way, would then be taken for that of the next request on this connection.
        for _ in range(MAX_INTERIM):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200:
                return version, status, reason
            if status == http.client.SWITCHING_PROTOCOLS:
                raise http.client.HTTPException("another protocol that nobody asked for")
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException(f"more than {MAX_INTERIM} interim answers")

    def begin(self) -> None:
        super().begin()
        # Here, where a refusal closes the socket: requests would take it for a fault of our own request.
        said = [each.strip() for value in self.headers.get_all("content-length", ()) for each in value.split(",")]
        if len(set(said)) > 1:
            raise http.client.HTTPException("lengths that contradict each other")


class _Connection(HTTPConnection):
    response_class = _Answer

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        _wire.sent = True
        super().send(data)

    @property
    def is_connected(self) -> bool:
        # In place of urllib3's own, which switches greenlets here: a kill at that moment would lose the connection, and
        # each request on a kept connection would pay for a turn of the hub.
        if self.sock is None:
            return False
        poll = _poll()
        poll.register(self.sock.fileno(), select.POLLIN)
        return not poll.poll(0)

    def _new_conn(self) -> socket.socket:
        # In place of urllib3's own, which leaves the socket open when a kill or a time limit ends the wait, and which
        # gives each address of a name the whole time limit.
        try:
            addresses = _addresses(self._dns_host, self.port)
        except (socket.gaierror, UnicodeError) as error:
            raise urllib3.exceptions.NameResolutionError(self.host, self, socket.gaierror(str(error))) from error
        if _wire.outside_only and self.proxy is None and any(is_inside(address[0]) for *_, address in addresses):
            raise _LedInside
        ends = time.monotonic() + (self.timeout or CONNECT_TIMEOUT_S)
        failed: OSError = OSError("no address")
        for family, kind, protocol, _, address in addresses:
            dialled = socket.socket(family, kind, protocol)
            try:
                dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                dialled.settimeout(max(ends - time.monotonic(), 0.001))
                dialled.connect(address)
            except BaseException as error:
                dialled.close()
                if not isinstance(error, OSError):
                    raise
                failed = error
            else:
                return dialled
        if isinstance(failed, TimeoutError):
            raise urllib3.exceptions.ConnectTimeoutError(self, "timed out") from failed
        raise urllib3.exceptions.NewConnectionError(self, "failed") from failed


class _SecureConnection(_Connection, HTTPSConnection):
    def _tunnel(self) -> None:
        # What is said to a proxy is no part of the request.
        try:
            super()._tunnel()
        finally:
            _wire.sent = False


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS = {"http": _HttpPool, "https": _HttpsPool}


class _Adapter(requests.adapters.HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        found = super().proxy_manager_for(*args, **kwargs)
        found.pool_classes_by_scheme = _POOLS
        return found


class HttpClient:
    """One requests session for one integration.

    At most `pool` exchanges at once; a request that finds all places taken waits within its own time limit. Nothing of
    the environment (proxies, netrc, CA bundles) and no cookie is used. Certificates are always checked: against
    `ca_file`, else against the well-known authorities. `certificate` is our own and its key.
    """

    def __init__(
        self,
        *,
        pool: int,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        max_redirects: int = MAX_REDIRECTS,
        user_agent: str = "regrow",
        proxy: str | None = None,
        ca_file: Path | None = None,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self.connect_timeout_s = connect_timeout_s
        self.max_response_bytes = max_response_bytes
        self.max_redirects = max_redirects
        self._user_agent = user_agent
        self._transport: dict[str, Any] = {"verify": True if ca_file is None else str(ca_file)}
        if proxy is not None:
            self._transport["proxies"] = {"http": proxy, "https": proxy}
        if certificate is not None:
            self._transport["cert"] = (str(certificate[0]), str(certificate[1]))
        # Not urllib3's own blocking pool: a time limit that passes in its queue makes it count one place too many.
        self._places = BoundedSemaphore(pool)
        self._session = requests.Session()
        self._session.trust_env = False
        for scheme in ("http://", "https://"):
            # Four hosts: the integration's own and the few that it redirects to.
            self._session.mount(scheme, _Adapter(pool_connections=4, pool_maxsize=pool, max_retries=0))

    def close(self) -> None:
        """Close all idle connections. Never switches."""
        self._session.close()

    def send(
        self,
        request: Request,
        *,
        limit_s: float,
        doing: str,
        sign: Callable[[Request], Request] | None = None,
    ) -> Response:
        """Send, follow redirects, read the whole answer, all within `limit_s` seconds. Switches greenlets.

        Any status is an answer, except redirects that cannot be followed (UpstreamError). Raises ConnectionFailed,
        TimedOut, DecodeError (a body that does not decompress) and TooLarge. `doing` names the call in error texts.
        `sign` makes what goes out of each request that goes to the first one's host.
        """
        _wire.sent = _wire.answered = _wire.outside_only = False
        _wire.host = host_and_port(request.url) or "?"
        timer = gevent.Timeout(max(limit_s, 0.0))
        try:
            timer.start()
            try:
                with self._places:
                    return self._follow(request, doing, sign)
            finally:
                timer.close()
        except gevent.Timeout as fired:
            if fired is not timer:
                raise
            raise _too_slow(doing, _wire.host, limit_s) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, http.client.HTTPException) as error:
            started, where = _wire.started, _wire.host
            found = normalise(error, doing, started=started, where=where, limit_s=self.connect_timeout_s)
            if found.started == "no" and started != "no":
                # No connection to where a redirect led: the request was heard where it went first.
                found.started = started
            raise found from None

    def _follow(self, request: Request, doing: str, sign: Callable[[Request], Request] | None) -> Response:
        redirects = status = 0
        home = origin(request.url)
        while True:
            signed = request if sign is None or origin(request.url) != home else sign(request)
            try:
                response = self._exchange(signed, doing)
            except _LedInside:
                raise _led_inside(doing, status) from None
            status = response.status
            target = response.headers.get("location")
            if response.status not in REDIRECTS or target is None or not self.max_redirects:
                return replace(response, redirected=True) if redirects else response
            redirects += 1
            if redirects > self.max_redirects:
                raise UpstreamError(
                    f"{doing}: redirected more than {self.max_redirects} times", status=response.status, retryable=False
                )
            request = _redirected(request, response.status, target, doing)
            _wire.host = _told_host(request.url)
            # Obeyed where the connection is made, so that no second look-up of the name finds something else.
            _wire.outside_only = origin(request.url) != home and not _is_ours(home)
            if _wire.outside_only and "proxies" in self._transport and _is_named_inside(origin(request.url)[1]):
                # Behind a proxy the connection tells nothing, and the proxy reaches more than everybody does.
                raise _led_inside(doing, status)

    def _exchange(self, request: Request, doing: str) -> Response:
        prepared = requests.PreparedRequest()
        headers = {"User-Agent": self._user_agent, "Accept-Encoding": "gzip, deflate", **request.headers}
        prepared.prepare(method=request.method, url=request.url, headers=headers, data=request.body)
        adapter = self._session.get_adapter(request.url)
        answer = adapter.send(prepared, stream=True, timeout=(self.connect_timeout_s, None), **self._transport)
        _wire.answered = True
        try:
            names: CaseInsensitiveDict[str] = answer.headers
            return Response(
                answer.status_code, {name.lower(): value for name, value in names.items()}, self._read(answer, doing)
            )
        finally:
            # Puts a connection whose answer was read to its end back into the pool and closes any other.
            answer.close()

    def _read(self, answer: requests.Response, doing: str) -> bytes:
        limit = self.max_response_bytes
        announced = answer.headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced[:18]) > limit:
            raise _too_large(doing, limit)
        chunks: list[bytes] = []
        size = 0
        for chunk in answer.iter_content(CHUNK_BYTES):
            size += len(chunk)
            if size > limit:
                raise _too_large(doing, limit)
            chunks.append(chunk)
        return b"".join(chunks)


def _addresses(host: str, port: int) -> list[Any]:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    # An address needs no looking up, so it need not wait for a thread of the resolver's, which slow names may hold.
    found: list[Any] = _getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    return found


def _is_ours(place: tuple[str, str, int | None]) -> bool:
    """Tell whether a host is one that only we can reach, as far as that is known."""
    try:
        return any(is_inside(address[0]) for *_, address in _addresses(place[1], place[2] or 0))
    except (OSError, UnicodeError):
        return False


def _is_named_inside(host: str) -> bool:
    """Tell whether a host is an address inside, as far as that shows without looking it up."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        # In any form that systems take for an address: 127.1 and 0x7f000001 are the same as 127.0.0.1.
        found = _getaddrinfo(host, 0, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return any(is_inside(str(address[0])) for *_, address in found)


def _led_inside(doing: str, status: int) -> UpstreamError:
    return UpstreamError(
        f"{doing}: redirected from outside to an address of a private network, which is not followed",
        status=status,
        retryable=False,
    )


def is_inside(address: str) -> bool:
    """Tell whether an address belongs to this machine or a private network, and not to everybody. Never switches."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        within = found.ipv4_mapped or found.sixtofour
        if within is None and any(found in network for network in _WITH_IPV4):
            within = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if within is not None:
            return not within.is_global
        return not found.is_global or found in _LOCAL_NAT64
    return not found.is_global


def host_and_port(url: str) -> str:
    """Return host and port as messages name them: the port only where the url has one. Never switches."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _told_host(url: str) -> str:
    """Return a host that the peer named as messages do, bounded: it may have made it of what we sent."""
    return redact(host_and_port(url))[:100]


def origin(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port, by which two urls are the same place or not; raises ValueError. Never switches."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _redirected(request: Request, status: int, target: str, doing: str) -> Request:
    def refused(why: str) -> UpstreamError:
        return UpstreamError(f"{doing}: redirected {why}", status=status, retryable=False)

    try:
        url = urljoin(request.url, target)
        there = origin(url)
    except ValueError:
        raise refused("to an address that is not valid") from None
    if there[0] not in {"http", "https"} or not there[1]:
        raise refused("to something that is not http")
    if "@" in urlsplit(url).netloc:
        raise refused("to an address with a user name in it")
    here = origin(request.url)
    if here[0] == "https" and there[0] == "http":
        raise refused("from https to http, which would show the request to anyone on the way")
    method, body = request.method, request.body
    if (status == 303 and method != "HEAD") or (status in {301, 302} and method == "POST"):
        method, body = "GET", None
    headers = {name: value for name, value in request.headers.items() if body or name.lower() != "content-type"}
    if there != here:
        if body is not None:
            raise refused(f"to another host ({_told_host(url)}) with a body, which is sent to nobody else")
        headers = {name: value for name, value in headers.items() if name.lower() in HARMLESS_HEADERS}
    return Request(method, url, headers, body)


def _too_slow(doing: str, host: str, limit_s: float) -> TimedOut:
    if _wire.started == "no":
        return TimedOut(f"{doing}: no connection to {host} within {limit_s:.3g} s", started="no")
    what = "the answer did not end" if _wire.answered else "no answer"
    return TimedOut(f"{doing}: {what} from {host} within {limit_s:.3g} s", started=_wire.started)


def _too_large(doing: str, limit: int) -> TooLarge:
    return TooLarge(f"{doing}: the answer is larger than max_response ({limit} bytes)", started="yes")
