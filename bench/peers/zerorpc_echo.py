"""zerorpc: its server in a process of its own, its clients in theirs, a greenlet for each request in flight."""

from __future__ import annotations

import subprocess
import sys
from time import perf_counter
from typing import Any

from bench.load import ROOT, answers_per_s

_server: Any = None
_endpoint = ""


class Echo:
    def echo(self, text: str) -> str:
        return text


def gateway(clients: int, size: int, window: int, seconds: float, ipc: int = 0) -> dict[str, float]:
    """Measure the answers of a zerorpc server."""
    global _server, _endpoint
    if _server is None:
        command = [sys.executable, "-m", "bench.peers.zerorpc_echo", "serve"]
        _server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        _endpoint = _server.stdout.readline().decode().strip()
    client = ["bench.peers.zerorpc_echo", "load", _endpoint, str(size), str(window)]
    return {"per_s": answers_per_s(client, clients, seconds)}


def close() -> None:
    if _server is not None:
        _server.kill()
        _server.wait()


def serve() -> None:
    """Serve until killed; tell the endpoint first."""
    import zerorpc
    from zmq import LAST_ENDPOINT

    server = zerorpc.Server(Echo(), heartbeat=None)
    server.bind("tcp://127.0.0.1:0")
    print(server._events._socket.getsockopt(LAST_ENDPOINT).rstrip(b"\x00").decode(), flush=True)
    server.run()


def load(endpoint: str, size: int, window: int, seconds: float) -> None:
    """Ask for that long and print the number of answers."""
    import gevent
    import zerorpc

    client = zerorpc.Client(endpoint, timeout=20, heartbeat=None)
    text = "x" * size
    if client.echo(text) != text:
        raise RuntimeError("no echo")
    print("ready", flush=True)
    sys.stdin.readline()
    until = perf_counter() + seconds
    answered = 0

    def ask() -> None:
        nonlocal answered
        while perf_counter() < until:
            client.echo(text)
            answered += 1

    gevent.joinall([gevent.spawn(ask) for _ in range(window)], raise_error=True)
    print(answered, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        load(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
