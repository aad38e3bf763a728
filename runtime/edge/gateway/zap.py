"""ZAP (RFC 27): says to ZeroMQ which CURVE keys may connect, and under which name.

One handler per context, at an address that ZeroMQ fixes. It is served in the hub; ZeroMQ's I/O threads hold each
connection back until it has answered. A stranger gets no answer of ours at all, not even an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import zmq
from gevent import get_hub
from zmq.utils import z85

from config.schema import Curve
from runtime import events
from runtime.edge.gateway import counters
from runtime.edge.gateway.rights import Rights

ADDRESS: Final = "inproc://zeromq.zap.01"
#: without a domain ZeroMQ would not ask us at all (RFC 27)
DOMAIN: Final = b"regrow"
KEY_BYTES: Final = 32


@dataclass(frozen=True)
class KnownClient:
    """One client key of the configuration."""

    name: str
    rights: Rights


def known_clients(curve: Curve) -> dict[str, KnownClient]:
    """Return the clients of the configuration by their public key as it stands there. Never switches."""
    return {client.public_key: KnownClient(client.name, Rights(client.allow)) for client in curve.clients}


class Zap:
    """The handler of one context; `clients`, by public key, may be replaced while it runs.

    The user id of a connection is its public key, so that a client whose key was replaced is not taken for the old one.
    """

    def __init__(self, context: zmq.Context[Any], clients: Mapping[str, KnownClient]) -> None:
        self.clients = clients
        self._socket = context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(ADDRESS)
        self._watcher = get_hub().loop.io(self._socket.getsockopt(zmq.FD), 1)
        self._watcher.start(self._pump)
        self._pump()

    def close(self) -> None:
        """Stop serving. Never switches."""
        self._watcher.stop()
        self._watcher.close()
        self._socket.close(0)

    def _pump(self) -> None:
        # sending may swallow the signal of the next request, so the loop ends only when a receive found nothing
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._socket.send_multipart(self._answer(frames), zmq.NOBLOCK)

    def _answer(self, frames: list[bytes]) -> list[bytes]:
        if len(frames) < 6 or frames[0] != b"1.0":
            return [b"1.0", frames[1] if len(frames) > 1 else b"", b"500", b"not ZAP 1.0", b"", b""]
        _version, request_id, _domain, address, _identity, mechanism, *credentials = frames
        if mechanism != b"CURVE" or len(credentials) != 1:
            return self._refuse(request_id, "no_curve", address)
        key: bytes = z85.encode(credentials[0]) if len(credentials[0]) == KEY_BYTES else b""
        if key.decode() not in self.clients:
            return self._refuse(request_id, "unknown_key", address)
        return [b"1.0", request_id, b"200", b"OK", key, b""]

    def _refuse(self, request_id: bytes, reason: str, address: bytes) -> list[bytes]:
        counters.STRANGERS.inc(reason)
        where = address.decode("ascii", "replace")
        events.publish("wire.stranger_refused", reason=reason, address=where)
        return [b"1.0", request_id, b"400", b"no such client", b"", b""]
