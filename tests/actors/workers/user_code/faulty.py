"""What users' functions do to the process that runs them."""

from __future__ import annotations

import asyncio
import ctypes
import datetime as dt
import decimal
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import regrow_worker  # type: ignore[import-not-found]  # the process itself offers it

LEAKED: list[bytearray] = []
KEPT: list[Any] = []


def add(a: int, b: int) -> int:
    return a + b


def echo(value: Any) -> Any:
    return value


def types_of(*values: Any) -> list[str]:
    return [type(value).__name__ for value in values]


def raise_error(message: str = "this went wrong") -> NoReturn:
    raise ValueError(message)


class Rude(Exception):
    """Cannot even be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def raise_rude() -> NoReturn:
    raise Rude


def recurse(depth: int = 0) -> int:
    return recurse(depth + 1)


def leave(code: int) -> NoReturn:
    sys.exit(code)


def leave_at_once(code: int) -> NoReturn:
    print("last words", file=sys.stderr, flush=True)  # noqa: T201 - what is tested
    os._exit(code)


def crash() -> None:
    ctypes.string_at(0)


def shoot_self(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def spin() -> NoReturn:
    while True:
        pass


def spin_in_c() -> int:
    # Holds the interpreter for ever: neither threads nor Python's signal handlers run any more.
    return sum(iter(int, 1))


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def sleep_deaf(seconds: float) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.05)


def mark(path: str, number: int, pause_s: float = 0.0) -> int:
    """Leave a trace of having run."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"%d\n" % number)
    os.close(fd)
    if pause_s:
        time.sleep(pause_s)
    return number


def wait_for_file(path: str) -> bool:
    while not Path(path).exists():
        time.sleep(0.005)
    return True


def shout() -> str:
    print("on stdout")  # noqa: T201 - what is tested
    print("on stderr", file=sys.stderr)  # noqa: T201 - what is tested
    os.write(1, b"raw on 1\n")
    os.write(2, b"raw on 2\n")
    return "done"


def flood(megabytes: int) -> int:
    block = (b"x" * 79 + b"\n") * 1000
    for _ in range(megabytes * 1_000_000 // len(block)):
        os.write(2, block)
    return megabytes


def one_long_line(size: int) -> None:
    os.write(1, b"y" * size + b"\nnext\n")


def big(size: int) -> bytes:
    return b"z" * size


def hog(megabytes: int) -> int:
    return len(b"h" * (megabytes << 20))


def leak(megabytes: int) -> int:
    LEAKED.append(bytearray(b"l" * (megabytes << 20)))
    return len(LEAKED)


def leak_a_little() -> int:
    LEAKED.append(bytearray(b"l" * 20_000))
    return len(LEAKED)


def keep_array(array: Any) -> list[int]:
    """Keeps each array, and tells the first number of each."""
    KEPT.append(array)
    return [int(kept[0]) for kept in KEPT]


def hog_in_a_child(megabytes: int) -> None:
    code = f"import time; x = b'g' * ({megabytes} << 20); time.sleep(60)"
    subprocess.run([sys.executable, "-c", code], check=True)


def unsendable() -> object:
    return object()


def nested_unsendable() -> dict[str, Any]:
    return {"a": [1, {"b": threading.Lock()}]}


def endless_nesting() -> list[Any]:
    nested: list[Any] = []
    nested.append(nested)
    return nested


def many_types() -> dict[str, Any]:
    return {
        "bytes": b"\x00\xff",
        "datetime": dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
        "date": dt.date(2026, 1, 2),
        "decimal": decimal.Decimal("1.50"),
        "uuid": uuid.UUID(int=1),
        "set": {1},
        "tuple": (1, 2),
        "deque": deque([1, 2]),
        "range": range(3),
        "path": Path("/tmp/x"),
        "none": None,
        "int_keys": {1: "a"},
    }


def numpy_values() -> dict[str, Any]:
    import numpy as np

    return {
        "float": np.float32(1.5),
        "int": np.int64(7),
        "bool": np.bool_(True),
        "text": np.str_("a"),
        "time": np.datetime64("2026-01-02"),
        "long": np.longdouble(2.0),
        "array": np.arange(4).reshape(2, 2),
    }


def double_array(array: Any) -> Any:
    array *= 2
    return array


def object_array() -> Any:
    import numpy as np

    return np.array([object()], dtype=object)


def fork_and_return() -> int:
    return os.fork()


def leave_a_grandchild() -> int:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"]).pid


def fork_a_sleeper_and_die() -> None:
    """The grandchild keeps the protocol's socket and both pipes open."""
    if os.fork() == 0:
        time.sleep(120)
    os._exit(3)


def detach_a_sleeper_and_die() -> None:
    """The grandchild leaves the session, so nobody is meant to find it; it keeps socket and pipes open."""
    left, told = os.pipe()
    if os.fork() == 0:
        os.setsid()
        os.write(1, b"%d\n" % os.getpid())
        os.write(told, b"!")
        time.sleep(120)
    os.read(left, 1)
    os._exit(4)


def _sockets() -> list[int]:
    found = []
    for fd in range(3, 100):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                found.append(fd)
        except OSError:
            continue
    return found


def write_garbage() -> None:
    for fd in _sockets():
        os.write(fd, b"\xff\xff\xff\xffgarbage")
    time.sleep(60)


def write_a_small_lie() -> None:
    for fd in _sockets():
        os.write(fd, b"\x00\x00\x00\x03abc")
    time.sleep(60)


def answer_and_report(call_id: int) -> None:
    """Does in one write what a thread that outlives its call may do: the answer, and then a report."""
    frames = (["returned", call_id, "first"], ["progress", call_id, 1.0, 2.0, ""])
    encoded = [msgspec.msgpack.encode(frame) for frame in frames]
    for fd in _sockets():
        os.write(fd, b"".join(len(frame).to_bytes(4, "big") + frame for frame in encoded))
    time.sleep(60)


def close_sockets() -> None:
    for fd in _sockets():
        socket.socket(fileno=fd).shutdown(socket.SHUT_RDWR)
    time.sleep(60)


def environment() -> dict[str, str]:
    return dict(os.environ)


def facts() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "session": os.getsid(0),
        "path": sys.path,
        "nice": os.nice(0),
        "folder": str(Path.cwd()),
        "argv": sys.argv,
        "stdin": sys.stdin.read(),
    }


def descriptors() -> list[int]:
    return [fd for fd in range(1000) if Path(f"/proc/self/fd/{fd}").exists()]


def prefix() -> str:
    return sys.prefix


def pid() -> int:
    return os.getpid()


def count_to(number: int) -> Iterator[int]:
    yield from range(number)


def fail_while_counting() -> Iterator[int]:
    yield 1
    raise ValueError("enough")


def count_aloud(number: int) -> Iterator[int]:
    """Says on stderr what it has made, and when it is closed."""
    try:
        for n in range(number):
            os.write(2, b"made %d\n" % n)
            yield n
    finally:
        os.write(2, b"closed\n")


def stall_while_counting() -> Iterator[int]:
    yield 1
    time.sleep(60)


def stay_open() -> Iterator[int]:
    try:
        while True:
            yield 1
    finally:
        time.sleep(60)


def blocks(number: int, size: int) -> Iterator[bytes]:
    for _ in range(number):
        yield b"b" * size


def die_while_counting() -> Iterator[int]:
    yield 1
    os._exit(5)


def unsendable_item() -> Iterator[object]:
    yield 1
    yield object()


async def count_later(number: int) -> AsyncIterator[int]:
    for n in range(number):
        await asyncio.sleep(0)
        yield n


def report(path: str) -> str:
    """Reports, waits for the file, and ends."""
    regrow_worker.progress(1, 4, "loading")
    wait_for_file(path)
    regrow_worker.progress(4, 4)
    return "done"


def report_wrongly() -> None:
    regrow_worker.progress(5, 4)


def report_a_million_times() -> Iterator[str]:
    for n in range(100_000):
        regrow_worker.progress(n, 100_000)
    yield "done"


async def add_later(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


def _hidden() -> int:
    return 1


imported = os.getcwd


def shout_and_wait_for_file(path: str) -> bool:
    os.write(2, b"waiting\n")
    return wait_for_file(path)


def shout_and_spin() -> NoReturn:
    os.write(2, b"spinning in %d\n" % os.getpid())
    while True:
        pass


class Reporting(os.PathLike[str]):
    """Reports while it is encoded, as a thread may."""

    def __fspath__(self) -> str:
        regrow_worker.progress(1, 1)
        return "reported"


def arrays_around_a_report() -> list[Any]:
    import numpy as np

    return [np.zeros(1), Reporting(), np.zeros(1)]


class Huge(os.PathLike[str]):
    """Needs more memory to be encoded than there is."""

    def __fspath__(self) -> str:
        raise MemoryError


def huge() -> Huge:
    return Huge()


def fork_and_return_twice() -> int:
    """Both processes return, the fork first; tells how long it took, in nanoseconds."""
    began = time.perf_counter_ns()
    fork = os.fork()
    if fork:
        os.waitpid(fork, 0)
    else:
        time.sleep(0.2)
    return time.perf_counter_ns() - began


def hog_and_wait(megabytes: int) -> int:
    hogged = b"h" * (megabytes << 20)
    time.sleep(60)
    return len(hogged)
