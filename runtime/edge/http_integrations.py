"""The integrations over HTTP: how each is doing, and its circuit by hand.

    GET  /integrations/status                    all of them
    GET  /integrations/{name}/health             one, with latencies, its last error and its circuit
    POST /integrations/{name}/circuit/reset      admin; also .../close, .../open and .../disable ({"for_s": 60})

`status` is healthy, or degraded while its circuit is not closed, its actor is not running, or under half of the recent
calls went well. Latencies are seconds over the last calls that really went out (runtime.telemetry).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from regrow.protocol.errors import BadRequest, InvalidArguments, NotFound, Unavailable
from runtime import telemetry
from runtime.edge.http import Request, Response, Routes, audit, json_response
from runtime.names import whereis

ACTIONS: Final = ("open", "close", "disable", "reset")
MAX_HOLD_S: Final = 86400.0
LOW_SUCCESS: Final = 0.5
SHOWN_OF_CIRCUIT: Final = ("failures", "threshold", "window_s", "retry_after_s", "held", "disabled_s", "redis")


class Entry(Protocol):
    """What the routes read of one configured integration."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def state(self) -> str: ...


class Directory(Protocol):
    """What knows every configured entry."""

    def entries(self) -> Iterable[Entry]:
        """Return every entry. Never switches."""
        ...


def add_integration_routes(routes: Routes, directory: Directory) -> None:
    """Add the routes. Never switches."""
    routes.add("GET", "/integrations/status", lambda _request: _status(directory), access="read")
    routes.add("GET", "/integrations/{name}/health", lambda request: _health(directory, request), access="read")
    routes.add(
        "POST",
        "/integrations/{name}/circuit/{action}",
        lambda request: _turn_circuit(directory, request),
        access="admin",
    )


def describe(entry: Entry) -> dict[str, Any]:
    """Return what the status of one integration says. Never switches."""
    figures = telemetry.window(entry.name).figures()
    circuit = circuit_state(entry.name)
    success = figures["success_rate"]
    well = entry.state == "running" and circuit in (None, "closed") and (success is None or success >= LOW_SUCCESS)
    return {
        "name": entry.name,
        "type": entry.type,
        "state": entry.state,
        "status": "healthy" if well else "degraded",
        "circuit_state": circuit,
        "error_rate": None if success is None else round(1.0 - success, 4),
    }


def circuit_state(name: str) -> str | None:
    """Return closed, half-open or open; None for an integration without a breaker. Never switches."""
    found = _breaker_status(name).get("circuit")
    return str(found) if found is not None else None


def _breaker_status(name: str) -> Mapping[str, Any]:
    breaker = whereis(f"{name}/breaker")
    return {} if breaker is None or breaker.actor is None else breaker.actor.status()


def _status(directory: Directory) -> Response:
    found = [describe(entry) for entry in directory.entries() if entry.kind == "integration"]
    return json_response({"integrations": found})


def _health(directory: Directory, request: Request) -> Response:
    entry = _find(directory, request.params["name"])
    seen = telemetry.window(entry.name)
    body = {**describe(entry), **seen.figures(), "window_s": telemetry.WINDOW_S, "last_error": seen.last_error}
    status = _breaker_status(entry.name)
    if status:
        body["circuit"] = {key: status[key] for key in SHOWN_OF_CIRCUIT if key in status}
    if seen.last_error_wall is not None:
        body["last_error_at"] = seen.last_error_wall
    return json_response(body)


def _turn_circuit(directory: Directory, request: Request) -> Response:
    entry = _find(directory, request.params["name"])
    action = request.params["action"]
    if action not in ACTIONS:
        raise NotFound(f"http: a circuit has no {action[:50]!r}, only {', '.join(ACTIONS)}")
    breaker = whereis(f"{entry.name}/breaker")
    if breaker is None:
        if circuit_state(entry.name) is None and entry.state == "running":
            raise NotFound(f"http: {entry.name} has no circuit breaker")
        raise Unavailable(f"http: the breaker of {entry.name} is not running", retry_after_s=1.0)
    body = request.json() if request.header("content-length", "0") != "0" else {}
    if not isinstance(body, dict) or set(body) - {"for_s"}:
        raise BadRequest('http: the body may be empty or {"for_s": seconds}')
    before = circuit_state(entry.name)
    breaker.call(action, _arguments(action, body))
    after = circuit_state(entry.name)
    audit(request.caller, f"circuit.{action} {entry.name}", before, after)
    told: dict[str, Any] = {"name": entry.name, "before": before, "circuit_state": after}
    status = _breaker_status(entry.name)
    if "disabled_s" in status:
        told["disabled_s"] = status["disabled_s"]
    return json_response(told)


def _arguments(action: str, body: dict[str, Any]) -> dict[str, Any]:
    for_s = body.get("for_s")
    if for_s is None:
        return {}
    if action not in ("open", "disable"):
        raise InvalidArguments("for_s goes with open and disable only")
    if not isinstance(for_s, int | float) or isinstance(for_s, bool) or not 0 < for_s <= MAX_HOLD_S:
        raise InvalidArguments(f"for_s must be seconds above 0 and at most {MAX_HOLD_S:g}")
    return {"for_s": float(for_s)}


def _find(directory: Directory, name: str) -> Entry:
    for entry in directory.entries():
        if entry.name == name and entry.kind == "integration":
            return entry
    raise NotFound(f"http: there is no integration {name[:100]!r}")
