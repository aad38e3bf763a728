"""The storage contract over an HTTP API."""

from __future__ import annotations

from datetime import date
from http import HTTPStatus
from typing import Any

import pytest

from actors.resilience.classify import PERMANENT_5XX
from actors.storage.actor import ActorStorage
from actors.storage.registry import Registry
from actors.storage.rest import LOADED
from regrow.protocol.errors import ConnectionFailed, DecodeError, NotFound, RegrowError, UpstreamError
from tests.actors.rest.conftest import QUICKLY, Start
from tests.support.http_peer import HttpPeer

DATED: dict[str, Any] = {
    "operations": {},
    "storage": {"path": "/data/{partition}"},
    "auth": {"bearer": "${TOKEN}"},
}


def storage(api: Start, **keys: Any) -> ActorStorage:
    api("numbers", **{**DATED, **keys})
    found = Registry().resolve("numbers")
    assert isinstance(found, ActorStorage)
    return found


def test_a_date_is_loaded_from_the_path_that_it_makes(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /data/2025-01-15", json={"data": [1, 2, 3]})
    assert storage(api).load("numbers", date(2025, 1, 15)) == {"data": [1, 2, 3]}


def test_a_partition_is_loaded_with_the_configured_credentials(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /data/2025-01-15", json={"data": [1, 2, 3]})
    assert storage(api).load("numbers", "2025-01-15") == {"data": [1, 2, 3]}
    assert http_peer.requests[0].headers["authorization"] == "Bearer tok-secret-0123456789"
    assert http_peer.requests[0].query_string == ""


def test_what_is_not_there_is_not_found_and_counts_as_no_failure(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=404)
    made = storage(api, breaker={"failures": 1})
    for _ in range(3):
        with pytest.raises(NotFound):
            made.load("numbers", "missing")


@pytest.mark.parametrize("status", [202, 206, 301, 400, 401, 403, 409, 410, 418, 500, 501, 502, 503])
def test_every_other_status_is_an_error_with_status_and_body(api: Start, http_peer: HttpPeer, status: int) -> None:
    http_peer.reply("*", status=status, json={"why": "told"})
    made = storage(api)
    for call in (lambda: made.load("n", "p"), lambda: made.store("n", {"value": 42}, "p")):
        with pytest.raises(UpstreamError) as caught:
            call()
        assert (caught.value.status, caught.value.body) == (status, {"why": "told"})


# 1xx comes before the answer and is no answer.
@pytest.mark.parametrize("status", [*(each.value for each in HTTPStatus if each >= 200), 299, 499, 520, 599])
def test_whatever_the_status_a_load_ends_well_or_in_one_typed_error(
    api: Start, http_peer: HttpPeer, status: int
) -> None:
    http_peer.reply("*", status=status, json=None if status in {204, 205, 304} else {"data": 1})
    made = storage(api, max_redirects=0)
    if status in LOADED:
        assert made.load("n", "p") == (None if status == 204 else {"data": 1})
        return
    with pytest.raises(RegrowError) as caught:
        made.load("n", "p")
    expected = {404: "not_found", 429: "rate_limited"}.get(status, "upstream_error")
    assert (caught.value.code, caught.value.started) == (expected, "yes")
    if status not in {404, 429}:
        assert caught.value.details["status"] == status
    # 5xx and those that ask to come again may get better, all others stay as they are.
    may_get_better = status in {408, 421, 425, 429} or (status >= 500 and status not in PERMANENT_5XX)
    assert caught.value.retryable is may_get_better


@pytest.mark.parametrize("status", [200, 201, 204])
def test_data_is_stored_as_json(api: Start, http_peer: HttpPeer, status: int) -> None:
    http_peer.reply("POST /data/2025-01-15", status=status)
    storage(api).store("numbers", {"value": 42}, "2025-01-15")
    arrived = http_peer.requests[0]
    assert (arrived.json(), arrived.headers["content-type"]) == ({"value": 42}, "application/json")


def test_a_lost_connection_is_a_connection_error(api: Start, http_peer: HttpPeer) -> None:
    http_peer.stop()
    with pytest.raises(ConnectionFailed):
        storage(api).load("numbers", "2025-01-15")


def test_an_answer_that_is_not_what_it_says_is_a_decode_error(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", body=b"<html>", headers={"Content-Type": "application/json"})
    with pytest.raises(DecodeError):
        storage(api).load("numbers", "2025-01-15")


def test_it_knows_what_exists_and_deletes_it_more_than_once(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("HEAD /data/there")
    http_peer.reply("DELETE /data/there", status=204)
    made = storage(api)
    assert made.exists("numbers", "there")
    assert not made.exists("numbers", "elsewhere")
    made.delete("numbers", "there")
    made.delete("numbers", "elsewhere")


def test_where_head_is_not_known_get_tells_what_exists(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /data/there", json=[1])
    assert storage(api, storage={"path": "/data/{partition}", "exists_method": "GET"}).exists("numbers", "there")


def test_a_store_by_put_is_retried_and_one_by_post_is_not(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=201)
    http_peer.reply("*", status=503, times=2)
    storage(api, retry=QUICKLY, storage={"path": "/{asset}/{partition}", "store_method": "PUT"}).store("a/b", 1, "c")
    assert [request.path for request in http_peer.requests] == ["/a%2Fb/c"] * 3


def test_a_store_by_post_with_a_key_is_retried(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=201)
    http_peer.reply("*", status=503, times=1)
    storage(api, retry=QUICKLY, idempotency={}).store("numbers", 1, "p")
    first, second = (request.headers["idempotency-key"] for request in http_peer.requests)
    assert first == second


def test_partitions_cannot_be_listed_and_that_is_said(api: Start) -> None:
    with pytest.raises(NotFound):
        storage(api).list_partitions("numbers")
