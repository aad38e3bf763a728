"""SUB, EVENT, GAP: what clients hear of what happens in the daemon."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from config.secret import Secret, forget_all
from regrow.protocol.frames import Answer
from runtime import events
from runtime.edge.gateway import counters, feed, port
from runtime.edge.gateway.feed import Topics
from runtime.edge.gateway.rights import Rights
from tests.edge.gateway.harness import Raw, Wire, curve_config, wire_on
from tests.edge.gateway.test_abuse import eventually


def subscribe(client: Raw, *topics: str, id: bytes | None = None, **header: Any) -> bytes:
    subscription = client.request("SUB", {"topics": list(topics), **header}, id=id)
    answer = client.receive()
    assert (answer.op, answer.id) == ("ACK", subscription), (answer, answer.body)
    return subscription


def fields_of(answer: Answer) -> Any:
    assert answer.op == "EVENT", answer
    return msgspec.json.decode(answer.body or b"")


@pytest.fixture
def small_ring(monkeypatch: pytest.MonkeyPatch, state_dir: Path) -> Iterator[Wire]:
    """A gateway whose bus keeps five events, with narrow pipes."""
    monkeypatch.setattr(events, "_recent", deque(maxlen=5))
    monkeypatch.setattr(feed, "KEPT", 5)
    monkeypatch.setattr(port, "PIPE_MESSAGES", 2)
    with wire_on(state_dir) as wire:
        yield wire


def test_a_subscriber_hears_what_happens_from_then_on(wire: Wire) -> None:
    client = wire.client()
    events.publish("breaker.opened", actor="too early")
    asked = subscribe(client, "breaker.opened")
    events.publish("breaker.opened", actor="github", failures=5)
    heard = client.receive()
    assert (heard.op, heard.id, heard.header["topic"]) == ("EVENT", asked, "breaker.opened")
    assert fields_of(heard) == {"actor": "github", "failures": 5}
    newest = events.recent()[-1]
    assert (heard.header["seq"], heard.header["at"]) == (newest.number, pytest.approx(newest.at))
    assert client.is_silent(0.03)


def test_the_receipt_names_the_newest_event_and_the_run_of_the_daemon(wire: Wire) -> None:
    client = wire.client()
    events.publish("test.happened")
    client.request("SUB", {"topics": ["*"]})
    assert client.receive().header == {"seq": events.recent()[-1].number, "incarnation": "inc-1"}


@pytest.mark.parametrize(
    ("patterns", "topic", "expected"),
    [
        (["breaker.opened"], "breaker.opened", True),
        (["breaker.opened"], "breaker.opened_again", False),
        (["breaker.*"], "breaker.opened", True),
        (["breaker.*"], "breakers.opened", False),
        (["breaker.*"], "breaker", False),
        (["a.b.*"], "a.b.c", True),
        (["*"], "anything.at_all", True),
        (["a.b", "c.*"], "c.d", True),
    ],
)
def test_topics_are_exact_or_a_group_or_all(patterns: list[str], topic: str, expected: bool) -> None:
    assert Topics(patterns).match(topic) is expected


@pytest.mark.parametrize("topics", [[], ["Breaker"], ["breaker.*.x"], [""], ["**"], ["*.opened"], ["a b"], ["a", "é"]])
def test_what_is_no_topic_is_a_bad_request(wire: Wire, topics: list[str]) -> None:
    client = wire.client()
    client.request("SUB", {"topics": topics})
    assert client.error()["code"] == "bad_request"
    assert len(wire.sockets.service.feed) == 0


def test_numbers_grow_and_are_the_same_for_every_subscriber(wire: Wire) -> None:
    one, other = wire.client(), wire.client()
    subscribe(one, "test.*")
    subscribe(other, "test.second")
    events.publish("test.first")
    events.publish("test.second")
    heard = [one.receive(), one.receive()]
    assert heard[0].header["seq"] + 1 == heard[1].header["seq"] == other.receive().header["seq"]


def test_an_event_comes_once_for_each_subscription_that_means_it(wire: Wire) -> None:
    client = wire.client()
    ids = {subscribe(client, "test.*"), subscribe(client, "test.happened", "*")}
    events.publish("test.happened")
    assert {client.receive().id, client.receive().id} == ids
    assert client.is_silent(0.03)


def test_since_replays_what_came_after_that_number(wire: Wire) -> None:
    client = wire.client()
    for n in range(4):
        events.publish("test.happened", n=n)
    newest = events.recent()[-1].number
    subscribe(client, "test.happened", since=newest - 2)
    assert [fields_of(client.receive())["n"] for _ in range(2)] == [2, 3]
    events.publish("test.happened", n=4)
    assert fields_of(client.receive())["n"] == 4


def test_since_the_newest_replays_nothing(wire: Wire) -> None:
    client = wire.client()
    events.publish("test.happened")
    subscribe(client, "*", since=events.recent()[-1].number)
    assert client.is_silent(0.03)


def test_what_is_not_kept_any_more_is_told_by_a_gap_before_the_rest(small_ring: Wire) -> None:
    client = small_ring.client()
    events.publish("test.happened", n=-1)
    first = events.recent()[0].number
    for n in range(8):
        events.publish("test.happened", n=n)
    subscribe(client, "test.happened", since=first)
    gap = client.receive()
    assert (gap.op, gap.header) == ("GAP", {"lost": 3, "seq": first + 3})
    assert [fields_of(client.receive())["n"] for _ in range(5)] == [3, 4, 5, 6, 7]


def test_a_number_of_an_earlier_run_gets_all_there_is_after_a_gap_of_unknown_size(small_ring: Wire) -> None:
    client = small_ring.client()
    events.publish("test.happened", n=0)
    subscribe(client, "test.happened", since=10**12)
    gap = client.receive()
    assert (gap.op, gap.header["lost"]) == ("GAP", None)
    assert fields_of(client.receive()) == {"n": 0}


def test_a_subscriber_that_does_not_read_costs_one_event_and_learns_how_many_it_lost(
    small_ring: Wire,
) -> None:
    lazy, bystander = Raw.made(rcvhwm=1, rcvbuf=4096), small_ring.client()
    try:
        lazy.connect(small_ring.tcp)
        subscribe(lazy, "test.counted")
        subscribe(bystander, "test.quick")
        before = counters.EVENTS_LOST.value()  # a first gap may be told while events are still published
        published = 0
        stuck = 0  # events in a row that found the connection full, each a round trip of the other client apart
        while stuck < 20:
            events.publish("test.counted", n=published, padding="x" * 10_000)
            published += 1
            events.publish("test.quick")
            assert bystander.receive().op == "EVENT"
            waiting = [len(peer.outbox) for peer in small_ring.sockets.peers() if peer.outbox]
            assert waiting in ([], [1])
            stuck = stuck + 1 if waiting else 0
            assert published < 10_000
        heard = lost = 0
        while heard + lost < published:
            answer = lazy.receive()
            if answer.op == "GAP":
                lost += answer.header["lost"]
            else:
                assert fields_of(answer)["n"] == heard + lost
                heard += 1
        assert lost > 0
        assert counters.EVENTS_LOST.value() - before == lost
        assert lazy.is_silent(0.03)
    finally:
        lazy.close()


def test_unsubscribing_ends_the_events(wire: Wire) -> None:
    client = wire.client()
    asked = subscribe(client, "test.*")
    client.request("UNSUB", id=asked)
    assert client.receive().op == "ACK"
    events.publish("test.happened")
    assert client.is_silent(0.03)
    client.request("UNSUB", id=asked)
    assert client.error()["code"] == "not_found"


def test_unsubscribing_from_a_part_leaves_the_rest(wire: Wire) -> None:
    client = wire.client()
    asked = subscribe(client, "test.one", "test.two")
    client.request("UNSUB", {"topics": ["test.one"]}, id=asked)
    assert client.receive().op == "ACK"
    events.publish("test.one")
    events.publish("test.two")
    assert client.receive().header["topic"] == "test.two"
    client.request("UNSUB", {"topics": ["test.one"]}, id=asked)
    assert client.error()["code"] == "bad_request"


def test_the_end_of_the_connection_ends_its_subscriptions(wire: Wire) -> None:
    client = wire.client()
    subscribe(client, "*")
    assert (len(wire.sockets.service.feed), counters.SUBSCRIPTIONS.cell().value) == (1, 1)
    client.close()
    eventually(lambda: not wire.sockets.peers())
    assert (len(wire.sockets.service.feed), counters.SUBSCRIPTIONS.cell().value) == (0, 0)


def test_the_drain_sends_what_there_is_says_bye_and_ends_subscriptions(wire: Wire) -> None:
    client = wire.client()
    subscribe(client, "test.*")
    events.publish("test.happened")
    wire.drain(1.0)
    events.publish("test.too_late")
    assert [client.receive().op for _ in range(2)] == ["EVENT", "BYE"]
    assert client.is_silent(0.03)
    client.request("SUB", {"topics": ["*"]})
    assert client.error()["code"] == "draining"


def test_subscriptions_of_one_client_are_bounded(state_dir: Path) -> None:
    with wire_on(state_dir, max_subscriptions_per_client=2) as wire:
        client, other = wire.client(), wire.client()
        first = subscribe(client, "*")
        subscribe(client, "*")
        client.request("SUB", {"topics": ["*"]})
        assert client.error()["code"] == "overloaded"
        subscribe(other, "*")
        client.request("UNSUB", id=first)
        client.receive()
        subscribe(client, "*")


def test_ids_of_subscriptions_and_of_asks_are_not_confused(wire: Wire) -> None:
    client = wire.client()
    subscribe(client, "test.*", id=b"same")
    requests: list[tuple[str, dict[str, Any]]] = [
        ("SUB", {"topics": ["*"]}),
        ("ASK", {"to": "probe", "method": "count"}),
    ]
    for op, header in requests:
        client.request(op, header, id=b"same")
        answer = client.receive()
        assert (answer.op, answer.header) == ("ERROR", {"duplicate": True})
    client.ask("wait", id=b"ask")
    wire.actor.entered.wait()
    client.request("SUB", {"topics": ["*"]}, id=b"ask")
    assert client.receive().header == {"duplicate": True}
    events.publish("test.happened")
    assert client.receive().id == b"same"


def test_a_req_socket_cannot_subscribe(wire: Wire) -> None:
    client = wire.client(zmq.REQ)
    for op in ("SUB", "UNSUB"):
        client.request(op, {"topics": ["*"]})
        error = client.error()
        assert error["code"] == "bad_request"
        assert "DEALER" in error["message"]


def test_events_come_in_the_codec_of_the_subscription(wire: Wire) -> None:
    client = wire.client()
    subscribe(client, "test.*", codec="msgpack")
    events.publish("test.happened", n=1)
    heard = client.receive()
    assert (heard.header["codec"], msgspec.msgpack.decode(heard.body or b"")) == ("msgpack", {"n": 1})
    client.request("SUB", {"topics": ["*"], "codec": "raw"})
    assert client.error()["code"] == "bad_request"


def test_secrets_are_masked_in_events(wire: Wire) -> None:
    secret = Secret("sesame-open")
    try:
        client = wire.client()
        subscribe(client, "test.*")
        events.publish("test.happened", error="refused: sesame-open", itself=secret)
        assert fields_of(client.receive()) == {"error": "refused: ***", "itself": "***"}
    finally:
        forget_all()


def test_what_json_cannot_say_harms_no_subscriber(wire: Wire) -> None:
    class Rude:
        def __str__(self) -> str:
            raise RuntimeError("no text of mine")

    client = wire.client()
    subscribe(client, "test.*")
    events.publish("test.happened", found={1, 2}, kind=int, none=None)
    assert fields_of(client.receive()) == {"found": [1, 2], "kind": "<class 'int'>", "none": None}
    events.publish("test.happened", found=Rude())
    assert fields_of(client.receive()) == {"unsayable": "RuntimeError"}


def test_an_event_that_is_too_large_keeps_its_numbers(wire: Wire) -> None:
    client = wire.client()
    subscribe(client, "test.*")
    events.publish("test.happened", actor="probe", padding="x" * 100_000)
    fields = fields_of(client.receive())
    assert fields["actor"] == "probe"
    assert fields["left_out_bytes"] > 100_000
    assert "padding" not in fields


def test_a_real_crash_is_heard(wire: Wire) -> None:
    client = wire.client()
    subscribe(client, "actor.crashed")
    client.ask("crash")
    answers = [client.receive(), client.receive()]
    (heard,) = [answer for answer in answers if answer.op == "EVENT"]
    fields = fields_of(heard)
    assert (fields["actor"], fields["reason"]) == ("probe", "ZeroDivisionError")
    assert fields["traceback"]


def test_a_limited_client_hears_of_its_own_actors_only_and_no_foreign_text(state_dir: Path) -> None:
    curve, keys = curve_config(state_dir, ["probe.add"])
    with wire_on(state_dir, curve=curve) as wire, Raw(wire.tcp, keys=keys) as client:
        subscribe(client, "*")
        events.publish("actor.crashed", actor="other", crash_id="c1-1")
        events.publish("actor.crashed", actor="root/integrations/x", crash_id="c1-2")
        events.publish("admin.changed", who="admin", actor="probe")
        events.publish("hub.stalled", actor="probe")
        events.publish("actor.traced", actor="probe", what="payload")
        events.publish("worker.output", actor="probe", line="payload")
        events.publish("test.without_actor", text="payload")
        events.publish("actor.crashed", actor="probe", crash_id="c1-3", message="payload", traceback="payload")
        events.publish("breaker.opened", actor="probe/breaker", retry_after_s=1.5, error="payload")
        assert fields_of(client.receive()) == {"actor": "probe", "crash_id": "c1-3"}
        assert fields_of(client.receive()) == {"actor": "probe/breaker", "retry_after_s": 1.5}
        assert client.is_silent(0.03)


@pytest.mark.parametrize(
    ("allow", "topic", "allowed"),
    [
        (["probe"], "admin.changed", False),
        (["probe"], "hub.*", False),
        (["probe"], "actor.traced", False),
        (["probe"], "actor.crashed", True),
        (["probe"], "*", True),
        ([], "*", False),
        (["*"], "admin.changed", True),
    ],
)
def test_what_can_never_be_seen_is_forbidden(state_dir: Path, allow: list[str], topic: str, allowed: bool) -> None:
    curve, keys = curve_config(state_dir, allow)
    with wire_on(state_dir, curve=curve) as wire, Raw(wire.tcp, keys=keys) as client:
        client.request("SUB", {"topics": [topic]})
        if allowed:
            assert client.receive().op == "ACK"
        else:
            assert client.error()["code"] == "forbidden"


def test_clients_that_may_everything_share_one_encoding_and_limited_ones_get_their_own() -> None:
    one = feed.Feed()
    event = events.Event(1, "test.happened", {"actor": "probe", "text": "x"}, None)
    assert one.body_of(event, "json", full=True) is one.body_of(event, "json", full=True)
    assert one.body_of(event, "json", full=False) == b'{"actor":"probe"}'


def test_rights_to_a_method_are_enough_to_see_its_actor() -> None:
    rights = Rights(["github.get_user"])
    assert (rights.sees("github"), rights.sees("gitlab"), rights.are_none) == (True, False, False)


def test_a_burst_of_events_costs_no_queue_and_all_that_are_kept_arrive(wire: Wire) -> None:
    client = wire.client()
    subscribe(client, "test.*")
    for n in range(events.KEPT + 100):
        events.publish("test.happened", n=n)
    gap = client.receive()
    assert (gap.op, gap.header["lost"]) == ("GAP", 100)
    assert [fields_of(client.receive())["n"] for _ in range(events.KEPT)] == list(range(100, events.KEPT + 100))
