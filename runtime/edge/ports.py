"""Ports: binding one, and telling who holds it when that fails."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gevent.socket

BACKLOG = 256
_LISTEN: Final = "0A"
_MAX_COMMAND_CHARS = 80


class BindFailed(Exception):
    """An address cannot be bound; the text names the address, why, and what to change."""


class PortTaken(BindFailed):
    """The port belongs to somebody else; `holder` is known where /proc tells it and its owner's rights allow."""

    def __init__(self, message: str, holder: Holder | None) -> None:
        super().__init__(message)
        self.holder = holder


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that listens on a port."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command})"


def listen(host: str, port: int, *, who: str, key: str) -> gevent.socket.socket:
    """Return a listening TCP socket; raises `PortTaken` or `BindFailed`.

    Their text names `who` wants it and the configuration `key` to change. Switches greenlets when the host is a name.
    """
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        family, target = _family_and_address(host, port)
        listener = gevent.socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise BindFailed(f"{who}: cannot listen on {address}: {_why(error)}, change {key}") from error
    try:
        # a restart must not wait for the last connections of the process before (TIME_WAIT)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(target)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise taken(address, port, who=who, key=key) from error
        raise BindFailed(f"{who}: cannot listen on {address}: {_why(error)}, change {key}") from error
    return listener


def taken(address: str, port: int, *, who: str, key: str) -> PortTaken:
    """Return the error for a port that is in use, naming its holder. Never switches."""
    holder = holder_of(port)
    by = str(holder) if holder is not None else "another process"
    return PortTaken(f"{who}: {address} is taken by {by}, stop it or change {key}", holder)


def holder_of(port: int) -> Holder | None:
    """Return the process that listens on a TCP port of this machine; None where that cannot be told. Never switches."""
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listening(Path("/proc/net") / table, port)}
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and _has_open(process, wanted):
            return Holder(int(process.name), _command(process))
    return None


def is_loopback(address: str) -> bool:
    """Tell whether an IP address, or the name localhost, means this machine only. Never switches."""
    if address == "localhost":
        return True
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def _family_and_address(host: str, port: int) -> tuple[int, tuple[Any, ...]]:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        info = gevent.socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)
        return info[0][0], info[0][4]
    # an address needs no look-up, which would cost a native thread
    return socket.AF_INET6 if version == 6 else socket.AF_INET, (host, port)


def _listening(table: Path, port: int) -> list[str]:
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return []
    rows = [line.split() for line in lines]
    return [row[9] for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port]


def _has_open(process: Path, wanted: set[str]) -> bool:
    try:
        descriptors = os.listdir(process / "fd")  # noqa: PTH208 - names are enough, and there may be a hundred thousand
    except OSError:
        return False
    for descriptor in descriptors:
        try:
            if os.readlink(f"{process}/fd/{descriptor}") in wanted:  # noqa: PTH115 - the same
                return True
        except OSError:
            continue
    return False


def _command(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        name = (process / "comm").read_text().strip()
    except OSError:
        return "unknown"
    # other people's command lines may carry passwords: the program and plain words only
    plain = [word for word in words[1:4] if word.isprintable() and not set(word) & set("=:@")]
    return " ".join([Path(words[0]).name or name, *plain]).strip()[:_MAX_COMMAND_CHARS]


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
