"""Blame: what kind of crash an exit was, so that a dead dependency is not taken for a bug (ours, beyond OTP).

    dependency_down   somewhere in the exception's causes a connection failed, a circuit was open, a peer was silent
    resource_limit    memory, file descriptors, disk or the stack ran out, or a handler outlived its limits
    poison_message    the same message crashed the actor twice in a row
    bug               everything else that crashed
    killed            a kill signal; orderly exits have no blame

Foreign exceptions are known by builtin base classes, and by the names of the classes that drivers raise for a lost
connection, so that this module needs none of those drivers.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec

from regrow.protocol.errors import CircuitOpen, ConnectionFailed, Draining, TimedOut, Unavailable
from runtime.messages import Call
from runtime.reasons import Crashed, ExitReason
from runtime.ref import HandlerOverran

Blame = Literal["bug", "dependency_down", "poison_message", "resource_limit", "killed"]

MAX_CAUSES: Final = 20
_DOWN = (CircuitOpen, ConnectionFailed, Unavailable, Draining, TimedOut, ConnectionError, TimeoutError)
_DOWN_NAMES = frozenset(
    {
        "ConnectionError",  # requests, redis
        "ConnectTimeout",
        "ReadTimeout",
        "OperationalError",  # psycopg, sqlite3
        "InterfaceError",
        "PoolTimeout",
        "MaxRetryError",
        "NewConnectionError",
    }
)
_LIMITS = (MemoryError, RecursionError, HandlerOverran)
_LIMIT_NUMBERS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ENOMEM, errno.EDQUOT})


def blame(reason: ExitReason) -> Blame | None:
    """Return what kind of crash an exit reason is, from its exception alone; None for orderly exits. Never switches."""
    if reason.kind == "killed":
        return "killed"
    if not isinstance(reason, Crashed):
        found = getattr(reason.detail, "reason", None)  # a child that failed to start, inside a supervisor
        if isinstance(found, ExitReason):
            return blame(found)
        return None if reason.is_orderly else "bug"
    for error in _causes(reason.exception):
        if isinstance(error, _LIMITS) or (isinstance(error, OSError) and error.errno in _LIMIT_NUMBERS):
            return "resource_limit"
        if isinstance(error, _DOWN) or type(error).__name__ in _DOWN_NAMES:
            return "dependency_down"
    return "bug"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen = 0
    while error is not None and seen < MAX_CAUSES:
        yield error
        seen += 1
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def message_print(message: Any) -> int | None:
    """Return a number that equal messages share, None for one that cannot be compared. Never switches."""
    try:
        if isinstance(message, Call):
            return hash((message.method, msgspec.msgpack.encode(dict(message.args))))
        return hash((type(message), message))
    except (TypeError, ValueError, RecursionError):
        return None
