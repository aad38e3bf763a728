"""A client of the gateway bench: one DEALER with a window of asks in flight, for the gateway and the raw loop alike.

`python -m bench.peers.zmq_load ENDPOINT SIZE WINDOW SECONDS`
"""

from __future__ import annotations

import sys
from time import perf_counter

import zmq

PATIENCE_MS = 20_000
HEADER = b'{"to":"echo","method":"echo"}'


def main(endpoint: str, size: int, window: int, seconds: float) -> None:
    """Ask for that long and print the number of answers."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
    socket.connect(endpoint)
    body = b'{"text":"%s"}' % (b"x" * max(1, size - 11))
    send, receive = socket.send_multipart, socket.recv_multipart
    send([b"RG1", b"ASK", b"0", HEADER, body])
    first = receive()
    if body not in first and b'"%s"' % (b"x" * max(1, size - 11)) not in first:
        raise RuntimeError(f"no echo: {first[:4]}")
    print("ready", flush=True)
    sys.stdin.readline()
    sent = answered = 0
    until = perf_counter() + seconds
    for _ in range(window):
        sent += 1
        send([b"RG1", b"ASK", b"%d" % sent, HEADER, body])
    while True:
        receive()
        answered += 1
        if not answered & 15 and perf_counter() >= until:
            break
        sent += 1
        send([b"RG1", b"ASK", b"%d" % sent, HEADER, body])
    print(answered, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
