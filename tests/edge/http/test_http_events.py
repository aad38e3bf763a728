"""Events over HTTP as they happen, on real sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gevent
import pytest
import requests

from config.secret import Secret
from runtime import events
from runtime.edge import http_events
from runtime.edge.auth import Auth
from runtime.edge.http import Http, Routes
from runtime.edge.http_events import STREAMS, stream_events
from runtime.names import whereis
from supervisors import ChildSpec, Supervisor

PATIENCE_S = 10.0


@dataclass
class Told:
    """One event as a reader gets it."""

    topic: str
    number: int | None
    fields: Any


class Edge:
    def __init__(self) -> None:
        routes = Routes()
        routes.add("GET", "/events", stream_events, access="read")
        auth = Auth(Secret("read-token-of-the-test"), Secret("admin-token-of-the-test"))
        http = ChildSpec("http", Http, args=("127.0.0.1", 0, routes, auth), name="http")
        self.root: Any = Supervisor.start([http])
        door = whereis("http")
        assert door is not None
        self.url: str = door.call("address")
        self.answers: list[requests.Response] = []
        # With nobody subscribed nothing is numbered and kept.
        self.unsubscribe = events.subscribe(lambda event: None)

    def open(self, query: str = "", *, token: str = "read", headers: dict[str, str] | None = None) -> requests.Response:
        sent = {"Authorization": f"Bearer {token}-token-of-the-test", "Connection": "close", **(headers or {})}
        answer = requests.get(f"{self.url}/events{query}", headers=sent, stream=True, timeout=PATIENCE_S)
        self.answers.append(answer)
        return answer

    def close(self) -> None:
        # An answer that was read to its end keeps its connection for the next request, until nobody knows the answer.
        while self.answers:
            self.answers.pop().close()
        # What a stop would else wait for.
        events.publish("daemon.draining")
        self.unsubscribe()
        self.root.stop()


@pytest.fixture
def edge() -> Iterator[Edge]:
    made = Edge()
    yield made
    made.close()


def told(answer: requests.Response) -> Iterator[Told]:
    assert answer.status_code == 200, answer.text
    lines: dict[str, str] = {}
    for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
        if line:
            name, _, value = line.partition(": ")
            lines[name] = value
        elif "event" in lines:
            number = int(lines["id"]) if "id" in lines else None
            yield Told(lines["event"], number, json.loads(lines["data"]))
            lines = {}


def test_events_come_as_they_happen_each_with_its_number(edge: Edge) -> None:
    answer = edge.open()
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    heard = told(answer)
    events.publish("breaker.opened", actor="shop", previous="closed")
    first = next(heard)
    assert (first.topic, first.fields) == ("breaker.opened", {"actor": "shop", "previous": "closed"})
    events.publish("breaker.closed", actor="shop")
    second = next(heard)
    assert (second.topic, second.number) == ("breaker.closed", (first.number or 0) + 1)


def test_a_reader_gets_the_topics_it_names(edge: Edge) -> None:
    heard = told(edge.open("?topics=breaker.*,actor.crashed&topics=other.one"))
    for topic in ("actor.restarted", "breaker.opened", "other.two", "actor.crashed", "other.one"):
        events.publish(topic)
    assert [next(heard).topic for _ in range(3)] == ["breaker.opened", "actor.crashed", "other.one"]


@pytest.mark.parametrize("by_header", [True, False])
def test_a_reader_that_comes_back_goes_on_where_it_was(edge: Edge, by_header: bool) -> None:
    first = edge.open()
    heard = told(first)
    events.publish("test.happened", n=1)
    last = next(heard).number
    first.close()
    for n in (2, 3):
        events.publish("test.happened", n=n)
    back = edge.open(headers={"Last-Event-ID": str(last)}) if by_header else edge.open(f"?since={last}")
    assert [event.fields["n"] for event in (next(again) for again in [told(back)] for _ in range(2))] == [2, 3]


def test_what_a_reader_missed_for_good_is_told_by_a_gap(edge: Edge) -> None:
    events.publish("test.happened", n=0)
    last = events.recent()[-1].number
    for n in range(events.KEPT + 5):
        events.publish("test.happened", n=n)
    heard = told(edge.open(f"?since={last}"))
    gap, first = next(heard), next(heard)
    assert (gap.topic, gap.fields) == ("gap", {"lost": 5})
    assert first.fields == {"n": 5}


def test_a_number_of_an_earlier_run_is_a_gap_of_unknown_length(edge: Edge) -> None:
    events.publish("test.happened", n=1)
    assert next(told(edge.open("?since=999999999999"))).fields == {"lost": None}


def test_what_could_hold_payloads_is_for_those_who_may_change_something(edge: Edge) -> None:
    reader, admin = told(edge.open()), told(edge.open(token="admin"))
    for topic in ("admin.changed", "worker.output", "actor.traced", "breaker.opened"):
        events.publish(topic, what="x")
    assert next(reader).topic == "breaker.opened"
    assert [next(admin).topic for _ in range(4)][:3] == ["admin.changed", "worker.output", "actor.traced"]


def test_no_secret_is_in_an_event(edge: Edge) -> None:
    Secret("a-secret-of-the-events-1")
    heard = told(edge.open())
    events.publish("test.happened", why="refused a-secret-of-the-events-1")
    assert next(heard).fields == {"why": "refused ***"}


def test_without_a_token_nothing_is_told(edge: Edge) -> None:
    assert requests.get(f"{edge.url}/events", timeout=PATIENCE_S).status_code == 401


@pytest.mark.parametrize("query", ["?topics=No+Topic", "?since=yesterday", "?since=-1", "?topics=" + "a," * 101])
def test_a_wrong_query_is_told(edge: Edge, query: str) -> None:
    assert edge.open(query).status_code == 400


def test_streams_are_bounded_and_a_reader_that_went_gives_its_place_back(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_events, "MAX_STREAMS", 1)
    monkeypatch.setattr(http_events, "BEAT_S", 0.01)
    first = edge.open()
    refused = edge.open()
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert STREAMS.value() == 1
    first.close()
    with gevent.Timeout(PATIENCE_S):
        while edge.open().status_code != 200:
            gevent.sleep(0.01)


def test_a_drain_ends_every_stream(edge: Edge) -> None:
    heard = told(edge.open())
    events.publish("daemon.draining", timeout_s=1.0)
    assert [event.topic for event in heard] == ["daemon.draining"]
