"""Calls of many callers sent as one request to a real server, and the answer of each."""

from __future__ import annotations

import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gevent
import pytest

import regrow
from actors.resilience.batcher import BATCHES
from regrow.protocol.errors import (
    ActorDown,
    CircuitOpen,
    DeadlineExceeded,
    DecodeError,
    InvalidArguments,
    Overloaded,
    RegrowError,
    Unavailable,
    UpstreamError,
)
from runtime.messages import WithHeader
from tests.actors.rest.conftest import QUICKLY, Api, Start, outcome
from tests.support.fixtures import StartDaemon
from tests.support.http_peer import HttpPeer, Reply
from tests.support.http_peer import Request as Arrived

NOTIFY: dict[str, Any] = {"request": "POST /messages", "select": "results", "batch": {"into": "messages"}}


def notify(**more: Any) -> dict[str, Any]:
    """The operation, with keys of its batch table replaced."""
    return {"notify": {**NOTIFY, "batch": {"into": "messages", "max_size": 3, "max_delay": "50ms", **more}}}


def sent(peer: HttpPeer) -> list[list[Any]]:
    return [request.json()["messages"] for request in peer.requests]


@pytest.fixture
def numbering(http_peer: HttpPeer) -> HttpPeer:
    """A peer that answers each message with its own text in capitals."""

    def answer(request: Arrived) -> Reply:
        results = [{"id": message["text"].upper()} for message in request.json()["messages"]]
        return Reply(json={"results": results})

    http_peer.reply("POST /messages", handler=answer)
    return http_peer


def begin(made: Api, *texts: str, **args: Any) -> list[Any]:
    return [made.begin("notify", text=text, **args) for text in texts]


def outcomes(calls: list[Any]) -> list[Any]:
    return [outcome(call) for call in calls]


def test_a_full_batch_is_one_request_and_each_caller_gets_its_own_answer(api: Start, numbering: HttpPeer) -> None:
    made = api("posts", operations=notify(max_delay="1m"))
    calls = begin(made, "a", "b", "c", "d", "e", "f")
    assert outcomes(calls) == [{"id": each} for each in "ABCDEF"]
    assert sent(numbering) == [[{"text": each} for each in "abc"], [{"text": each} for each in "def"]]
    header = calls[0].value
    assert isinstance(header, WithHeader)
    assert (header.header["status"], header.header["batch"]) == (200, 3)
    assert BATCHES.value("posts", "notify", "ok") == 2


def test_a_batch_that_does_not_fill_goes_after_its_delay(api: Start, numbering: HttpPeer) -> None:
    made = api(operations=notify())
    began = time.monotonic()
    assert outcomes(begin(made, "a", "b")) == [{"id": "A"}, {"id": "B"}]
    assert time.monotonic() - began >= 0.04
    assert numbering.count() == 1


def test_without_a_key_the_body_is_the_list_itself(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", handler=lambda request: Reply(json=request.json()))
    operations = {"notify": {"request": "PUT /x", "batch": {"max_size": 2}}}
    assert outcomes(begin(api(operations=operations), "a", "b")) == [{"text": "a"}, {"text": "b"}]


def test_one_answer_may_be_for_all(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=202, json={"results": "accepted"})
    made = api(operations=notify(answers="all"))
    assert outcomes(begin(made, "a", "b", "c")) == ["accepted"] * 3
    assert http_peer.count() == 1


def test_an_item_that_the_peer_refuses_fails_alone(api: Start, http_peer: HttpPeer) -> None:
    results = [{"id": 1}, {"error": {"reason": "no such address"}}, {"id": 3, "error": None}]
    http_peer.reply("*", json={"results": results})
    made = api(operations=notify(error="error"))
    first, second, third = outcomes(begin(made, "a", "b", "c"))
    assert (first, third) == (results[0], results[2])
    assert isinstance(second, UpstreamError)
    assert second.body == {"reason": "no such address"}
    assert (second.started, second.retryable) == ("yes", False)


@pytest.mark.parametrize("results", [[{}], [{}] * 4, {"a": {}}, None])
def test_a_wrong_number_of_answers_is_a_decode_error_for_all(api: Start, http_peer: HttpPeer, results: object) -> None:
    http_peer.reply("*", json={"results": results})
    made = api(operations=notify())
    found = outcomes(begin(made, "a", "b", "c"))
    assert [type(each) for each in found] == [DecodeError] * 3
    assert "api.notify" in str(found[0])


def test_an_error_of_the_peer_goes_to_all_of_the_batch(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=503)
    made = api(operations=notify())
    assert [type(each) for each in outcomes(begin(made, "a", "b", "c"))] == [UpstreamError] * 3
    assert http_peer.count() == 1


def test_one_with_arguments_that_do_not_fit_is_refused_alone(api: Start, numbering: HttpPeer) -> None:
    operations = notify()
    operations["notify"]["params"] = {"text": {"type": "string", "required": True}}
    made = api(operations=operations)
    calls = [made.begin("notify", text=text) for text in ("a", 5, "b")] + [
        made.begin("notify", text="c", blob=object())
    ]
    found = outcomes(calls)
    assert [found[0], found[2]] == [{"id": "A"}, {"id": "B"}]
    assert [type(found[1]), type(found[3])] == [InvalidArguments] * 2


def test_a_caller_that_gave_up_is_not_in_the_batch(api: Start, numbering: HttpPeer) -> None:
    made = api(operations=notify())
    first, second = begin(made, "a", "b")
    gevent.sleep(0.01)
    second.cancel()
    assert outcome(first) == {"id": "A"}
    assert sent(numbering) == [[{"text": "a"}]]
    assert outcome(second).started == "no"


def test_a_caller_that_gives_up_once_its_batch_was_sent_hears_that_it_was(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", hold=True)
    first, second, _third = begin(api(operations=notify()), "a", "b", "c")
    http_peer.wait_for_requests(1)
    second.cancel()
    assert outcome(second).started == "yes"
    assert not first.done
    http_peer.release()


def test_a_caller_in_a_hurry_is_served_in_time(api: Start, numbering: HttpPeer) -> None:
    made = api(operations=notify(max_delay="1m"))
    assert made.call("notify", timeout=0.4, text="a") == {"id": "A"}


def test_the_deadline_of_one_ends_nothing_for_the_others(api: Start, numbering: HttpPeer) -> None:
    made = api(operations=notify())
    numbering.reply("*", hold=True)
    slow = {"results": [{"id": 1}, {"id": 2}, {"id": 3}]}
    numbering.reply("POST /messages", json=slow, delay_s=0.3)
    hasty = made.begin("notify", timeout=0.1, text="a")
    others = begin(made, "b", "c")
    assert isinstance(outcome(hasty), DeadlineExceeded)
    assert outcomes(others) == [{"id": 2}, {"id": 3}]


def test_a_request_that_nobody_waits_for_is_ended(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", hold=True)
    made = api(operations=notify())
    calls = begin(made, "a", "b", "c")
    http_peer.wait_for_requests(1)
    for call in calls:
        call.cancel()
    gevent.sleep(0.01)
    assert made.front.actor.status()["running"] == 0


def test_retries_carry_the_key_of_the_batch(api: Start, numbering: HttpPeer) -> None:
    numbering.reply("POST /messages", status=503, times=1)
    made = api(operations=notify(), idempotency={}, retry=QUICKLY)
    assert outcomes(begin(made, "a", "b", "c", "d", "e", "f")) == [{"id": each} for each in "ABCDEF"]
    keys = [request.headers["idempotency-key"] for request in numbering.requests]
    assert len(keys) == 3
    assert len(set(keys)) == 2


def test_a_caller_cannot_bring_a_key_of_its_own(api: Start, numbering: HttpPeer) -> None:
    made = api(operations=notify(), idempotency={})
    with pytest.raises(InvalidArguments, match="batches"):
        made.call("notify", text="a", idempotency_key="mine")
    assert numbering.count() == 0


def test_items_beyond_the_queue_are_refused(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={"results": [{}, {}, {}]}, hold=True)
    made = api(operations=notify(queue=3))
    calls = begin(made, "a", "b", "c")
    assert isinstance(outcome(made.begin("notify", text="d")), Overloaded)
    http_peer.release()
    assert outcomes(calls) == [{}] * 3


def test_large_items_make_smaller_batches(api: Start, numbering: HttpPeer) -> None:
    made = api(operations=notify(max_bytes="1KiB", max_size=10))
    outcomes(begin(made, "a" * 600, "b" * 600, "c" * 2000))
    assert [len(each) for each in sent(numbering)] == [1, 1, 1]


def test_an_open_circuit_refuses_at_once(api: Start, numbering: HttpPeer) -> None:
    made = api(operations=notify(max_delay="1m"))
    made.part("breaker").call("open")
    gevent.sleep(0)
    with pytest.raises(CircuitOpen):
        made.call("notify", text="a")
    assert numbering.count() == 0


def test_a_crash_of_the_batcher_answers_all_who_wait_and_the_next_call_goes_well(
    api: Start, numbering: HttpPeer
) -> None:
    made = api(operations=notify(max_delay="100ms"))
    calls = begin(made, "a", "b")
    gevent.sleep(0)
    made.part("batcher-notify").tell("no item")
    found = outcomes(calls)
    assert all(isinstance(each, ActorDown | Unavailable) for each in found), found
    made.part("batcher-notify")
    assert outcomes(begin(made, "c", "d", "e")) == [{"id": each} for each in "CDE"]
    gevent.sleep(0.12)  # the timer of the one that crashed


def test_a_crash_of_the_front_answers_all_of_the_batch(api: Start, numbering: HttpPeer) -> None:
    numbering.reply("POST /messages", hold=True, times=1)
    made = api(operations=notify())
    calls = begin(made, "a", "b", "c")
    numbering.wait_for_requests(1)
    made.front.kill()
    assert all(isinstance(each, RegrowError) for each in outcomes(calls))
    numbering.release()
    assert made.call("notify", text="d") == {"id": "D"}


def test_what_waits_when_the_integration_stops_is_sent_and_answered(api: Start, numbering: HttpPeer) -> None:
    made = api(operations=notify(max_delay="1m"))
    calls = begin(made, "a", "b")
    gevent.sleep(0)
    made.supervisor.stop()
    assert sent(numbering) == [[{"text": "a"}, {"text": "b"}]]
    assert outcomes(calls) == [{"id": "A"}, {"id": "B"}]


def test_a_drain_of_the_daemon_sends_what_waits_and_the_caller_gets_its_answer(
    daemon: StartDaemon, numbering: HttpPeer
) -> None:
    running = daemon(
        f"""
[integrations.api]
type = "rest"
base_url = "{numbering.url}"
[integrations.api.operations.notify]
request = "POST /messages"
select = "results"
batch = {{ into = "messages", max_delay = "1m" }}
"""
    )
    with regrow.connect(running.endpoint, timeout=60.0) as client, ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.ask, "api", "notify", text="a", timeout=60.0)
        while not re.search(r'"waiting": ?1', running.get("/tree").text):
            gevent.sleep(0.02)
        began = time.monotonic()
        running.send_signal(signal.SIGTERM)
        assert call.result(20.0) == {"id": "A"}
        assert time.monotonic() - began < 10.0
        assert running.wait() == 0


def test_a_call_without_a_deadline_has_time_for_the_delay_and_the_request(api: Start, http_peer: HttpPeer) -> None:
    made = api(operations=notify(max_delay="40s"), timeout="20s")
    assert made.plan.timeout_s > 60.0
