"""Calls of every kind of integration, well and badly ended: telemetry, metrics, events and the status tell the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from actors.integrations import INTEGRATIONS
from config.load import load
from config.secret import Secret
from regrow.protocol.errors import RegrowError
from regrow.tree import Tree
from runtime import events, introspect, telemetry
from runtime.edge.auth import Auth
from runtime.edge.health import Health
from runtime.edge.http import Http
from runtime.edge.http_integrations import add_integration_routes
from runtime.edge.http_routes import builtin_routes
from runtime.edge.metrics import Metrics
from runtime.messages import Call
from runtime.names import whereis
from supervisors import ChildSpec
from tests.support.http_peer import HttpPeer

CONFIG = """
[daemon]
name = "figures"
state_dir = "var"
path = ["."]

[integrations.a-shop]
type = "rest"
base_url = "${PEER}"
timeout = "300ms"
retry = { retries = 1, base = "1ms", max = "1ms" }
breaker = { failures = 6, reset_after = "1m" }
[integrations.a-shop.operations.get]
request = "GET /{what}"
[integrations.a-shop.operations.make]
request = "POST /{what}"

[integrations.a-graph]
type = "graphql"
base_url = "${PEER}/graphql"
[integrations.a-graph.operations.ask]
query = "query($ok: Boolean!) { thing(ok: $ok) }"

[integrations.a-db]
type = "database"
url = "sqlite:///figures.db"
setup = ["CREATE TABLE IF NOT EXISTS things (id INTEGER PRIMARY KEY)"]
[integrations.a-db.operations.put]
sql = "INSERT INTO things VALUES (:id)"
kind = "execute"

[integrations.a-sums]
type = "python"
functions = ["statistics:mean", "time:sleep"]
workers = 1
"""


# Counters live as long as the process: no other test counts under these names.
NAMES = ("a-shop", "a-graph", "a-db", "a-sums")


class Running:
    """The configured tree with the HTTP edge, and all that is told of it."""

    def __init__(self, file: Path, peer: HttpPeer) -> None:
        self.tree = Tree(load(file, INTEGRATIONS, is_actor=lambda _: True, environ={"PEER": peer.url}), INTEGRATIONS)
        self.metrics = Metrics(self._snapshot, version="0")
        routes = builtin_routes(Health("tree"), self.metrics, self._snapshot)
        add_integration_routes(routes, self.tree.directory)
        auth = Auth(None, Secret("admin-of-the-figures"))
        self.root = self.tree.start([ChildSpec("http", Http, args=("127.0.0.1", 0, routes, auth), name="http")])
        http = whereis("http")
        assert http is not None
        self.url: str = http.call("address")
        self.samples: list[Any] = []
        self.called: list[telemetry.CallEvent] = []
        self.heard: list[events.Event] = []
        telemetry.attach("figures", self.called.append)
        self._unsubscribe = events.subscribe(self.heard.append)

    def _snapshot(self) -> introspect.Node | None:
        return None if self.tree.root is None else introspect.snapshot(self.tree.root)

    def call(self, name: str, method: str, timeout: float = 20.0, **args: Any) -> str:
        """Call, and return how it ended."""
        ref = whereis(name)
        assert ref is not None
        try:
            ref.ask(Call(method, args), timeout=timeout)
        except RegrowError as error:
            return error.code
        return "ok"

    def get(self, path: str) -> Any:
        answer = requests.get(self.url + path, timeout=10)
        return answer.text if path == "/metrics" else answer.json()

    def counted(self, name: str, key: str, **labels: str) -> dict[str, float]:
        """The samples of one metric that are not zero at the last scrape, summed up by one of their labels."""
        found: Counter[str] = Counter()
        for sample in self.samples:
            if sample.name == f"regrow_{name}" and labels.items() <= sample.labels.items() and sample.value:
                found[sample.labels[key]] += sample.value
        return dict(found)

    def scrape(self) -> None:
        # Of a whole session of tests there are many series of others, which are read once.
        text = "\n".join(line for line in self.get("/metrics").splitlines() if line.startswith("#") or "a-" in line)
        self.samples = [each for family in text_string_to_metric_families(text) for each in family.samples]

    def ended(self, name: str) -> list[telemetry.CallEvent]:
        return [each for each in self.called if each.actor == name and each.kind != "start"]

    def stop(self) -> None:
        self._unsubscribe()
        telemetry.detach("figures")
        self.root.stop()
        self.metrics.close()
        for name in NAMES:
            telemetry.forget(name)


@pytest.fixture
def running(tmp_path: Path, http_peer: HttpPeer) -> Iterator[Running]:
    file = tmp_path / "regrow.toml"
    file.write_text(CONFIG)
    made = Running(file, http_peer)
    yield made
    made.stop()


def drive(running: Running, peer: HttpPeer) -> dict[str, list[str]]:
    """Make calls that end in many ways; return how, by integration."""
    peer.reply("GET /ada", json={})
    peer.reply("GET /none", status=404)
    peer.reply("GET /limited", status=429, headers={"Retry-After": "30"})
    peer.reply("GET /flaky", json={})
    peer.reply("GET /flaky", status=503, times=1)
    peer.reply("POST /broken", status=500)
    peer.reply("POST /slow", hold=True)
    peer.reply("POST /html", body=b"<", headers={"Content-Type": "application/json"})
    peer.reply("POST /reset", reset=True)
    peer.reply("POST /graphql", json={"data": None, "errors": [{"message": "no", "type": "INTERNAL"}]})
    peer.reply("POST /graphql", json={"data": {"thing": 1}}, times=2)
    shop = [("get", what) for what in ("ada", "ada", "none", "flaky")]
    shop += [("make", what) for what in ("broken", "slow", "html", "reset", "broken", "broken")]
    found = {"a-shop": [running.call("a-shop", method, what=what) for method, what in shop]}
    found["a-graph"] = [running.call("a-graph", "ask", ok=True) for _ in range(2)]
    found["a-db"] = [running.call("a-db", "put", id=number) for number in (1, 2, 1)]
    sums = [("statistics:mean", [[1, 2]]), ("statistics:mean", [[]]), ("statistics:mean", [[4]])]
    found["a-sums"] = [running.call("a-sums", "call", function=function, args=args) for function, args in sums]
    found["a-sums"].append(running.call("a-sums", "call", timeout=0.3, function="time:sleep", args=[30]))
    return found


def test_telemetry_metrics_events_and_status_tell_the_same_of_every_kind_of_integration(
    running: Running, http_peer: HttpPeer
) -> None:
    scraped = running.get("/metrics")
    for name in NAMES:
        for each in telemetry.OUTCOMES:
            assert f'regrow_external_calls_total{{actor="{name}",outcome="{each}"}} 0.0' in scraped
        assert running.get(f"/integrations/{name}/health")["calls"] == 0
    outcomes = drive(running, http_peer)
    running.scrape()
    assert outcomes["a-shop"] == [
        "ok", "ok", "upstream_error", "ok",
        "upstream_error", "timeout", "decode_error", "connection_error", "upstream_error", "circuit_open",
    ]  # fmt: skip
    # On the wire went the failed try of flaky too, and nothing for the call that the circuit refused.
    sent = Counter([each for each in outcomes["a-shop"] if each != "circuit_open"] + ["upstream_error"])
    told: dict[str, Counter[str]] = {
        "a-shop": sent,
        **{name: Counter(outcomes[name]) for name in ("a-graph", "a-db", "a-sums")},
    }
    listed = {each["name"]: each for each in running.get("/integrations/status")["integrations"]}
    assert set(listed) == set(told)
    for name, expected in told.items():
        ended, number = running.ended(name), expected.total()
        # telemetry: each call that began has ended, and says how
        assert Counter(each.outcome for each in ended) == expected
        assert sum(each.actor == name and each.kind == "start" for each in running.called) == number
        assert all((each.kind == "stop") == (each.outcome == "ok") for each in ended)
        # metrics: the same calls
        assert running.counted("external_calls_total", "outcome", actor=name) == expected
        assert running.counted("external_call_seconds_count", "actor", actor=name) == {name: number}
        # the status: the same calls once more
        health = running.get(f"/integrations/{name}/health")
        assert health["calls"] == number
        assert health["success_rate"] == round(expected["ok"] / number, 4)
        assert health["error_rate"] == listed[name]["error_rate"] == round(1 - health["success_rate"], 4)
        errors = [each.error for each in ended if each.error is not None]
        assert health["last_error"] == (errors[-1] if errors else None)
        times = sorted(each.duration_s or 0.0 for each in ended)
        assert health["latency_p99"] == round(times[-1], 6)
        assert health["latency_p50"] == round(times[(number + 1) // 2 - 1], 6)
    # what each kind counts for itself
    assert running.counted("http_requests_total", "outcome", actor="a-shop") == told["a-shop"]
    assert running.counted("http_requests_total", "outcome", actor="a-graph") == told["a-graph"]
    assert running.counted("database_operations_total", "outcome", actor="a-db") == {"ok": 2, "failed": 1}
    assert running.counted("retries_total", "actor", actor="a-shop") == {"a-shop": 1}
    # the circuit: what happened, what was counted and what is shown
    opened = [event for event in running.heard if event.topic == "breaker.opened"]
    assert [event.fields["actor"] for event in opened] == ["a-shop"]
    assert running.counted("breaker_transitions_total", "state", actor="a-shop") == {"open": 1}
    assert running.counted("breaker_refusals_total", "actor", actor="a-shop") == {"a-shop": 1}
    assert {name: each["circuit_state"] for name, each in listed.items()} == {
        "a-shop": "open", "a-graph": "closed", "a-db": "closed", "a-sums": None,
    }  # fmt: skip
    http_peer.release()
