from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from regrow.protocol.frames import REQUEST_OPS
from runtime.edge.gateway import counters, service
from tests.edge.gateway.harness import INCARNATION, Wire, wire_on


def test_an_ask_is_answered_with_the_result(wire: Wire) -> None:
    client = wire.client()
    asked = client.ask("add", {"a": 2, "b": 3})
    answer = client.receive()
    assert (answer.op, answer.id, answer.body) == ("REPLY", asked, b"5")


def test_the_ipc_socket_speaks_the_same(wire: Wire) -> None:
    client = wire.client(endpoint=wire.ipc)
    client.ask("add", {"a": 2})
    assert client.reply() == 3


def test_answers_carry_the_id_of_their_ask_whatever_their_order(wire: Wire) -> None:
    client = wire.client()
    client.ask("wait", id=b"slow")
    wire.actor.entered.wait()
    client.request("PING", id=b"quick")
    assert client.receive().id == b"quick"
    wire.actor.gate.set()
    assert client.receive().id == b"slow"


def test_hello_is_answered_with_who_the_daemon_is_and_its_limits(wire: Wire) -> None:
    client = wire.client()
    client.request("HELLO", {"client": "billing", "versions": ["RG1", "RG7"]})
    answer = client.receive()
    assert answer.op == "WELCOME"
    assert answer.header["server"] == "orders"
    assert answer.header["incarnation"] == INCARNATION
    assert answer.header["http"] == "http://127.0.0.1:5758"
    assert answer.header["limits"]["max_message_bytes"] == 8 << 20
    assert answer.header["limits"]["max_in_flight"] == 1000


def test_hello_without_a_common_version_is_refused(wire: Wire) -> None:
    client = wire.client()
    client.request("HELLO", {"versions": ["RG9"]})
    assert client.error()["code"] == "bad_request"


def test_ping_tells_the_incarnation_and_the_hubs_lag(wire: Wire) -> None:
    client = wire.client()
    client.request("PING")
    answer = client.receive()
    assert (answer.op, answer.header) == ("PONG", {"incarnation": INCARNATION, "hub_lag_ms": 0.0})


def test_a_tell_without_ack_is_not_answered(wire: Wire) -> None:
    client = wire.client()
    client.request("TELL", {"to": "probe", "method": "add"}, {"a": 1})
    client.ask("count")
    assert client.reply() == 1


def test_a_tell_without_ack_that_is_refused_is_counted(wire: Wire) -> None:
    before = counters.REFUSED.value("not_found")
    client = wire.client()
    client.request("TELL", {"to": "nobody", "method": "add"}, {"a": 1})
    client.request("PING")
    assert client.receive().op == "PONG"
    assert counters.REFUSED.value("not_found") == before + 1


def test_a_tell_with_ack_is_acknowledged_once_it_is_in_the_mailbox(wire: Wire) -> None:
    client = wire.client()
    told = client.request("TELL", {"to": "probe", "method": "add", "ack": True}, {"a": 1})
    answer = client.receive()
    assert (answer.op, answer.id) == ("ACK", told)


def test_a_tell_with_ack_hears_what_kept_it_out(wire: Wire) -> None:
    client = wire.client()
    client.request("TELL", {"to": "probe", "method": "add", "ack": True}, {"a": "one"})
    assert client.error()["code"] == "invalid_arguments"


def test_a_full_mailbox_refuses_with_overloaded(wire: Wire) -> None:
    client = wire.client()
    client.ask("wait")
    wire.actor.entered.wait()
    wire.probe.bound = 1
    client.ask("add", {"a": 1})
    client.ask("add", {"a": 1})
    error = client.error()
    assert (error["code"], error["started"], error["retryable"]) == ("overloaded", "no", True)
    assert error["retry_after_ms"] > 0
    wire.actor.gate.set()
    assert [client.reply(), client.reply()] == ["waited", 2]


def test_describe_lists_actors_methods_schemas_and_docs(wire: Wire) -> None:
    client = wire.client()
    client.request("DESCRIBE")
    probe, absent = client.reply()["actors"]
    assert (probe["name"], probe["state"], absent["state"]) == ("probe", "running", "stopped")
    add = next(method for method in probe["methods"] if method["name"] == "add")
    assert add["doc"] == "Add two numbers."
    assert add["arguments"]["required"] == ["a"]
    assert add["arguments"]["properties"]["a"] == {"type": "integer"}


def test_describe_of_one_actor_and_of_none(wire: Wire) -> None:
    client = wire.client()
    client.request("DESCRIBE", {"to": "absent"})
    assert [actor["name"] for actor in client.reply()["actors"]] == ["absent"]
    client.request("DESCRIBE", {"to": "prob"})
    error = client.error()
    assert (error["code"], error["message"]) == ("not_found", "there is no actor 'prob', did you mean 'probe'")


@pytest.mark.parametrize(
    ("to", "method", "body", "code"),
    [
        ("nobody", "add", {"a": 1}, "not_found"),
        ("probe", "ad", {"a": 1}, "not_found"),
        ("probe", "__init__", {}, "not_found"),
        ("probe", "stop", {}, "not_found"),
        ("", "add", {}, "bad_request"),
        ("probe", "", {}, "bad_request"),
        ("probe", "add", {"a": "one"}, "invalid_arguments"),
        ("probe", "add", {}, "invalid_arguments"),
        ("probe", "add", {"a": 1, "c": 2}, "invalid_arguments"),
        ("probe", "add", [1, 2], "invalid_arguments"),
        ("probe", "add", b"{", "bad_request"),
        ("probe", "add", b"[" * 500 + b"]" * 500, "bad_request"),
        ("absent", "add", {"a": 1}, "unavailable"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_started(
    wire: Wire, to: str, method: str, body: Any, code: str
) -> None:
    client = wire.client()
    client.ask(method, body, to=to)
    error = client.error()
    assert (error["code"], error["started"]) == (code, "no")
    assert wire.actor.calls == 0


def test_an_unavailable_target_says_when_to_come_back(wire: Wire) -> None:
    client = wire.client()
    client.ask("add", {"a": 1}, to="absent")
    assert client.error()["retry_after_ms"] >= 100


def test_a_typed_error_of_the_handler_comes_over_whole_and_the_actor_lives(wire: Wire) -> None:
    client = wire.client()
    client.ask("refuse")
    assert client.error() == {
        "code": "rate_limited",
        "message": "no token within 1 s",
        "retryable": True,
        "started": "no",
        "retry_after_ms": 1500,
        "details": {"limit": 5},
        "actor": "probe",
        "incarnation": str(wire.probe.serial),
    }
    assert wire.probe.is_alive()


@pytest.mark.parametrize("method", ["crash", "exit"])
def test_a_crash_answers_actor_down_with_its_id_and_without_its_text(wire: Wire, method: str) -> None:
    client = wire.client()
    client.ask(method)
    error = client.error()
    assert (error["code"], error["started"], error["actor"]) == ("actor_down", "yes", "probe")
    assert error["crash_id"]
    assert "geheim" not in str(error)


def test_an_ask_in_hand_of_a_killed_actor_is_answered_started_and_a_queued_one_not_started(wire: Wire) -> None:
    client = wire.client()
    client.ask("wait", id=b"in hand")
    wire.actor.entered.wait()
    client.ask("add", {"a": 1}, id=b"queued")
    client.request("PING")
    assert client.receive().op == "PONG"
    wire.probe.kill()
    answers = {answer.id: msgspec.json.decode(answer.body or b"") for answer in (client.receive(), client.receive())}
    assert (answers[b"in hand"]["code"], answers[b"in hand"]["started"]) == ("actor_down", "yes")
    assert (answers[b"queued"]["code"], answers[b"queued"]["started"]) == ("unavailable", "no")


def test_a_new_incarnation_is_found_by_name(wire: Wire) -> None:
    client = wire.client()
    client.ask("crash")
    first = client.error()["incarnation"]
    wire.start_probe()
    client.ask("refuse")
    assert client.error()["incarnation"] != first


def test_msgpack_bodies_come_back_as_msgpack_and_may_hold_nan(wire: Wire) -> None:
    client = wire.client()
    client.ask("echo", msgspec.msgpack.encode({"value": {"n": float("inf"), "b": b"\xff"}}), codec="msgpack")
    answer = client.receive()
    assert answer.header == {"codec": "msgpack"}
    assert msgspec.msgpack.decode(answer.body or b"") == {"n": float("inf"), "b": b"\xff"}


def test_an_error_is_json_whatever_the_codec_of_the_ask(wire: Wire) -> None:
    client = wire.client()
    client.ask("add", msgspec.msgpack.encode({"a": "x"}), codec="msgpack")
    assert client.error()["code"] == "invalid_arguments"


def test_raw_answers_are_bytes_as_they_are(wire: Wire) -> None:
    client = wire.client()
    client.ask("blob", codec="raw")
    answer = client.receive()
    assert (answer.op, answer.header, answer.body) == ("REPLY", {"codec": "raw"}, b"\x00\x01")


@pytest.mark.parametrize("method", ["nan", "unsayable"])
def test_a_result_that_the_codec_cannot_say_is_an_error_and_not_a_crash(wire: Wire, method: str) -> None:
    client = wire.client()
    client.ask(method)
    error = client.error()
    assert (error["code"], error["started"]) == ("execution_error", "yes")
    assert wire.probe.is_alive()


def test_a_result_whose_own_code_fails_while_it_is_encoded_is_answered(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(value: object, codec: str) -> bytes:
        raise RuntimeError("geheim")

    monkeypatch.setattr(service, "encode_body", broken)
    client = wire.client()
    client.ask("add", {"a": 1})
    error = client.error()
    assert (error["code"], error["started"]) == ("execution_error", "yes")
    assert "geheim" not in str(error)


def test_a_handler_can_add_to_the_replys_header(wire: Wire) -> None:
    client = wire.client()
    client.ask("with_header")
    answer = client.receive()
    assert (answer.header, answer.body) == ({"status": 200}, b'{"login":"ada"}')


def test_an_ask_past_its_deadline_is_answered_started_when_it_began(wire: Wire) -> None:
    client = wire.client()
    client.ask("wait", deadline_ms=30)
    error = client.error()
    assert (error["code"], error["started"]) == ("deadline_exceeded", "yes")


def test_an_ask_that_expires_in_the_mailbox_never_starts(wire: Wire) -> None:
    client = wire.client()
    client.ask("wait")
    wire.actor.entered.wait()
    client.ask("add", {"a": 1}, deadline_ms=30)
    error = client.error()
    assert (error["code"], error["started"]) == ("deadline_exceeded", "no")
    wire.actor.gate.set()
    client.reply()
    client.ask("count")
    assert client.reply() == 1


def test_an_ask_without_deadline_has_its_targets_timeout(state_dir: Path) -> None:
    with wire_on(state_dir, timeout_s=0.03) as wire:
        client = wire.client()
        client.ask("wait")
        assert client.error()["code"] == "deadline_exceeded"


def test_a_deadline_is_cut_to_the_daemons_longest(state_dir: Path) -> None:
    with wire_on(state_dir, max_deadline_s=0.03) as wire:
        client = wire.client()
        client.ask("wait", deadline_ms=10**9)
        assert client.error()["code"] == "deadline_exceeded"


def test_a_late_result_after_the_deadline_is_not_a_second_answer(wire: Wire) -> None:
    client = wire.client()
    client.ask("wait", deadline_ms=30)
    client.error()
    wire.actor.gate.set()
    client.ask("count")
    assert client.reply() == 1
    assert client.is_silent()


def test_cancel_ends_an_ask_with_cancelled(wire: Wire) -> None:
    client = wire.client()
    asked = client.ask("wait")
    wire.actor.entered.wait()
    client.request("CANCEL", id=asked)
    answer = client.receive()
    assert answer.id == asked
    assert msgspec.json.decode(answer.body or b"")["code"] == "cancelled"


def test_a_cancelled_ask_that_waited_never_starts(wire: Wire) -> None:
    client = wire.client()
    client.ask("wait")
    wire.actor.entered.wait()
    queued = client.ask("add", {"a": 1})
    client.request("CANCEL", id=queued)
    error = client.error()
    assert (error["code"], error["started"]) == ("cancelled", "no")
    wire.actor.gate.set()
    client.reply()
    client.ask("count")
    assert client.reply() == 1


class HandedOn:
    """Work that an actor has handed on to somebody who has not begun it."""

    def withdraw(self) -> bool:
        return False

    def __call__(self) -> None:
        pass


def test_a_cancelled_ask_whose_work_was_handed_on_and_is_taken_back_in_time_never_started(wire: Wire) -> None:
    client = wire.client()
    asked = client.ask("wait")
    wire.actor.entered.wait()
    reply = wire.probe.runner.reply
    assert reply.started
    reply.on_abandon = HandedOn()
    client.request("CANCEL", id=asked)
    error = client.error()
    assert (error["code"], error["started"]) == ("cancelled", "no")


def test_cancelling_what_has_ended_changes_nothing(wire: Wire) -> None:
    client = wire.client()
    asked = client.ask("add", {"a": 1})
    client.reply()
    client.request("CANCEL", id=asked)
    client.request("PING")
    assert client.receive().op == "PONG"


def test_a_second_ask_with_an_id_in_flight_is_a_conflict_and_the_first_is_unaffected(wire: Wire) -> None:
    client = wire.client()
    client.ask("wait", id=b"same")
    wire.actor.entered.wait()
    client.ask("add", {"a": 1}, id=b"same")
    answer = client.receive()
    assert (answer.op, answer.id, answer.header) == ("ERROR", b"same", {"duplicate": True})
    assert msgspec.json.decode(answer.body or b"")["code"] == "conflict"
    wire.actor.gate.set()
    assert client.reply() == "waited"


def test_garbage_with_the_id_of_an_ask_in_flight_does_not_look_like_its_answer(wire: Wire) -> None:
    client = wire.client()
    client.ask("wait", id=b"same")
    wire.actor.entered.wait()
    client.send(b"RG1", b"ASK", b"same", b"no json")
    assert client.receive().header == {"duplicate": True}
    wire.actor.gate.set()
    assert client.reply() == "waited"


def test_two_clients_may_use_the_same_id(wire: Wire) -> None:
    clients = [wire.client(), wire.client()]
    for client in clients:
        client.ask("echo", {"value": 1}, id=b"same")
    assert [client.reply() for client in clients] == [1, 1]


def test_every_request_of_a_req_socket_is_answered(wire: Wire) -> None:
    client = wire.client(zmq.REQ)
    exchanges: list[tuple[str, dict[str, Any], str]] = [
        ("HELLO", {}, "WELCOME"),
        ("PING", {}, "PONG"),
        ("ASK", {"to": "probe", "method": "count"}, "REPLY"),
        ("TELL", {"to": "probe", "method": "count"}, "ACK"),
        ("TELL", {"to": "nobody", "method": "count"}, "ERROR"),
        ("CANCEL", {}, "ERROR"),
        ("CREDIT", {}, "ERROR"),
        ("SUB", {"topics": ["actor"]}, "ERROR"),
        ("UNSUB", {}, "ERROR"),
        ("DESCRIBE", {}, "REPLY"),
    ]
    for op, header, expected in exchanges:
        client.request(op, header)
        assert client.receive().op == expected
    client.send(b"garbage")
    assert client.receive().op == "ERROR"


def test_requests_and_answers_add_up(wire: Wire) -> None:
    before = counters.REQUESTS.value("ASK"), sum(counters.ANSWERS.value(op) for op in ("REPLY", "ERROR"))
    client = wire.client()
    for method, body in [
        ("add", {"a": 1}),
        ("add", {}),
        ("nope", {}),
        ("refuse", {}),
        ("crash", {}),
        ("add", {"a": 1}),
    ]:
        client.ask(method, body)
    for _ in range(6):
        client.receive()
    after = counters.REQUESTS.value("ASK"), sum(counters.ANSWERS.value(op) for op in ("REPLY", "ERROR"))
    assert after[0] - before[0] == after[1] - before[1] == 6
    assert wire.sockets.service.in_flight == 0


def test_over_all_ops_every_request_that_wants_an_answer_has_exactly_one(wire: Wire) -> None:
    terminal = ["WELCOME", "PONG", "REPLY", "ERROR", "END", "ACK"]
    before = {op: counters.REQUESTS.value(op) for op in [*REQUEST_OPS.values(), counters.INVALID]}
    answers_before = sum(counters.ANSWERS.value(op) for op in terminal)
    client = wire.client()
    answered = [
        client.request("HELLO"),
        client.request("PING"),
        client.request("DESCRIBE"),
        client.ask("add", {"a": 1}),
        client.ask("crash"),
        client.ask("numbers", {"to": 3}, stream=True),
        client.ask("broken", {"after": 1, "how": "refuse"}, stream=True),
        client.ask("add", {"a": 1}, idem="k"),
        client.request("TELL", {"to": "probe", "method": "count", "ack": True}),
        client.request("SUB", {"topics": ["test.never"]}, id=b"sub"),
        client.request("UNSUB", id=b"sub"),
        client.request("UNSUB", id=b"nothing"),
    ]
    client.send(b"RG1", b"NOPE", b"invalid", b"{}")
    silent = [
        client.request("TELL", {"to": "probe", "method": "count"}),
        client.request("CANCEL", id=b"nothing"),
        client.request("CREDIT", {"n": 1}, id=b"nothing"),
    ]
    found: list[bytes] = []
    while len(found) < len(answered) + 1:
        answer = client.receive()
        if answer.op in terminal:
            found.append(answer.id)
    assert client.is_silent(0.05)
    assert sorted(found) == sorted([*answered, b"invalid"])
    requests = sum(counters.REQUESTS.value(op) - count for op, count in before.items())
    answers = sum(counters.ANSWERS.value(op) for op in terminal) - answers_before
    assert requests - len(silent) == answers == len(answered) + 1
    assert wire.sockets.service.work == 0


def test_without_keys_each_connection_is_a_client_of_its_own(wire: Wire) -> None:
    first, second = wire.client(), wire.client(endpoint=wire.ipc)
    names = []
    for client in (first, first, second):
        client.ask("who")
        names.append(client.reply())
    first.ask("who", idem="once")
    names.append(first.reply())
    assert names[0] == names[1] == names[3] != names[2]
    assert all(name.startswith("connection ") for name in names)
