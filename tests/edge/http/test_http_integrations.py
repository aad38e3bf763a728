"""The status of integrations over HTTP, and their circuits by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from actors.resilience.breaker import Breaker, CircuitTable
from actors.resilience.policy import BreakerPolicy
from config.secret import Secret
from regrow.protocol.errors import UpstreamError
from runtime import events, telemetry
from runtime.actor import Actor
from runtime.directory import Directory, Entry
from runtime.edge.auth import Auth
from runtime.edge.http import Http, Routes
from runtime.edge.http_integrations import add_integration_routes
from runtime.names import whereis
from supervisors import ChildSpec, Supervisor


class Front(Actor):
    """Stands for an integration's front: only its name matters here."""


class Edge:
    def __init__(self) -> None:
        directory = Directory()
        directory.add(Entry("shop", "integration", {}, 1.0, lambda: None, type="rest"))
        directory.add(Entry("plain", "integration", {}, 1.0, lambda: None, type="database"))
        directory.add(Entry("greeter", "actor", {}, 1.0, lambda: None))
        routes = Routes()
        add_integration_routes(routes, directory)
        breaker = ChildSpec("breaker", Breaker, args=("shop", BreakerPolicy(), CircuitTable()), name="shop/breaker")
        fronts = [ChildSpec(name, Front, name=name) for name in ("shop", "plain")]
        http = ChildSpec("http", Http, args=("127.0.0.1", 0, routes, Auth(None, Secret("admin"))), name="http")
        self.root: Any = Supervisor.start([breaker, *fronts, http])
        door = whereis("http")
        assert door is not None
        self.url: str = door.call("address")

    def get(self, path: str) -> Any:
        return requests.get(self.url + path, timeout=10).json()

    def post(self, path: str, body: Any = None, token: str = "admin") -> requests.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return requests.post(self.url + path, json=body, headers=headers, timeout=10)


@pytest.fixture
def edge() -> Iterator[Edge]:
    made = Edge()
    yield made
    made.root.stop()
    telemetry.forget("shop")
    telemetry.forget("plain")


def test_the_status_lists_integrations_and_no_actors(edge: Edge) -> None:
    assert edge.get("/integrations/status") == {
        "integrations": [
            {
                "name": "shop",
                "type": "rest",
                "state": "running",
                "status": "healthy",
                "circuit_state": "closed",
                "error_rate": None,
            },
            {
                "name": "plain",
                "type": "database",
                "state": "running",
                "status": "healthy",
                "circuit_state": None,
                "error_rate": None,
            },
        ]
    }


def test_health_tells_latencies_success_and_the_last_error(edge: Edge) -> None:
    for hundredths in range(1, 100):
        telemetry.ended("shop", "get", hundredths / 100)
    telemetry.ended("shop", "get", 5.0, UpstreamError("shop: answered 500", status=500))
    health = edge.get("/integrations/shop/health")
    assert (health["calls"], health["success_rate"], health["error_rate"]) == (100, 0.99, 0.01)
    assert (health["latency_p50"], health["latency_p99"]) == (0.5, 0.99)
    assert health["last_error"] == "upstream_error: shop: answered 500"
    assert health["status"] == "healthy"


def test_an_integration_most_of_whose_calls_fail_is_degraded(edge: Edge) -> None:
    for error in (None, UpstreamError("no"), UpstreamError("no")):
        telemetry.ended("plain", "get", 0.1, error)
    assert edge.get("/integrations/plain/health")["status"] == "degraded"


def test_a_circuit_is_held_open_closed_and_reset_by_an_admin_who_is_audited(edge: Edge) -> None:
    audited: list[Any] = []
    unsubscribe = events.subscribe(
        lambda event: audited.append(event.fields) if event.topic == "admin.changed" else None
    )
    opened = edge.post("/integrations/shop/circuit/open", {"for_s": 60})
    assert opened.json() == {"name": "shop", "before": "closed", "circuit_state": "open"}
    assert edge.get("/integrations/shop/health")["status"] == "degraded"
    assert edge.post("/integrations/shop/circuit/reset").json()["circuit_state"] == "closed"
    unsubscribe()
    assert [(entry["what"], entry["before"], entry["after"]) for entry in audited] == [
        ("circuit.open shop", "closed", "open"),
        ("circuit.reset shop", "open", "closed"),
    ]


def test_a_circuit_is_disabled_for_a_time_and_that_is_told(edge: Edge) -> None:
    told = edge.post("/integrations/shop/circuit/disable", {"for_s": 300}).json()
    assert told.pop("disabled_s") == pytest.approx(300, abs=5)
    assert told == {"name": "shop", "before": "closed", "circuit_state": "closed"}
    assert "disabled_s" not in edge.post("/integrations/shop/circuit/reset").json()


def test_without_the_admin_token_no_circuit_is_touched(edge: Edge) -> None:
    assert edge.post("/integrations/shop/circuit/open", token="").status_code == 401
    assert edge.post("/integrations/shop/circuit/open", token="wrong").status_code == 401
    assert edge.get("/integrations/shop/health")["circuit_state"] == "closed"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/integrations/nobody/circuit/reset", None, 404),
        ("/integrations/greeter/circuit/reset", None, 404),
        ("/integrations/plain/circuit/reset", None, 404),
        ("/integrations/shop/circuit/explode", None, 404),
        ("/integrations/shop/circuit/open", {"for_s": -1}, 422),
        ("/integrations/shop/circuit/disable", {"for_s": 86401}, 422),
        ("/integrations/shop/circuit/close", {"for_s": 1}, 422),
        ("/integrations/shop/circuit/open", {"forever": True}, 400),
    ],
)
def test_what_cannot_be_done_is_told(edge: Edge, path: str, body: Any, status: int) -> None:
    assert edge.post(path, body).status_code == status
