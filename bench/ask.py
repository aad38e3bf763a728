"""An ask round trip with the default timeout: one asker, and a hundred that ask the same actor."""

from __future__ import annotations

import gevent

from bench.core import OTP, PYKKA_GEVENT, PYKKA_THREADS, THESPIAN, XOSCAR
from bench.echo import Echo
from bench.question import Case, Goal, Question, times_faster
from bench.timing import Watch, both
from supervisors import ChildSpec, Supervisor, which_children

_GOALS = (
    Goal("OTP", at_most=1.3),
    times_faster("pykka threads", 12),
    times_faster("pykka gevent", 6),
    times_faster("Thespian", 6),
    times_faster("xoscar", 30),
)
_MANY = tuple(goal for goal in _GOALS if goal.peer != "Thespian")

QUESTION = Question(
    name="ask",
    title="ask round trip, default timeout",
    cases=[
        Case("1 asker", {"n": 10_000, "askers": 1}, both("ask and its answer", *_GOALS), quick={"n": 500}),
        Case(
            "100 askers",
            {"n": 40_000, "askers": 100},
            both("ask and its answer", *_MANY),
            peers=["OTP", "pykka threads", "pykka gevent", "xoscar"],
            quick={"n": 500},
        ),
        Case(
            "1 asker, of a configured actor (each message timed and counted)",
            {"n": 10_000, "askers": 1, "measured": 1},
            both("ask and its answer"),
            peers=["OTP"],
            quick={"n": 500},
        ),
    ],
    rounds=7,
    best_of=9,
    peers=[OTP, PYKKA_THREADS, PYKKA_GEVENT, THESPIAN, XOSCAR],
    note="Thespian's system is asked from one thread only. Thespian and xoscar run in the asker's own process.",
)


def ours(n: int, askers: int, measured: int = 0) -> dict[str, float]:
    """Time `n` asks by `askers` greenlets of one supervised actor."""
    boss = Supervisor.start([ChildSpec("echo", Echo, measured=bool(measured))])
    echo = which_children(boss)[0][1]
    each = n // askers

    def ask() -> None:
        for _ in range(each):
            echo.ask("hello")

    watch = Watch()
    if askers == 1:
        ask()
    else:
        gevent.joinall([gevent.spawn(ask) for _ in range(askers)], raise_error=True)
    watch.stop()
    boss.stop()
    return watch.per(each * askers)
