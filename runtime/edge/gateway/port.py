"""Ports: one ROUTER socket each, watched by the hub, drained in batches, and written to without ever waiting.

Rules learnt the hard way (see the notes on pyzmq): the socket's descriptor signals edges, so a drain ends only when a
receive found nothing, and sending may swallow a signal, so after sending the socket is looked at once more. POLLOUT of
a ROUTER says nothing about one client, so a client whose pipe is full keeps its answers in its own outbox and is tried
again whenever the descriptor signals, or a little later.
"""

from __future__ import annotations

import os
import socket as sockets
import struct
from collections.abc import Callable
from typing import Any, Final

import zmq
from gevent import get_hub
from zmq.backend import Socket as Backend

from regrow.protocol.errors import Overloaded, RegrowError, Unauthorized
from regrow.protocol.frames import Rejected, Request, decode_request, encode
from runtime import clock
from runtime.edge.gateway import counters
from runtime.edge.gateway.outcome import error_outcome
from runtime.edge.gateway.peer import Peer
from runtime.edge.gateway.rights import EVERYTHING
from runtime.edge.gateway.service import HEARTBEAT_MS
from runtime.edge.gateway.zap import KnownClient

BATCH: Final = 64
BATCH_BYTES: Final = 1 << 20
RETRY_S: Final = 0.05
IDLE_PEER_S: Final = 3600.0
HEARTBEAT_TIMEOUT_MS: Final = 10_000
HANDSHAKE_MS: Final = 5_000
#: messages of one client that ZeroMQ itself holds, each way; the outbox comes on top
PIPE_MESSAGES: Final = 200
MAX_PARTS: Final = 12

# plain numbers: combining pyzmq's flag objects for each part cost a tenth of an ask
_SEND_LAST: Final = int(zmq.NOBLOCK)
_SEND_MORE: Final = int(zmq.NOBLOCK) | int(zmq.SNDMORE)
_RECEIVE: Final = int(zmq.NOBLOCK)
# without pyzmq's layer for drafts and trackers, which is a third of a call
_socket_send: Final[Callable[..., None]] = Backend.send
_socket_recv: Final[Callable[..., Any]] = Backend.recv
_EVENT: Final = struct.Struct("=Hi")


class Port:
    """One ROUTER socket; `on_message(peer, message)` is called in the hub for each message while reading is on."""

    def __init__(
        self,
        context: zmq.Context[Any],
        name: str,
        *,
        max_message: int,
        max_outbox: int,
        max_clients: int,
        max_in_flight: int,
        on_message: Callable[[Peer, Request | Rejected], None],
        client_of: Callable[[str], KnownClient | None] | None = None,
        server_secret: bytes | None = None,
        zap_domain: bytes = b"",
        may_read: Callable[[], bool],
        peers_total: Callable[[], int],
    ) -> None:
        self.name = name
        self.max_message = max_message
        self.max_outbox = max_outbox
        self.max_clients = max_clients
        self.max_in_flight = max_in_flight
        self.peers: dict[bytes, Peer] = {}
        self._on_message = on_message
        self._client_of = client_of
        self._may_read = may_read
        self._peers_total = peers_total
        self._by_descriptor: dict[int, set[bytes]] = {}
        self._blocked: dict[Peer, None] = {}
        self._retry: clock.Timer | None = None
        self._pump_scheduled = False
        self._pumping = False
        self._closed = False
        self._loop = get_hub().loop
        socket = context.socket(zmq.ROUTER)
        self._socket = socket
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, 2 * max_message)
        socket.setsockopt(zmq.SNDHWM, PIPE_MESSAGES)
        socket.setsockopt(zmq.RCVHWM, PIPE_MESSAGES)
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
        socket.setsockopt(zmq.BACKLOG, 512)
        if server_secret is not None:
            socket.setsockopt(zmq.ZAP_DOMAIN, zap_domain)
            socket.curve_server = True
            socket.curve_secretkey = server_secret
        self._monitor = _monitor_of(context, socket)
        self._watchers = [self._watch(socket, self._pump), self._watch(self._monitor, self._hear_monitor)]

    def _watch(self, socket: zmq.Socket[Any], callback: Callable[[], None]) -> Any:
        watcher = self._loop.io(int(socket.getsockopt(zmq.FD)), 1)
        watcher.start(callback)
        return watcher

    def bind(self, endpoint: str) -> str:
        """Listen there as well and return the endpoint with its real port; raises zmq.ZMQError. Never switches."""
        self._socket.bind(endpoint)
        bound: bytes = self._socket.getsockopt(zmq.LAST_ENDPOINT)
        return bound.rstrip(b"\x00").decode()

    # -- receiving

    def wake(self) -> None:
        """Look at the socket soon: reading may be on again. Never switches."""
        if not self._pump_scheduled and not self._closed:
            self._pump_scheduled = True
            self._loop.run_callback(self._pump_scheduled_now)

    def _pump_scheduled_now(self) -> None:
        self._pump_scheduled = False
        self._pump()

    def _pump(self) -> None:
        """Read one batch; the rest waits until others had their turn."""
        if self._closed:
            return
        if self._blocked:
            self._try_blocked()
        if not self._may_read():
            return
        self._pumping = True
        read_bytes = 0
        try:
            for _ in range(BATCH):
                try:
                    route = self._socket.recv(_RECEIVE)
                except zmq.Again:
                    return
                read_bytes += self._take(route)
                if read_bytes > BATCH_BYTES:
                    break
        finally:
            self._pumping = False
        self.wake()

    def _take(self, route: bytes) -> int:
        """Receive the rest of one message and hand it on; return its size."""
        socket, receive = self._socket, _socket_recv
        peer = self.peers.get(route)
        frames: list[bytes] = []
        user_id, descriptor, address = "", -1, ""
        # ids that ZeroMQ made (they begin with zero) belong to one connection for ever; a client that chose its own
        # may come back with another connection, or, with CURVE, be somebody else who took the same id
        told = peer is None or self._client_of is not None or route[:1] != b"\x00"
        if told:
            first = socket.recv(_RECEIVE, copy=False)
            frames.append(first.bytes)
            descriptor, user_id = _integer(first, zmq.SRCFD), _text(first, "User-Id")
            if peer is None:
                address = _text(first, "Peer-Address")
            more = first.more
        else:
            more = True
        # a frame knows whether more come, and asking the socket costs twice as much as taking the bytes out
        while more:
            frame = receive(socket, _RECEIVE, False)
            if len(frames) <= MAX_PARTS:  # what is over makes it a bad request anyway
                frames.append(frame.bytes)
            more = frame.more
        message = decode_request(frames, self.max_message)
        if peer is not None and told and peer.user_id != user_id:
            self._forget(peer)
            peer = None
        if peer is None:
            made = self._new_peer(route, user_id, descriptor, address)
            if isinstance(made, RegrowError):
                self._refuse_client(route, message, made)
                if isinstance(made, Unauthorized):
                    _cut(descriptor, address)
                return sum(map(len, frames))
            peer = made
        elif told and peer.descriptor != descriptor:
            self._by_descriptor.get(peer.descriptor, set()).discard(route)
            peer.descriptor = descriptor
            self._by_descriptor.setdefault(descriptor, set()).add(route)
        self._on_message(peer, message)
        return sum(map(len, frames))

    def _new_peer(self, route: bytes, user_id: str, descriptor: int, address: str) -> Peer | RegrowError:
        self._hear_monitor()  # a connection that ended before this one began may have had the same descriptor
        if self._peers_total() >= self.max_clients:
            return Overloaded(f"{self.max_clients} clients are connected, come back later", retry_after_s=1.0)
        rights, key_name = EVERYTHING, ""
        if self._client_of is not None:
            client = self._client_of(user_id)
            if client is None:
                return Unauthorized("the client's key is not known any more")
            rights, key_name = client.rights, client.name
        peer = Peer(
            self, route, key_name=key_name, user_id=user_id, rights=rights, descriptor=descriptor, address=address
        )
        self.peers[route] = peer
        self._by_descriptor.setdefault(descriptor, set()).add(route)
        counters.CLIENTS.add(1)
        return peer

    def _refuse_client(self, route: bytes, message: Request | Rejected, error: RegrowError) -> None:
        """Answer a connection that becomes no client; nothing is remembered of it, so this is tried once."""
        counters.REQUESTS.inc(message.op or counters.INVALID)
        counters.REFUSED.inc(error.code)
        if isinstance(message, Request) and not message.is_answered:
            return
        counters.ANSWERS.inc("ERROR")
        body = error_outcome(error).body
        try:
            self._socket.send_multipart(
                [route, *encode("ERROR", message.id, None, body, message.envelope)], zmq.NOBLOCK
            )
        except zmq.ZMQError:
            counters.UNDELIVERED.inc("slow_client")

    # -- sending

    def send(self, peer: Peer, frames: list[bytes]) -> None:
        """Give the frames to ZeroMQ, or to the peer's outbox while its pipe is full. Never switches."""
        if peer.outbox:
            self._queue(peer, frames)
            return
        if not self._try(peer, frames) and not peer.gone:
            self._queue(peer, frames)
            self._blocked[peer] = None
            self._retry_later()
        if not self._pumping:
            self.wake()  # also after a send that failed: it may have swallowed the signal all the same

    def _try(self, peer: Peer, frames: list[bytes]) -> bool:
        """Send now; False when the pipe is full or the peer is gone (which it then knows)."""
        if self._closed:
            counters.UNDELIVERED.inc("gone")
            return True
        try:
            socket, send = self._socket, _socket_send
            # only the first part can be refused: with it ZeroMQ chooses the pipe, and then takes the message whole
            send(socket, peer.route, _SEND_MORE)
            for frame in frames[:-1]:
                send(socket, frame, _SEND_MORE)
            send(socket, frames[-1], _SEND_LAST)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.ETERM, zmq.ENOTSOCK):
                raise
            counters.UNDELIVERED.inc("gone")
            self._forget(peer)
            return False
        return True

    def _queue(self, peer: Peer, frames: list[bytes]) -> None:
        size = sum(map(len, frames))
        peer.outbox.append(frames)
        peer.outbox_bytes += size
        counters.OUTBOX_BYTES.add(size)

    def _try_blocked(self) -> None:
        for peer in list(self._blocked):
            while peer.outbox and self._try(peer, peer.outbox[0]):
                size = sum(map(len, peer.outbox.popleft()))
                peer.outbox_bytes -= size
                counters.OUTBOX_BYTES.add(-size)
            if not peer.outbox:
                self._blocked.pop(peer, None)
                if peer.paused:
                    peer.flushed()

    def _retry_later(self) -> None:
        if self._retry is None and not self._closed:
            self._retry = clock.after(RETRY_S, self._retry_now)

    def _retry_now(self) -> None:
        self._retry = None
        self._try_blocked()
        if self._blocked:
            self._retry_later()
        self.wake()

    @property
    def is_flushed(self) -> bool:
        return not self._blocked

    # -- connections that end

    def _hear_monitor(self) -> None:
        if self._closed:
            return
        while True:
            try:
                frames = self._monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            event, descriptor = _EVENT.unpack(frames[0])
            if event == zmq.EVENT_DISCONNECTED:
                counters.DISCONNECTS.inc()
                for route in self._by_descriptor.pop(descriptor, ()):
                    peer = self.peers.get(route)
                    if peer is not None and peer.descriptor == descriptor:
                        self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        if self.peers.get(peer.route) is peer:
            del self.peers[peer.route]
            counters.CLIENTS.add(-1)
        routes = self._by_descriptor.get(peer.descriptor)
        if routes is not None:
            routes.discard(peer.route)
            if not routes:
                del self._by_descriptor[peer.descriptor]
        self._blocked.pop(peer, None)
        peer.forget()

    def know_clients_anew(self) -> list[str]:
        """Give each client the rights of its key as of now; cut those whose key is gone, and return their names.

        Never switches.
        """
        if self._client_of is None:
            return []
        cut = []
        self._hear_monitor()  # descriptors of connections that ended may be somebody else's by now
        for peer in list(self.peers.values()):
            client = self._client_of(peer.user_id)
            if client is not None:
                peer.rights, peer.key_name = client.rights, client.name
                continue
            cut.append(peer.key_name)
            _cut(peer.descriptor, peer.address)
            self._forget(peer)
        return cut

    def forget_idle(self) -> None:
        """Let go of peers that have not been heard for long and wait for nothing. Never switches."""
        limit = clock.now() - IDLE_PEER_S
        for peer in [peer for peer in self.peers.values() if peer.heard_at < limit]:
            if not peer.asks and not peer.outbox:
                self._forget(peer)

    def close(self, linger_ms: int) -> None:
        """Stop for good; what ZeroMQ holds is sent for `linger_ms` more. Never switches."""
        if self._closed:
            return
        for peer in list(self.peers.values()):
            self._forget(peer)
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
        for watcher in self._watchers:
            watcher.stop()
            watcher.close()
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(linger_ms)

    def __repr__(self) -> str:
        return f"<Port {self.name}, {len(self.peers)} clients, {len(self._blocked)} of them slow>"


def _monitor_of(context: zmq.Context[Any], socket: zmq.Socket[Any]) -> zmq.Socket[Any]:
    address = f"inproc://regrow.monitor.{id(socket)}"
    socket.monitor(address, zmq.EVENT_DISCONNECTED)
    monitor: zmq.Socket[Any] = context.socket(zmq.PAIR)
    monitor.setsockopt(zmq.LINGER, 0)
    # no bound: ZeroMQ's I/O thread would block on a full monitor, and closing would then wait for it for ever
    monitor.setsockopt(zmq.RCVHWM, 0)
    monitor.connect(address)
    return monitor


def _cut(descriptor: int, address: str) -> None:
    """End one connection of a ROUTER, for which ZeroMQ has no call: its socket is shut down, and ZeroMQ hears that."""
    try:
        with sockets.socket(fileno=os.dup(descriptor)) as connection:
            if str(connection.getpeername()[0]).endswith(address):  # else the descriptor is another connection's by now
                connection.shutdown(sockets.SHUT_RDWR)
    except OSError:
        pass  # it has ended by itself


def _text(frame: zmq.Frame, name: str) -> str:
    try:
        found = frame.get(name)
    except zmq.ZMQError:
        return ""
    return found if isinstance(found, str) else ""


def _integer(frame: zmq.Frame, name: int) -> int:
    try:
        found = frame.get(name)
    except zmq.ZMQError:
        return -1
    return int(found)
