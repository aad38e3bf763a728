"""Guarantee 1 under fire: clients of many kinds of request, an actor and a gateway that keep dying."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import gevent
import pytest

from runtime.edge.gateway import counters
from tests.edge.gateway.harness import Raw, Wire

CLIENTS = 4
ASKS = 250
CALLS: list[tuple[str, dict[str, object]]] = [
    ("add", {"a": 1}),
    ("add", {"a": "x"}),
    ("echo", {"value": [1, {"b": None}]}),
    ("refuse", {}),
    ("miss", {}),
    ("crash", {}),
    ("wait", {}),
    ("nope", {}),
    ("nan", {}),
    ("big", {"size": 20_000}),
]


def answers_of(client: Raw, dice: random.Random) -> Counter[bytes]:
    """Ask at random, never more than 50 at once; return how many terminal answers each id got."""
    found: Counter[bytes] = Counter()
    asked = answered = 0
    while answered < ASKS:
        while asked < ASKS and asked - answered < 50:
            method, body = dice.choice(CALLS)
            header: dict[str, Any] = {"deadline_ms": dice.choice([5, 50, 500])}
            if dice.random() < 0.2:
                header["idem"] = f"{method}-{dice.randrange(5)}"
            asked_id = client.ask(method, body, **header)
            asked += 1
            if dice.random() < 0.1:
                client.request("CANCEL", id=asked_id)
        answer = client.receive()
        assert answer.op in {"REPLY", "ERROR"}
        assert not answer.header.get("duplicate")
        found[answer.id] += 1
        answered += 1
    assert client.is_silent(0.05)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_ask_of_a_living_connection_gets_exactly_one_answer_whatever_dies(wire: Wire, seed: int) -> None:
    dice = random.Random(seed)
    asks_before = counters.REQUESTS.value("ASK")
    answers_before = sum(counters.ANSWERS.value(op) for op in ("REPLY", "ERROR"))
    clients = [
        gevent.spawn(answers_of, wire.client(endpoint=dice.choice([wire.tcp, wire.ipc])), random.Random(seed * 100 + n))
        for n in range(CLIENTS)
    ]
    while not all(client.ready() for client in clients):
        gevent.sleep(dice.random() * 0.02)
        if not wire.probe.is_alive():
            wire.start_probe()
        elif dice.random() < 0.3:
            wire.probe.kill()
            wire.start_probe()
        else:
            wire.actor.gate.set()
        if dice.random() < 0.2:
            wire.gateway.kill()
            wire.start_gateway()
    for client in clients:
        found = client.get()
        assert len(found) == ASKS
        assert set(found.values()) == {1}
    assert wire.sockets.service.in_flight == 0
    assert counters.REQUESTS.value("ASK") - asks_before == CLIENTS * ASKS
    assert sum(counters.ANSWERS.value(op) for op in ("REPLY", "ERROR")) - answers_before == CLIENTS * ASKS
