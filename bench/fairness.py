"""Whether timers and sockets are served while actors are flooded with messages."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter, thread_time
from typing import Any

import gevent
from gevent import get_hub, socket

from bench.echo import Echo
from bench.question import Case, Goal, Metric, Question
from bench.ring import Member
from runtime import clock
from runtime.actor import Actor

BEAT_S = 0.005
GOAL_MS = 20

_METRICS = [
    Metric("timer_ms", "worst lateness of a 5 ms timer", "ms", goals=[Goal(at_most=GOAL_MS)]),
    Metric("socket_ms", "worst round trip of another process over a socket", "ms", goals=[Goal(at_most=GOAL_MS)]),
    Metric("turn_ms", "longest turn of the loop, in processor time", "ms", goals=[Goal(at_most=GOAL_MS)]),
    Metric(
        "clock_ms",
        "worst lateness of a timer of the runtime's own wheel (slots of 10 ms)",
        "ms",
        goals=[Goal(at_most=GOAL_MS)],
    ),
    Metric("messages_per_s", "messages handled meanwhile", "per second", lower_is_better=False),
]

_PING = """
import socket, sys, time
pipe = socket.socket(fileno=int(sys.argv[1]))
pipe.setblocking(True)
worst, until = 0.0, time.perf_counter() + float(sys.argv[2])
while time.perf_counter() < until:
    began = time.perf_counter()
    pipe.sendall(b"x")
    if not pipe.recv(1):
        break
    worst = max(worst, time.perf_counter() - began)
    time.sleep(0.002)
print(worst)
"""

QUESTION = Question(
    name="fairness",
    title="timers and sockets under a flood of messages",
    cases=[
        Case("no load", {"seconds": 2, "load": 0}, _METRICS[:-1], quick={"seconds": 0.2}),
        Case("100 askers without a pause", {"seconds": 2, "load": 1}, _METRICS, quick={"seconds": 0.2}),
        Case("1 000 tokens in a ring of 1 000 actors", {"seconds": 2, "load": 2}, _METRICS, quick={"seconds": 0.2}),
        Case(
            "1 000 actors with messages waiting, which compute 50 us a message",
            {"seconds": 2, "load": 3},
            _METRICS,
            quick={"seconds": 0.2},
        ),
        Case(
            "500 actors started and killed without a pause",
            {"seconds": 2, "load": 4},
            _METRICS,
            quick={"seconds": 0.2},
        ),
    ],
    rounds=3,
    note="The worst of each round. On a machine shared with other programs these add their time slices to all figures "
    "but the processor time.",
)


class Busy(Actor):
    """Computes for 50 microseconds a message."""

    def on_receive(self, message: Any) -> Any:
        until = perf_counter() + 50e-6
        while perf_counter() < until:
            pass
        return message


def ours(seconds: float, load: int) -> dict[str, float]:
    """Watch timers, a socket and the loop itself while one kind of load runs."""
    prepare = (_no_load, _askers, _ring, _full_mailboxes, _starts)[load]
    with prepare() as work:
        gc.collect()
        gc.freeze()  # as the daemon does once its tree is up
        turns = _Turns()
        until = perf_counter() + seconds
        watches: list[Any] = [
            gevent.spawn(_timer, until),
            gevent.spawn(_wheel, until),
            gevent.spawn(_socket, seconds),
        ]
        began = perf_counter()
        messages = work(until)
        took = perf_counter() - began
        gevent.joinall(watches, raise_error=True)
        turns.stop()
    timer_s, wheel_s, socket_s = (watch.value for watch in watches)
    figures = {
        "timer_ms": timer_s * 1e3,
        "socket_ms": socket_s * 1e3,
        "clock_ms": wheel_s * 1e3,
        "turn_ms": turns.longest_s * 1e3,
    }
    return {**figures, "messages_per_s": messages / took} if load else figures


class _Turns:
    """The longest turn of the loop, in processor time of its thread, to which other programs cannot add."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._began = thread_time()
        loop = get_hub().loop
        self._after_poll, self._before_poll = loop.check(ref=False), loop.prepare(ref=False, priority=-2)
        self._after_poll.start(self._begin)
        self._before_poll.start(self._end)

    def _begin(self) -> None:
        self._began = thread_time()

    def _end(self) -> None:
        self.longest_s = max(self.longest_s, thread_time() - self._began)

    def stop(self) -> None:
        for watcher in (self._after_poll, self._before_poll):
            watcher.stop()
            watcher.close()


def _timer(until: float) -> float:
    """The worst lateness of libev's timers, as gevent's users see it."""
    worst = 0.0
    while (began := perf_counter()) < until:
        gevent.sleep(BEAT_S)
        worst = max(worst, perf_counter() - began - BEAT_S)
    return worst


def _wheel(until: float) -> float:
    """The worst lateness of the runtime's timers, which fire at the end of their slot."""
    worst = 0.0
    while (began := perf_counter()) < until:
        clock.sleep(BEAT_S)
        worst = max(worst, perf_counter() - began - BEAT_S)
    return worst


def _socket(seconds: float) -> float:
    """The worst round trip that a process of its own measures."""
    mine, its = socket.socketpair()
    command = [sys.executable, "-c", _PING, str(its.fileno()), str(seconds * 0.8)]
    process = subprocess.Popen(command, pass_fds=[its.fileno()], stdout=subprocess.PIPE)
    its.close()
    while data := mine.recv(1):
        mine.sendall(data)
    mine.close()
    assert process.stdout is not None
    worst = float(process.stdout.read())
    process.wait()
    process.stdout.close()
    return worst


Work = Callable[[float], int]


@contextmanager
def _no_load() -> Iterator[Work]:
    def work(until: float) -> int:
        gevent.sleep(until - perf_counter())
        return 0

    yield work


@contextmanager
def _askers() -> Iterator[Work]:
    echo = Echo.start()

    def ask(until: float) -> int:
        count = 0
        while perf_counter() < until:
            echo.ask("hello")
            count += 1
        return count

    yield lambda until: sum(task.get() for task in [gevent.spawn(ask, until) for _ in range(100)])
    echo.kill()


@contextmanager
def _ring() -> Iterator[Work]:
    refs = [Member.start(lambda: None) for _ in range(1000)]
    for ref, following in zip(refs, [*refs[1:], refs[0]], strict=True):
        ref.ask(following)

    def work(until: float) -> int:
        for ref in refs:
            ref.tell(1_000_000_000)
        gevent.sleep(until - perf_counter())
        return sum(ref.handled for ref in refs)

    yield work
    for ref in refs:
        ref.kill()


@contextmanager
def _full_mailboxes() -> Iterator[Work]:
    refs = [Busy.start() for _ in range(1000)]

    def work(until: float) -> int:
        while perf_counter() < until:
            for ref in refs:
                if ref.queued < 50:
                    ref.tell("hello")
            gevent.sleep(0.002)
        return sum(ref.handled for ref in refs)

    yield work
    for ref in refs:
        ref.kill()


@contextmanager
def _starts() -> Iterator[Work]:
    def work(until: float) -> int:
        count = 0
        while perf_counter() < until:
            refs = [Echo.start() for _ in range(500)]
            for ref in refs:
                ref.kill()
            count += len(refs)
        return count

    yield work
