"""Ports for servers that must keep theirs over a restart."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_LOWEST = 10_000
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_choice = random.SystemRandom()


def _first_ephemeral_port() -> int:
    try:
        return int(_RANGE_FILE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768


def free_port() -> int:
    """Give a loopback TCP port that nobody listens on and that no outgoing connection can be given by the kernel.

    A port from the ephemeral range could be taken by an outgoing connection while a test has its server stopped.
    """
    highest = max(_first_ephemeral_port(), _LOWEST + 1_000)
    for _ in range(200):
        port = _choice.randrange(_LOWEST, highest)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free loopback port between {_LOWEST} and {highest} in 200 tries")
