"""What the calls to a supervisor answer when they refuse: OTP's words as typed errors."""

from __future__ import annotations

from typing import Any

from regrow.protocol.errors import Conflict, Invalid, NotFound, Overloaded, Unavailable
from runtime.reasons import ExitReason
from runtime.ref import Ref


class AlreadyStarted(Conflict):
    """A child with this id runs already, as `ref`."""

    def __init__(self, ref: Ref) -> None:
        super().__init__(f"a child with this id runs already: {ref}")
        self.ref = ref


class AlreadyPresent(Conflict):
    """A child with this id is listed, though not running; restart or delete it."""


class ChildRunning(Conflict):
    """The child runs; terminate it first."""


class ChildRestarting(Conflict):
    """The child is between two attempts to restart it."""


class NoSuchChild(NotFound):
    """The supervisor has no such child."""


class NotForDynamic(Invalid):
    """A dynamic supervisor addresses its children by ref, and restarts or deletes none by hand."""

    code = "bad_request"


class TooManyChildren(Overloaded):
    """The dynamic supervisor is at its `max_children`."""


class ChildStartFailed(Unavailable):
    """The child's start failed with `reason`; nothing of it is kept."""

    def __init__(self, reason: ExitReason, child: Any) -> None:
        super().__init__(f"child {child!r} failed to start: {reason}", started="unknown")
        self.reason = reason
        self.child = child
