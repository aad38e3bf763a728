"""What the fuzzer runs for one input: messages through the real decoder and the real service, then a reckoning.

An input is messages, split at MESSAGE, of frames, split at FRAME, so that a mutation of bytes stays near a message.
Only the socket is left out: `Sink` takes what a `Port` would give to ZeroMQ, and reads it as a client does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import gevent

from regrow.protocol.codec import CodecError, decode_body
from regrow.protocol.errors import RegrowError, error_from_wire
from regrow.protocol.frames import TERMINAL_OPS, Answer, Request, decode_answer, decode_request
from runtime.actor import Actor, exported
from runtime.directory import Directory, Entry
from runtime.edge.gateway.peer import Peer
from runtime.edge.gateway.rights import EVERYTHING
from runtime.edge.gateway.service import Identity, Service
from runtime.exports import exports_of
from runtime.ref import spawn

FRAME = b"\xff\xfe"
MESSAGE = b"\xff\xfd"
MAX_MESSAGE = 4096
MAX_IN_FLIGHT = 4
MAX_SUBSCRIPTIONS = 2
TURNS = 40
#: these carry the id of another request on purpose
ABOUT_ANOTHER = {"CANCEL", "CREDIT", "UNSUB"}

Key = tuple[tuple[bytes, ...], bytes]


class Probe(Actor):
    """Answers, fails and streams, at once."""

    @exported
    def echo(self, value: Any = None) -> Any:
        """Give back what came."""
        return value

    @exported
    def add(self, a: int, b: float = 1, c: list[str] | None = None) -> float:
        """Add two numbers."""
        return a + b + len(c or ())

    @exported
    def refuse(self, message: str = "") -> None:
        """Refuse with the caller's own words."""
        raise RegrowError(message, details={"said": message})

    @exported
    def count(self, to: int) -> Iterator[int]:
        """Stream numbers."""
        yield from range(to)


class Sink:
    """Takes the place of the socket: reads what it is given as a client would."""

    name = "fuzz"
    max_in_flight = MAX_IN_FLIGHT
    max_message = MAX_MESSAGE
    max_outbox = 4 * MAX_MESSAGE

    def __init__(self) -> None:
        self.answers: list[tuple[tuple[bytes, ...], Answer]] = []

    def send(self, peer: Peer, frames: list[bytes]) -> None:
        answer = decode_answer(frames)
        assert isinstance(answer, Answer), answer
        self.answers.append((tuple(frames[: len(frames) - 5]), answer))


class Wire:
    """One service over one living actor, for any number of inputs."""

    def __init__(self) -> None:
        directory = Directory()
        for name in ("probe", "absent"):
            directory.add(Entry(name, "actor", exports_of(Probe), 5.0, lambda: None))
        self.probe = spawn(Probe, name="probe")
        self.service = Service(
            directory,
            Identity("fuzz", "0", "inc"),
            max_message=MAX_MESSAGE,
            max_in_flight=MAX_IN_FLIGHT,
            max_subscriptions=MAX_SUBSCRIPTIONS,
            max_deadline_s=60.0,
            hub_lag_s=lambda: 0.0,
        )
        self.service.feed.open()

    def close(self) -> None:
        self.service.feed.close()
        self.probe.kill()

    def run(self, data: bytes) -> Counter[str]:
        """Handle one input as one connection, and return how many messages there were of each op."""
        return self.handle([message.split(FRAME) for message in data.split(MESSAGE)])

    def handle(self, messages: Iterable[list[bytes]]) -> Counter[str]:
        sink = Sink()
        peer = Peer(
            sink,  # type: ignore[arg-type]
            b"route",
            key_name="",
            user_id="",
            rights=EVERYTHING,
            descriptor=1,
            address="",
        )
        owed: Counter[Key] = Counter()
        owed_twice: Counter[Key] = Counter()
        ops: Counter[str] = Counter()
        for frames in messages:
            as_answer(frames)
            message = decode_request(list(frames), MAX_MESSAGE)
            ops[message.op if isinstance(message, Request) else "invalid"] += 1
            key = (message.envelope, message.id)
            taken = (key if message.envelope else message.id) in peer.asks
            taken |= not message.envelope and message.id in peer.subscriptions
            if is_owed_an_answer(message):
                owed[key] += 1
                owed_twice[key] += taken and message.op not in ABOUT_ANOTHER
            self.service.handle(peer, message)
        for _ in range(TURNS):
            if not peer.asks:
                break
            gevent.sleep(0)
        self._reckon(peer, sink, owed, owed_twice)
        peer.forget()
        assert self.service.in_flight == 0, self.service.in_flight
        assert not peer.asks
        assert len(self.service.feed) == 0, "a subscription outlived its connection"
        assert self.probe.is_alive(), "a message of a client killed the actor"
        return ops

    @staticmethod
    def _reckon(peer: Peer, sink: Sink, owed: Counter[Key], owed_twice: Counter[Key]) -> None:
        """Require exactly one terminal answer for each message that wants one, but for streams that wait for credit."""
        got: Counter[Key] = Counter()
        got_twice: Counter[Key] = Counter()
        for envelope, answer in sink.answers:
            if answer.op == "ERROR":
                error_from_wire(decode_body(answer.body, "json"))
            if answer.op in TERMINAL_OPS:
                got[(envelope, answer.id)] += 1
                got_twice[(envelope, answer.id)] += bool(answer.header.get("duplicate"))
        for ask in peer.asks.values():
            got[(tuple(ask.envelope), ask.id)] += 1
        assert got == owed, f"answers {got} for requests {owed}"
        assert got_twice >= owed_twice, f"duplicates {got_twice} for requests {owed_twice}"


def is_owed_an_answer(message: Any) -> bool:
    """Tell whether PROTOCOL.md promises an answer of its own."""
    if not isinstance(message, Request):
        return True
    return message.is_answered or (message.op == "CREDIT" and message.header.n is None)


def as_answer(frames: list[bytes]) -> None:
    """Read the same bytes as a client would."""
    answer = decode_answer(list(frames))
    if isinstance(answer, Answer):
        for codec in ("json", "msgpack", "raw"):
            try:
                body = decode_body(answer.body, codec)
            except CodecError:
                continue
            if isinstance(body, dict):
                error_from_wire(body)


def join(messages: Iterable[Iterable[bytes]]) -> bytes:
    """Return the input that `run` splits into these messages."""
    return MESSAGE.join(FRAME.join(frames) for frames in messages)
