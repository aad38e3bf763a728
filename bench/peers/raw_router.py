"""A bare pyzmq ROUTER that sends each message back: one receive, one send, no actor, no check, no promise."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import zmq

from bench.load import answers_per_s

_endpoints: dict[str, str] = {}
_folder = tempfile.TemporaryDirectory(prefix="bench-raw-")


def gateway(clients: int, size: int, window: int, seconds: float, ipc: int = 0) -> dict[str, float]:
    """Measure the answers of the loop."""
    if not _endpoints:
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        socket.bind(f"ipc://{Path(_folder.name) / 'raw.sock'}")
        _endpoints["ipc"] = f"ipc://{Path(_folder.name) / 'raw.sock'}"
        _endpoints["tcp"] = f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"
        threading.Thread(target=_echo, args=(socket,), daemon=True).start()
    endpoint = _endpoints["ipc" if ipc else "tcp"]
    return {"per_s": answers_per_s(["bench.peers.zmq_load", endpoint, str(size), str(window)], clients, seconds)}


def _echo(socket: zmq.Socket[bytes]) -> None:
    while True:
        socket.send_multipart(socket.recv_multipart())


def close() -> None:
    _folder.cleanup()
