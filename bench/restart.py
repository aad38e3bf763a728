"""From a crash to the restarted child: a message crashes it, its next incarnation tells that it is up."""

from __future__ import annotations

import gc
from typing import Any

from gevent import get_hub
from greenlet import getcurrent

from bench.core import OTP
from bench.echo import Crasher, Echo
from bench.question import Case, Goal, Peer, Question
from bench.timing import Watch, both
from supervisors import ChildSpec, Supervisor

MANY = 1_000_000_000

_US = "crash to restarted"
_ALONE = Peer("ours, 1 sibling", "bench.restart", patched=True, function="ours_alone")

QUESTION = Question(
    name="restart",
    title="crash to restarted",
    cases=[
        Case(
            "1 sibling",
            {"crashes": 80, "siblings": 1, "batches": 4},
            both(_US, Goal("OTP", at_most=4)),
            peers=["OTP"],
            quick={"batches": 1},
        ),
        Case(
            "10 000 siblings",
            {"crashes": 80, "siblings": 10_000, "batches": 3},
            both(_US, Goal("OTP", at_most=0.5), Goal("ours, 1 sibling", at_most=1.5)),
            quick={"batches": 1, "siblings": 100},
        ),
        Case(
            "after 50 000 restarts",
            {"crashes": 500, "before": 50_000},
            both(_US, Goal("OTP", at_most=0.5), Goal("ours, 1 sibling", at_most=1.5)),
            quick={"before": 100, "crashes": 10},
            rounds=4,
        ),
    ],
    rounds=7,
    best_of=5,
    peers=[OTP, _ALONE],
    note="OTP's logger is off and nobody subscribes to our events; but for the last case fewer than 100 restarts are "
    "in the window.",
)


class _Tester:
    """Waits, without a poll, until the child is up again."""

    def __init__(self) -> None:
        self.target: Any = None
        self._waiter: Any = None

    def up(self, ref: Any) -> None:
        self.target = ref
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            get_hub().loop.run_callback(waiter.switch)

    def crash(self) -> None:
        self._waiter = getcurrent()
        self.target.tell("crash")
        get_hub().switch()


def _boss(tester: _Tester, siblings: int) -> Any:
    target = ChildSpec("target", Crasher, args=(tester.up,), shutdown="brutal_kill")
    others = [ChildSpec(number, Echo, shutdown="brutal_kill") for number in range(siblings)]
    return Supervisor.start([target, *others], max_restarts=MANY, max_seconds=3600)


def _crashes(tester: _Tester, crashes: int, watch: Watch) -> None:
    tester.crash()  # the first one pays for what the start left to do
    watch.resume()
    for _ in range(crashes):
        tester.crash()
    watch.stop()


_late: tuple[_Tester, Any] | None = None


def ours(crashes: int, siblings: int = 1, batches: int = 1, before: int = 0) -> dict[str, float]:
    """Time crashes in a row; with `before`, of a supervisor that has restarted so often already."""
    global _late
    watch = Watch()
    if before:
        if _late is None:
            tester = _Tester()
            _late = tester, _boss(tester, 1)
            _crashes(tester, before, Watch())
        _crashes(_late[0], crashes, watch)
        return watch.per(crashes)
    for _ in range(batches):
        tester = _Tester()
        boss = _boss(tester, siblings)
        gc.collect()
        _crashes(tester, crashes, watch)
        boss.stop(timeout=None)
    return watch.per(crashes * batches)


def ours_alone(crashes: int, siblings: int = 1, batches: int = 1, before: int = 0) -> dict[str, float]:
    """Time the plain case, to compare the others with."""
    return ours(90, 1, 4)
