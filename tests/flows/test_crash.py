"""The path of a crash: from the exception to the restart, and who hears of it in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest

from regrow.protocol.errors import Unavailable
from runtime import events
from runtime.actor import Actor
from runtime.messages import Call
from runtime.names import whereis
from runtime.promise import Promise
from runtime.ref import Ref
from runtime.signals import Down, Exit, link, monitor
from tests.edge.gateway.harness import Raw
from tests.flows.conftest import Served
from tests.flows.spies import Spies, functions_of, table

ACTOR = """
[actors.fragile]
class = "tests.flows.fragile:Fragile"
backoff = { base = "10ms", max = "10ms", jitter = 0.0 }
"""


class Linked(Actor):
    """Is linked to another actor, and notes its end."""

    trap_exit = True

    def __init__(self, other: Ref, note: Callable[[str, object], None]) -> None:
        super().__init__()
        self.other = other
        self.note = note

    def on_start(self) -> None:
        link(self.other)

    def on_exit(self, signal: Exit) -> None:
        self.note("link", signal.reason)


def test_a_crash_goes_through_the_rows_of_the_table_in_their_order(
    spies: Spies, serve: Callable[[str], Served], raw: Callable[[str], Raw]
) -> None:
    rows = functions_of(table("A crash:"))
    for function in rows:
        spies.watch(function)
    told: list[str] = []
    unsubscribe = events.subscribe(lambda event: told.append(event.topic))
    served = serve(ACTOR)
    first = whereis("fragile")
    assert first is not None
    watch = monitor(first, lambda _down: None)
    client = raw(served.endpoint)
    client.ask("fall", to="fragile", id=b"fall")
    client.ask("stand", to="fragile", id=b"queued")
    while first.queued == 0:
        gevent.sleep(0)
    spies.forget()
    told.clear()
    first.actor.gate.set()
    answers = {answer.id: answer.body or b"" for answer in (client.receive(), client.receive())}
    assert b'"actor_down"' in answers[b"fall"]
    assert b'"started":"yes"' in answers[b"fall"]
    assert b'"unavailable"' in answers[b"queued"]
    assert b'"started":"no"' in answers[b"queued"]
    while "actor.restarted" not in told:
        gevent.sleep(0.001)
    assert [function for function in spies.first_calls() if function in rows] == rows
    assert [topic for topic in told if topic in ("actor.crashed", "actor.restarted")] == [
        "actor.crashed",
        "actor.restarted",
    ]
    assert watch.ref is first
    client.ask("stand", to="fragile")
    assert client.reply() == "stands"
    shown = served.scrape()
    assert 'regrow_actor_restarts_total{actor="fragile",reason="crashed"} 1.0' in shown
    assert 'regrow_messages_total{actor="fragile",outcome="crashed"} 1.0' in shown
    unsubscribe()


def test_whoever_hears_of_a_crash_finds_the_earlier_steps_done(serve: Callable[[str], Served]) -> None:
    serve(ACTOR)
    ref = whereis("fragile")
    assert ref is not None
    heard: list[tuple[str, Any, bool]] = []

    def note(who: str, about: object) -> None:
        heard.append((who, about, whereis("fragile") is ref))

    linked = Linked.start(ref, note)
    in_hand = Promise(callback=lambda promise: note("in hand", promise.error))
    queued = Promise(callback=lambda promise: note("queued", promise.error))

    def heard_down(down: Down) -> None:
        note("monitor", down.reason)

    monitor(ref, heard_down)
    ref.request(Call("fall", {}), in_hand)
    ref.request(Call("stand", {}), queued)
    while not in_hand.started:
        gevent.sleep(0)
    ref.actor.gate.set()
    while len(heard) < 4:
        gevent.sleep(0.001)
    gevent.sleep(0.05)
    names = [who for who, *_ in heard]
    assert sorted(names) == sorted(["in hand", "queued", "link", "monitor"])
    assert not any(taken for *_, taken in heard), "the name was still taken"
    for who in ("link", "monitor"):
        assert {"in hand", "queued"} <= set(names[: names.index(who)])
    errors = {who: about for who, about, *_ in heard}
    assert isinstance(errors["in hand"], RuntimeError)
    assert isinstance(errors["queued"], Unavailable)
    assert errors["queued"].started == "no"
    assert "RuntimeError" in str(errors["link"])
    linked.stop()


@pytest.mark.parametrize("restarts", [3])
def test_the_metrics_count_each_restart_once(
    serve: Callable[[str], Served], raw: Callable[[str], Raw], restarts: int
) -> None:
    served = serve(ACTOR)
    client = raw(served.endpoint)
    for count in range(1, restarts + 1):
        ref = whereis("fragile")
        assert ref is not None
        ref.actor.gate.set()
        client.ask("fall", to="fragile")
        assert client.error()["code"] == "actor_down"
        while whereis("fragile") is None:
            gevent.sleep(0.001)
        expected = f'regrow_actor_restarts_total{{actor="fragile",reason="crashed"}} {count}.0'
        assert expected in served.scrape()
