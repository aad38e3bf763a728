"""A crasher: makes any actor crash, stop or hang at its next message, without a line of test code in its class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gevent.event import Event

from runtime import scheduler
from runtime.reasons import NORMAL, ExitReason, Stop
from runtime.ref import Ref


class Crash(RuntimeError):
    """What a crashed actor raised, unless the test named something else."""


class _Fault:
    """The message that carries a fault into an actor."""

    __slots__ = ("act",)

    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act


def crash(ref: Ref, error: BaseException | None = None) -> None:
    """Have the actor raise `error` in its turn, as if a handler of its own had. Never switches."""
    ref.post(_Fault(lambda: _raise(error or Crash("crashed by the test"))))


def stop_with(ref: Ref, reason: ExitReason = NORMAL) -> None:
    """Have the actor stop by itself with an exit reason. Never switches."""
    ref.post(_Fault(lambda: _raise(Stop(reason))))


def hang(ref: Ref) -> Event:
    """Keep the actor busy until the returned event is set, or it is killed. Never switches."""
    go = Event()
    ref.post(_Fault(go.wait))
    return go


def _raise(error: BaseException) -> None:
    raise error


def _handle_fault(_ref: Ref, fault: _Fault) -> Any:
    return fault.act()


scheduler.SPECIAL[_Fault] = _handle_fault
