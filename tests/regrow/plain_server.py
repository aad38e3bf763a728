"""A small server of the protocol that is no daemon of ours, and can break one rule at a time.

`python -m tests.regrow.plain_server BREAK...` binds one ROUTER for each break ("" breaks nothing), prints their
endpoints as one line of JSON, and serves until its stdin ends. One thread, one loop; an actor is a queue and a clock.
"""

from __future__ import annotations

import heapq
import itertools
import json
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import zmq

from regrow.protocol import errors
from regrow.protocol.codec import CodecError, decode_body, encode_body
from regrow.protocol.errors import RegrowError
from regrow.protocol.frames import Rejected, Request, decode_request, encode

MAX_MESSAGE = 64 * 1024
MAX_IN_FLIGHT = 40
MAX_SUBSCRIPTIONS = 3
MAX_DEADLINE_S = 60.0
METHODS: dict[str, dict[str, Any]] = {
    "echo": {"value": None},
    "wait": {"seconds": float},
    "tick": {},
    "count": {"to": int},
}

Timers = list[tuple[float, int, Callable[[], None]]]
Key = tuple[bytes, tuple[bytes, ...], bytes]


class Job:
    """One ask under way."""

    def __init__(self, key: Key, message: Request, args: dict[str, Any]) -> None:
        self.key = key
        self.message = message
        self.args = args
        self.started = False
        self.over = False
        self.joined: list[Job] = []
        self.credit = message.header.credit or 0
        self.sent = 0


class Server:
    """One ROUTER and everything behind it."""

    def __init__(self, context: zmq.Context[Any], timers: Timers, broken: str) -> None:
        self.broken = broken
        self._timers = timers
        self._numbers = itertools.count()
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.sndhwm = self.socket.rcvhwm = 0
        if broken != "takes any size":
            self.socket.maxmsgsize = 2 * MAX_MESSAGE
        self.socket.bind("tcp://127.0.0.1:0")
        self.endpoint = self.socket.last_endpoint.decode()
        self.asks: dict[Key, Job] = {}
        self.queue: deque[Job] = deque()
        self.running: Job | None = None
        self.ticks = 0
        self.answered = 0
        self.remembered: dict[tuple[str, str], tuple[bytes | None, Any, Job | None]] = {}
        self.subscriptions: dict[Key, list[str]] = {}
        self.held: list[tuple[Request, bytes, str, dict[str, Any] | None, bytes | None]] = []

    def after(self, delay_s: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._numbers), what))

    # -- answers

    def send(
        self, route: bytes, op: str, message: Any, header: dict[str, Any] | None = None, body: bytes | None = None
    ) -> None:
        answer_id, envelope = message.id, message.envelope
        if self.broken == "changes ids":
            answer_id = answer_id[:32]
        if self.broken == "drops envelopes" and len(envelope) > 1:
            envelope = (b"",)
        self.socket.send_multipart([route, *encode(op, answer_id, header, body, envelope)])  # type: ignore[arg-type]

    def refuse(self, route: bytes, message: Any, error: RegrowError, *, duplicate: bool = False) -> None:
        body = error.to_wire()
        if self.broken == "does not say what started":
            del body["started"]
        if self.broken == "retries what cannot change" and error.code == "not_found":
            body["retryable"] = True
        mark = {"duplicate": True} if duplicate and self.broken != "does not mark duplicates" else None
        self.send(route, "ERROR", message, mark, encode_body(body, "json"))

    def reply(self, job: Job, value: Any) -> None:
        codec = job.message.header.codec
        if self.broken == "answers msgpack with json" and codec == "msgpack":
            codec, value = "json", None
        header = None if codec == "json" else {"codec": codec}
        self.answered += 1
        if self.broken == "loses answers" and self.answered % 13 == 0:
            return
        for _ in range(2 if self.broken == "answers twice" else 1):
            self.send(job.key[0], "REPLY", job.message, header, encode_body(value, codec))

    def end(self, job: Job, value: Any = None, error: RegrowError | None = None) -> None:
        for one in [job, *job.joined]:
            if self.asks.pop(one.key, None) is None and self.broken != "answers again after the deadline":
                continue
            one.over = True
            if error is None:
                self.reply(one, value)
            else:
                self.refuse(one.key[0], one.message, error)

    # -- messages in

    def read(self) -> None:
        while True:
            try:
                route, *frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.handle(route, frames)

    def handle(self, route: bytes, frames: list[bytes]) -> None:
        limit = 1 << 40 if self.broken in ("has no limit of size", "takes any size") else MAX_MESSAGE
        message = decode_request(frames, limit)
        key = (b"" if self.broken == "mixes up connections" else route, message.envelope, message.id)
        taken = key in self.asks or key in self.subscriptions
        if isinstance(message, Rejected):
            if self.broken == "ignores bad messages":
                return
            if self.broken == "loses the ids of bad messages":
                message = Rejected(message.error, b"", message.op, message.envelope)
            self.refuse(route, message, message.error, duplicate=taken)
            return
        about_another = message.op in ("CANCEL", "CREDIT", "UNSUB")
        if taken and not about_another and self.broken != "runs duplicates":
            self.refuse(route, message, errors.Conflict("taken"), duplicate=True)
            return
        try:
            getattr(self, f"on_{message.op.lower()}")(key, route, message)
        except RegrowError as error:
            if message.is_answered or message.op == "CREDIT":
                self.refuse(route, message, error, duplicate=taken)

    def on_hello(self, _key: Key, route: bytes, message: Request) -> None:
        if message.header.versions and "RG1" not in message.header.versions:
            raise errors.BadRequest("RG1 only")
        limits: dict[str, Any] = {
            "max_message_bytes": MAX_MESSAGE,
            "max_header_bytes": 16384,
            "max_id_bytes": 64,
            "max_in_flight": MAX_IN_FLIGHT,
            "max_subscriptions": MAX_SUBSCRIPTIONS,
            "max_deadline_ms": round(MAX_DEADLINE_S * 1000),
        }
        if self.broken == "tells no limits":
            del limits["max_header_bytes"]
        header = {"protocol": "RG1", "server": "plain", "version": "1", "incarnation": "i1", "limits": limits}
        self.send(route, "WELCOME", message, header | {"heartbeat_ms": 2000})

    def on_ping(self, _key: Key, route: bytes, message: Request) -> None:
        incarnation = "i2" if self.broken == "changes its incarnation" else "i1"
        self.send(route, "PONG", message, {"incarnation": incarnation, "hub_lag_ms": 0})

    def on_describe(self, _key: Key, route: bytes, message: Request) -> None:
        if message.header.to not in ("", "target"):
            raise errors.NotFound("no such actor")
        methods = []
        for name in METHODS:
            schema = "object" if self.broken == "describes no arguments" else {"type": "object"}
            methods.append({"name": name, "doc": "", "arguments": schema, "streams": name == "count"})
        actors = [{"name": "target", "kind": "actor", "state": "running", "methods": methods}]
        self.send(route, "REPLY", message, None, encode_body({"actors": actors}, "json"))

    def _arguments(self, message: Request) -> dict[str, Any]:
        header = message.header
        if not header.to or not header.method:
            raise errors.BadRequest("no target")
        if header.to != "target" or (header.method not in METHODS and self.broken != "calls anything"):
            raise errors.NotFound("no such target")
        try:
            found = decode_body(message.body, header.codec)
        except CodecError as error:
            if self.broken == "takes bad bodies for none":
                return {"value": None, "seconds": 0.0, "to": 0}
            raise errors.BadRequest(str(error)) from None
        known = METHODS.get(header.method, {})
        found = {} if found is None else found
        if self.broken == "takes any arguments" and isinstance(found, dict):
            return {"seconds": 0.0} | found
        if not isinstance(found, dict) or found.keys() - known.keys():
            raise errors.InvalidArguments("unknown arguments")
        for name, kind in known.items():
            number = isinstance(found.get(name), int | float)
            if kind is not None and not number:
                raise errors.InvalidArguments(f"{name} is no number")
        return found

    def on_ask(self, key: Key, route: bytes, message: Request) -> None:
        header = message.header
        args = self._arguments(message)
        streams = header.method == "count"
        if streams != header.stream and self.broken != "does not care for stream":
            raise errors.BadRequest("stream or not")
        if header.stream and (message.envelope or header.idem):
            raise errors.BadRequest("no stream here")
        if len(self.asks) >= MAX_IN_FLIGHT and self.broken != "takes any number":
            raise errors.Overloaded("too many", retry_after_s=1)
        job = Job((route, message.envelope, message.id), message, args)
        if header.stream:
            job.credit = 100 if header.credit is None else header.credit
            self.asks[key] = job
            self.go_on(job)
            return
        if header.idem is not None and self.broken != "forgets idem keys" and not self._begins(job):
            return
        self.asks[key] = job
        self.queue.append(job)
        if header.deadline_ms is not None and self.broken != "knows no deadlines":
            self.after(min(header.deadline_ms / 1000, MAX_DEADLINE_S), lambda: self.expire(job))
        self.start_next()

    def _begins(self, job: Job) -> bool:
        header = job.message.header
        scope = (header.method, str(header.idem))
        known = self.remembered.get(scope)
        if known is None:
            self.remembered[scope] = (job.message.body, None, job)
            return True
        body, value, under_way = known
        if body != job.message.body and self.broken != "takes any body for an idem key":
            raise errors.Conflict("another body")
        if under_way is None:
            self.reply(job, value)
        elif self.broken == "does not join":
            self.remembered[scope] = (body, None, job)
            return True
        else:
            self.asks[job.key] = job
            under_way.joined.append(job)
        return False

    def expire(self, job: Job) -> None:
        if job.key in self.asks and self.asks[job.key] is job:
            self.end(job, error=errors.DeadlineExceeded("too late", started="yes" if job.started else "no"))
            job.over = self.broken != "answers again after the deadline"

    def start_next(self) -> None:
        if self.running is not None or not self.queue:
            return
        job = self.queue.pop() if self.broken == "answers out of order" else self.queue.popleft()
        if job.over:
            self.start_next()
            return
        self.running, job.started = job, True
        self.after(float(job.args.get("seconds", 0.0)) if job.message.header.method == "wait" else 0.0,
                   lambda: self.work_done(job))  # fmt: skip

    def work_done(self, job: Job) -> None:
        method = job.message.header.method
        self.ticks += method == "tick"
        values = {"echo": job.args.get("value"), "wait": job.args.get("seconds"), "tick": self.ticks}
        value = values.get(method)
        header = job.message.header
        if header.idem is not None and (method, header.idem) in self.remembered:
            self.remembered[(method, header.idem)] = (job.message.body, value, None)
        if not job.over:
            self.end(job, value)
        self.running = None
        self.start_next()

    def on_tell(self, key: Key, route: bytes, message: Request) -> None:
        args = self._arguments(message)
        job = Job(key, message, args)
        job.over = True
        self.queue.append(job)
        if message.envelope and self.broken == "leaves tells of REQ sockets":
            return
        if message.is_answered or self.broken == "acknowledges every tell":
            self.send(route, "ACK", message)

    def on_cancel(self, key: Key, _route: bytes, message: Request) -> None:
        job = self.asks.get(key)
        if self.broken == "cannot cancel":
            return
        if job is not None:
            self.end(job, error=errors.Cancelled("cancelled", started="yes" if job.started else "no"))
        elif message.is_answered or self.broken == "answers every cancel":
            self.refuse(key[0], message, errors.NotFound("nothing to cancel"))

    # -- streams and events

    def on_credit(self, key: Key, _route: bytes, message: Request) -> None:
        if message.envelope or message.header.n is None:
            raise errors.BadRequest("no credit")
        job = self.asks.get(key)
        if job is not None:
            job.credit += message.header.n
            self.go_on(job)

    def go_on(self, job: Job) -> None:
        free = self.broken == "sends without credit"
        while job.sent < job.args.get("to", 0) and (job.credit > 0 or free):
            seq = job.sent + (self.broken == "counts parts from one")
            self.send(job.key[0], "PART", job.message, {"seq": seq}, encode_body(job.sent, "json"))
            job.sent += 1
            job.credit -= 1
        if job.sent >= job.args.get("to", 0) and self.asks.pop(job.key, None) is not None:
            parts = job.sent + 1 if self.broken == "counts parts wrongly" else job.sent
            self.send(job.key[0], "END", job.message, {"parts": parts})

    def on_sub(self, key: Key, route: bytes, message: Request) -> None:
        topics = message.header.topics
        bad = not topics or any(" " in topic for topic in topics) or message.header.codec == "raw"
        if message.envelope or (bad and self.broken != "takes any topic"):
            raise errors.BadRequest("no topics")
        mine = [one for one in self.subscriptions if one[0] == route]
        if len(mine) >= MAX_SUBSCRIPTIONS and self.broken != "takes any number of subscriptions":
            raise errors.Overloaded("too many", retry_after_s=1)
        self.subscriptions[key] = topics
        self.send(route, "ACK", message, {} if self.broken == "does not number" else {"seq": 3, "incarnation": "i1"})
        since = message.header.since
        if since is None:
            return
        if since > 3:
            lost = 7 if self.broken == "invents losses" else None
            self.send(route, "GAP", message, {"lost": lost, "seq": 0})
        for seq in (1, 1, 3) if self.broken == "repeats events" else (1, 2, 3):
            if since < seq or since > 3:
                self.send(route, "EVENT", message, {"seq": seq, "topic": "a.b", "at": 1.5}, b"{}")

    def on_unsub(self, key: Key, route: bytes, message: Request) -> None:
        if message.envelope:
            raise errors.BadRequest("no events here")
        if self.subscriptions.pop(key, None) is None and self.broken != "ends what was not begun":
            raise errors.NotFound("no subscription")
        self.send(route, "ACK", message)


def main(breaks: list[str]) -> None:
    context: zmq.Context[Any] = zmq.Context()
    timers: Timers = []
    servers = [Server(context, timers, broken) for broken in breaks]
    poller = zmq.Poller()
    poller.register(sys.stdin.fileno(), zmq.POLLIN)
    for server in servers:
        poller.register(server.socket, zmq.POLLIN)
    by_socket = {server.socket: server for server in servers}
    sys.stdout.write(json.dumps({server.broken: server.endpoint for server in servers}) + "\n")
    sys.stdout.flush()
    while True:
        now = time.monotonic()
        while timers and timers[0][0] <= now:
            heapq.heappop(timers)[2]()
        wait_ms = max(0, round((timers[0][0] - time.monotonic()) * 1000)) if timers else 1000
        for socket, _event in poller.poll(wait_ms):
            if socket == sys.stdin.fileno():
                context.destroy(0)
                return
            by_socket[socket].read()


if __name__ == "__main__":
    main(sys.argv[1:])
