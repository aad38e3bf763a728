"""The built-in routes: health, metrics, the tree, events as they happen, and the crash reports that are remembered.

`/livez` and `/readyz` answer everybody, so that probes need no token; what is wrong is told to those who may read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from regrow.protocol.errors import NotFound
from runtime import crashes
from runtime.edge.health import Health
from runtime.edge.http import Request, Response, Routes, json_response, text_response
from runtime.edge.http_events import stream_events
from runtime.edge.metrics import Metrics
from runtime.introspect import Node, Pace

#: states of an actor that are worth a look when somebody asks what is wrong
AILING = ("waiting", "restarting", "failed")

#: what a list of crashes tells of each; the rest, its traceback above all, is in the report itself
LISTED = ("crash_id", "actor", "path", "class", "incarnation", "at", "reason", "message", "last_message", "fingerprint")

Tree = Callable[[], Node | None]


def builtin_routes(health: Health, metrics: Metrics, tree: Tree) -> Routes:
    """Return the table that every HTTP edge starts from. Never switches."""
    routes = Routes()
    routes.add("GET", "/livez", lambda _request: text_response("ok\n"), access="open")
    routes.add("GET", "/readyz", lambda request: ready(request, health, tree), access="open")
    routes.add("GET", "/metrics", lambda request: scrape(request, metrics), access="read")
    routes.add("GET", "/tree", lambda _request: tree_response(_rooted(tree)), access="read")
    routes.add("GET", "/actors/{path...}", lambda request: one_actor(request, tree), access="read")
    routes.add("GET", "/events", stream_events, access="read")
    routes.add("GET", "/crashes", crash_list, access="read")
    routes.add("GET", "/crashes/{id}", crash_report, access="read")
    return routes


def ready(request: Request, health: Health, tree: Tree) -> Response:
    """Answer 200 while the daemon takes work and else 503; readers also see what is not met and who ails."""
    status = 200 if health.ready else 503
    body: dict[str, Any] = {"status": health.phase}
    if request.caller.reads:
        body["unmet"] = health.unmet()
        root = tree()
        body["failing"] = [] if root is None else [_ailing(node) for node in root.walk() if node.state in AILING]
    return json_response(body, status, [] if health.ready else [("Retry-After", "1")])


def scrape(request: Request, metrics: Metrics) -> Response:
    """Answer with the figures of now, as Prometheus or OpenMetrics text. Switches greenlets."""
    rendered = metrics.render(request.header("accept"), request.header("accept-encoding"))
    headers = [("Vary", "Accept, Accept-Encoding")]
    if rendered.encoding is not None:
        headers.append(("Content-Encoding", rendered.encoding))
    return Response(rendered.body, rendered.content_type, headers=headers)


def tree_response(node: Node) -> Response:
    """Answer with an actor and all below it. Switches greenlets."""
    return Response(node.encode(Pace()) + b"\n", "application/json")


def one_actor(request: Request, tree: Tree) -> Response:
    """Answer with the part of the tree below one actor, found by its name or by its path."""
    wanted = request.params["path"]
    for node in _rooted(tree).walk():
        if wanted in (node.name, node.path):
            return tree_response(node)
    raise NotFound(f"http: there is no actor {wanted[:200]!r}, /tree names them all")


def crash_list(request: Request) -> Response:
    """Answer with the crashes that are remembered, newest first; `?actor=NAME` keeps those of one actor and below it.

    Never switches.
    """
    wanted = request.query().get("actor", [None])[-1]
    found = [report for report in reversed(crashes.recent) if wanted is None or _concerns(report, wanted)]
    listed = [{key: report[key] for key in LISTED if key in report} for report in found]
    return json_response({"crashes": listed, "kept": crashes.KEPT})


def crash_report(request: Request) -> Response:
    """Answer with one crash report, found by its id. Never switches."""
    wanted = request.params["id"]
    for report in reversed(crashes.recent):
        if report["crash_id"] == wanted:
            return json_response(report)
    raise NotFound(
        f"http: no crash {wanted[:100]!r} is remembered, the last {crashes.KEPT} of this run are, /crashes lists them"
    )


def _concerns(report: dict[str, Any], wanted: str) -> bool:
    """Tell whether a crash was this actor's, or that of one below it; a name of a configured entry is one above its
    parts.
    """
    return any(report[key] == wanted or str(report[key]).startswith(f"{wanted}/") for key in ("actor", "path"))


def _rooted(tree: Tree) -> Node:
    root = tree()
    if root is None:
        raise NotFound("http: the tree is not up yet")
    return root


def _ailing(node: Node) -> dict[str, Any]:
    facts = {
        "actor": node.name or node.path,
        "state": node.state,
        "why": node.why or node.last_reason,
        "crash_id": node.crash_id,
        "retry_in_s": node.retry_in_s,
    }
    return {key: value for key, value in facts.items() if value is not None}
