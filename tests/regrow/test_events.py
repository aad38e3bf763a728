"""Subscriptions of the two Python clients: events in order, gaps as objects, and connections that break in between."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

import regrow
from regrow import Event, Gap
from runtime import events
from runtime.edge.gateway import feed
from tests.edge.gateway.harness import PATIENCE_S, Wire, wire_on
from tests.edge.gateway.test_abuse import eventually
from tests.regrow.relay import Relay
from tests.regrow.test_aio import run
from tests.support.ports import free_port


@pytest.fixture
def client(wire: Wire) -> Iterator[regrow.Client]:
    with regrow.connect(wire.tcp) as client:
        yield client


@pytest.fixture
def relay(wire: Wire) -> Iterator[Relay]:
    with Relay(wire.tcp) as relay:
        yield relay


def numbers(found: list[Event | Gap | None]) -> list[Any]:
    return [one.fields["n"] if isinstance(one, Event) else one for one in found]


def publish(*values: int) -> None:
    for n in values:
        events.publish("test.happened", n=n)


def test_events_are_iterated_as_they_happen(client: regrow.Client) -> None:
    with client.subscribe(["test.happened", "other.*"]) as heard:
        events.publish("test.happened", actor="probe", n=1)
        event = next(heard)
        assert isinstance(event, Event)
        assert (event.topic, event.fields) == ("test.happened", {"actor": "probe", "n": 1})
        assert event.seq == heard.seq == events.recent()[-1].number
        assert event.at == pytest.approx(events.recent()[-1].at)
        events.publish("not.meant")
        events.publish("other.one")
        second = next(heard)
        assert isinstance(second, Event) and second.topic == "other.one"


def test_reading_with_a_timeout_gives_nothing_and_goes_on(client: regrow.Client) -> None:
    with client.subscribe("test.*") as heard:
        assert heard.read(timeout=0.02) is None
        publish(1)
        assert numbers([heard.read(timeout=PATIENCE_S)]) == [1]


def test_who_subscribes_again_with_since_misses_nothing(client: regrow.Client) -> None:
    with client.subscribe("test.*") as heard:
        publish(1)
        next(heard)
        seq = heard.seq
    publish(2, 3)
    with client.subscribe("test.*", since=seq) as heard:
        assert numbers([next(heard), next(heard)]) == [2, 3]


def test_a_gap_is_an_object_of_its_own(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_recent", deque(maxlen=2))
    monkeypatch.setattr(feed, "KEPT", 2)
    with wire_on(state_dir) as wire, regrow.connect(wire.tcp) as client:
        publish(0)
        first = events.recent()[0].number
        publish(1, 2, 3)
        with client.subscribe("test.*", since=first) as heard:
            assert numbers([next(heard), next(heard), next(heard)]) == [Gap(1, first + 1), 2, 3]


def test_a_broken_connection_is_made_anew_and_what_happened_meanwhile_is_heard(wire: Wire, relay: Relay) -> None:
    with regrow.connect(relay.endpoint) as client, client.subscribe("test.*") as heard:
        publish(1)
        assert numbers([next(heard)]) == [1]
        relay.accepting = False  # or the subscription is there again before anybody sees that it was gone
        relay.cut()
        eventually(lambda: len(wire.sockets.service.feed) == 0)
        publish(2, 3)
        relay.accepting = True
        assert numbers([next(heard), next(heard)]) == [2, 3]


def test_another_run_of_the_daemon_begins_with_a_gap_of_unknown_size(state_dir: Path) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    with regrow.connect(endpoint) as client:
        with wire_on(state_dir, endpoint=endpoint):
            heard = client.subscribe("test.*")
            publish(1)
            assert numbers([next(heard)]) == [1]
        with wire_on(state_dir, endpoint=endpoint, incarnation="inc-2"), heard:
            assert next(heard) == Gap(None, 0)
            publish(2)
            while numbers([next(heard)]) != [2]:
                pass


def test_a_daemon_that_stays_away_is_said_in_time(wire: Wire, relay: Relay) -> None:
    with regrow.connect(relay.endpoint, connect_timeout=0.5) as client, client.subscribe("test.*") as heard:
        relay.accepting = False
        relay.cut()
        with pytest.raises(regrow.ConnectionFailed):
            next(heard)


def test_a_refusal_is_raised_by_subscribe_itself(state_dir: Path) -> None:
    with wire_on(state_dir, max_subscriptions_per_client=0) as wire, regrow.connect(wire.tcp) as client:
        with pytest.raises(regrow.Overloaded, match="at most 0"):
            client.subscribe("*")
        with pytest.raises(regrow.BadRequest):
            client.subscribe("No Topic")
        assert client.ask("probe", "add", a=1) == 2


@pytest.mark.parametrize(("topics", "since"), [([], None), ("*", -1)])
def test_what_is_no_subscription_is_the_callers_mistake(client: regrow.Client, topics: Any, since: int | None) -> None:
    with pytest.raises(ValueError, match=r"topics|since"):
        client.subscribe(topics, since)


def test_closing_ends_the_iteration_and_frees_the_connection(wire: Wire) -> None:
    with regrow.connect(wire.tcp, max_connections=1) as client:
        heard = client.subscribe("test.*")
        heard.close()
        heard.close()
        assert list(heard) == []
        publish(1)
        assert client.ask("probe", "add", a=1) == 2
        assert len(wire.sockets.service.feed) == 0


def test_a_subscription_that_was_dropped_is_closed(wire: Wire) -> None:
    with regrow.connect(wire.tcp, max_connections=1) as client:
        client.subscribe("test.*")
        assert client.ask("probe", "add", a=1) == 2
        assert len(wire.sockets.service.feed) == 0


def test_a_reader_in_a_thread_of_its_own_lets_others_ask(wire: Wire, client: regrow.Client) -> None:
    with client.subscribe("test.*") as heard:
        reading = gevent.spawn(next, heard)
        assert client.ask("probe", "add", a=1) == 2
        publish(7)
        assert numbers([reading.get(timeout=PATIENCE_S)]) == [7]


# -- asyncio

ASYNC_READ = """
found = []
async with client.subscribe("test.*") as heard:
    await client.tell("probe", "add", a=1)
    async for event in heard:
        found.append(event.fields["n"] if isinstance(event, regrow.Event) else ["gap", event.lost])
        if found[-1] == 3:
            break
return [found, heard.seq > 0, len(client._link.streams)]
"""


def test_asyncio_events_are_iterated_beside_other_requests(wire: Wire) -> None:
    running = gevent.spawn(run, wire.tcp, ASYNC_READ)
    eventually(lambda: len(wire.sockets.service.feed) == 1)
    publish(1, 2, 3)
    assert running.get(timeout=PATIENCE_S * 2) == [[1, 2, 3], True, 0]
    eventually(lambda: len(wire.sockets.service.feed) == 0)


def test_asyncio_goes_on_after_a_broken_connection(wire: Wire) -> None:
    with Relay(wire.tcp) as relay:
        alone = ASYNC_READ.replace('await client.tell("probe", "add", a=1)', "pass")
        running = gevent.spawn(run, relay.endpoint, alone)
        eventually(lambda: len(wire.sockets.service.feed) == 1)
        publish(1)
        relay.accepting = False  # or the subscription is there again before anybody sees that it was gone
        relay.cut()
        eventually(lambda: len(wire.sockets.service.feed) == 0)
        publish(2, 3)
        relay.accepting = True
        assert running.get(timeout=PATIENCE_S * 2) == [[1, 2, 3], True, 0]


def test_asyncio_hears_of_another_run_by_a_gap(state_dir: Path) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    with wire_on(state_dir, endpoint=endpoint) as wire:
        running = gevent.spawn(run, endpoint, ASYNC_READ)
        eventually(lambda: len(wire.sockets.service.feed) == 1)
        first = events.recent()[-1].number if events.recent() else 0
        publish(1)
        eventually(lambda: all(one.cursor > first for one in wire.sockets.service.feed._subscriptions))
    events._recent.clear()
    with wire_on(state_dir, endpoint=endpoint, incarnation="inc-2") as wire:
        eventually(lambda: len(wire.sockets.service.feed) == 1)
        publish(3)
        found, _, _ = running.get(timeout=PATIENCE_S * 2)
    assert found == [1, ["gap", None], 3]


def test_asyncio_reads_with_a_timeout_and_raises_refusals(state_dir: Path) -> None:
    with wire_on(state_dir, max_subscriptions_per_client=1) as wire:
        found = run(
            wire.tcp,
            """
first = await client.subscribe("test.*").__aenter__()
nothing = await first.read(timeout=0.02)
second = await error_of(client.subscribe("test.*").read())
await first.close()
wrong = await error_of(client.subscribe("No Topic").read())
return [nothing, second, wrong, len(client._link.streams), len(client._link.pending)]
""",
        )
    assert found == [None, ["Overloaded", "no"], ["BadRequest", "no"], 0, 0]


def test_asyncio_keeps_a_bounded_number_of_unread_events(wire: Wire) -> None:
    body = """
import regrow.aio as module
module.MAX_UNREAD_EVENTS = 3
async with client.subscribe("test.*") as heard:
    while heard._unread.qsize() < 3 or heard._unread._lost < 2:
        await client.ping()
    found = [await heard.read() for _ in range(4)]
return [[one.lost, one.seq - found[1].seq] if isinstance(one, regrow.Gap) else one.fields["n"] for one in found]
"""
    running = gevent.spawn(run, wire.tcp, body)
    eventually(lambda: len(wire.sockets.service.feed) == 1)
    publish(1, 2, 3, 4, 5)
    assert running.get(timeout=PATIENCE_S * 2) == [[2, -1], 3, 4, 5]
    json.dumps(wire.sockets.status())
