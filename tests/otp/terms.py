"""Erlang terms, as the scenario files write them: from our reasons and typed errors to text, and back for reasons."""

from __future__ import annotations

import re
from typing import Any

from runtime.reasons import KILL, KILLED, NOPROC, NORMAL, SHUTDOWN, Crashed, ExitReason, Shutdown
from runtime.ref import Ref
from supervisors import ChildSpec, SpecError
from supervisors.child import FailedToStart
from supervisors.errors import (
    AlreadyPresent,
    AlreadyStarted,
    ChildRestarting,
    ChildRunning,
    ChildStartFailed,
    NoSuchChild,
    NotForDynamic,
)
from supervisors.spec import MISSING

_PLAIN = {reason.kind: reason for reason in (NORMAL, SHUTDOWN, KILL, KILLED, NOPROC)}
_WORDS: dict[type[Exception], str] = {
    AlreadyPresent: "already_present",
    ChildRunning: "running",
    ChildRestarting: "restarting",
    NoSuchChild: "not_found",
    NotForDynamic: "simple_one_for_one",
}


class RaisedByStartFunction(Exception):
    """What a start function raises: `raised`."""


class RaisedByInit(Exception):
    """What a supervisor's init raises: `init_crash`."""


def reason_from(text: str) -> ExitReason:
    """Read an exit reason."""
    shutdown = re.fullmatch(r"\{shutdown,(.*)\}", text)
    if shutdown:
        return Shutdown(shutdown[1])
    return _PLAIN.get(text) or ExitReason(text)


def path_of(ref: Ref) -> str:
    """Return the path of a process below the process that started the tree."""
    return ref.path.partition("/")[2]


def term(value: Any) -> str:
    """Write a value as an Erlang term, without spaces or quotes."""
    match value:
        case None:
            return "undefined"
        case bool():
            return "true" if value else "false"
        case ExitReason():
            return _reason(value)
        case SpecError():
            return _spec_error(value)
        case FailedToStart():
            return f"{{failed_to_start_child,{term(value.id)},{term(value.reason)}}}"
        case Ref():
            return f"<{path_of(value)}>"
        case ChildSpec():
            return f"<spec {value.id}>"
        case list():
            return f"[{','.join(map(term, value))}]"
        case tuple():
            return f"{{{','.join(map(term, value))}}}"
        case float():
            return f"{value:g}"
    return str(value)


def _reason(reason: ExitReason) -> str:
    if isinstance(reason, Crashed):
        if isinstance(reason.exception, RaisedByInit):
            return f"{{{reason.exception},stack}}"
        return f"{{EXIT,{reason.exception}}}"
    if reason.kind == "bad_start":  # anything unusable that a start function returns is the reason itself
        return term(reason.detail)
    if reason.kind == "bad_return":
        return f"{{bad_return,{{callback,init,{term(reason.detail)}}}}}"
    return reason.kind if reason.detail is None else f"{{{reason.kind},{term(reason.detail)}}}"


def _spec_error(error: SpecError) -> str:
    value = error.value
    if value is MISSING:
        return error.kind
    if error.kind == "bad_combination":
        return f"{{bad_combination,{term([*value])}}}"
    if error.kind == "invalid_shutdown" and isinstance(value, int | float):
        value = round(value * 1000)
    return f"{{{error.kind},{term(value)}}}"


def answer(error: BaseException, *, bare: bool) -> str:
    """Write what a call to a supervisor answered when it refused; `bare` leaves the child out of a failed start."""
    if isinstance(error, AlreadyStarted):
        return f"{{error,{{already_started,{term(error.ref)}}}}}"
    if isinstance(error, ChildStartFailed):
        reason = term(error.reason)
        return f"{{error,{reason}}}" if bare else f"{{error,{{{reason},<child {error.child}>}}}}"
    if isinstance(error, SpecError):
        return f"{{error,{term(error)}}}"
    if type(error) in _WORDS:
        return f"{{error,{_WORDS[type(error)]}}}"  # type: ignore[index]
    raise error
