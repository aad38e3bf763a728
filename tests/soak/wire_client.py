"""One client process of the soak: sends a mixture of everything, and keeps account of each answer.

`python -m tests.soak.wire_client ENDPOINT SEED JOURNAL`. The journal gets each idem key before it is sent, for the day
on which this process is killed. On stdin, `hold` makes it send no more, leave some asks in flight, and say `held` once
the daemon has read them all; `go` makes it go on; the end of stdin makes it end. It ends by itself when the connection
does. Its last line is an account in JSON.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import zmq

from regrow.protocol.frames import TERMINAL_OPS, Answer, decode_answer, encode

WORKERS = 4
MOST_AT_ONCE = 30
PATIENCE_S = 20.0
SUBSCRIPTION = b"sub"


class Client:
    """The state of one connection: what it still waits for, and what went wrong."""

    def __init__(self, endpoint: str, seed: str, journal: Path) -> None:
        self.name = seed
        self.dice = random.Random(seed)
        self.journal = journal.open("a", buffering=1)
        self.waiting: dict[bytes, str] = {}
        self.done: set[bytes] = set()
        self.sent: dict[str, int] = {}
        self.answered: dict[str, int] = {}
        self.wrong: list[str] = []
        self.parts: dict[bytes, int] = {}
        self.number = 0
        self.last_event = 0
        self.held: bytes | None = None
        self.is_over = False
        self.said_bye = False
        context: zmq.Context[Any] = zmq.Context()
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self.socket.connect(endpoint)

    def send(self, op: str, header: dict[str, Any], body: Any = None, *, answered: bool = True) -> bytes:
        self.number += 1
        request_id = b"%d" % self.number
        if answered:
            self.waiting[request_id] = op
        self.post(op, request_id, header, body)
        return request_id

    def post(self, op: str, request_id: bytes, header: dict[str, Any], body: Any = None) -> None:
        self.sent[op] = self.sent.get(op, 0) + 1
        encoded = b"" if body is None else msgspec.json.encode(body)
        self.socket.send_multipart(encode(op, request_id, header, encoded))  # type: ignore[arg-type]

    def say_something(self) -> None:
        dice = self.dice
        to = {"to": f"worker{dice.randrange(WORKERS)}"}
        kind = dice.randrange(20)
        if kind < 8:
            self.send("ASK", to | {"method": "echo"}, {"value": self.number})
        elif kind < 10:
            sent = self.send(
                "ASK", to | {"method": "wait", "deadline_ms": dice.choice([1, 20, 500])}, {"seconds": 0.01}
            )
            if dice.random() < 0.5:
                self.post("CANCEL", sent, {})
        elif kind < 13:
            key = f"{self.name}-{self.number}"
            self.journal.write(f"{to['to']} {key}\n")
            self.send("ASK", to | {"method": "once", "idem": key}, {"key": key})
        elif kind < 15:
            self.send("TELL", to | {"method": "echo", "ack": True}, {"value": 1})
        elif kind == 15:
            sent = self.send("ASK", to | {"method": "count", "stream": True, "credit": 3}, {"to": 12})
            self.parts[sent] = 0
        elif kind == 16:
            self.send("ASK", {"to": "nobody", "method": "echo"})
        elif kind == 17:
            self.send("DESCRIBE", {"to": to["to"]})
        elif kind == 18:
            self.send("PING", {})
        else:
            self.number += 1
            self.waiting[b"%d" % self.number] = "invalid"
            self.sent["invalid"] = self.sent.get("invalid", 0) + 1
            self.socket.send_multipart([b"RG1", b"DANCE", b"%d" % self.number, b"{", b"\xff"])

    def take(self, frames: list[bytes]) -> None:
        answer = decode_answer(frames)
        if not isinstance(answer, Answer):
            self.wrong.append(f"no message: {answer}")
        elif answer.op == "BYE":
            self.said_bye = True
        elif answer.op in ("EVENT", "GAP"):
            seq = answer.header["seq"]
            if seq <= self.last_event and answer.op == "EVENT":
                self.wrong.append(f"event {seq} after {self.last_event}")
            self.last_event = seq
        elif answer.op == "PART":
            if answer.header["seq"] != self.parts.get(answer.id):
                self.wrong.append(f"part {answer.header} of {answer.id!r}, expected {self.parts.get(answer.id)}")
            self.parts[answer.id] = answer.header["seq"] + 1
            self.post("CREDIT", answer.id, {"n": 1})
        elif answer.op in TERMINAL_OPS:
            self.finish(answer)

    def finish(self, answer: Answer) -> None:
        op = self.waiting.pop(answer.id, None)
        if op is None:
            self.wrong.append(f"{answer.op} for {answer.id!r}, which waits for nothing: {answer.body!r}")
            return
        what = msgspec.json.decode(answer.body or b"{}")["code"] if answer.op == "ERROR" else answer.op
        self.answered[what] = self.answered.get(what, 0) + 1
        self.parts.pop(answer.id, None)

    def hold(self) -> None:
        """Leave work in flight; the PONG of a PING behind it proves that the daemon has read it."""
        for n in range(3):
            self.send("ASK", {"to": f"worker{n % WORKERS}", "method": "wait"}, {"seconds": 0.3})
        self.held = self.send("PING", {})

    def command(self, line: str) -> None:
        if line == "hold\n":
            self.hold()
        elif line == "go\n":
            self.held = None
        else:
            self.is_over = True

    def run(self) -> dict[str, Any]:
        self.post("SUB", SUBSCRIPTION, {"topics": ["actor.*"]})
        self.waiting[SUBSCRIPTION] = "SUB"
        poller = zmq.Poller()
        for source in (self.socket, self.monitor):
            poller.register(source, zmq.POLLIN)
        poller.register(sys.stdin.fileno(), zmq.POLLIN)
        said = linked_off = False
        gives_up = time.monotonic() + PATIENCE_S
        while not linked_off:
            now = time.monotonic()
            if self.is_over and not self.waiting:
                break
            if self.waiting and now > gives_up:
                self.wrong.append(f"no answer in {PATIENCE_S:g} s to {len(self.waiting)} requests: {self.shown()}")
                break
            # after a BYE there is nothing to gain from more
            talks = self.held is None and not self.is_over and not self.said_bye
            if talks and len(self.waiting) < MOST_AT_ONCE:
                self.say_something()
            for source, _event in poller.poll(1 if talks else 50):
                if source is self.socket:
                    self.drain()
                    gives_up = time.monotonic() + PATIENCE_S
                elif source is self.monitor:
                    self.monitor.recv_multipart()
                    linked_off = True
                    self.drain()
                else:
                    self.command(sys.stdin.readline())
            if self.held is not None and self.held not in self.waiting and not said:
                say("held")
                said = True
            said = said and self.held is not None
        lost = dict(self.waiting) if linked_off else {}
        # what was in flight while holding was read by the daemon, so it has to be answered before the connection ends
        if lost and self.held is not None:
            self.wrong.append(f"{len(lost)} requests that were read were lost in the drain: {self.shown()}")
        return {
            "sent": self.sent, "answered": self.answered, "lost": len(lost), "wrong": self.wrong[:20],
            "bye": self.said_bye,
        }  # fmt: skip

    def drain(self) -> None:
        while True:
            try:
                self.take(self.socket.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return

    def shown(self) -> str:
        return ", ".join(f"{op} {request_id!r}" for request_id, op in list(self.waiting.items())[:5])


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    account = Client(sys.argv[1], sys.argv[2], Path(sys.argv[3])).run()
    say(json.dumps(account))
