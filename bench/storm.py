"""A thousand crashes a second, each healed by a supervisor and recorded, beside a steady load of asks."""

from __future__ import annotations

from statistics import quantiles
from time import perf_counter
from typing import Any

import gevent

from bench.echo import Crasher, Echo
from bench.question import Case, Goal, Metric, Peer, Question
from runtime import events
from supervisors import ChildSpec, Supervisor, which_children

ASKERS = 20
PAUSE_S = 0.005
STORM_PAUSE_S = 0.01
CRASHERS = 10

QUESTION = Question(
    name="storm",
    title="restart storm beside a load of asks",
    cases=[
        Case(
            "1 000 crashes a second for 10 s",
            {"seconds": 10},
            [
                Metric(
                    "p99_us", "p99 of an ask, from when it was due", "us", goals=[Goal("without the storm", at_most=3)]
                ),
                Metric("p50_us", "median of an ask, from when it was due", "us"),
                Metric("restarts_per_s", "restarts", "per second", lower_is_better=False, goals=[Goal(at_least=900)]),
            ],
            quick={"seconds": 0.2},
            rounds=3,
            warm_up=False,
        ),
    ],
    peers=[Peer("without the storm", "bench.storm", patched=True, function="quiet")],
    note="20 askers, each every 5 ms; an ask counts from the moment it was due, so that a stalled loop cannot hide. "
    "Each crash is recorded as a daemon does it: traceback text, fingerprint, redaction.",
)


def ours(seconds: float) -> dict[str, float]:
    """Ask during the storm."""
    unsubscribe = events.subscribe(lambda event: None)
    try:
        return _run(seconds, storm=True)
    finally:
        unsubscribe()


def quiet(seconds: float) -> dict[str, float]:
    """Ask with the same tree and no crash."""
    return _run(seconds, storm=False)


def _run(seconds: float, storm: bool) -> dict[str, float]:
    crashers = [ChildSpec(f"crasher-{number}", Crasher, name=f"crasher-{number}") for number in range(CRASHERS)]
    boss = Supervisor.start([ChildSpec("echo", Echo), *crashers], max_restarts=1_000_000_000, max_seconds=3600)
    echo = which_children(boss)[-1][1]
    until = perf_counter() + seconds
    waits: list[float] = []
    askers = [gevent.spawn(_ask_on_time, echo, number * PAUSE_S / ASKERS, until, waits) for number in range(ASKERS)]
    began = perf_counter()
    crashes = 0
    if storm:
        crashes = sum(task.get() for task in [gevent.spawn(_crash_on_time, str(spec.name), until) for spec in crashers])
    gevent.joinall(askers, raise_error=True)
    took = perf_counter() - began
    boss.stop(timeout=None)
    centiles = quantiles(waits, n=100)
    figures = {"p99_us": centiles[98] * 1e6, "p50_us": centiles[49] * 1e6}
    return {**figures, "restarts_per_s": crashes / took} if storm else figures


def _ask_on_time(echo: Any, offset_s: float, until: float, waits: list[float]) -> None:
    due = perf_counter() + offset_s
    while due < until:
        gevent.sleep(max(0.0, due - perf_counter()))
        echo.ask("hello")
        waits.append(perf_counter() - due)
        due += PAUSE_S


def _crash_on_time(name: str, until: float) -> int:
    from runtime.names import whereis

    due, crashes = perf_counter(), 0
    while due < until:
        gevent.sleep(max(0.0, due - perf_counter()))
        ref = whereis(name)
        if ref is not None:
            ref.tell("crash")
            crashes += 1
        due += STORM_PAUSE_S
    return crashes
