"""Operators' requests to single actors (OTP's sys) over HTTP: all of them with the admin right only, all of them
audited.

    GET  /sys/state/NAME         the attributes that its class declares inspectable, redacted
    GET  /sys/statistics/NAME    messages in and out since they were switched on
    GET  /sys/log/NAME           the last events that were kept
    POST /sys/suspend/NAME, /sys/resume/NAME, /sys/kill/NAME
    POST /sys/statistics/NAME    {"switch": "on" | "off"}
    POST /sys/log/NAME           {"keep": 10}, 0 ends it
    POST /sys/trace/NAME         {"most": 100, "seconds": 10}; records are events, the trace ends by itself

NAME is an actor's name or its path below the root. States are never replaced from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from config.secret import redact
from regrow.protocol.errors import BadRequest, InvalidArguments, NotFound
from runtime import sys
from runtime.edge.http import Request, Response, Routes, audit, json_response
from runtime.names import whereis
from runtime.ref import Ref

MAX_SHOWN_CHARS: Final = 2000
MAX_KEPT: Final = 1000
MAX_TRACED: Final = 10_000
MAX_TRACE_S: Final = 600.0

Root = Callable[[], Ref | None]


def add_sys_routes(routes: Routes, root: Root) -> None:
    """Add the routes; `root` gives the tree's root once it is up. Never switches."""
    readers = {"state": _state, "statistics": _statistics, "log": _log}
    changers = {
        "suspend": _suspend,
        "resume": _resume,
        "kill": _kill,
        "statistics": _switch_statistics,
        "log": _keep_log,
        "trace": _trace,
    }
    for operation, reader in readers.items():
        routes.add("GET", f"/sys/{operation}/{{path...}}", _reading(reader, root), access="admin")
    for operation, changer in changers.items():
        routes.add("POST", f"/sys/{operation}/{{path...}}", _changing(operation, changer, root), access="admin")


def find_actor(root: Ref | None, wanted: str) -> Ref:
    """Return the living actor with this name or path; raises `NotFound`. Never switches."""
    found = whereis(wanted)
    if found is not None:
        return found
    ref: Ref | None = root
    labels = wanted.split("/")
    for label in labels[1:] if labels[0] == "root" else labels:
        actor = None if ref is None else ref.actor
        facts = actor.child_fact(label) if actor is not None and hasattr(actor, "child_fact") else None
        ref = None if facts is None else facts.ref
    if ref is None or not ref.is_alive() or (wanted and ref is root and wanted != "root"):
        raise NotFound(f"http: there is no living actor {wanted[:200]!r}, /tree names them all")
    return ref


def _reading(reader: Callable[[Ref], Any], root: Root) -> Callable[[Request], Response]:
    return lambda request: json_response(reader(find_actor(root(), request.params["path"])))


def _changing(
    operation: str, changer: Callable[[Ref, Mapping[str, Any]], Any], root: Root
) -> Callable[[Request], Response]:
    def handle(request: Request) -> Response:
        ref = find_actor(root(), request.params["path"])
        body = request.json() if request.header("content-length", "0") != "0" else {}
        if not isinstance(body, dict):
            raise BadRequest("http: the body must be a JSON object")
        before = ref.state_name
        result = changer(ref, body)
        name = ref.name or ref.path
        audit(request.caller, f"sys.{operation} {name}", before, ref.state_name)
        return json_response({"actor": name, "state": ref.state_name, "result": result})

    return handle


def _state(ref: Ref) -> dict[str, Any]:
    """The declared attributes only: a state may hold anything, secrets and payloads included."""
    shown = ref.actor_class.inspectable
    state = sys.get_state(ref)
    return {name: redact(repr(state[name]))[:MAX_SHOWN_CHARS] for name in shown if name in state}


def _statistics(ref: Ref) -> Any:
    return sys.statistics(ref)


def _log(ref: Ref) -> list[dict[str, Any]]:
    return list(sys.extras_of(ref).kept or ())


def _suspend(ref: Ref, _body: Mapping[str, Any]) -> None:
    sys.suspend(ref)


def _resume(ref: Ref, _body: Mapping[str, Any]) -> None:
    sys.resume(ref)


def _kill(ref: Ref, _body: Mapping[str, Any]) -> None:
    ref.kill()


def _switch_statistics(ref: Ref, body: Mapping[str, Any]) -> Any:
    switch = body.get("switch")
    if switch not in ("on", "off"):
        raise InvalidArguments('switch must be "on" or "off"')
    return sys.statistics(ref, switch)


def _keep_log(ref: Ref, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    keep = body.get("keep", sys.KEPT_EVENTS)
    if not isinstance(keep, int) or not 0 <= keep <= MAX_KEPT:
        raise InvalidArguments(f"keep must be a whole number from 0 to {MAX_KEPT}")
    return sys.log(ref, keep)


def _trace(ref: Ref, body: Mapping[str, Any]) -> None:
    most, seconds = body.get("most", 100), body.get("seconds", 10.0)
    if not isinstance(most, int) or not 1 <= most <= MAX_TRACED:
        raise InvalidArguments(f"most must be a whole number from 1 to {MAX_TRACED}")
    if not isinstance(seconds, int | float) or not 0 < seconds <= MAX_TRACE_S:
        raise InvalidArguments(f"seconds must be above 0 and at most {MAX_TRACE_S:g}")
    sys.trace(ref, most=most, seconds=float(seconds))
