"""The client against mountebank's imposters: faults of a peer that nobody here wrote, over http, https and tcp."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.integrations import database
from regrow.protocol.errors import CircuitOpen, DeadlineExceeded, RegrowError
from runtime.messages import Call
from tests.actors.rest.conftest import QUICKLY, Api, Start
from tests.support.peers import Mountebank, needs_mountebank

pytestmark = [
    needs_mountebank,
    # The server is the module's, and so are its process and the reader of its output.
    pytest.mark.allow_leaks("process", "greenlet", "socket"),
]

RESET = {"fault": "CONNECTION_RESET_BY_PEER"}
GARBAGE = {"fault": "RANDOM_DATA_THEN_CLOSE"}
USER = {"is": {"statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": '{"login": "ada"}'}}


def slow(milliseconds: int) -> dict[str, Any]:
    return {**USER, "behaviors": [{"wait": milliseconds}]}


def status(code: int, body: str = "", **headers: str) -> dict[str, Any]:
    return {"is": {"statusCode": code, "headers": headers, "body": body}}


def said(text: str) -> dict[str, Any]:
    return {"is": {"data": text}}


@pytest.fixture(scope="module")
def mountebank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mountebank]:
    with Mountebank(tmp_path_factory.mktemp("mountebank")) as running:
        yield running


@pytest.mark.parametrize(
    ("protocol", "response", "code", "started", "retryable"),
    [
        ("http", RESET, "connection_error", "unknown", True),
        ("http", GARBAGE, "connection_error", "yes", True),
        ("http", slow(2000), "timeout", "unknown", True),
        ("http", status(500, "oops"), "upstream_error", "yes", True),
        ("http", status(503), "upstream_error", "yes", True),
        ("http", status(501), "upstream_error", "yes", False),
        ("http", status(404), "upstream_error", "yes", False),
        ("http", status(429, **{"Retry-After": "7"}), "rate_limited", "yes", True),
        ("http", status(200, "<html>", **{"Content-Type": "application/json"}), "decode_error", "yes", False),
        ("http", status(302, Location="/users/ada"), "upstream_error", "yes", False),
        ("http", status(302, Location="ftp://127.0.0.1/"), "upstream_error", "yes", False),
        ("tcp", RESET, "connection_error", "unknown", True),
        ("tcp", GARBAGE, "connection_error", "yes", True),
        ("tcp", said("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf"), "timeout", "yes", True),
        ("tcp", said("HTTP/1.1 200 OK\r\nContent-Le"), "timeout", "unknown", True),
        ("tcp", said("220 mail.example ESMTP\r\n"), "connection_error", "yes", True),
        ("https", USER, "connection_error", "no", False),
    ],
)
def test_each_fault_is_one_typed_error_that_says_what_is_known_of_the_work(
    api: Start,
    mountebank: Mountebank,
    protocol: str,
    response: dict[str, Any],
    code: str,
    started: str,
    retryable: bool,
) -> None:
    port = mountebank.imposter({"responses": [response]}, protocol=protocol)
    scheme = "https" if protocol == "https" else "http"
    made = api(base_url=f"{scheme}://127.0.0.1:{port}", timeout="300ms")
    began = time.monotonic()
    with pytest.raises(RegrowError) as caught:
        made.call("get_user", username="ada")
    assert (caught.value.code, caught.value.started, caught.value.retryable) == (code, started, retryable)
    assert time.monotonic() - began < 2.0


def test_a_peer_that_is_gone_never_started_anything(api: Start, mountebank: Mountebank) -> None:
    port = mountebank.imposter({"responses": [USER]})
    made = api(base_url=f"http://127.0.0.1:{port}")
    assert made.call("get_user", username="ada") == {"login": "ada"}
    mountebank.remove(port)
    with pytest.raises(RegrowError) as caught:
        made.call("make_issue", title="x")
    assert (caught.value.code, caught.value.started, caught.value.retryable) == ("connection_error", "no", True)


@pytest.mark.parametrize("fault", [RESET, GARBAGE, status(503), slow(2000)], ids=["reset", "garbage", "503", "slow"])
def test_a_get_outlives_two_faults_and_a_post_is_sent_once(
    api: Start, mountebank: Mountebank, fault: dict[str, Any]
) -> None:
    port = mountebank.imposter({"responses": [fault, fault, USER]})
    made = api(base_url=f"http://127.0.0.1:{port}", retry=QUICKLY, try_timeout="200ms")
    answer = made.full("get_user", username="ada")
    assert (answer.value, answer.header["tries"]) == ({"login": "ada"}, 3)

    other = mountebank.imposter({"responses": [fault, USER]})
    with pytest.raises(RegrowError):
        api("other", base_url=f"http://127.0.0.1:{other}", retry=QUICKLY, try_timeout="200ms").call("make_issue", a=1)
    assert mountebank.seen(other) == 1


def test_a_peer_slower_than_the_caller_is_the_callers_deadline(api: Start, mountebank: Mountebank) -> None:
    port = mountebank.imposter({"responses": [slow(2000)]})
    with pytest.raises(DeadlineExceeded) as caught:
        api(base_url=f"http://127.0.0.1:{port}").call("get_user", timeout=0.2, username="ada")
    assert caught.value.started != "no"


def test_resets_open_the_circuit_and_the_peer_is_left_alone(api: Start, mountebank: Mountebank) -> None:
    port = mountebank.imposter({"responses": [RESET]})
    made = api(base_url=f"http://127.0.0.1:{port}", breaker={"failures": 3, "reset_after": "1m"})
    for _ in range(3):
        with pytest.raises(RegrowError, match="closed the connection"):
            made.call("get_user", username="ada")
    with pytest.raises(CircuitOpen) as refused:
        made.call("get_user", username="ada")
    assert (refused.value.started, mountebank.seen(port)) == ("no", 3)


def test_behind_a_proxy_the_origins_answers_come_through_and_its_absence_is_the_proxys_to_tell(
    api: Start, mountebank: Mountebank
) -> None:
    origin = mountebank.imposter({"responses": [USER]})
    proxy = {"proxy": {"to": f"http://127.0.0.1:{origin}", "mode": "proxyTransparent"}}
    made = api(base_url=f"http://127.0.0.1:{mountebank.imposter({'responses': [proxy]})}")
    assert made.call("get_user", username="ada") == {"login": "ada"}
    mountebank.remove(origin)
    with pytest.raises(RegrowError) as caught:
        made.call("get_user", username="ada")
    assert caught.value.code in {"upstream_error", "connection_error"}
    assert caught.value.started == "yes"


def test_a_database_that_speaks_no_postgresql_is_a_connection_error_that_started_nothing(
    mountebank: Mountebank, tmp_path: Path
) -> None:
    port = mountebank.imposter({"responses": [GARBAGE]}, protocol="tcp", mode="binary")
    table = {"url": f"postgresql://app@127.0.0.1:{port}/app", "operations": {"one": {"sql": "SELECT 1"}}}
    made = Api("db", {**table, "queue_timeout": "300ms"}, tmp_path, None, database.INTEGRATION)
    try:
        with pytest.raises(RegrowError) as caught:
            made.front.ask(Call("one", {}), timeout=5.0)
    finally:
        made.supervisor.stop()
    assert (caught.value.code, caught.value.started, caught.value.retryable) == ("connection_error", "no", True)
