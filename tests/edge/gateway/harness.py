"""A gateway on real loopback sockets over one probe actor, and a raw client that speaks frames only."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import gevent.event
import msgspec
import zmq
import zmq.green

from config.schema import Curve, CurveClient, TcpEndpoint
from config.schema import Gateway as GatewayConfig
from regrow.protocol.errors import NotFound, RateLimited
from regrow.protocol.frames import Answer, decode_answer
from runtime.actor import Actor, exported
from runtime.directory import Directory, Entry
from runtime.edge.gateway import Drain, Gateway, GatewaySockets, Identity
from runtime.exports import exports_of
from runtime.messages import WithHeader
from runtime.names import whereis
from runtime.origin import current_client
from runtime.ref import Ref, spawn

PATIENCE_S = 5.0
INCARNATION = "inc-1"


class Probe(Actor):
    """Methods that answer, wait, fail and crash on command."""

    def __init__(self) -> None:
        self.calls = 0
        self.made = 0
        self.waiting = False
        self.closed = gevent.event.Event()
        self.gate = gevent.event.Event()
        self.entered = gevent.event.Event()

    @exported
    def echo(self, value: Any = None) -> Any:
        """Give back what came."""
        self.calls += 1
        return value

    @exported
    def add(self, a: int, b: int = 1) -> int:
        """Add two numbers."""
        self.calls += 1
        return a + b

    @exported
    def wait(self) -> str:
        """Answer once the test opens the gate."""
        self.calls += 1
        self.entered.set()
        self.gate.wait(PATIENCE_S)
        return "waited"

    @exported
    def count(self) -> int:
        """Tell how many calls began."""
        return self.calls

    @exported
    def who(self) -> str:
        """Tell whose request this is."""
        return current_client()

    @exported
    def refuse(self) -> None:
        """Refuse as a limiter does."""
        raise RateLimited("no token within 1 s", retry_after_s=1.5, details={"limit": 5})

    @exported
    def miss(self) -> None:
        """Fail with a typed error."""
        raise NotFound("no user ada")

    @exported
    def crash(self) -> None:
        """Crash."""
        raise ZeroDivisionError("the password is geheim")

    @exported
    def exit(self) -> None:
        """Raise what is no Exception."""
        raise SystemExit(3)

    @exported
    def big(self, size: int) -> str:
        """Answer with so many characters."""
        return "x" * size

    @exported
    def nan(self) -> list[float]:
        """Answer what JSON cannot say."""
        return [math.nan]

    @exported
    def unsayable(self) -> object:
        """Answer what no codec can say."""
        return object()

    @exported
    def blob(self) -> bytes:
        """Answer bytes."""
        return b"\x00\x01"

    @exported
    def numbers(self, to: int) -> Iterator[int]:
        """Count up, in parts."""
        try:
            for n in range(to):
                self.made = n + 1
                yield n
        finally:
            self.closed.set()

    @exported
    def broken(self, after: int, how: str) -> Iterator[Any]:
        """Count up, then break."""
        yield from range(after)
        if how == "refuse":
            raise RateLimited("no more", retry_after_s=1.0)
        if how == "nan":
            yield math.nan
        if how == "wait":
            self.waiting = True
            self.gate.wait(PATIENCE_S)
        raise ZeroDivisionError

    @exported
    def pages(self, count: int, size: int) -> Iterator[str]:
        """Give so many large parts."""
        for n in range(count):
            self.made = n + 1
            yield "x" * size

    @exported
    def with_header(self) -> WithHeader:
        """Answer with keys for the header."""
        return WithHeader({"login": "ada"}, {"status": 200})


class Raw:
    """A client made of frames; every wait has a limit."""

    def __init__(self, endpoint: str, kind: int = zmq.DEALER, keys: tuple[bytes, bytes, bytes] | None = None) -> None:
        context: Any = zmq.green.Context.instance()
        self._socket: Any = context.socket(kind)
        self._socket.linger = 0
        if keys is not None:
            self._socket.curve_serverkey, self._socket.curve_publickey, self._socket.curve_secretkey = keys
        if endpoint:
            self._socket.connect(endpoint)
        self._ids = itertools.count(1)
        self.socket: Any = self._socket

    @classmethod
    def made(cls, *, keys: tuple[bytes, bytes, bytes] | None = None, **options: Any) -> Self:
        """Return a client with socket options that must be set before it connects."""
        raw = cls("", keys=keys)
        for name, value in options.items():
            setattr(raw.socket, name, value)
        return raw

    def connect(self, endpoint: str) -> None:
        self._socket.connect(endpoint)

    def send(self, *frames: bytes) -> None:
        self._socket.send_multipart(frames)

    def request(
        self, op: str, header: dict[str, Any] | None = None, body: Any = None, id: bytes | None = None
    ) -> bytes:
        request_id = b"%d" % next(self._ids) if id is None else id
        encoded = b"" if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        self.send(b"RG1", op.encode(), request_id, msgspec.json.encode(header or {}), encoded)
        return request_id

    def ask(self, method: str, body: Any = None, *, id: bytes | None = None, to: str = "probe", **header: Any) -> bytes:
        return self.request("ASK", {"to": to, "method": method, **header}, body, id)

    def receive(self) -> Answer:
        answer = decode_answer(self.receive_frames())
        assert isinstance(answer, Answer), answer
        return answer

    def receive_frames(self) -> list[bytes]:
        assert self._socket.poll(PATIENCE_S * 1000), "no answer came"
        frames: list[bytes] = self._socket.recv_multipart()
        return frames

    def is_silent(self, for_s: float = 0.1) -> bool:
        return not self._socket.poll(for_s * 1000)

    def reply(self) -> Any:
        answer = self.receive()
        assert answer.op == "REPLY", (answer, answer.body)
        return msgspec.json.decode(answer.body or b"null")

    def error(self) -> dict[str, Any]:
        answer = self.receive()
        assert answer.op == "ERROR", (answer, answer.body)
        body: dict[str, Any] = msgspec.json.decode(answer.body or b"")
        return body

    def close(self) -> None:
        self._socket.close(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Wire:
    """The gateway under test."""

    def __init__(self, sockets: GatewaySockets, directory: Directory) -> None:
        self.sockets = sockets
        self.directory = directory
        self.probe: Ref = None  # type: ignore[assignment] # set by start_probe
        self.gateway: Ref = None  # type: ignore[assignment] # set by start_gateway
        self._clients: list[Raw] = []

    @property
    def tcp(self) -> str:
        return next(endpoint for endpoint in self.sockets.endpoints if endpoint.startswith("tcp"))

    @property
    def ipc(self) -> str:
        return next(endpoint for endpoint in self.sockets.endpoints if endpoint.startswith("ipc"))

    @property
    def actor(self) -> Probe:
        actor: Probe = self.probe.actor
        return actor

    def start_probe(self) -> None:
        self.probe = spawn(Probe, name="probe")

    def start_gateway(self) -> None:
        self.gateway = spawn(Gateway, (self.sockets,), name="gateway")

    def client(self, kind: int = zmq.DEALER, endpoint: str | None = None) -> Raw:
        raw = Raw(endpoint or self.tcp, kind)
        self._clients.append(raw)
        return raw

    def drain(self, timeout_s: float) -> int:
        left: int = self.gateway.ask(Drain(timeout_s), timeout=PATIENCE_S)
        return left

    def close(self) -> None:
        for client in self._clients:
            client.close()
        for name in ("gateway", "probe"):
            ref = whereis(name)
            if ref is not None:
                ref.kill()
        self.sockets.close()


@contextmanager
def wire_on(
    state_dir: Path,
    *,
    curve: Curve | None = None,
    timeout_s: float = PATIENCE_S,
    max_deadline_s: float = 3600.0,
    endpoint: str = "tcp://127.0.0.1:0",
    incarnation: str = INCARNATION,
    **limits: Any,
) -> Iterator[Wire]:
    """Start a gateway whose limits are `limits`, and end it with everything that belongs to it."""
    directory = Directory()
    directory.add(Entry("probe", "actor", exports_of(Probe), timeout_s, lambda: None))
    directory.add(Entry("absent", "actor", exports_of(Probe), timeout_s, lambda: None))
    config = GatewayConfig(bind=[TcpEndpoint(endpoint)], curve=curve, **limits)
    identity = Identity("orders", "0.1.0", incarnation, "http://127.0.0.1:5758")
    sockets = GatewaySockets(config, directory, identity, state_dir=state_dir, max_deadline_s=max_deadline_s)
    wire = Wire(sockets, directory)
    try:
        sockets.open()
        wire.start_probe()
        wire.start_gateway()
        yield wire
    finally:
        wire.close()


def curve_config(folder: Path, allow: list[str]) -> tuple[Curve, tuple[bytes, bytes, bytes]]:
    """Return a configuration that knows one client, and that client's keys: server's public, own public, own secret."""
    server_public, server_secret = zmq.curve_keypair()
    public, secret = zmq.curve_keypair()
    file = folder / "server.key"
    file.write_text(server_secret.decode() + "\n")
    curve = Curve(secret_key_file=file, clients=[CurveClient(name="billing", public_key=public.decode(), allow=allow)])
    return curve, (server_public, public, secret)
