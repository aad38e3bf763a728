"""Conformance: named checks that tell whether a server keeps the rules of PROTOCOL.md, and which one it breaks.

It speaks frames over ZeroMQ and knows nothing of how the server is made, so it tests any implementation. Most checks
need nothing but the socket. Some need a method that behaves in a known way; each such role is found by its name in
DESCRIBE, or named by the caller:

    echo {"value": any} -> that value          wait {"seconds": number} -> answers after so long
    tick {} -> how often it was called         count {"to": n} -> streams 0, 1, ... n - 1

`[actors.conform] class = "regrow.testing.conform:Target"` gives a daemon of ours an actor that has all of them.

Read: `Broken` and `Skipped`, the connection, then the checks in the order of PROTOCOL.md, `run` last.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import zmq

from regrow.protocol.codec import CodecError, decode_body, encode_body
from regrow.protocol.errors import ERRORS
from regrow.protocol.frames import MAX_ID_BYTES, TERMINAL_OPS, Answer, Rejected, decode_answer, encode

ROLES: Final = ("echo", "wait", "tick", "count")
PATIENCE_S: Final = 5.0
#: how long a server that must say nothing is listened to
SILENCE_S: Final = 0.15
#: a server whose limit is higher is not asked so often
MAX_FLOOD: Final = 5000
MAX_SENT_BYTES: Final = 64 << 20
STARTED: Final = ("no", "yes", "unknown")


class Unreachable(Exception):
    """Nobody answers at the endpoint at all."""


class Broken(Exception):
    """The server broke a rule; the text says how."""


class Skipped(Exception):
    """The check cannot be made against this server; the text says why."""


@dataclass(frozen=True)
class Result:
    """What became of one check: outcome is ok, FAIL or skipped."""

    name: str
    rule: str
    outcome: str
    why: str = ""

    def __str__(self) -> str:
        line = f"{self.outcome:<8}{self.name}"
        return f"{line}: {self.why} (PROTOCOL.md {self.rule})" if self.why else line


class Connection:
    """One socket of a client; whatever is received is checked for what holds of every answer."""

    def __init__(self, server: Server, kind: int = zmq.DEALER, envelope: tuple[bytes, ...] = ()) -> None:
        self._patience_s = server.patience_s
        self._envelope = envelope
        self._ids = server.ids
        self.socket: zmq.Socket[Any] = server.context.socket(kind)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDTIMEO, round(server.patience_s * 1000))
        self.socket.setsockopt(zmq.RCVHWM, 0)
        if server.keys is not None:
            self.socket.curve_serverkey, self.socket.curve_publickey, self.socket.curve_secretkey = server.keys
        self.socket.connect(server.endpoint)

    def send_frames(self, frames: list[bytes]) -> None:
        try:
            self.socket.send_multipart(frames)
        except zmq.Again:
            raise Unreachable("no connection") from None

    def send(
        self, op: str, header: Mapping[str, Any] | None = None, body: bytes | None = None, *, id: bytes | None = None
    ) -> bytes:
        """Send a request and return its id."""
        request_id = b"conform-%d" % next(self._ids) if id is None else id
        self.send_frames(encode(op, request_id, header, body, self._envelope))  # type: ignore[arg-type]
        return request_id

    def ask(self, target: str, args: Any = None, *, id: bytes | None = None, **header: Any) -> bytes:
        return self.send("ASK", _to(target) | header, _body(args), id=id)

    def receive_frames(self, limit_s: float | None = None) -> list[bytes] | None:
        if not self.socket.poll(round((self._patience_s if limit_s is None else limit_s) * 1000)):
            return None
        frames: list[bytes] = self.socket.recv_multipart()
        return frames

    def receive(self, what: str = "the answer", limit_s: float | None = None) -> Answer:
        """Return the next message that is no BYE; raises `Broken` for silence and for what is no message."""
        frames = self.receive_frames(limit_s)
        if frames is None:
            raise Broken(f"{what} did not come within {self._patience_s if limit_s is None else limit_s:g} s")
        _require(
            tuple(frames[: len(self._envelope)]) == self._envelope, f"{what} came without the envelope of the request"
        )
        answer = decode_answer(frames)
        if isinstance(answer, Rejected):
            raise Broken(f"{what} is no message: {answer.error}")
        return self.receive(what, limit_s) if answer.op == "BYE" else answer

    def expect(self, op: str, id: bytes, what: str = "the answer", limit_s: float | None = None) -> Answer:
        """Return the next message, which must have this op and id."""
        answer = self.receive(what, limit_s)
        said = f": {_error_text(answer)}" if answer.op == "ERROR" else ""
        _require(answer.op == op, f"{what} is {answer.op}, expected {op}{said}")
        _require(answer.id == id, f"{what} carries the id {answer.id!r}, expected {id!r}")
        return answer

    def reply(self, id: bytes, what: str = "the answer", limit_s: float | None = None) -> Any:
        return _value(self.expect("REPLY", id, what, limit_s))

    def error(
        self,
        id: bytes,
        code: str,
        what: str = "the answer",
        *,
        started: str | None = None,
        limit_s: float | None = None,
        duplicate: bool = False,
    ) -> dict[str, Any]:
        """Return the body of the next message, which must be this error."""
        answer = self.expect("ERROR", id, what, limit_s)
        body = _error_body(answer)
        _require(body["code"] == code, f"{what} is {body['code']}, expected {code}: {body['message']}")
        if started is not None:
            _require(body["started"] == started, f"{what} says started={body['started']}, expected {started}")
        _require(
            bool(answer.header.get("duplicate")) == duplicate,
            f"{what} {'lacks' if duplicate else 'has'} duplicate: true in its header",
        )
        return body

    def silence(self, what: str, for_s: float = SILENCE_S) -> None:
        frames = self.receive_frames(for_s)
        if frames is not None:
            op = frames[1 + len(self._envelope)] if len(frames) > 1 + len(self._envelope) else b"?"
            raise Broken(f"{what} was answered with {op.decode(errors='replace')}, expected no answer")

    def alive(self, what: str) -> None:
        """Require that this connection still answers, and that the next thing on it is that answer."""
        self.expect("PONG", self.send("PING"), f"the PONG after {what}")

    def close(self) -> None:
        self.socket.close(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Server:
    """The server under test: where it is, what it says of itself, and which method plays which role."""

    def __init__(
        self,
        endpoint: str,
        *,
        targets: Mapping[str, str] | None = None,
        keys: tuple[bytes, bytes, bytes] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.endpoint = endpoint
        self.keys = keys
        self.patience_s = patience_s
        self.context: zmq.Context[Any] = zmq.Context()
        self.ids = itertools.count(1)
        self.targets: dict[str, str] = dict(targets or {})
        self.limits: dict[str, Any] = {}
        self.incarnation = ""

    def greet(self) -> None:
        """Learn limits and roles; raises `Unreachable` when nobody answers. What is wrong here the checks will say."""
        with self.connection() as connection:
            header = self._answer_header(connection, "HELLO")
            if header is None:
                raise Unreachable(f"no answer within {self.patience_s:g} s")
            limits = header.get("limits")
            self.limits = limits if isinstance(limits, dict) else {}
            self.incarnation = str(header.get("incarnation", ""))
            connection.send("DESCRIBE")
            frames = connection.receive_frames()
            answer = decode_answer(frames or [])
            if isinstance(answer, Answer) and answer.op == "REPLY":
                self._find_roles(answer)

    @staticmethod
    def _answer_header(connection: Connection, op: str) -> dict[str, Any] | None:
        connection.send(op)
        frames = connection.receive_frames()
        if frames is None:
            return None
        answer = decode_answer(frames)
        return answer.header if isinstance(answer, Answer) else {}

    def _find_roles(self, answer: Answer) -> None:
        try:
            for actor in decode_body(answer.body, "json")["actors"]:
                found = [f"{actor['name']}.{method['name']}" for method in actor["methods"]]
                for target in found if actor["state"] == "running" else ():
                    role = target.rpartition(".")[2]
                    # one actor must have echo before its other methods are believed to be what their names say
                    if role in ROLES and f"{actor['name']}.echo" in found:
                        self.targets.setdefault(role, target)
        except (CodecError, KeyError, TypeError, AttributeError):
            pass  # the check of DESCRIBE says what is wrong with it

    def role(self, name: str) -> str:
        """Return TARGET.METHOD of a role; raises `Skipped` when nothing plays it."""
        target = self.targets.get(name)
        if target is None:
            raise Skipped(f"no method plays the role {name}, name one: --target {name}=ACTOR.METHOD")
        return target

    def limit(self, name: str) -> int:
        found = self.limits.get(name)
        if not isinstance(found, int):
            raise Skipped(f"WELCOME tells no {name}")
        return found

    def connection(self, kind: int = zmq.DEALER, envelope: tuple[bytes, ...] = ()) -> Connection:
        return Connection(self, kind, envelope)

    @contextmanager
    def harming_nobody(self, what: str) -> Iterator[Connection]:
        """Give a connection, and require afterwards that one made before still answers at once."""
        with self.connection() as bystander, self.connection() as one:
            bystander.alive("connecting")
            yield one
            bystander.alive(what)

    def close(self) -> None:
        self.context.destroy(0)


Check = Callable[[Server], None]
CHECKS: Final[dict[str, tuple[str, Check]]] = {}


def _check(name: str, rule: str) -> Callable[[Check], Check]:
    def register(function: Check) -> Check:
        CHECKS[name] = (rule, function)
        return function

    return register


# -- frames and ids


@_check("frames", "R1")
def _frames(server: Server) -> None:
    with server.connection() as connection:
        connection.send_frames([b"RG1", b"PING", b"four", b"{}"])
        connection.expect("PONG", b"four", "the answer to four frames (no body)")
        connection.send_frames([b"RG1", b"PING", b"empty", b"", b""])
        connection.expect("PONG", b"empty", "the answer to an empty header frame")
        connection.send("PING", {"unheard_of": [1, {"a": None}]}, id=b"more")
        connection.expect("PONG", b"more", "the answer to a header with an unknown key")


@_check("envelope", "R1")
def _envelope(server: Server) -> None:
    for envelope in ((b"",), (b"hop", b""), (b"far", b"near", b"")):
        with server.connection(envelope=envelope) as connection:
            connection.expect("PONG", connection.send("PING"), f"the answer through {len(envelope)} envelope frames")


@_check("ids", "R2")
def _ids(server: Server) -> None:
    with server.connection() as connection:
        for sent in (b"x" * MAX_ID_BYTES, b"\x00\xff\x00", b"RG1"):
            connection.send("PING", id=sent)
            connection.expect("PONG", sent, f"the answer to an id of {len(sent)} bytes")
        for sent in (b"", b"x" * (MAX_ID_BYTES + 1)):
            connection.send("PING", id=sent)
            connection.error(b"", "bad_request", f"the answer to an id of {len(sent)} bytes", started="no")


@_check("ids-of-others", "R2")
def _ids_of_others(server: Server) -> None:
    wait = server.role("wait")
    with server.connection() as one, server.connection() as other:
        one.ask(wait, {"seconds": 0.3}, id=b"same")
        other.send("PING", id=b"same")
        other.expect("PONG", b"same", "the answer to an id that another connection has in flight")
        other.send("CANCEL", id=b"same")
        one.reply(b"same", "the answer to an ask that another connection tried to cancel")


BAD_MESSAGES: Final[dict[str, tuple[list[bytes], bytes]]] = {
    "one frame": ([b"RG1"], b""),
    "two frames": ([b"RG1", b"PING"], b""),
    "three frames": ([b"RG1", b"PING", b"i"], b"i"),
    "six frames": ([b"RG1", b"PING", b"i", b"{}", b"", b""], b"i"),
    "another version": ([b"RG9", b"PING", b"i", b"{}", b""], b"i"),
    "no version": ([b"PING", b"i", b"{}", b"x"], b""),
    "unknown op": ([b"RG1", b"DANCE", b"i", b"{}", b""], b"i"),
    "op in small letters": ([b"RG1", b"ping", b"i", b"{}", b""], b"i"),
    "op of a server": ([b"RG1", b"REPLY", b"i", b"{}", b""], b"i"),
    "empty op": ([b"RG1", b"", b"i", b"{}", b""], b"i"),
    "header is no JSON": ([b"RG1", b"ASK", b"i", b"{to", b""], b"i"),
    "header is a list": ([b"RG1", b"ASK", b"i", b"[]", b""], b"i"),
    "header is not UTF-8": ([b"RG1", b"ASK", b"i", b'{"to":"\xff"}', b""], b"i"),
    "header is deep": ([b"RG1", b"ASK", b"i", b'{"a":' * 2000 + b"1" + b"}" * 2000, b""], b"i"),
    "header is too large": ([b"RG1", b"ASK", b"i", b'{"a":"' + b"x" * 20_000 + b'"}', b""], b"i"),
    "to is a number": ([b"RG1", b"ASK", b"i", b'{"to":1,"method":"m"}', b""], b"i"),
    "deadline is 0": ([b"RG1", b"ASK", b"i", b'{"to":"a","method":"m","deadline_ms":0}', b""], b"i"),
    "deadline is a text": ([b"RG1", b"ASK", b"i", b'{"to":"a","method":"m","deadline_ms":"1"}', b""], b"i"),
    "deadline is huge": ([b"RG1", b"ASK", b"i", b'{"to":"a","method":"m","deadline_ms":1e999}', b""], b"i"),
    "unknown codec": ([b"RG1", b"ASK", b"i", b'{"to":"a","method":"m","codec":"yaml"}', b""], b"i"),
    "ack is a number": ([b"RG1", b"TELL", b"i", b'{"to":"a","method":"m","ack":1}', b""], b"i"),
    "credit is negative": ([b"RG1", b"ASK", b"i", b'{"to":"a","method":"m","stream":true,"credit":-1}', b""], b"i"),
    "credit without n": ([b"RG1", b"CREDIT", b"i", b"{}", b""], b"i"),
    "empty idem": ([b"RG1", b"ASK", b"i", b'{"to":"a","method":"m","idem":""}', b""], b"i"),
    "no target": ([b"RG1", b"ASK", b"i", b"{}", b""], b"i"),
    "no method": ([b"RG1", b"ASK", b"i", b'{"to":"a"}', b""], b"i"),
}


@_check("bad-messages", "R3")
def _bad_messages(server: Server) -> None:
    with server.harming_nobody("bad messages") as connection:
        for name, (frames, sent) in BAD_MESSAGES.items():
            connection.send_frames(frames)
            connection.error(sent, "bad_request", f"the answer to a bad message ({name})", started="no")
        connection.alive("bad messages")


@_check("bad-bodies", "R3")
def _bad_bodies(server: Server) -> None:
    header = _to(server.role("echo"))
    bodies: dict[str, tuple[str, bytes]] = {
        "half a JSON value": ("json", b'{"value": '),
        "two JSON values": ("json", b'{"value": 1} {}'),
        "no UTF-8": ("json", b'{"value": "\xff"}'),
        "JSON with NaN": ("json", b'{"value": NaN}'),
        "deep JSON": ("json", b'{"value":' + b"[" * 5000 + b"]" * 5000 + b"}"),
        "half a msgpack value": ("msgpack", b"\x81\xa5value"),
        "a msgpack length that lies": ("msgpack", b"\xdf\xff\xff\xff\xff"),
        "deep msgpack": ("msgpack", b"\x81\xa5value" + b"\x91" * 5000 + b"\xc0"),
    }
    with server.harming_nobody("bad bodies") as connection:
        for name, (codec, body) in bodies.items():
            sent = connection.send("ASK", header | {"codec": codec}, body)
            connection.error(sent, "bad_request", f"the answer to a bad body ({name})", started="no")


@_check("duplicate-id", "R4")
def _duplicate_id(server: Server) -> None:
    wait = server.role("wait")
    with server.connection() as connection:
        connection.ask(wait, {"seconds": 0.4}, id=b"twice")
        connection.ask(wait, {"seconds": 0.0}, id=b"twice")
        connection.error(b"twice", "conflict", "the answer to a second ask with an id in flight", duplicate=True)
        connection.send_frames([b"RG1", b"DANCE", b"twice", b"{}", b""])
        connection.error(b"twice", "bad_request", "the answer to a bad message with an id in flight", duplicate=True)
        connection.reply(b"twice", "the answer to the first ask")
        connection.send("PING", id=b"twice")
        connection.expect("PONG", b"twice", "the answer to an id that is free again")


# -- the connection


@_check("hello", "R5")
def _hello(server: Server) -> None:
    with server.connection() as connection:
        sent = connection.send("HELLO", {"client": "regrow conform", "versions": ["RG1", "RG9"]})
        header = connection.expect("WELCOME", sent).header
        for key in ("protocol", "server", "version", "incarnation"):
            found = header.get(key)
            _require(isinstance(found, str) and bool(found), f"WELCOME says {key}={found!r}, expected a text")
        _require(header["protocol"] == "RG1", f"WELCOME says protocol={header['protocol']!r}, expected RG1")
        limits = header.get("limits")
        if not isinstance(limits, dict):
            raise Broken("WELCOME has no limits")
        for key in ("max_message_bytes", "max_header_bytes", "max_id_bytes", "max_in_flight", "max_deadline_ms"):
            found = limits.get(key)
            _require(isinstance(found, int) and found > 0, f"WELCOME says limits.{key}={found!r}, expected a number")
        found = header.get("heartbeat_ms")
        _require(isinstance(found, int | float) and found > 0, f"WELCOME says heartbeat_ms={found!r}")
        connection.expect("WELCOME", connection.send("HELLO"), "the answer to a HELLO that says nothing")
        sent = connection.send("HELLO", {"versions": ["RG9"]})
        connection.error(sent, "bad_request", "the answer to a HELLO of another version", started="no")


@_check("ping", "R6")
def _ping(server: Server) -> None:
    with server.connection() as connection:
        header = connection.expect("PONG", connection.send("PING"), "the answer to a PING before any HELLO").header
        _require(header.get("incarnation") == server.incarnation, "PONG and WELCOME name different incarnations")
        lag = header.get("hub_lag_ms")
        _require(isinstance(lag, int | float) and lag >= 0, f"PONG says hub_lag_ms={lag!r}, expected a number")


# -- asks


@_check("ask", "R8")
def _ask(server: Server) -> None:
    echo = server.role("echo")
    with server.connection() as connection:
        for value in (None, True, 1.5, "ü€𝄞", [1, [2]], {"a": {"b": "c"}}, 2**53):
            answer = connection.reply(connection.ask(echo, {"value": value}))
            _require(answer == value, f"the answer to echo of a {type(value).__name__} is another value")
        connection.silence("an ask that has had its answer")


@_check("one-answer", "R8")
def _one_answer(server: Server) -> None:
    echo, many = server.role("echo"), min(500, server.limit("max_in_flight"))
    with server.connection() as connection:
        asked = [connection.ask(echo, {"value": n}) for n in range(many)]
        answered = [connection.receive(f"answer {n} of {many} to asks at once") for n in range(many)]
        _require(
            [answer.id for answer in answered] == asked,
            "asks of one connection to one actor were answered in another order, twice or not at all",
        )
        _require([_value(answer) for answer in answered] == list(range(many)), "answers were mixed up between ids")
        connection.silence("asks that have all had their answer")


@_check("unknown-target", "R9")
def _unknown_target(server: Server) -> None:
    with server.connection() as connection:
        sent = connection.ask("no-such-actor-here.echo", {"value": 1})
        body = connection.error(sent, "not_found", "the answer for an actor that does not exist", started="no")
        _require(body["retryable"] is False, "not_found is retryable, though its caller must change it")
        actor = server.role("echo").rpartition(".")[0]
        for method in ("no_such_method", "__init__", "on_receive", "_private"):
            sent = connection.ask(f"{actor}.{method}", {})
            connection.error(sent, "not_found", f"the answer for the method {method}", started="no")


@_check("arguments", "R9")
def _arguments(server: Server) -> None:
    echo, wait = server.role("echo"), server.role("wait")
    with server.connection() as connection:
        for body in (b"[1]", b'"x"', b"1", b'{"value": 1, "unheard_of": 2}'):
            sent = connection.send("ASK", _to(echo), body)
            connection.error(sent, "invalid_arguments", f"the answer to the arguments {body.decode()}", started="no")
        for args in ({}, {"seconds": "soon"}, {"seconds": None}):
            connection.error(
                connection.ask(wait, args), "invalid_arguments", f"the answer to wait {args}", started="no"
            )


@_check("deadline", "R10")
def _deadline(server: Server) -> None:
    wait = server.role("wait")
    with server.connection() as connection:
        began = time.monotonic()
        sent = connection.ask(wait, {"seconds": 1.0}, deadline_ms=150)
        queued = connection.ask(wait, {"seconds": 0.0}, deadline_ms=200)
        connection.error(sent, "deadline_exceeded", "the answer to an ask that outlasts its deadline", started="yes")
        took_s = time.monotonic() - began
        _require(0.13 <= took_s <= 0.9, f"a deadline of 150 ms was answered after {took_s * 1000:.0f} ms")
        connection.error(queued, "deadline_exceeded", "the answer to an ask that expired in the mailbox", started="no")
        connection.silence("an ask that was answered at its deadline", 1.2)
        connection.reply(connection.ask(wait, {"seconds": 0}, deadline_ms=1e15), "the answer to a far deadline")


@_check("tell", "R11")
def _tell(server: Server) -> None:
    header = _to(server.role("echo"))
    with server.connection() as connection:
        connection.send("TELL", header, _body({"value": 1}))
        connection.send("TELL", _to("no-such-actor-here.echo"))
        connection.silence("a TELL without ack")
        connection.expect("ACK", connection.send("TELL", header | {"ack": True}, _body({"value": 1})))
        sent = connection.send("TELL", _to("no-such-actor-here.echo") | {"ack": True})
        connection.error(sent, "not_found", "the answer to a TELL with ack to nobody", started="no")
        sent = connection.send("TELL", header | {"ack": True}, b"[]")
        connection.error(sent, "invalid_arguments", "the answer to a TELL with bad arguments", started="no")


@_check("cancel", "R12")
def _cancel(server: Server) -> None:
    wait = server.role("wait")
    with server.connection() as connection:
        connection.send("CANCEL", id=b"nothing")
        connection.silence("a CANCEL of nothing")
        sent = connection.ask(wait, {"seconds": 1.0})
        queued = connection.ask(wait, {"seconds": 0.0})
        connection.send("CANCEL", id=queued)
        connection.error(queued, "cancelled", "the answer to an ask cancelled in the mailbox", started="no")
        time.sleep(0.05)  # the first has begun by now
        connection.send("CANCEL", id=sent)
        connection.error(sent, "cancelled", "the answer to a cancelled ask", limit_s=0.8)
        connection.send("CANCEL", id=sent)
        connection.silence("a CANCEL of what has ended", 1.0)


@_check("idem", "R13")
def _idem(server: Server) -> None:
    tick, echo = server.role("tick"), server.role("echo")
    key = f"conform-{time.time_ns()}"
    with server.connection() as connection, server.connection() as later:
        first = connection.reply(connection.ask(tick, {}, idem=key))
        again = connection.reply(connection.ask(tick, {}, idem=key))
        _require(first == again, "an ask repeated with its idem key was carried out twice")
        _require(later.reply(later.ask(tick, {}, idem=key)) == first, "another connection does not find the idem key")
        _require(connection.reply(connection.ask(tick, {})) == first + 1, "an ask without idem key was not carried out")
        other = connection.reply(connection.ask(tick, {}, idem=f"{key}-other"))
        _require(other == first + 2, "an ask with another idem key was not carried out")
        # one scope for each target and method
        connection.reply(connection.ask(echo, {"value": 1}, idem=key))
        sent = connection.ask(echo, {"value": 2}, idem=key)
        connection.error(sent, "conflict", "the answer to an idem key used for another body", started="no")


@_check("idem-joins", "R13")
def _idem_joins(server: Server) -> None:
    wait, key = server.role("wait"), f"conform-{time.time_ns()}"
    with server.connection() as connection:
        began = time.monotonic()
        asked = {connection.ask(wait, {"seconds": 0.3}, idem=key) for _ in range(3)}
        answered = {connection.receive("the answer to asks that share an idem key").id for _ in asked}
        _require(answered == asked, "asks that share an idem key did not each get their own answer")
        took_s = time.monotonic() - began
        _require(took_s < 0.55, f"asks that share an idem key took {took_s:.2f} s, so the work was done more than once")


@_check("describe", "R15")
def _describe(server: Server) -> None:
    with server.connection() as connection:
        described = connection.reply(connection.send("DESCRIBE"))
        actors = described.get("actors") if isinstance(described, dict) else None
        if not isinstance(actors, list):
            raise Broken("the answer to DESCRIBE has no list `actors`")
        for actor in actors:
            _require(isinstance(actor, dict) and isinstance(actor.get("name"), str), "DESCRIBE names an actor badly")
            _require(isinstance(actor.get("state"), str), f"DESCRIBE tells no state of {actor['name']}")
            for method in actor.get("methods") or [{}]:
                what = f"{actor['name']}.{method.get('name')}"
                _require(isinstance(method.get("name"), str), f"DESCRIBE names a method of {actor['name']} badly")
                _require(isinstance(method.get("doc"), str), f"DESCRIBE has no doc of {what}")
                schema = method.get("arguments")
                _require(
                    isinstance(schema, dict) and schema.get("type") == "object",
                    f"DESCRIBE has no JSON Schema of an object for the arguments of {what}",
                )
        for actor in actors[:1]:
            one = connection.reply(connection.send("DESCRIBE", {"to": actor["name"]}))
            names = [found.get("name") for found in one.get("actors", [])]
            _require(names == [actor["name"]], f"DESCRIBE of {actor['name']} tells of {names}")
        sent = connection.send("DESCRIBE", {"to": "no-such-actor-here"})
        connection.error(sent, "not_found", "the answer to DESCRIBE of nobody", started="no")


@_check("msgpack", "R16")
def _msgpack(server: Server) -> None:
    echo = server.role("echo")
    value = {"bytes": b"\x00\xff", "list": [1, None, 2.5], "infinity": float("inf")}
    with server.connection() as connection:
        sent = connection.send("ASK", _to(echo) | {"codec": "msgpack"}, encode_body({"value": value}, "msgpack"))
        answer = connection.expect("REPLY", sent)
        _require(answer.header.get("codec") == "msgpack", "the REPLY to msgpack does not say codec: msgpack")
        _require(_value(answer) == value, "the value came back changed through msgpack")
        sent = connection.send("ASK", _to("no-such-actor-here.x") | {"codec": "msgpack"}, b"\x80")
        connection.error(sent, "not_found", "the ERROR to msgpack (its body is JSON)")
        sent = connection.ask(echo, {"value": 1})
        _require("codec" not in connection.expect("REPLY", sent).header, "a REPLY in json names a codec")


# -- streams


@_check("stream", "R17")
def _stream(server: Server) -> None:
    count = server.role("count")
    with server.connection() as connection:
        sent = connection.ask(count, {"to": 250}, stream=True, credit=1000)
        for n in range(250):
            part = connection.expect("PART", sent, f"part {n} of 250")
            _require(part.header.get("seq") == n, f"part {n} says seq={part.header.get('seq')!r}")
            _require(_value(part) == n, f"part {n} has another value")
        end = connection.expect("END", sent, "the end of a stream of 250 parts")
        _require(end.header.get("parts") == 250, f"END says parts={end.header.get('parts')!r}, expected 250")
        connection.silence("a stream that has ended")
        sent = connection.ask(count, {"to": 0}, stream=True)
        connection.expect("END", sent, "the end of an empty stream")


@_check("stream-refused", "R17")
def _stream_refused(server: Server) -> None:
    count, echo = server.role("count"), server.role("echo")
    with server.connection() as connection:
        sent = connection.ask(echo, {"value": 1}, stream=True)
        connection.error(sent, "bad_request", "the answer to stream on a method that does not stream", started="no")
        sent = connection.ask(count, {"to": 1})
        connection.error(sent, "bad_request", "the answer to a streaming method without stream", started="no")
        sent = connection.ask(count, {"to": 1}, stream=True, idem="k")
        connection.error(sent, "bad_request", "the answer to a stream with an idem key", started="no")


@_check("credit", "R18")
def _credit(server: Server) -> None:
    count = server.role("count")
    with server.connection() as connection:
        sent = connection.ask(count, {"to": 7}, stream=True, credit=0)
        connection.silence("a stream without credit")
        for n, more in ((0, 2), (2, 1), (3, 3)):
            connection.send("CREDIT", {"n": more}, id=sent)
            for seq in range(n, n + more):
                found = connection.expect("PART", sent, f"part {seq} after credit").header.get("seq")
                _require(found == seq, f"part {seq} says seq={found!r}")
            connection.silence(f"a stream whose {n + more} credits are spent")
        connection.alive("a stream that waits for credit")
        connection.reply(connection.ask(server.role("echo"), {"value": 1}), "the answer beside a stream that waits")
        connection.send("CREDIT", {"n": 100}, id=sent)
        connection.expect("PART", sent, "the last part")
        connection.expect("END", sent, "the end")
        connection.send("CREDIT", {"n": 1}, id=sent)
        connection.silence("credit for a stream that has ended")


@_check("stream-cancel", "R18")
def _stream_cancel(server: Server) -> None:
    count = server.role("count")
    with server.connection() as connection:
        sent = connection.ask(count, {"to": 1000}, stream=True, credit=1)
        connection.expect("PART", sent)
        connection.ask(count, {"to": 1}, stream=True, id=sent)
        connection.error(sent, "conflict", "the answer to an id that a stream has", duplicate=True)
        connection.send("CANCEL", id=sent)
        connection.error(sent, "cancelled", "the end of a cancelled stream", limit_s=1.0)
        connection.send("CREDIT", {"n": 10}, id=sent)
        connection.silence("credit for a cancelled stream")


# -- events


def _subscriptions(server: Server) -> int:
    limit = server.limit("max_subscriptions")
    if limit < 2:
        raise Skipped(f"WELCOME says max_subscriptions={limit}")
    return limit


@_check("sub", "R20")
def _sub(server: Server) -> None:
    _subscriptions(server)
    with server.connection() as connection:
        sent = connection.send("SUB", {"topics": ["*"]}, id=b"all")
        ack = connection.expect("ACK", sent, "the answer to SUB").header
        _require(isinstance(ack.get("seq"), int), f"the ACK of SUB says seq={ack.get('seq')!r}, expected a number")
        _require(ack.get("incarnation") == server.incarnation, "the ACK of SUB names another incarnation than WELCOME")
        connection.send("SUB", {"topics": ["*"]}, id=b"all")
        connection.error(b"all", "conflict", "the answer to a second SUB with an id that is taken", duplicate=True)
        connection.expect("ACK", connection.send("UNSUB", id=b"all"), "the answer to UNSUB")
        connection.error(
            connection.send("UNSUB", id=b"all"), "not_found", "the answer to an UNSUB of what has ended", started="no"
        )
        connection.send("SUB", {"topics": ["a.b"]}, id=b"all")
        connection.expect("ACK", b"all", "the answer to SUB with an id that is free again")
        connection.expect("ACK", connection.send("UNSUB", {"topics": ["a.b"]}, id=b"all"), "the answer to UNSUB")


@_check("sub-refused", "R20")
def _sub_refused(server: Server) -> None:
    _subscriptions(server)
    with server.connection() as connection:
        wrong: dict[str, dict[str, Any]] = {
            "without topics": {},
            "with an empty list of topics": {"topics": []},
            "of a topic with a space": {"topics": ["a b"]},
            "with codec raw": {"topics": ["*"], "codec": "raw"},
        }
        for name, header in wrong.items():
            connection.error(connection.send("SUB", header), "bad_request", f"the answer to SUB {name}", started="no")


@_check("sub-since", "R20")
def _sub_since(server: Server) -> None:
    _subscriptions(server)
    with server.connection() as connection:
        sent = connection.send("SUB", {"topics": ["*"], "since": 0})
        newest = connection.expect("ACK", sent, "the answer to SUB with since").header["seq"]
        seen = 0
        while seen < newest:
            found = connection.receive(f"event {seen + 1} of {newest} that SUB with since asked for")
            _require(found.id == sent and found.op in ("EVENT", "GAP"), f"{found.op} came instead of an event")
            seq = found.header.get("seq")
            if not isinstance(seq, int) or seq <= seen:
                raise Broken(f"{found.op} says seq={seq!r} after {seen}")
            seen = seq
            if found.op == "EVENT":
                _require(isinstance(found.header.get("topic"), str), "an EVENT names no topic")
                _require(isinstance(found.header.get("at"), int | float), "an EVENT tells no time `at`")
                _require(isinstance(_value(found), dict), "the body of an EVENT is no object")
        sent = connection.send("SUB", {"topics": ["a.b"], "since": newest + 1_000_000_000})
        connection.expect("ACK", sent)
        gap = connection.expect("GAP", sent, "the answer to `since` of another incarnation")
        _require(gap.header.get("lost", 0) is None, "nobody knows how many events another incarnation had")


@_check("sub-room", "R20")
def _sub_room(server: Server) -> None:
    limit = _subscriptions(server)
    if limit > MAX_FLOOD:
        raise Skipped(f"max_subscriptions is {limit}, too many to send")
    with server.harming_nobody("too many subscriptions") as connection:
        for _ in range(limit):
            connection.expect("ACK", connection.send("SUB", {"topics": ["a.b"]}))
        sent = connection.send("SUB", {"topics": ["a.b"]})
        connection.error(sent, "overloaded", f"the answer to subscription {limit + 1}", started="no")


# -- REQ sockets, limits


@_check("req", "R22")
def _req(server: Server) -> None:
    with server.connection(zmq.REQ) as connection:
        connection.expect("PONG", connection.send("PING"), "the PONG to a REQ socket")
        connection.expect("WELCOME", connection.send("HELLO"), "the WELCOME to a REQ socket")
        connection.error(connection.send("CANCEL", id=b"no"), "not_found", "the answer to a REQ socket's CANCEL")
        connection.error(connection.send("CREDIT", {"n": 1}), "bad_request", "the answer to a REQ socket's CREDIT")
        connection.error(connection.send("SUB", {"topics": ["*"]}), "bad_request", "the answer to a REQ socket's SUB")
        connection.send_frames([b"half"])
        connection.error(b"", "bad_request", "the answer to a REQ socket's bad message")
        connection.alive("bad messages of a REQ socket")
        echo = server.role("echo")
        _require(connection.reply(connection.ask(echo, {"value": 3})) == 3, "a REQ socket got another value")
        sent = connection.send("TELL", _to(echo), _body({"value": 1}))
        connection.expect("ACK", sent, "the answer to a REQ socket's TELL, which it cannot do without")
        sent = connection.ask(server.role("count"), {"to": 1}, stream=True)
        connection.error(sent, "bad_request", "the answer to a stream for a REQ socket")


@_check("too-large", "R23")
def _too_large(server: Server) -> None:
    limit = server.limit("max_message_bytes")
    if limit * 2 > MAX_SENT_BYTES:
        raise Skipped(f"max_message_bytes is {limit}, too much to send")
    with server.harming_nobody("a message above the limit") as connection:
        sent = connection.send("PING", body=b"x" * limit)
        connection.error(sent, "too_large", f"the answer to {limit} bytes and a header", started="no")
        connection.alive("a message above the limit")


@_check("far-too-large", "R23")
def _far_too_large(server: Server) -> None:
    limit = server.limit("max_message_bytes")
    if limit * 2 > MAX_SENT_BYTES:
        raise Skipped(f"max_message_bytes is {limit}, too much to send")
    with server.harming_nobody("a frame above twice the limit") as connection:
        connection.send("PING", body=b"x" * (2 * limit + 1))
        connection.silence("a frame above twice the limit")


@_check("in-flight", "R24")
def _in_flight(server: Server) -> None:
    wait, limit = server.role("wait"), server.limit("max_in_flight")
    if limit > MAX_FLOOD:
        raise Skipped(f"max_in_flight is {limit}, too many to send")
    # a later message waits behind the first, so none of them ends before all were sent
    with server.harming_nobody("as many asks as are allowed") as connection:
        asked = [connection.ask(wait, {"seconds": 0.5}, deadline_ms=2500) for _ in range(limit + 3)]
        codes: dict[bytes, str] = {}
        for _ in asked:
            answer = connection.receive(f"answer {len(codes)} to {len(asked)} asks at once")
            _require(answer.op in TERMINAL_OPS and answer.id not in codes, "an ask was answered twice")
            codes[answer.id] = _error_body(answer)["code"] if answer.op == "ERROR" else answer.op
        refused = [sent for sent in asked if codes[sent] == "overloaded"]
        _require(
            len(refused) >= 3,
            f"{len(asked)} asks were in flight and {len(refused)} refused with overloaded, the limit is {limit}",
        )
        connection.alive("too many asks")


def _to(target: str) -> dict[str, Any]:
    actor, _, method = target.rpartition(".")
    return {"to": actor, "method": method}


def _body(args: Any) -> bytes | None:
    return None if args is None else encode_body(args, "json")


def _value(answer: Answer) -> Any:
    try:
        return decode_body(answer.body, answer.header.get("codec", "json"))
    except CodecError as error:
        raise Broken(f"the body of a {answer.op} cannot be read: {error}") from None


def _error_body(answer: Answer) -> dict[str, Any]:
    """Return the body of an ERROR, which must have every field that it needs."""
    try:
        body = decode_body(answer.body, "json")
    except CodecError as error:
        raise Broken(f"the body of an ERROR is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise Broken("the body of an ERROR is no object")
    for key, known in (
        ("code", None),
        ("message", None),
        ("started", STARTED),
        ("retryable", (True, False, "unknown")),
    ):
        found = body.get(key)
        good = isinstance(found, str) if known is None else found in known
        _require(good, f"an ERROR says {key}={found!r} (R21)")
    _require(body["code"] in ERRORS, f"an ERROR has the unknown code {body['code']!r} (R21)")
    after = body.get("retry_after_ms")
    _require(
        after is None or (isinstance(after, int | float) and after >= 0), f"an ERROR says retry_after_ms={after!r}"
    )
    return body


def _error_text(answer: Answer) -> str:
    body = _error_body(answer)
    return f"{body['code']}: {body['message']}"


def _require(good: bool, text: str) -> None:
    if not good:
        raise Broken(text)


def run(server: Server, only: Iterable[str] = ()) -> Iterator[Result]:
    """Greet the server, then make each check in turn; raises `Unreachable` when nobody answers at first."""
    server.greet()
    wanted = set(only)
    for name, (rule, check) in CHECKS.items():
        if wanted and name not in wanted:
            continue
        try:
            check(server)
        except Skipped as skipped:
            yield Result(name, rule, "skipped", str(skipped))
        except Broken as broken:
            yield Result(name, rule, "FAIL", str(broken))
        except Unreachable:
            yield Result(name, rule, "FAIL", "the server takes no connection any more")
        else:
            yield Result(name, rule, "ok")
