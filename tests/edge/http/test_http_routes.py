"""The built-in routes over a real tree on real sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.event
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from config.secret import Secret
from regrow.protocol.errors import RegrowError
from runtime import events, introspect
from runtime.actor import Actor, exported
from runtime.edge.auth import Auth
from runtime.edge.health import READY, Health
from runtime.edge.http import Http
from runtime.edge.http_routes import builtin_routes
from runtime.edge.metrics import Metrics
from runtime.names import whereis
from supervisors import ChildSpec, DynamicSupervisor, Supervisor, start_dynamic


class Greeter(Actor):
    @exported
    def greet(self, name: str) -> str:
        """Greet."""
        return f"hello {name}"

    @exported
    def crash(self) -> None:
        """Crash."""
        raise RuntimeError("no more greetings")

    def status(self) -> dict[str, object]:
        return {"greeting": "hello"}


class Daemon:
    """What the daemon wires: a tree with the HTTP edge in it, and its health."""

    def __init__(self, read_token: str = "") -> None:
        self.health = Health("tree", "gateway")
        self.root: Any = None
        self.metrics = Metrics(self.tree, version="1.2.3")
        routes = builtin_routes(self.health, self.metrics, self.tree)
        auth = Auth(Secret(read_token) if read_token else None, None)
        greeter = ChildSpec("greeter", Greeter, name="greeter", measured=True)
        edge = ChildSpec("http", Http, args=("127.0.0.1", 0, routes, auth), name="http")
        sessions = ChildSpec("sessions", DynamicSupervisor, name="sessions", type="supervisor")
        actors = ChildSpec("actors", Supervisor, args=([greeter],), kwargs={"max_restarts": 5}, type="supervisor")
        self.root = Supervisor.start([actors, sessions, edge])
        http = whereis("http")
        assert http is not None
        self.url: str = http.call("address", {}, timeout=5)

    def tree(self) -> introspect.Node | None:
        return None if self.root is None else introspect.snapshot(self.root)

    def get(self, path: str, token: str = "") -> requests.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return requests.get(self.url + path, headers=headers, timeout=10)

    def metric(self, name: str, **labels: str) -> float:
        text = self.get("/metrics").text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "regrow_" + name and sample.labels == labels:
                    return sample.value
        raise AssertionError(f"no sample {name}{labels}")

    def stop(self) -> None:
        self.root.stop()
        self.metrics.close()


Start = Callable[..., Daemon]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Daemon] = []

    def start_one(read_token: str = "") -> Daemon:
        started.append(Daemon(read_token))
        return started[-1]

    yield start_one
    for each in started:
        each.stop()


@pytest.fixture
def daemon_parts(start: Start) -> Daemon:
    return start()


def crash_and_wait_for_restart(actor: str) -> None:
    restarted = gevent.event.Event()

    def look(event: events.Event) -> None:
        if event.topic == "actor.restarted" and event.fields["actor"] == actor:
            restarted.set()

    unsubscribe = events.subscribe(look)
    ref = whereis(actor)
    assert ref is not None
    with pytest.raises((RuntimeError, RegrowError)):
        ref.call("crash", {}, timeout=5)
    assert restarted.wait(5)
    unsubscribe()


def test_livez_is_ok_whatever_the_health(daemon_parts: Daemon) -> None:
    daemon_parts.health.drain()
    answer = daemon_parts.get("/livez")
    assert (answer.status_code, answer.text) == (200, "ok\n")


def test_readyz_follows_the_conditions_and_the_drain(daemon_parts: Daemon) -> None:
    health = daemon_parts.health
    starting = daemon_parts.get("/readyz")
    assert starting.status_code == 503
    assert starting.json() == {
        "status": "starting",
        "unmet": {"tree": "starting", "gateway": "starting"},
        "failing": [],
    }
    health.meet("tree")
    health.fail("gateway", "tcp://127.0.0.1:5757 is taken")
    assert daemon_parts.get("/readyz").json()["unmet"] == {"gateway": "tcp://127.0.0.1:5757 is taken"}
    health.meet("gateway")
    ready = daemon_parts.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    health.drain()
    draining = daemon_parts.get("/readyz")
    assert (draining.status_code, draining.json()["status"]) == (503, "draining")
    assert draining.headers["Retry-After"] == "1"


def test_readyz_names_what_is_wrong_to_token_holders_only(start: Start) -> None:
    daemon = start(read_token="read-token-0123")
    assert daemon.get("/readyz").json() == {"status": "starting"}
    assert daemon.get("/readyz", token="wrong").json() == {"status": "starting"}
    assert "unmet" in daemon.get("/readyz", token="read-token-0123").json()


def test_an_ailing_actor_is_named_and_does_not_take_the_daemon_out_of_service(daemon_parts: Daemon) -> None:
    daemon_parts.health.meet("tree")
    daemon_parts.health.meet("gateway")

    class Waiting(Actor):
        def status(self) -> dict[str, object]:
            return {"state": "waiting"}

    sessions = whereis("sessions")
    assert sessions is not None
    start_dynamic(sessions, ChildSpec("w", Waiting, name="waiter"))
    answer = daemon_parts.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["failing"] == [{"actor": "waiter", "state": "waiting"}]


def test_the_tree_is_shown_as_it_stands(daemon_parts: Daemon) -> None:
    tree = daemon_parts.get("/tree").json()
    assert (tree["name"], tree["kind"], tree["state"]) == ("root", "supervisor", "running")
    assert [child["name"] for child in tree["children"]] == ["actors", "sessions", "http"]
    greeter = tree["children"][0]["children"][0]
    assert (greeter["name"], greeter["type"], greeter["path"]) == ("greeter", "Greeter", "root/actors/greeter")
    assert (greeter["restarts"], greeter["detail"]) == (0, {"greeting": "hello"})
    assert tree["children"][2]["detail"]["address"] == daemon_parts.url


def test_one_actor_is_found_by_name_and_by_path(daemon_parts: Daemon) -> None:
    by_name, by_path = daemon_parts.get("/actors/greeter"), daemon_parts.get("/actors/root/actors/greeter")
    assert by_name.json()["path"] == by_path.json()["path"] == "root/actors/greeter"
    assert len(daemon_parts.get("/actors/root/actors").json()["children"]) == 1


def test_an_actor_that_is_not_there_is_404(daemon_parts: Daemon) -> None:
    answer = daemon_parts.get("/actors/nobody")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_restart_is_seen_in_tree_and_metrics_at_once(daemon_parts: Daemon) -> None:
    assert daemon_parts.metric("actor_restarts_total", actor="greeter", reason="crashed") == 0
    before = daemon_parts.get("/actors/greeter").json()["incarnation"]
    crash_and_wait_for_restart("greeter")
    after = daemon_parts.get("/actors/greeter").json()
    assert after["incarnation"] > before
    assert after["restarts"] == 1
    assert daemon_parts.metric("actor_restarts_total", actor="greeter", reason="crashed") == 1


def test_metrics_have_real_figures_of_messages(daemon_parts: Daemon) -> None:
    before = daemon_parts.metric("messages_total", actor="greeter", outcome="ok")
    served = daemon_parts.metric("message_service_seconds_count", actor="greeter")
    greeter = whereis("greeter")
    assert greeter is not None
    for _ in range(3):
        greeter.call("greet", {"name": "Ada"}, timeout=5)
    assert daemon_parts.metric("messages_total", actor="greeter", outcome="ok") == before + 3
    assert daemon_parts.metric("message_service_seconds_count", actor="greeter") == served + 3
    assert daemon_parts.metric("actor_state", actor="greeter", state="running") == 1


def test_metrics_are_compressed_and_in_openmetrics_on_request(daemon_parts: Daemon) -> None:
    headers = {"Accept": "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "gzip"}
    answer = requests.get(daemon_parts.url + "/metrics", headers=headers, timeout=10)
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_every_reading_route_needs_the_token_where_there_is_one(start: Start) -> None:
    daemon = start(read_token="read-token-0123")
    for path in ("/metrics", "/tree", "/actors/greeter"):
        assert daemon.get(path).status_code == 401
        assert daemon.get(path, token="read-token-0123").status_code == 200


def test_a_killed_http_actor_is_restarted_and_serves_again(daemon_parts: Daemon) -> None:
    http = whereis("http")
    assert http is not None
    restarted = gevent.event.Event()
    unsubscribe = events.subscribe(lambda event: restarted.set() if event.topic == "http.bound" else None)
    http.kill()
    assert restarted.wait(5)
    unsubscribe()
    again = whereis("http")
    assert again is not None
    address = again.call("address", {}, timeout=5)
    assert requests.get(address + "/livez", timeout=10).status_code == 200


def test_health_knows_its_phase_and_tells_when_it_changes() -> None:
    seen: list[tuple[str, str]] = []

    def look(event: events.Event) -> None:
        if event.topic == "health.changed":
            seen.append((event.fields["before"], event.fields["after"]))

    unsubscribe = events.subscribe(look)
    health = Health("tree")
    assert (health.phase, health.ready, READY.value()) == ("starting", False, 0)
    health.meet("tree")
    assert (health.phase, health.ready, READY.value()) == ("ready", True, 1)
    health.fail("tree", "gave up")
    health.meet("tree")
    health.drain()
    health.meet("tree")
    health.drain()
    unsubscribe()
    assert (health.phase, health.ready, READY.value()) == ("draining", False, 0)
    assert seen == [("starting", "ready"), ("ready", "starting"), ("starting", "ready"), ("ready", "draining")]
