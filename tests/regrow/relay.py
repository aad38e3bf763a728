"""A TCP relay in front of a daemon, whose connections a test can cut."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import gevent
from gevent import socket
from gevent.server import StreamServer


class Relay:
    """Forwards every connection to `target`; `cut` ends them all, `accepting` says whether new ones are let in."""

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("tcp://").rpartition(":")
        self._target = (host, int(port))
        self._open: list[socket.socket] = []
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._pipes: list[gevent.Greenlet[Any, Any]] = []
        self.accepting = True

    @property
    def endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self._server.server_port}"

    def _serve(self, near: socket.socket, _address: object) -> None:
        if not self.accepting:
            near.close()
            return
        far = socket.create_connection(self._target)
        self._open += [near, far]
        pipes = [gevent.spawn(self._pipe, near, far), gevent.spawn(self._pipe, far, near)]
        self._pipes += pipes
        gevent.joinall(pipes)

    @staticmethod
    def _pipe(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                end.close()

    def cut(self) -> None:
        """End every connection, as a network does."""
        for end in self._open:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._open.clear()

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cut()
        gevent.joinall(self._pipes)
        self._server.stop()
