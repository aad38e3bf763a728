"""A peer that fails and recovers, as it is seen from outside of a daemon: events, log, HTTP, command line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import requests

import regrow
from regrow import Event
from regrow.protocol.errors import CircuitOpen, UpstreamError
from tests.support.daemon import Daemon
from tests.support.fixtures import StartDaemon
from tests.support.http_peer import HttpPeer

READ, ADMIN = "read-token-0123456789", "admin-token-0123456789"
CONFIG = """
[http]
read_token = "${READ}"
admin_token = "${REGROW_ADMIN_TOKEN}"
[integrations.github]
type = "rest"
base_url = "URL"
retry = { retries = 0 }
breaker = { failures = 2, window = "1m", reset_after = "200ms" }
[integrations.github.operations.get_user]
request = "GET /users/{username}"
[integrations.things]
type = "database"
url = "sqlite:///things.db"
[integrations.things.operations.one]
sql = "SELECT 1"
"""


class Seen:
    """A daemon, a client of it, and its events over both ways."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.client = regrow.connect(daemon.endpoint, timeout=10.0)
        self.wire = self.client.subscribe(["breaker.*"])
        headers = {"Authorization": f"Bearer {READ}", "Connection": "close"}
        self.sse = requests.get(f"{daemon.http}/events?topics=breaker.*", headers=headers, stream=True, timeout=10)
        self._lines: Iterator[str] = self.sse.iter_lines(chunk_size=1, decode_unicode=True)

    def next_over_both(self) -> tuple[str, Mapping[str, Any]]:
        """The next event, which is the same on the wire and over HTTP."""
        event = next(self.wire)
        assert isinstance(event, Event)
        topic = next(line for line in self._lines if line.startswith("event: ")).removeprefix("event: ")
        fields = json.loads(next(line for line in self._lines if line.startswith("data: ")).removeprefix("data: "))
        assert (topic, fields) == (event.topic, event.fields)
        return event.topic, event.fields

    def ask(self) -> Any:
        return self.client.ask("github", "get_user", username="ada")

    def get(self, path: str, token: str = READ) -> requests.Response:
        return self.daemon.get(path, headers={"Authorization": f"Bearer {token}"})

    def post(self, path: str, token: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {token}"}
        return requests.post(self.daemon.http + path, headers=headers, timeout=10)

    def close(self) -> None:
        self.sse.close()
        self.wire.close()
        self.client.close()


@pytest.fixture
def seen(daemon: StartDaemon, http_peer: HttpPeer) -> Iterator[Seen]:
    made = Seen(daemon(CONFIG.replace("URL", http_peer.url), env={"READ": READ, "REGROW_ADMIN_TOKEN": ADMIN}))
    yield made
    made.close()


def test_an_outage_and_its_end_are_seen_the_same_over_the_wire_over_http_and_in_the_log(
    seen: Seen, http_peer: HttpPeer
) -> None:
    http_peer.reply("*", json={"login": "ada"})
    assert seen.ask() == {"login": "ada"}
    http_peer.reply("*", status=500, times=2)
    for _ in range(2):
        with pytest.raises(UpstreamError):
            seen.ask()
    topic, fields = seen.next_over_both()
    assert topic == "breaker.opened"
    assert (fields["actor"], fields["previous"], fields["held"]) == ("github", "closed", False)
    assert 0 < fields["retry_after_s"] <= 0.2
    with pytest.raises(CircuitOpen):
        seen.ask()

    (shown,) = [each for each in seen.get("/integrations/status").json()["integrations"] if each["name"] == "github"]
    assert {key: shown[key] for key in ("name", "type", "status", "circuit_state")} == {
        "name": "github", "type": "rest", "status": "degraded", "circuit_state": "open",
    }  # fmt: skip
    assert shown["error_rate"] == pytest.approx(2 / 3, abs=0.001)
    health = seen.get("/integrations/github/health").json()
    assert (health["name"], health["status"], health["circuit_state"]) == ("github", "degraded", "open")
    assert 0 < health["latency_p50"] <= health["latency_p99"] < 5
    assert health["success_rate"] == pytest.approx(1 / 3, abs=0.001)
    assert health["last_error"].startswith("upstream_error: github.get_user: 127.0.0.1 answered 500")

    # Nothing tells when the circuit has been open for long enough but time.
    recovered = seen.daemon.run("ask", "github.get_user", "username=ada", "--json")
    while recovered.returncode:
        recovered = seen.daemon.run("ask", "github.get_user", "username=ada", "--json")
    assert seen.next_over_both() == ("breaker.half_opened", {"actor": "github", "previous": "open"})
    assert seen.next_over_both() == ("breaker.closed", {"actor": "github", "previous": "half-open"})
    assert http_peer.count() == 4
    assert seen.get("/integrations/github/health").json()["circuit_state"] == "closed"
    for topic in ("breaker.opened", "breaker.half_opened", "breaker.closed"):
        seen.daemon.wait_for_log(topic.replace(".", r"\."))


def test_an_admin_resets_a_circuit_over_http_and_by_the_command_line(seen: Seen, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={"login": "ada"})
    http_peer.reply("*", status=500, times=2)
    for _ in range(2):
        with pytest.raises(UpstreamError):
            seen.ask()
    assert seen.post("/integrations/github/circuit/reset", READ).status_code == 403
    answer = seen.post("/integrations/github/circuit/reset", ADMIN)
    assert (answer.status_code, answer.json()["circuit_state"]) == (200, "closed")
    assert [seen.next_over_both()[0] for _ in range(2)] == ["breaker.opened", "breaker.closed"]
    assert seen.ask() == {"login": "ada"}

    said = seen.daemon.run("circuit", "github", "open", "--for", "60", "--json")
    assert json.loads(said.stdout)["circuit_state"] == "open"
    topic, fields = seen.next_over_both()
    assert (topic, fields["held"]) == ("breaker.opened", True)
    with pytest.raises(CircuitOpen) as refused:
        seen.ask()
    assert 50 < (refused.value.retry_after_s or 0) <= 60
    assert json.loads(seen.daemon.run("circuit", "github", "reset", "--json").stdout)["circuit_state"] == "closed"
    assert seen.next_over_both()[0] == "breaker.closed"
    assert seen.ask() == {"login": "ada"}


def test_without_the_bearer_token_no_integration_is_told_of(seen: Seen) -> None:
    for path in ("/integrations/status", "/integrations/github/health", "/events"):
        assert seen.daemon.get(path).status_code == 401
    assert seen.get("/integrations/nobody/health").status_code == 404
    (quiet,) = [each for each in seen.get("/integrations/status").json()["integrations"] if each["name"] == "things"]
    assert (quiet["type"], quiet["status"], quiet["error_rate"]) == ("database", "healthy", None)
