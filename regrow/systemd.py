"""systemd's notifications: one datagram a state, to the socket that it names (sd_notify(3)); no library is needed."""

from __future__ import annotations

import os
import socket
import time


def notify(*lines: str) -> bool:
    """Send state lines such as "READY=1"; False when systemd did not start this process. Never switches."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    target = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.setblocking(False)
            connection.sendto("\n".join(lines).encode(), target)
    except OSError:
        return False  # the notification is a courtesy; a daemon whose supervisor is gone still serves
    return True


def reloading() -> bool:
    """Say that a reload begins; READY=1 must follow (sd_notify(3), "RELOADING=1"). Never switches."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def watchdog_s() -> float | None:
    """Return the seconds between two watchdog pings that keep systemd content, None without a watchdog.

    Never switches.
    """
    wanted = os.environ.get("WATCHDOG_USEC", "")
    owner = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not wanted.isdecimal() or owner != str(os.getpid()):
        return None
    return int(wanted) / 1e6 / 2
