"""What every client must get: the Python client, a plain REQ socket, the Node.js client."""

from __future__ import annotations

import time
import uuid

import pytest

import regrow
from tests.clients.callers import Caller


@pytest.mark.parametrize("value", [None, True, 3, 1.5, "ü€𝄞", [1, [2]], {"a": {"b": None}}])
def test_an_ask_gets_its_value(caller: Caller, value: object) -> None:
    assert caller.ask("conform", "echo", {"value": value}) == value


def test_many_asks_each_get_their_own_value(caller: Caller) -> None:
    assert [caller.ask("conform", "echo", {"value": n}) for n in range(50)] == list(range(50))


def test_a_tell_returns_once_the_message_is_in_the_mailbox(caller: Caller) -> None:
    before = caller.ask("conform", "tick", {})
    caller.tell("conform", "tick", {})
    assert caller.ask("conform", "tick", {}) == before + 2


def test_a_tell_says_what_kept_the_message_out(caller: Caller) -> None:
    with pytest.raises(regrow.NotFound):
        caller.tell("conform", "nope", {})


@pytest.mark.parametrize(
    ("to", "method", "args", "kind", "started"),
    [
        ("nobody", "echo", {}, regrow.NotFound, "no"),
        ("conform", "nope", {}, regrow.NotFound, "no"),
        ("conform", "wait", {"seconds": "soon"}, regrow.InvalidArguments, "no"),
        ("conform", "wait", [1], regrow.InvalidArguments, "no"),
        ("trouble", "refuse", {}, regrow.RateLimited, "no"),
        ("trouble", "crash", {}, regrow.ActorDown, "yes"),
    ],
)
def test_each_failure_is_typed_and_says_whether_it_started(
    caller: Caller, to: str, method: str, args: object, kind: type[regrow.RegrowError], started: str
) -> None:
    if to == "trouble":
        wait_until_up(caller)
    with pytest.raises(kind) as caught:
        caller.ask(to, method, args)
    assert caught.value.started == started


def test_an_error_keeps_everything_it_carries(caller: Caller) -> None:
    wait_until_up(caller)
    with pytest.raises(regrow.RateLimited, match="no token within 1 s") as caught:
        caller.ask("trouble", "refuse", {})
    error = caught.value
    assert (error.retryable, error.retry_after_s, error.actor, error.details) == (True, 1.5, "trouble", {"limit": 5})


def test_a_crash_is_told_without_its_text(caller: Caller) -> None:
    wait_until_up(caller)
    with pytest.raises(regrow.ActorDown) as caught:
        caller.ask("trouble", "crash", {})
    assert caught.value.crash_id
    assert "geheim" not in str(caught.value)


def test_the_deadline_is_kept_by_the_daemon(caller: Caller) -> None:
    began = time.monotonic()
    with pytest.raises(regrow.DeadlineExceeded) as caught:
        caller.ask("conform", "wait", {"seconds": 1.5}, timeout_s=0.1)
    assert caught.value.started == "yes"
    assert time.monotonic() - began < 1.4
    caller.ask("conform", "echo", {})  # once the handler has ended


def test_an_idem_key_is_carried_out_once(caller: Caller) -> None:
    key = uuid.uuid4().hex
    first = caller.ask("conform", "tick", {}, idem=key)
    assert caller.ask("conform", "tick", {}, idem=key) == first
    assert caller.ask("conform", "tick", {}) == first + 1


def test_an_idem_key_for_another_body_is_a_conflict(caller: Caller) -> None:
    key = uuid.uuid4().hex
    caller.ask("conform", "echo", {"value": 1}, idem=key)
    with pytest.raises(regrow.Conflict):
        caller.ask("conform", "echo", {"value": 2}, idem=key)


def test_describe_tells_methods_and_schemas(caller: Caller) -> None:
    (actor,) = caller.describe("conform")["actors"]
    by_name = {method["name"]: method for method in actor["methods"]}
    assert {"echo", "wait", "tick", "count"} <= by_name.keys()
    assert by_name["wait"]["arguments"]["required"] == ["seconds"]


def wait_until_up(caller: Caller) -> None:
    """Wait out a restart that an earlier test's crash caused: refusals say how long."""
    for _ in range(200):
        try:
            caller.ask("trouble", "refuse", {})
        except regrow.RateLimited:
            return
        except regrow.Unavailable as error:
            time.sleep(error.retry_after_s or 0.05)
    raise AssertionError("the actor did not come back")
