"""Operators' requests to single actors: admin right only, audited, states only as declared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from config.secret import Secret, forget_all, register
from runtime import events
from runtime.actor import Actor, exported
from runtime.edge.auth import Auth
from runtime.edge.http import Http, Routes
from runtime.edge.http_sys import add_sys_routes
from runtime.messages import Call
from runtime.names import whereis
from runtime.promise import Promise
from supervisors import ChildSpec, Supervisor

ADMIN = "the-admin-token"
READER = "the-read-token"


class Clerk(Actor):
    inspectable = ("served", "note")

    def __init__(self) -> None:
        super().__init__()
        self.served = 0
        self.note = "call hunter2-secret"
        self.password = "not to be shown"

    @exported
    def serve(self) -> int:
        """Serve."""
        self.served += 1
        return self.served


class Edge:
    def __init__(self) -> None:
        self.root: Any = None
        routes = Routes()
        add_sys_routes(routes, lambda: self.root)
        http = ChildSpec("http", Http, args=("127.0.0.1", 0, routes, Auth(Secret(READER), Secret(ADMIN))), name="http")
        group = ChildSpec("clerks", Supervisor, args=([ChildSpec("clerk", Clerk, name="clerk")],))
        self.root = Supervisor.start([group, http], max_restarts=10)
        door = whereis("http")
        assert door is not None
        self.url: str = door.call("address")

    def __call__(self, method: str, path: str, body: Any = None, token: str = ADMIN) -> requests.Response:
        return requests.request(
            method, self.url + path, json=body, headers={"Authorization": f"Bearer {token}"}, timeout=10
        )


@pytest.fixture
def edge() -> Iterator[Edge]:
    made = Edge()
    yield made
    made.root.stop()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/sys/state/clerk"),
        ("GET", "/sys/log/clerk"),
        ("POST", "/sys/suspend/clerk"),
        ("POST", "/sys/kill/clerk"),
    ],
)
def test_the_read_token_may_not_even_look(edge: Edge, method: str, path: str) -> None:
    assert edge(method, path, token=READER).status_code == 403
    assert edge(method, path, token="wrong").status_code == 401


def test_a_state_is_limited_to_what_the_class_declares_and_redacted(edge: Edge) -> None:
    register("hunter2-secret")
    try:
        state = edge("GET", "/sys/state/clerk").json()
    finally:
        forget_all()
    assert set(state) == {"served", "note"}
    assert state["served"] == "0"
    assert "hunter2" not in state["note"]


def test_an_actor_is_found_by_its_path_too_and_a_stranger_is_not_found(edge: Edge) -> None:
    assert edge("GET", "/sys/state/root/clerks/clerk").status_code == 200
    assert edge("GET", "/sys/state/nobody").status_code == 404
    assert edge("GET", "/sys/state/root/clerks/nobody").status_code == 404


def test_a_suspended_actor_answers_after_it_is_resumed(edge: Edge) -> None:
    clerk = whereis("clerk")
    assert clerk is not None
    assert edge("POST", "/sys/suspend/clerk").json()["state"] == "suspended"
    waiting = Promise()
    clerk.request(Call("serve", {}), waiting)
    assert edge("GET", "/sys/state/clerk").json()["served"] == "0"
    assert not waiting.done
    assert edge("POST", "/sys/resume/clerk").json()["state"] == "running"
    assert waiting.wait(5) == 1


def test_statistics_count_from_when_they_are_switched_on(edge: Edge) -> None:
    clerk = whereis("clerk")
    assert clerk is not None
    assert edge("GET", "/sys/statistics/clerk").json() is None
    edge("POST", "/sys/statistics/clerk", {"switch": "on"})
    clerk.call("serve")
    assert edge("GET", "/sys/statistics/clerk").json()["messages_in"] >= 1
    assert edge("POST", "/sys/statistics/clerk", {"switch": "sometimes"}).status_code == 422


def test_a_log_keeps_the_last_messages_by_kind(edge: Edge) -> None:
    clerk = whereis("clerk")
    assert clerk is not None
    edge("POST", "/sys/log/clerk", {"keep": 2})
    for _ in range(3):
        clerk.call("serve")
    kept = edge("GET", "/sys/log/clerk").json()
    assert [record["what"] for record in kept] == ["call serve", "ok"]


def test_a_trace_sends_so_many_records_as_events_and_ends(edge: Edge) -> None:
    clerk = whereis("clerk")
    assert clerk is not None
    seen: list[str] = []
    unsubscribe = events.subscribe(
        lambda event: seen.append(event.fields["what"]) if event.topic == "actor.traced" else None
    )
    edge("POST", "/sys/trace/clerk", {"most": 3, "seconds": 60})
    for _ in range(5):
        clerk.call("serve")
    unsubscribe()
    assert len(seen) == 4
    assert seen[-1] == "trace ended"


def test_a_kill_is_healed_by_the_supervisor_and_audited(edge: Edge) -> None:
    audited: list[Any] = []
    unsubscribe = events.subscribe(
        lambda event: audited.append(event.fields) if event.topic == "admin.changed" else None
    )
    before = whereis("clerk")
    assert edge("POST", "/sys/kill/clerk").json()["state"] == "dead"
    unsubscribe()
    after = whereis("clerk")
    assert after is not None
    assert after is not before
    assert [(entry["who"], entry["what"]) for entry in audited] == [("admin", "sys.kill clerk")]


def test_wrong_bodies_are_refused_with_what_to_write(edge: Edge) -> None:
    assert edge("POST", "/sys/log/clerk", {"keep": "all"}).status_code == 422
    assert edge("POST", "/sys/trace/clerk", {"seconds": -1}).status_code == 422
    assert edge("POST", "/sys/trace/clerk", [1]).status_code == 400


@pytest.mark.parametrize("method", ["POST", "GET", "PUT"])
def test_a_state_is_never_replaced_from_outside(edge: Edge, method: str) -> None:
    for path in ("/sys/replace_state/clerk", "/sys/replace-state/clerk"):
        assert edge(method, path, {"served": 99}).status_code in (404, 405)
    assert edge("GET", "/sys/state/clerk").json()["served"] == "0"


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_the_path_that_shows_a_state_takes_none(edge: Edge, method: str) -> None:
    assert edge(method, "/sys/state/clerk", {"served": 99}).status_code in (404, 405)
    assert edge("GET", "/sys/state/clerk").json()["served"] == "0"
