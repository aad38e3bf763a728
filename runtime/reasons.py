"""Exit reasons: why an actor ended, as links, monitors and supervisors hear it.

OTP's terms are kept: `normal`, `shutdown` and `shutdown` with a detail are orderly; everything else is abnormal and
restarts a transient child. `killed` is what a kill signal leaves behind; `noproc` is the reason of monitoring the dead.
"""

from __future__ import annotations

import itertools
import os
import time
from typing import Any, Final

_crashes = itertools.count(1)
_boot = f"{int(time.time()) & 0xFFFFFF:06x}{os.getpid() & 0xFFFF:04x}"


class ExitReason:
    """A kind and an optional detail; equal when both are."""

    __slots__ = ("detail", "kind")

    def __init__(self, kind: str, detail: Any = None) -> None:
        self.kind = kind
        self.detail = detail

    @property
    def is_orderly(self) -> bool:
        return self.kind in ("normal", "shutdown")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExitReason) and (self.kind, self.detail) == (other.kind, other.detail)

    def __hash__(self) -> int:
        return hash(self.kind)

    def __str__(self) -> str:
        return self.kind if self.detail is None else f"{self.kind}: {self.detail}"

    def __repr__(self) -> str:
        return f"<ExitReason {self}>"


class Crashed(ExitReason):
    """An exception escaped from the actor; it carries the exception itself and an id under which it is recorded."""

    __slots__ = ("_number",)

    def __init__(self, exception: BaseException) -> None:
        super().__init__("crashed", exception)
        self._number = next(_crashes)

    @property
    def exception(self) -> BaseException:
        exception: BaseException = self.detail
        return exception

    @property
    def crash_id(self) -> str:
        return f"c{_boot}-{self._number}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Crashed) and self.detail is other.detail

    def __hash__(self) -> int:
        return id(self.detail)

    def __str__(self) -> str:
        return f"crashed: {type(self.detail).__name__}: {text_of(self.detail)}"


NORMAL: Final = ExitReason("normal")
SHUTDOWN: Final = ExitReason("shutdown")
KILL: Final = ExitReason("kill")
KILLED: Final = ExitReason("killed")
NOPROC: Final = ExitReason("noproc")


def text_of(error: BaseException) -> str:
    """Return the exception's text; a user's exception whose own text fails must harm nobody. Never switches."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the user's own code runs here
        return "its text cannot be made"


def Shutdown(detail: object) -> ExitReason:  # noqa: N802 - reads as the constructor of a reason, like Crashed
    """Return OTP's `{shutdown, Detail}`: an orderly stop that says why."""
    return ExitReason("shutdown", detail)


class StartFailed(Exception):
    """Raised in `__init__`, `on_start` or a start function: the start failed with this exit reason."""

    def __init__(self, reason: ExitReason) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Stop(BaseException):
    """Raised in a handler: stop this actor in the orderly way with `reason`, after answering the ask in hand.

    A BaseException so that a handler's `except Exception` does not swallow it. OTP's `{stop, Reason, Reply, State}`.
    """

    def __init__(self, reason: ExitReason = NORMAL, reply: Any = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.reply = reply


class Ignore(BaseException):
    """Raised in `__init__` or `on_start`: there is nothing to run; a supervisor keeps the child without an actor."""


def reason_of(error: BaseException) -> ExitReason:
    """Return the exit reason that an exception from a start stands for. Never switches."""
    if isinstance(error, Stop | StartFailed):
        return error.reason
    return NORMAL if isinstance(error, Ignore) else Crashed(error)
