"""One face for the clients of different languages, so that one set of tests asks the same of each."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Protocol, Self

import gevent
import msgspec
import zmq
import zmq.green
from gevent.event import AsyncResult
from gevent.subprocess import PIPE, Popen

import regrow
from regrow.protocol.errors import error_from_wire
from regrow.protocol.frames import Answer, decode_answer, encode
from tests.support.node import CLIENT, FOLDER

PATIENCE_S = 10.0


class Caller(Protocol):
    """A client; whatever goes wrong is raised as the typed error of ours that it means."""

    def ask(
        self, to: str, method: str, args: Any, *, timeout_s: float | None = None, idem: str | None = None
    ) -> Any: ...

    def tell(self, to: str, method: str, args: Any) -> None: ...

    def describe(self, to: str) -> Any: ...

    def close(self) -> None: ...


class PythonCaller:
    """The blocking client."""

    def __init__(self, endpoint: str) -> None:
        self._client = regrow.connect(endpoint)

    def ask(self, to: str, method: str, args: Any, *, timeout_s: float | None = None, idem: str | None = None) -> Any:
        return self._client.ask(to, method, args, timeout=timeout_s, idem=idem)

    def tell(self, to: str, method: str, args: Any) -> None:
        self._client.tell(to, method, args)

    def describe(self, to: str) -> Any:
        return self._client.describe(to)

    def close(self) -> None:
        self._client.close()


class ReqCaller:
    """A plain REQ socket and ten lines: what a shell script or another language's first attempt looks like."""

    def __init__(self, endpoint: str) -> None:
        context: Any = zmq.green.Context.instance()
        self._socket: Any = context.socket(zmq.REQ)
        self._socket.linger = 0
        self._socket.connect(endpoint)
        self._ids = itertools.count(1)

    def _exchange(self, op: Any, header: dict[str, Any], args: Any = None) -> Any:
        given = {key: value for key, value in header.items() if value is not None}
        self._socket.send_multipart(encode(op, b"%d" % next(self._ids), given, msgspec.json.encode(args)))
        assert self._socket.poll(PATIENCE_S * 1000), "no answer came"
        answer = decode_answer(self._socket.recv_multipart())
        assert isinstance(answer, Answer)
        value: Any = msgspec.json.decode(answer.body) if answer.body else None
        if answer.op == "ERROR":
            raise error_from_wire(value)
        return value

    def ask(self, to: str, method: str, args: Any, *, timeout_s: float | None = None, idem: str | None = None) -> Any:
        deadline_ms = None if timeout_s is None else timeout_s * 1000
        return self._exchange("ASK", {"to": to, "method": method, "deadline_ms": deadline_ms, "idem": idem}, args)

    def tell(self, to: str, method: str, args: Any) -> None:
        self._exchange("TELL", {"to": to, "method": method}, args)

    def describe(self, to: str) -> Any:
        return self._exchange("DESCRIBE", {"to": to})

    def close(self) -> None:
        self._socket.close(0)


class NodeCaller:
    """The Node.js client in a process of its own, which makes any number of calls at a time."""

    def __init__(self, endpoint: str, folder: Path, **options: Any) -> None:
        for file in (CLIENT / "regrow.mjs", Path(__file__).with_name("driver.mjs")):
            shutil.copy(file, folder / file.name)
        modules = folder / "node_modules"
        if not modules.exists():
            modules.symlink_to(FOLDER / "node_modules")
        command = ["node", str(folder / "driver.mjs"), endpoint, json.dumps(options)]
        self._process: Any = Popen(command, stdin=PIPE, stdout=PIPE)
        self._calls = itertools.count(1)
        self._waiting: dict[int, AsyncResult[Any]] = {}
        self._reader = gevent.spawn(self._read)

    def _read(self) -> None:
        for line in self._process.stdout:
            answer = json.loads(line)
            self._waiting.pop(answer["n"]).set(answer)

    def start(self, call: str, *args: Any) -> AsyncResult[Any]:
        """Begin a call and return what its answer will be set on."""
        n = next(self._calls)
        found: AsyncResult[Any] = AsyncResult()
        self._waiting[n] = found
        self._process.stdin.write(json.dumps({"n": n, "call": call, "args": args}).encode() + b"\n")
        self._process.stdin.flush()
        return found

    def result(self, begun: AsyncResult[Any]) -> Any:
        answer: Any = begun.get(timeout=PATIENCE_S)
        if "error" in answer:
            error = answer["error"]
            told = error | {"retry_after_ms": error.get("retryAfterMs"), "crash_id": error.get("crashId")}
            rebuilt = error_from_wire(told)
            group = {"Refused": regrow.Refused, "Invalid": regrow.Invalid, "Failed": regrow.Failed}[error["kind"]]
            assert isinstance(rebuilt, group), error
            raise rebuilt
        return answer["value"]

    def call(self, call: str, *args: Any) -> Any:
        return self.result(self.start(call, *args))

    def ask(self, to: str, method: str, args: Any, *, timeout_s: float | None = None, idem: str | None = None) -> Any:
        options: dict[str, Any] = {} if timeout_s is None else {"timeoutMs": timeout_s * 1000}
        return self.call("ask", to, method, args, options if idem is None else options | {"idem": idem})

    def tell(self, to: str, method: str, args: Any) -> None:
        self.call("tell", to, method, args)

    def describe(self, to: str) -> Any:
        return self.call("describe", to)

    def close(self) -> None:
        self._process.stdin.close()
        try:
            status = self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._reader.join(PATIENCE_S)
            self._process.stdout.close()
        assert status == 0, f"the Node.js driver ended with {status}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
