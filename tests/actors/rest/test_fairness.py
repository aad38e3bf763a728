"""One API and several clients: what one of them asks too much costs the others a turn, not a queue."""

from __future__ import annotations

import random
import time
from typing import Any

import gevent
import pytest

from regrow.protocol.errors import Overloaded, RegrowError
from runtime import clock
from runtime.messages import Call
from runtime.promise import ClientPromise
from tests.actors.rest.conftest import Api, Start, outcome
from tests.support.http_peer import HttpPeer

# So many calls at once, while the peer lets none of them end.
NARROW = {"concurrency": 1}


def begin(api: Api, client: str, username: str, *, operation: str = "get_user") -> ClientPromise:
    promise = ClientPromise(client, deadline=clock.now() + 30.0)
    api.front.request(Call(operation, {"username": username}), promise)
    gevent.sleep(0)
    return promise


def users(peer: HttpPeer) -> list[str]:
    """Whose requests the peer saw, in their order."""
    return [request.path.rpartition("/")[2] for request in peer.requests]


def test_calls_that_wait_for_a_worker_are_served_in_turns_of_their_clients(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    http_peer.reply("GET /users/first", json={}, hold=True)
    made = api(**NARROW)
    first = begin(made, "flood", "first")
    flood = [begin(made, "flood", f"f{number}") for number in range(20)]
    modest = [begin(made, "modest", f"m{number}") for number in range(3)]
    http_peer.release()
    assert [outcome(call) for call in (first, *modest, *flood)] == [{}] * 24
    assert users(http_peer)[:7] == ["first", "f0", "m0", "f1", "m1", "f2", "m2"]
    assert users(http_peer)[7:] == [f"f{number}" for number in range(3, 20)]


def test_a_flooding_client_fills_the_queue_for_itself_alone(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={}, hold=True)
    made = api(**NARROW, queue=10)
    begin(made, "flood", "first")
    flood = [begin(made, "flood", f"f{number}") for number in range(50)]
    modest = [begin(made, "modest", f"m{number}") for number in range(4)]
    gevent.sleep(0.05)
    assert not any(call.done for call in modest)
    refused = [call for call in flood if call.done]
    assert len(refused) == 44
    assert all(isinstance(call.error, Overloaded) and call.error.started == "no" for call in refused)
    assert made.front.actor.status()["waiting"] == 10
    http_peer.release()
    assert [outcome(call) for call in modest] == [{}] * 4
    assert [outcome(call) for call in flood if call not in refused] == [{}] * 6


def test_a_call_whose_client_gave_up_makes_room_at_once(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={}, hold=True)
    made = api(**NARROW, queue=2)
    begin(made, "a", "first")
    waiting = [begin(made, "a", name) for name in "bc"]
    waiting[0].cancel()
    assert made.front.actor.status()["waiting"] == 1
    assert not begin(made, "a", "d").done
    http_peer.release()


CACHED: dict[str, Any] = {"operations": {"get_user": {"request": "GET /users/{username}", "cache": "1h"}}}


def test_a_client_does_not_wait_for_the_same_answer_in_the_line_of_one_that_floods(
    api: Start, http_peer: HttpPeer
) -> None:
    http_peer.reply("*", json={})
    http_peer.reply("GET /users/first", json={}, hold=True)
    made = api(**NARROW, **CACHED)
    begin(made, "flood", "first")
    flood = [begin(made, "flood", f"f{number}") for number in range(20)]
    modest = begin(made, "modest", "f19")
    gevent.sleep(0.02)
    http_peer.release()
    assert outcome(modest) == {}
    assert [outcome(call) for call in flood] == [{}] * 20
    assert users(http_peer)[:3] == ["first", "f0", "f19"]
    assert http_peer.count() == 21


def test_a_displaced_call_passes_its_place_to_another_clients_call_for_the_same_answer(
    api: Start, http_peer: HttpPeer
) -> None:
    http_peer.reply("*", json={}, hold=True)
    made = api(**NARROW, **CACHED, queue=3)
    begin(made, "flood", "first")
    flood = [begin(made, "flood", name) for name in ("x", "y", "z")]
    follower = begin(made, "third", "z")
    gevent.sleep(0.02)
    modest = begin(made, "modest", "m")
    gevent.sleep(0.02)
    assert isinstance(flood[1].error, Overloaded) or isinstance(flood[2].error, Overloaded)
    http_peer.release()
    assert (outcome(follower), outcome(modest), outcome(flood[0])) == ({}, {}, {})


def test_those_who_wait_for_the_same_answer_leave_room_for_other_clients_too(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={}, hold=True)
    made = api(**CACHED, queue=5)
    flood = [begin(made, "flood", "same") for _ in range(20)]
    gevent.sleep(0.02)
    modest = [begin(made, "modest", "same") for _ in range(2)]
    gevent.sleep(0.02)
    assert sum(isinstance(call.error, Overloaded) for call in flood) == 16
    assert not any(call.done for call in modest)
    http_peer.release()
    assert [outcome(call) for call in modest] == [{}, {}]
    assert http_peer.count() == 1


def test_a_modest_client_gets_its_share_of_a_rate_limit(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    limit = {"requests": 100, "window": "1s", "algorithm": "token_bucket", "burst": 1}
    made = api(rate_limit=limit, concurrency=5, timeout="20s")
    flood = [begin(made, "flood", f"f{number}") for number in range(300)]
    began = time.monotonic()
    modest = [begin(made, "modest", f"m{number}") for number in range(20)]
    assert [outcome(call) for call in modest] == [{}] * 20
    took_s = time.monotonic() - began
    # Alone they would take 0.2 s; every other token is the flood's, and five of its calls hold the workers at first.
    assert 0.3 <= took_s < 1.2
    done = sum(call.done for call in flood)
    assert done < 120
    for call in flood:
        call.cancel()


@pytest.mark.parametrize("algorithm", ["sliding_window", "token_bucket"])
def test_what_an_operation_costs_is_taken_from_the_limit(api: Start, http_peer: HttpPeer, algorithm: str) -> None:
    http_peer.reply("*", json={})
    operations = {
        "get_user": {"request": "GET /users/{username}"},
        "search": {"request": "GET /search", "cost": 4},
    }
    made = api(rate_limit={"requests": 10, "window": "1h", "algorithm": algorithm}, operations=operations)
    made.call("search", q="x")
    made.call("search", q="x")
    with pytest.raises(RegrowError) as caught:
        made.call("search", q="x")
    assert caught.value.code == "rate_limited"
    made.call("get_user", username="ada")
    assert made.part("limiter").actor.status()["used"] == 9


def test_a_costly_call_that_the_circuit_refuses_gives_all_of_it_back(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=500)
    operations = {"search": {"request": "GET /search", "cost": 4}}
    made = api(
        breaker={"failures": 1, "reset_after": "1h"},
        rate_limit={"requests": 10, "window": "1h"},
        operations=operations,
    )
    for code in ("upstream_error", "circuit_open", "circuit_open"):
        with pytest.raises(RegrowError) as caught:
            made.call("search", q="x")
        assert caught.value.code == code
    gevent.sleep(0.02)
    assert made.part("limiter").actor.status()["used"] == 4


@pytest.mark.parametrize("seed", range(8))
def test_whatever_clients_do_every_call_is_answered_and_nothing_is_left(
    api: Start, http_peer: HttpPeer, seed: int
) -> None:
    draw = random.Random(seed)
    http_peer.reply("*", json={}, delay_s=0.002)
    operations = {
        "get_user": {"request": "GET /users/{username}", "cache": "20ms"},
        "plain": {"request": "GET /plain/{username}"},
    }
    made = api(concurrency=3, queue=draw.choice([0, 1, 5, 20]), operations=operations)
    calls: list[ClientPromise] = []
    for step in range(400):
        operation = draw.choice(["get_user", "get_user", "plain"])
        client = draw.choice(["flood"] * 6 + ["a", "b", "c"])
        calls.append(begin(made, client, draw.choice("uvwxyz"), operation=operation))
        if draw.random() < 0.2:
            draw.choice(calls).cancel()
        if draw.random() < 0.02:
            made.part(f"worker-{draw.randint(1, 3)}").kill()
        if step % 20 == 0:
            gevent.sleep(draw.choice([0.0, 0.005, 0.02]))
    outcomes = [outcome(call) for call in calls]
    gevent.sleep(0.05)
    assert {type(each).__name__ for each in outcomes} <= {
        "dict",
        "Overloaded",
        "Cancelled",
        "ActorDied",
        "ActorUnavailable",
    }
    assert outcomes.count({}) > 20
    status = made.front.actor.status()
    assert (status["running"], status["waiting"]) == (0, 0)
    front = made.front.actor
    assert not front._flights
    assert made.call("get_user", username="ada") == {}
