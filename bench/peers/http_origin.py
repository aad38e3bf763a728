"""The HTTP server that REST calls are made to: as little as possible, so that the clients are what is measured.

`python -m bench.peers.http_origin` prints its address and serves until its input ends.
"""

from __future__ import annotations

if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()

import socket
import sys
from typing import Any

import gevent
from gevent.server import StreamServer

BODY = b'{"login":"ada","id":1,"name":"Ada Lovelace","bio":"%s"}' % (b"x" * 40)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


def _serve(connection: Any, _address: object) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    waiting = b""
    while data := connection.recv(65536):
        waiting += data
        asked = waiting.count(b"\r\n\r\n")
        if asked:
            waiting = waiting.rpartition(b"\r\n\r\n")[2]
            connection.sendall(ANSWER * asked)


def main() -> None:
    """Serve."""
    server = StreamServer(("127.0.0.1", 0), _serve, backlog=512)
    server.start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    gevent.get_hub().threadpool.apply(sys.stdin.read)  # read here it would stop the loop


if __name__ == "__main__":
    main()
