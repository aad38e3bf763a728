"""The asyncio client: `regrow.aio.connect(...)` gives an `AsyncClient` for any number of tasks of one event loop.

Decisions. One connection (a DEALER socket) carries all requests of a client, told apart by their ids. The event loop
watches the file descriptors of the socket and of its monitor and drains them in batches: no task of ours runs, so none
can leak, and cancelling a caller is only forgetting its id (and telling the daemon). When the link is lost every
request under way ends with `ConnectionFailed`, and the next one makes a new connection. In a process that gevent has
patched asyncio waits in gevent's own loop, so it works there too and other greenlets run meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import zmq

from regrow.client import EVENT, LINGER_MS, LINK_EVENTS, close_both, curve_keys, merge_arguments, set_client_options
from regrow.protocol import exchange
from regrow.protocol.codec import Codec
from regrow.protocol.errors import ConnectionFailed, Overloaded, Refused, RegrowError, Unauthorized
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

BATCH: Final = 200  # messages read before other callbacks of the loop get their turn
DEFAULT_MAX_IN_FLIGHT: Final = 1000
MAX_UNREAD_EVENTS: Final = 10_000  # of one subscription; then the oldest make room and become a gap
RETRY_S: Final = 0.05  # between two tries to subscribe again


def connect(
    endpoint: str | None = None,
    *,
    timeout: float | None = None,
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT_S,
    server_key: str | None = None,
    secret_key: str | None = None,
    max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
    name: str = "",
) -> AsyncClient:
    """Return a client of the daemon at `endpoint` (default: REGROW_ENDPOINT, else tcp://127.0.0.1:5757).

    Nothing is sent before the first request, so the daemon may come up later. `timeout` (seconds) is the deadline of
    asks that name none; None leaves it to the target. `server_key` (the daemon's public key) and `secret_key` (this
    client's own) switch CURVE on. Use it as an async context manager, or call `close`.
    """
    return AsyncClient(
        endpoint or os.environ.get("REGROW_ENDPOINT") or DEFAULT_ENDPOINT,
        timeout=timeout,
        connect_timeout=connect_timeout,
        server_key=server_key,
        secret_key=secret_key,
        max_in_flight=max_in_flight,
        name=name,
    )


class AsyncClient:
    """A client of one daemon, for the tasks of one event loop; at most `max_in_flight` requests are under way."""

    def __init__(
        self,
        endpoint: str,
        *,
        timeout: float | None = None,
        connect_timeout: float = DEFAULT_CONNECT_TIMEOUT_S,
        server_key: str | None = None,
        secret_key: str | None = None,
        max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
        name: str = "",
    ) -> None:
        if (server_key is None) != (secret_key is None):
            raise ValueError("CURVE needs both server_key (the daemon's public key) and secret_key (this client's own)")
        self.endpoint = endpoint
        self.timeout = timeout
        self.connect_timeout = connect_timeout
        self.max_in_flight = max_in_flight
        self.name = name or f"python-{os.getpid()}"
        self._keys = None if server_key is None or secret_key is None else curve_keys(server_key, secret_key)
        self._ids = itertools.count(1)
        self._closed = False
        self._context: zmq.Context[Any] | None = None
        self._link: _Link | None = None
        self._connecting = asyncio.Lock()

    # -- requests

    async def ask(
        self,
        target: str,
        method: str,
        args: Mapping[str, Any] | bytes | None = None,
        /,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it travels to the daemon, it is not only a local wait
        idem: str | None = None,
        codec: Codec = "json",
        **kwargs: Any,
    ) -> Any:
        """Call an exported method and return its result; arguments as a mapping or as keywords.

        Raises the typed error of the daemon's answer; `ConnectionFailed` when the daemon is gone (`started` tells
        whether the request was under way). With `idem` a request whose connection broke is repeated while the same
        daemon runs on, because that daemon then answers from memory. Cancelling the task cancels the request.
        """
        reply = await self.request(target, method, args, timeout=timeout, idem=idem, codec=codec, **kwargs)
        return reply.value

    async def request(
        self,
        target: str,
        method: str,
        args: Mapping[str, Any] | bytes | None = None,
        /,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - see ask
        idem: str | None = None,
        codec: Codec = "json",
        trace: str | None = None,
        **kwargs: Any,
    ) -> Reply:
        """Like `ask`, but return the whole reply: value and header."""
        timeout_s = self.timeout if timeout is None else timeout
        arguments = merge_arguments(args, kwargs)
        outgoing = exchange.ask(target, method, arguments, timeout_s=timeout_s, codec=codec, idem=idem, trace=trace)
        return exchange.outcome(await self._exchange(outgoing))

    async def stream(
        self,
        target: str,
        method: str,
        args: Mapping[str, Any] | bytes | None = None,
        /,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - see ask
        credit: int = DEFAULT_CREDIT,
        codec: Codec = "json",
        **kwargs: Any,
    ) -> AsyncGenerator[Any, None]:
        """Call an exported method that answers in parts: `async for part in client.stream(...)`.

        At most `credit` parts are under way: who stops reading stops the maker. `timeout` bounds the whole stream.
        Raises as `ask` does. Leaving the loop early ends the stream once the generator is closed (`aclose`, or
        `contextlib.aclosing` around it).
        """
        timeout_s = self.timeout if timeout is None else timeout
        arguments = merge_arguments(args, kwargs)
        exchange.check_credit(credit)
        outgoing = exchange.ask(target, method, arguments, timeout_s=timeout_s, codec=codec, credit=credit)
        link = await self._linked()
        if len(link.pending) + len(link.streams) >= self.max_in_flight:
            raise Overloaded(f"{self.max_in_flight} requests of this client are under way, await some first")
        async for answer in link.stream(outgoing, self._next_id(), self.connect_timeout):
            yield exchange.outcome(answer).value

    async def tell(
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
        """Send a message for which nobody waits.

        With `ack` return once it is in the actor's mailbox, or raise what kept it out; without, return once it is on
        its way and never hear of it again.
        """
        outgoing = exchange.tell(target, method, merge_arguments(args, kwargs), codec=codec, ack=ack)
        if ack:
            exchange.outcome(await self._exchange(outgoing))
        else:
            link = await self._linked()
            await link.send(outgoing.frames(self._next_id(), link.welcome), self.connect_timeout)

    def subscribe(self, topics: str | Sequence[str], since: int | None = None) -> AsyncEvents:
        """Return what happens in the daemon: `async with client.subscribe("breaker.*") as events`, then `async for`.

        It begins when it is entered, or with the first read. Topics are exact ("breaker.opened"), a group
        ("breaker.*") or all ("*"). With `since`, the number of an event, what the daemon still keeps after it comes
        first. A lost connection is made anew within `connect_timeout` and the events go on where they were; what was
        missed then is told by a `Gap`. Raises as `ask` does.
        """
        return AsyncEvents(self, Position(topics, since))

    async def describe(self, target: str | None = None) -> Any:
        """Return the actors that this client may reach, with their methods, argument schemas and docs."""
        return exchange.outcome(await self._exchange(exchange.describe(target))).value

    async def ping(self) -> Mapping[str, Any]:
        """Return what the daemon says of itself now: incarnation and hub_lag_ms."""
        return exchange.outcome(await self._exchange(exchange.PING)).header

    async def welcome(self) -> Welcome:
        """Return what the daemon said when it was greeted: version, incarnation, limits, where its HTTP listens."""
        return (await self._linked()).welcome

    # -- life

    async def close(self) -> None:
        """Close the connection; requests under way end with `ConnectionFailed`. Idempotent."""
        self._closed = True
        if self._link is not None:
            self._link.close(LINGER_MS)
            self._link = None
        if self._context is not None:
            context, self._context = self._context, None
            # waits for what lingers, so not on the loop
            await asyncio.get_running_loop().run_in_executor(None, context.term)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._link.pending) if self._link else 0} requests under way"
        return f"<AsyncClient of {self.endpoint}, {state}>"

    # -- one exchange

    def _next_id(self) -> bytes:
        return b"%d" % next(self._ids)

    async def _exchange(self, outgoing: Outgoing) -> Answer:
        """Send and wait for the answer; repeat over a new connection when that is known to be safe."""
        incarnation: str | None = None
        while True:
            link: _Link | None = None
            try:
                link = await self._linked()
                if incarnation is not None and link.welcome.incarnation != incarnation:
                    raise exchange.link_lost(self.endpoint)
                if len(link.pending) >= self.max_in_flight:
                    raise Overloaded(f"{self.max_in_flight} requests of this client are under way, await some first")
                wait_s = exchange.wait_s(outgoing, link.welcome)
                return await link.exchange(outgoing, self._next_id(), wait_s, self.connect_timeout)
            except ConnectionFailed as error:
                if incarnation is not None:  # the first try may have been carried out, whatever became of this one
                    raise exchange.link_lost(self.endpoint) from None
                if link is None or error.started == "no" or outgoing.header.idem is None or self._closed:
                    raise
                incarnation = link.welcome.incarnation

    async def _linked(self) -> _Link:
        link = self._link
        if link is not None and link.is_sound():
            return link
        async with self._connecting:
            self._check_open()
            link = self._link
            if link is not None and link.is_sound():
                return link
            if link is not None:
                link.close(0)
                self._link = None
            if self._context is None:
                self._context = zmq.Context()
            link = _Link(self._context, self.endpoint, self._keys)
            try:
                await self._greet(link)
                self._check_open()
            except BaseException:
                link.close(0)
                raise
            self._link = link
            return link

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionFailed("this client is closed, make a new one with regrow.aio.connect", started="no")

    async def _greet(self, link: _Link) -> None:
        try:
            hello = exchange.hello(self.name)
            answer = await link.exchange(hello, self._next_id(), self.connect_timeout, self.connect_timeout)
        except Unauthorized:
            raise
        except RegrowError:
            raise exchange.unreachable(self.endpoint, self.connect_timeout) from None
        link.welcome = exchange.check_version(answer)


class AsyncEvents(AsyncIterator[Event | Gap]):
    """The events of one subscription, in order, without end; read by one task at a time.

    `seq` is the number of the last event that was read: who subscribes again later gives it as `since`.
    """

    def __init__(self, client: AsyncClient, position: Position) -> None:
        self._client = client
        self._position = position
        self._link: _Link | None = None
        self._id = b""
        self._unread = _Unread()
        self._told: list[Event | Gap] = []
        self._closed = False

    @property
    def seq(self) -> int:
        return self._position.seq or 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event | Gap:
        found = await self.read()
        if found is None:
            raise StopAsyncIteration
        return found

    async def read(self, timeout: float | None = None) -> Event | Gap | None:  # noqa: ASYNC109 - None says that it passed
        """Return the next event or gap, waiting at most `timeout` seconds (None: for ever); None when there is none.

        Raises `ConnectionFailed` when the daemon is gone and does not come back within the client's `connect_timeout`.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._next()
        except TimeoutError:
            return None

    async def _next(self) -> Event | Gap | None:
        while not self._closed:
            if self._told:
                return self._told.pop(0)
            if self._link is None:
                again = bool(self._position.incarnation)
                await self._begin(time.monotonic() + self._client.connect_timeout if again else None)
                continue
            answer = await self._unread.get()
            if answer is None:
                self._forget()
                continue
            try:
                found = self._position.heard(answer)
            except RegrowError:
                self._forget()
                raise
            if found is None:
                continue
            lost = self._unread.take_lost()
            if lost:
                self._told.append(found)
                return Gap(lost, found.seq - 1)
            return found
        return None

    async def _begin(self, give_up: float | None) -> None:
        """Subscribe; until `give_up` (None: once) try again when the daemon is just going or coming."""
        while True:
            try:
                await self._try_begin()
            except (Refused, ConnectionFailed) as error:
                pause_s = error.retry_after_s or RETRY_S
                if self._client._closed or give_up is None or time.monotonic() + pause_s >= give_up:
                    raise
            else:
                return
            await asyncio.sleep(pause_s)

    async def _try_begin(self) -> None:
        client = self._client
        link = await client._linked()
        outgoing = self._position.outgoing(link.welcome)
        request_id = client._next_id()
        unread = link.streams[request_id] = _Unread()
        try:
            answer = await link.exchange(outgoing, request_id, exchange.CONTROL_TIMEOUT_S, client.connect_timeout)
            gap = self._position.accepted(answer, link.welcome)
        except BaseException as error:
            del link.streams[request_id]
            if isinstance(error, asyncio.CancelledError):
                link.forget(request_id)
            raise
        self._link, self._id, self._unread = link, request_id, unread
        if gap is not None:
            self._told.append(gap)

    def _forget(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.streams.pop(self._id, None)

    async def close(self) -> None:
        """End the subscription. Idempotent."""
        self._closed = True
        link = self._link
        if link is not None:
            self._forget()
            link.forget(self._id)

    async def __aenter__(self) -> Self:
        if self._link is None and not self._closed:
            await self._begin(None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class _Unread(asyncio.Queue["Answer | None"]):
    """What came for a subscription and was not read: bounded, the oldest make room and are counted."""

    def __init__(self) -> None:
        super().__init__()
        self._lost = 0

    def put_nowait(self, item: Answer | None) -> None:
        if self.qsize() >= MAX_UNREAD_EVENTS:
            oldest = self.get_nowait()
            lost = oldest.header.get("lost") if oldest is not None and oldest.op == "GAP" else 1
            self._lost += lost if isinstance(lost, int) else 0
        super().put_nowait(item)

    def take_lost(self) -> int:
        lost, self._lost = self._lost, 0
        return lost


class _Link:
    """One DEALER socket with its monitor, watched by the running event loop."""

    def __init__(self, context: zmq.Context[Any], endpoint: str, keys: tuple[bytes, bytes, bytes] | None) -> None:
        self.endpoint = endpoint
        self.welcome = Welcome()
        self.pending: dict[bytes, asyncio.Future[Answer]] = {}
        self.streams: dict[bytes, asyncio.Queue[Answer | None]] = {}
        self._loop = asyncio.get_running_loop()
        self._up = self._lost = False
        self._key_refused = False
        self._closed = False
        self._pump_scheduled = False
        self._waiting_to_send: set[asyncio.Future[None]] = set()
        socket = context.socket(zmq.DEALER)
        try:
            set_client_options(socket, keys)
            self._monitor = socket.get_monitor_socket(LINK_EVENTS)
            socket.connect(endpoint)
        except BaseException as error:
            close_both(socket, 0)
            if isinstance(error, zmq.ZMQError):
                raise ConnectionFailed(f"cannot connect to {endpoint}: {error}", started="no") from None
            raise
        self._socket = socket
        self._descriptors = [socket.getsockopt(zmq.FD), self._monitor.getsockopt(zmq.FD)]
        for descriptor in self._descriptors:
            self._loop.add_reader(descriptor, self._pump)
        self._schedule_pump()

    def is_sound(self) -> bool:
        return not self._lost and not self._closed

    async def exchange(self, outgoing: Outgoing, request_id: bytes, wait_s: float, connect_timeout_s: float) -> Answer:
        """Send, and return the answer; tell the daemon when the caller does not wait for it any more."""
        frames = outgoing.frames(request_id, self.welcome)
        began = time.monotonic()
        future: asyncio.Future[Answer] = self._loop.create_future()
        self.pending[request_id] = future
        try:
            await self.send(frames, connect_timeout_s)
            async with asyncio.timeout(wait_s):
                return await future
        except TimeoutError:
            raise exchange.no_answer(self.endpoint, time.monotonic() - began) from None
        except asyncio.CancelledError:
            if outgoing.op == "ASK":
                self._send_now(exchange.CANCEL.frames(request_id))
            raise
        finally:
            del self.pending[request_id]
            if not future.cancel() and not future.cancelled():
                future.exception()  # looked at, or the loop would report that nobody did

    async def stream(
        self, outgoing: Outgoing, request_id: bytes, connect_timeout_s: float
    ) -> AsyncGenerator[Answer, None]:
        """Send, and yield the PARTs; an ERROR is yielded like the last of them."""
        arrived: asyncio.Queue[Answer | None] = asyncio.Queue()  # bounded by the credit
        header = outgoing.header
        limit = None if header.deadline_ms is None else time.monotonic() + header.deadline_ms / 1000 + exchange.GRACE_S
        read = 0
        over = False
        self.streams[request_id] = arrived
        try:
            await self.send(outgoing.frames(request_id, self.welcome), connect_timeout_s)
            while True:
                began = time.monotonic()
                longest_s = self.welcome.max_deadline_s + exchange.GRACE_S
                try:
                    async with asyncio.timeout(longest_s if limit is None else max(0.0, min(longest_s, limit - began))):
                        answer = await arrived.get()
                except TimeoutError:
                    raise exchange.no_answer(self.endpoint, time.monotonic() - began) from None
                over = answer is None or answer.op != "PART"
                if answer is None:
                    raise self._loss()
                if answer.op == "END":
                    return
                yield answer
                if over:
                    return
                read += 1
                if read * 2 >= (header.credit or 1):
                    with contextlib.suppress(ConnectionFailed):  # what came before the loss is still read
                        await self.send(exchange.credit(read).frames(request_id), connect_timeout_s)
                    read = 0
        finally:
            del self.streams[request_id]
            if not over:
                self._send_now(exchange.CANCEL.frames(request_id))

    def forget(self, subscription_id: bytes) -> None:
        """Tell the daemon that nobody listens to a subscription any more, if the link still stands."""
        self._send_now(exchange.UNSUB.frames(subscription_id))

    async def send(self, frames: list[bytes], timeout_s: float) -> None:
        """Send once there is a connection with room; raises `ConnectionFailed` (started=no) after `timeout_s`."""
        began = time.monotonic()
        while not self._send_now(frames):
            if self._lost:
                raise self._loss() if self._key_refused else self._unreachable(began)
            room: asyncio.Future[None] = self._loop.create_future()
            self._waiting_to_send.add(room)
            try:
                async with asyncio.timeout(max(0.0, began + timeout_s - time.monotonic())):
                    await room
            except TimeoutError:
                raise self._unreachable(began) from None
            finally:
                self._waiting_to_send.discard(room)

    def _unreachable(self, began: float) -> ConnectionFailed:
        return exchange.unreachable(self.endpoint, time.monotonic() - began)

    def _send_now(self, frames: list[bytes]) -> bool:
        if self._closed:
            return False
        self._hear_monitor()
        try:
            if self._lost or not self._up:
                return False
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        finally:
            # the descriptor signals edges, and sending may have swallowed one
            self._schedule_pump()
        return True

    def _schedule_pump(self) -> None:
        if not self._pump_scheduled:
            self._pump_scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Take what has come, from the socket first: an answer that made it counts although the link is lost since."""
        self._pump_scheduled = False
        if self._closed:
            return
        if not self._drain():
            self._schedule_pump()
            return
        self._hear_monitor()
        if self._lost:
            self._drain()
            self._fail_pending()
        if self._waiting_to_send and (self._lost or (self._up and self._has_room())):
            for room in self._waiting_to_send:
                if not room.done():
                    room.set_result(None)

    def _has_room(self) -> bool:
        state = self._socket.getsockopt(zmq.EVENTS)
        if state & zmq.POLLIN:  # the look has swallowed its edge
            self._schedule_pump()
        return bool(state & zmq.POLLOUT)

    def _drain(self) -> bool:
        """Hand out what has come; False when a batch was not enough."""
        for _ in range(BATCH):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return True
            answer = exchange.read(frames)
            if answer is None:
                continue
            future = self.pending.get(answer.id)
            if future is not None and not future.done():
                future.set_result(answer)
            elif answer.id in self.streams:
                self.streams[answer.id].put_nowait(answer)
        return False

    def _loss(self) -> RegrowError:
        if self._key_refused:
            return Unauthorized(f"the daemon at {self.endpoint} does not know this client's key")
        return exchange.link_lost(self.endpoint)

    def _fail_pending(self) -> None:
        for future in self.pending.values():
            if not future.done():
                # an exception of its own for each: they are raised in different tasks
                future.set_exception(self._loss())
        for arrived in self.streams.values():
            arrived.put_nowait(None)

    def _hear_monitor(self) -> None:
        while True:
            try:
                frames = self._monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            event, _value = EVENT.unpack(frames[0])
            self._key_refused = self._key_refused or event == zmq.EVENT_HANDSHAKE_FAILED_AUTH
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._up = True
            else:
                self._lost = True

    def close(self, linger_ms: int) -> None:
        """End it: descriptors first, then the sockets; whoever waits hears that the connection is lost."""
        if self._closed:
            return
        self._closed = True
        for descriptor in self._descriptors:
            self._loop.remove_reader(descriptor)
        close_both(self._socket, linger_ms)
        self._lost = True
        self._fail_pending()
        for room in self._waiting_to_send:
            if not room.done():
                room.set_result(None)
