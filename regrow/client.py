"""The blocking client: `regrow.connect(...)` gives a `Client` that any number of threads may share.

Decisions. A request has a connection (a DEALER socket) to itself while it is under way; connections wait in a pool for
the next request, so there is no background thread and no lock around I/O. Waiting is done by `select.poll` on the
sockets' file descriptors, looked up at the call: in a process that gevent has patched it is gevent's, and so the client
stays cooperative there without ever importing gevent. The socket's monitor tells when the daemon is there, before which
nothing is queued for it, and at once when it is gone; ZMTP heartbeats, answered by the daemon's I/O thread, tell when
its machine is. ZeroMQ's own option for the first, IMMEDIATE, would throw away what came and was not read yet.

What came before a connection broke is still read; then it is thrown away with whatever was queued in it, and the next
request makes a new one.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import select
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import zmq

from regrow.protocol import exchange
from regrow.protocol.codec import Codec
from regrow.protocol.errors import ConnectionFailed, Overloaded, Refused, RegrowError, TooLarge, Unauthorized
from regrow.protocol.exchange import (
    DEFAULT_CONNECT_TIMEOUT_S,
    DEFAULT_CREDIT,
    DEFAULT_ENDPOINT,
    Event,
    Gap,
    Outgoing,
    Position,
    Reply,
    Welcome,
)
from regrow.protocol.frames import Answer

DEFAULT_MAX_CONNECTIONS: Final = 64
MAX_POLL_S: Final = 3600.0
RETRY_S: Final = 0.05  # between two tries to subscribe again
LINGER_MS: Final = 500  # what a closing client gives a tell to leave the process
EVENT: Final = struct.Struct("=Hi")
LINK_EVENTS: Final = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


def connect(
    endpoint: str | None = None,
    *,
    timeout: float | None = None,
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT_S,
    server_key: str | None = None,
    secret_key: str | None = None,
    max_connections: int = DEFAULT_MAX_CONNECTIONS,
    name: str = "",
) -> Client:
    """Return a client of the daemon at `endpoint` (default: REGROW_ENDPOINT, else tcp://127.0.0.1:5757).

    Nothing is sent before the first request, so the daemon may come up later. `timeout` (seconds) is the deadline of
    asks that name none; None leaves it to the target. `server_key` (the daemon's public key) and `secret_key` (this
    client's own) switch CURVE on. Use it as a context manager, or call `close`.
    """
    return Client(
        endpoint or os.environ.get("REGROW_ENDPOINT") or DEFAULT_ENDPOINT,
        timeout=timeout,
        connect_timeout=connect_timeout,
        server_key=server_key,
        secret_key=secret_key,
        max_connections=max_connections,
        name=name,
    )


class Client:
    """A client of one daemon. Thread-safe; as many requests are under way as threads call, up to `max_connections`."""

    def __init__(
        self,
        endpoint: str,
        *,
        timeout: float | None = None,
        connect_timeout: float = DEFAULT_CONNECT_TIMEOUT_S,
        server_key: str | None = None,
        secret_key: str | None = None,
        max_connections: int = DEFAULT_MAX_CONNECTIONS,
        name: str = "",
    ) -> None:
        if (server_key is None) != (secret_key is None):
            raise ValueError("CURVE needs both server_key (the daemon's public key) and secret_key (this client's own)")
        self.endpoint = endpoint
        self.timeout = timeout
        self.connect_timeout = connect_timeout
        self.max_connections = max_connections
        self.name = name or f"python-{os.getpid()}"
        self._keys = None if server_key is None or secret_key is None else curve_keys(server_key, secret_key)
        self._ids = itertools.count(1)
        self._closed = False
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._context: zmq.Context[Any] = zmq.Context()
        self._idle: deque[_Connection] = deque()
        self._room = threading.BoundedSemaphore(self.max_connections)
        self._lock = threading.Lock()  # guards only the count, never I/O
        self._open = 0

    # -- requests

    def ask(
        self,
        target: str,
        method: str,
        args: Mapping[str, Any] | bytes | None = None,
        /,
        *,
        timeout: float | None = None,
        idem: str | None = None,
        codec: Codec = "json",
        **kwargs: Any,
    ) -> Any:
        """Call an exported method and return its result; arguments as a mapping or as keywords.

        Raises the typed error of the daemon's answer; `ConnectionFailed` when the daemon is gone (`started` tells
        whether the request was under way). With `idem` a request whose connection broke is repeated while the same
        daemon runs on, because that daemon then answers from memory.
        """
        return self.request(target, method, args, timeout=timeout, idem=idem, codec=codec, **kwargs).value

    def request(
        self,
        target: str,
        method: str,
        args: Mapping[str, Any] | bytes | None = None,
        /,
        *,
        timeout: float | None = None,
        idem: str | None = None,
        codec: Codec = "json",
        trace: str | None = None,
        **kwargs: Any,
    ) -> Reply:
        """Like `ask`, but return the whole reply: value and header."""
        timeout_s = self.timeout if timeout is None else timeout
        arguments = merge_arguments(args, kwargs)
        outgoing = exchange.ask(target, method, arguments, timeout_s=timeout_s, codec=codec, idem=idem, trace=trace)
        return exchange.outcome(self._exchange(outgoing))

    def stream(
        self,
        target: str,
        method: str,
        args: Mapping[str, Any] | bytes | None = None,
        /,
        *,
        timeout: float | None = None,
        credit: int = DEFAULT_CREDIT,
        codec: Codec = "json",
        **kwargs: Any,
    ) -> Parts:
        """Call an exported method that answers in parts and return them as an iterator, which sends when first used.

        At most `credit` parts are under way: who stops reading stops the maker. `timeout` bounds the whole stream.
        Reading raises as `ask` does. Close it, or use it as a context manager, to end the stream early.
        """
        timeout_s = self.timeout if timeout is None else timeout
        arguments = merge_arguments(args, kwargs)
        exchange.check_credit(credit)
        outgoing = exchange.ask(target, method, arguments, timeout_s=timeout_s, codec=codec, credit=credit)
        return Parts(self, outgoing)

    def tell(
        self,
        target: str,
        method: str,
        args: Mapping[str, Any] | bytes | None = None,
        /,
        *,
        ack: bool = True,
        codec: Codec = "json",
        **kwargs: Any,
    ) -> None:
        """Send a message for which nobody waits. With `ack` return once it is in the actor's mailbox, or raise what
        kept it out; without, return once it is on its way and never hear of it again.
        """
        outgoing = exchange.tell(target, method, merge_arguments(args, kwargs), codec=codec, ack=ack)
        if ack:
            exchange.outcome(self._exchange(outgoing))
        else:
            self._exchange(outgoing, answered=False)

    def subscribe(self, topics: str | Sequence[str], since: int | None = None) -> Events:
        """Return what happens in the daemon from now on: an iterator over `Event` and `Gap`, with a connection of its
        own.

        Topics are exact ("breaker.opened"), a group ("breaker.*") or all ("*"). With `since`, the number of an event,
        what the daemon still keeps after it comes first. A lost connection is made anew within `connect_timeout` and
        the events go on where they were; what was missed then is told by a `Gap`. Close it, or use it as a context
        manager. Raises as `ask` does.
        """
        return Events(self, Position(topics, since))

    def describe(self, target: str | None = None) -> Any:
        """Return the actors that this client may reach, with their methods, argument schemas and docs."""
        return exchange.outcome(self._exchange(exchange.describe(target))).value

    def ping(self) -> Mapping[str, Any]:
        """Return what the daemon says of itself now: incarnation and hub_lag_ms."""
        return exchange.outcome(self._exchange(exchange.PING)).header

    def welcome(self) -> Welcome:
        """Return what the daemon said when it was greeted: version, incarnation, limits, where its HTTP listens."""
        connection = self._take()
        sound = False
        try:
            found = self._greeted(connection)
            sound = True
        finally:
            self._give_back(connection, sound=sound)
        return found

    # -- life

    def close(self) -> None:
        """Close the connections; requests under way in other threads end with theirs. Idempotent."""
        self._closed = True
        if self._pid != os.getpid():
            return
        while self._idle:
            self._drop(self._idle.pop())
        self._end_context()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self._open} connections, {len(self._idle)} idle"
        return f"<Client of {self.endpoint}, {state}>"

    # -- one exchange

    def _exchange(self, outgoing: Outgoing, *, answered: bool = True) -> Answer:
        """Send and wait for the answer; repeat over a new connection when that is known to be safe."""
        incarnation: str | None = None
        give_up: float | None = None
        while True:
            connection = self._take()
            sound = False
            welcome = exchange.Welcome()
            try:
                welcome = self._greeted(connection)
                if incarnation is not None and welcome.incarnation != incarnation:
                    raise exchange.link_lost(self.endpoint)
                now = time.monotonic()
                if give_up is None:
                    give_up = now + exchange.wait_s(outgoing, welcome)
                request_id = b"%d" % next(self._ids)
                connection.send(outgoing.frames(request_id, welcome), now + self.connect_timeout)
                answer = connection.receive(request_id, give_up) if answered else _NOTHING
                sound = True
                if answer is None:
                    raise exchange.no_answer(self.endpoint, time.monotonic() - now)
                return answer
            except _LinkLost:
                if outgoing.header.idem is None or incarnation is not None:
                    raise exchange.link_lost(self.endpoint) from None
                incarnation = welcome.incarnation
            except ConnectionFailed:
                if incarnation is not None:  # the first try may have been carried out, whatever became of this one
                    raise exchange.link_lost(self.endpoint) from None
                raise
            except RegrowError:
                sound = connection.welcome is not None
                raise
            finally:
                self._give_back(connection, sound=sound)

    def _greeted(self, connection: _Connection) -> Welcome:
        if connection.welcome is None:
            limit = time.monotonic() + self.connect_timeout
            try:
                request_id = b"%d" % next(self._ids)
                connection.send(exchange.hello(self.name).frames(request_id), limit)
                answer = connection.receive(request_id, limit)
            except _LinkLost:
                answer = None
            if answer is None:
                raise exchange.unreachable(self.endpoint, self.connect_timeout)
            connection.welcome = exchange.check_version(answer)
        return connection.welcome

    # -- the streams

    def _begin_stream(self, outgoing: Outgoing) -> tuple[_Connection, bytes]:
        connection = self._take()
        sound = False
        try:
            welcome = self._greeted(connection)
            request_id = b"%d" % next(self._ids)
            frames = outgoing.frames(request_id, welcome)
            sound = True
            connection.send(frames, time.monotonic() + self.connect_timeout)
        except BaseException as error:
            self._give_back(connection, sound=sound and isinstance(error, TooLarge))
            raise
        return connection, request_id

    # -- the pool

    def _take(self) -> _Connection:
        if self._pid != os.getpid():
            # the sockets of before the fork are the parent's: here they must not be used, nor closed, nor collected
            _OF_PARENTS.append((self._context, self._idle))
            self._reset()
        if self._closed:
            raise ConnectionFailed("this client is closed, make a new one with regrow.connect", started="no")
        if not self._room.acquire(timeout=self.connect_timeout):
            raise Overloaded(
                f"all {self.max_connections} connections of this client are busy for {self.connect_timeout:g} s",
                retry_after_s=1.0,
            )
        try:
            while self._idle:
                connection = self._idle.pop()
                if connection.is_sound():
                    return connection
                self._drop(connection)
            with self._lock:
                connection = _Connection(self._context, self.endpoint, self._keys)
                self._open += 1
        except BaseException:
            self._room.release()
            raise
        return connection

    def _give_back(self, connection: _Connection, *, sound: bool) -> None:
        if connection.pid != os.getpid():
            return
        if sound and not self._closed:
            self._idle.append(connection)
        else:
            self._drop(connection, linger_ms=LINGER_MS if sound else 0)
        self._room.release()
        if self._closed:
            self.close()  # the last request that was under way ends the context

    def _drop(self, connection: _Connection, linger_ms: int = LINGER_MS) -> None:
        connection.close(linger_ms)
        with self._lock:
            self._open -= 1

    def _end_context(self) -> None:
        with self._lock:
            if self._open == 0 and not self._context.closed:
                self._context.term()


class Parts(Iterator[Any]):
    """The parts of one streaming ask, in order; it has a connection to itself from the first part to the end."""

    def __init__(self, client: Client, outgoing: Outgoing) -> None:
        self._client = client
        self._outgoing = outgoing
        self._connection: _Connection | None = None
        self._id = b""
        self._limit: float | None = None
        self._unread_credit = 0
        self._over = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if self._over:
            raise StopIteration
        sound = False
        try:
            connection = self._connection or self._begin()
            answer = self._next_answer(connection)
            if answer.op == "PART":
                sound = True
                return exchange.outcome(answer).value
            self._end(sound=True)
            if answer.op == "END":
                raise StopIteration
            return exchange.outcome(answer).value  # an ERROR raises here
        except _LinkLost:
            raise exchange.link_lost(self._client.endpoint) from None
        finally:
            if not sound and not self._over:
                self._end(sound=False)

    def _begin(self) -> _Connection:
        self._connection, self._id = self._client._begin_stream(self._outgoing)
        deadline_ms = self._outgoing.header.deadline_ms
        if deadline_ms is not None:
            self._limit = time.monotonic() + deadline_ms / 1000 + exchange.GRACE_S
        return self._connection

    def _next_answer(self, connection: _Connection) -> Answer:
        began = time.monotonic()
        credit = self._outgoing.header.credit or 1
        if self._unread_credit * 2 >= credit:
            frames = exchange.credit(self._unread_credit).frames(self._id)
            with contextlib.suppress(ConnectionFailed):  # what came before the loss is still read, and then it is told
                connection.send(frames, began + self._client.connect_timeout)
            self._unread_credit = 0
        welcome = connection.welcome or Welcome()
        limit = began + welcome.max_deadline_s + exchange.GRACE_S
        answer = connection.receive(self._id, limit if self._limit is None else min(limit, self._limit))
        if answer is None:
            raise exchange.no_answer(self._client.endpoint, time.monotonic() - began)
        self._unread_credit += 1
        return answer

    def _end(self, *, sound: bool) -> None:
        self._over = True
        connection, self._connection = self._connection, None
        if connection is not None:
            self._client._give_back(connection, sound=sound)

    def close(self) -> None:
        """End the stream early; what is under way is dropped. Idempotent."""
        connection = self._connection
        if connection is None:
            self._over = True
            return
        sound = False
        try:
            connection.send(exchange.CANCEL.frames(self._id), time.monotonic() + self._client.connect_timeout)
            sound = True
        except RegrowError:
            pass  # without a connection the daemon has ended it by itself
        finally:
            self._end(sound=sound)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_connection", None) is not None:
            self.close()


class Events(Iterator[Event | Gap]):
    """The events of one subscription, in order, without end; read by one thread at a time.

    `seq` is the number of the last event that was read: who subscribes again later gives it as `since`.
    """

    def __init__(self, client: Client, position: Position) -> None:
        self._client = client
        self._position = position
        self._connection: _Connection | None = None
        self._id = b""
        self._gap: Gap | None = None
        self._closed = False
        self._begin(None)

    @property
    def seq(self) -> int:
        return self._position.seq or 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event | Gap:
        found = self.read()
        if found is None:
            raise StopIteration
        return found

    def read(self, timeout: float | None = None) -> Event | Gap | None:
        """Return the next event or gap, waiting at most `timeout` seconds (None: for ever); None when there is none.

        Raises `ConnectionFailed` when the daemon is gone and does not come back within the client's `connect_timeout`.
        """
        limit = math.inf if timeout is None else time.monotonic() + timeout
        while not self._closed:
            if self._gap is not None:
                gap, self._gap = self._gap, None
                return gap
            if self._connection is None:
                self._begin(time.monotonic() + self._client.connect_timeout)
                continue
            try:
                answer = self._connection.receive(self._id, limit)
            except _LinkLost:
                self._let_go(sound=False)
                continue
            except BaseException:
                self._let_go(sound=False)
                raise
            if answer is None:
                return None
            found = self._position.heard(answer)
            if found is not None:
                return found
        return None

    def _begin(self, give_up: float | None) -> None:
        """Subscribe; until `give_up` (None: once) try again when the daemon is just going or coming."""
        while True:
            try:
                self._try_begin()
                return
            except _LinkLost:
                pause_s = RETRY_S
                if give_up is None or time.monotonic() + pause_s >= give_up:
                    raise exchange.link_lost(self._client.endpoint) from None
            except (Refused, ConnectionFailed) as error:
                pause_s = error.retry_after_s or RETRY_S
                if give_up is None or time.monotonic() + pause_s >= give_up:
                    raise
            time.sleep(pause_s)

    def _try_begin(self) -> None:
        client = self._client
        connection = client._take()
        sound = False
        try:
            welcome = client._greeted(connection)
            request_id = b"%d" % next(client._ids)
            frames = self._position.outgoing(welcome).frames(request_id, welcome)
            began = time.monotonic()
            connection.send(frames, began + client.connect_timeout)
            answer = connection.receive(request_id, began + exchange.CONTROL_TIMEOUT_S)
            if answer is None:
                raise exchange.no_answer(client.endpoint, exchange.CONTROL_TIMEOUT_S)
            sound = True
            self._gap = self._position.accepted(answer, welcome)
        except BaseException:
            client._give_back(connection, sound=sound)
            raise
        self._connection, self._id = connection, request_id

    def _let_go(self, *, sound: bool) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._client._give_back(connection, sound=sound)

    def close(self) -> None:
        """End the subscription. Idempotent."""
        self._closed = True
        connection = self._connection
        if connection is None:
            return
        sound = False
        try:
            connection.send(exchange.UNSUB.frames(self._id), time.monotonic() + self._client.connect_timeout)
            sound = True
        except RegrowError:
            pass  # without a connection the daemon has ended it by itself
        finally:
            self._let_go(sound=sound)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_connection", None) is not None:
            self.close()


class _LinkLost(Exception):
    """The connection ended."""


_OF_PARENTS: Final[list[object]] = []
_NOTHING: Final = Answer("ACK", b"", {}, None)


class _Connection:
    """One DEALER socket with its monitor; used by one thread at a time."""

    def __init__(self, context: zmq.Context[Any], endpoint: str, keys: tuple[bytes, bytes, bytes] | None) -> None:
        self.pid = os.getpid()
        self.endpoint = endpoint
        self.welcome: Welcome | None = None
        self._up = self._lost = False
        socket = context.socket(zmq.DEALER)
        try:
            set_client_options(socket, keys)
            self._monitor = socket.get_monitor_socket(LINK_EVENTS)
            self._poll = select.poll()
            for one in (socket, self._monitor):
                self._poll.register(one.getsockopt(zmq.FD), select.POLLIN)
            socket.connect(endpoint)
        except BaseException as error:
            close_both(socket, 0)
            if isinstance(error, zmq.ZMQError):
                raise ConnectionFailed(f"cannot connect to {endpoint}: {error}", started="no") from None
            raise
        self._socket = socket

    def send(self, frames: list[bytes], limit: float) -> None:
        """Send once there is a connection; raises `ConnectionFailed` (started=no) when there is none until `limit`."""
        began = time.monotonic()
        while True:
            self._hear_monitor()
            if self._lost:
                raise exchange.unreachable(self.endpoint, time.monotonic() - began)
            if self._up:
                try:
                    self._socket.send_multipart(frames, zmq.NOBLOCK)
                    return
                except zmq.Again:
                    pass
            if not self._wait(limit):
                raise exchange.unreachable(self.endpoint, limit - began)

    def receive(self, id: bytes, limit: float) -> Answer | None:
        """Return the answer with this id, None when there is none until `limit`; raises `_LinkLost`.

        Whatever else arrives answers a request that was given up before.
        """
        while True:
            lost = self._lost
            while True:
                try:
                    frames = self._socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                answer = exchange.read(frames)
                if answer is not None and answer.id == id:
                    return answer
            if lost:  # heard before the last look, so nothing can come any more
                raise _LinkLost
            self._hear_monitor()
            if not self._lost and not self._wait(limit):
                return None

    def is_sound(self) -> bool:
        """Tell whether the link still stands, as far as is known now."""
        self._hear_monitor()
        return not self._lost

    def close(self, linger_ms: int) -> None:
        close_both(self._socket, linger_ms)

    def _wait(self, limit: float) -> bool:
        """Wait until something happened to one of the sockets; False when `limit` passed."""
        # the descriptors signal edges: both sockets were just found empty, so a later change will wake the poll
        left_s = limit - time.monotonic()
        if left_s <= 0:
            return False
        self._poll.poll(max(1, int(min(left_s, MAX_POLL_S) * 1000)))
        return True

    def _hear_monitor(self) -> None:
        while True:
            try:
                frames = self._monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            event, _value = EVENT.unpack(frames[0])
            if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                raise Unauthorized(f"the daemon at {self.endpoint} does not know this client's key")
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._up = True
            else:
                self._lost = True


def set_client_options(socket: zmq.Socket[Any], keys: tuple[bytes, bytes, bytes] | None) -> None:
    """Set what every client socket has: heartbeats, CURVE with `keys`."""
    socket.setsockopt(zmq.LINGER, LINGER_MS)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    socket.setsockopt(zmq.HEARTBEAT_IVL, exchange.HEARTBEAT_IVL_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, exchange.HEARTBEAT_TIMEOUT_MS)
    if keys is not None:
        socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = keys


def close_both(socket: zmq.Socket[Any], linger_ms: int) -> None:
    """Close a socket and its monitor; a context waits for ever for one that was forgotten."""
    monitor = socket.get_monitor_socket()  # the one there is
    socket.disable_monitor()
    monitor.close(0)
    socket.close(linger_ms)


def curve_keys(server_key: str, secret_key: str) -> tuple[bytes, bytes, bytes]:
    """Return server, public and secret key as ZeroMQ takes them; raises ValueError for what is no key."""
    server, secret = server_key.strip().encode(), secret_key.strip().encode()
    if len(server) != 40 or len(secret) != 40:
        raise ValueError("a CURVE key has 40 characters of Z85, make a pair with `regrow keys`")
    return server, zmq.curve_public(secret), secret


def merge_arguments(
    args: Mapping[str, Any] | bytes | None, kwargs: Mapping[str, Any]
) -> Mapping[str, Any] | bytes | None:
    """Return the arguments of a call that were given as a mapping, as keywords, or both."""
    if args is None:
        return kwargs or None
    if not kwargs:
        return args
    if isinstance(args, bytes):
        raise TypeError("arguments were given as bytes and as keywords, choose one")
    twice = args.keys() & kwargs.keys()
    if twice:
        raise TypeError(f"arguments given twice: {', '.join(sorted(twice))}")
    return {**args, **kwargs}
