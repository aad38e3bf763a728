"""What is sent and what an answer means, at a real HTTP server."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from regrow.protocol.errors import DecodeError, InvalidArguments, RateLimited, RegrowError, UpstreamError
from tests.actors.graphql.conftest import REPOS, STAR
from tests.actors.rest.conftest import QUICKLY, Start
from tests.support.http_peer import HttpPeer, Reply
from tests.support.servers.redis import RedisServer

NODES = [{"name": "regrow", "stargazerCount": 7}]
DATA = {"user": {"repositories": {"nodes": NODES}}}
NEW = "application/graphql-response+json"


def test_an_operation_sends_its_text_its_name_and_its_variables(graph: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("POST /graphql", json={"data": DATA})
    assert graph().call("get_user_repos", login="ada", first=3) == DATA
    arrived = http_peer.requests[0]
    assert arrived.json() == {"query": REPOS, "operationName": "UserRepos", "variables": {"login": "ada", "first": 3}}
    assert arrived.headers["content-type"] == "application/json"
    assert arrived.headers["accept"].startswith(NEW)


def test_a_missing_variable_is_refused_before_anything_is_sent(graph: Start, http_peer: HttpPeer) -> None:
    with pytest.raises(InvalidArguments, match="login"):
        graph().call("get_user_repos", first=3)
    assert http_peer.requests == []


@pytest.mark.parametrize(
    "args", [{"login": 5}, {"login": None}, {"login": "a", "first": "ten"}, {"login": "a", "frist": 1}]
)
def test_a_variable_of_another_type_is_refused_before_anything_is_sent(
    graph: Start, http_peer: HttpPeer, args: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArguments):
        graph().call("get_user_repos", **args)
    assert http_peer.requests == []


def test_a_default_of_the_configuration_is_sent_and_one_of_the_text_is_left_to_the_peer(
    graph: Start, http_peer: HttpPeer
) -> None:
    http_peer.reply("*", json={"data": DATA})
    with_default = {"query": REPOS, "variables": {"first": {"type": "integer", "default": 25}}}
    made = graph(operations={"theirs": {"query": REPOS}, "ours": with_default})
    made.call("theirs", login="ada")
    made.call("ours", login="ada")
    assert [each.json()["variables"] for each in http_peer.requests] == [
        {"login": "ada"},
        {"login": "ada", "first": 25},
    ]


def test_a_part_of_data_can_be_selected(graph: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={"data": DATA})
    made = graph(operations={"repos": {"query": REPOS, "select": "user.repositories.nodes"}})
    assert made.call("repos", login="ada") == NODES


def test_data_with_errors_is_returned_with_the_errors_in_the_header(graph: Start, http_peer: HttpPeer) -> None:
    errors = [{"message": "no access", "path": ["user", "email"], "extensions": {"code": "FORBIDDEN", "secret": "x"}}]
    http_peer.reply("*", json={"data": DATA, "errors": errors})
    answer = graph().full("get_user_repos", login="ada")
    assert answer.value == DATA
    assert answer.header["errors"] == [{"message": "no access", "path": ["user", "email"], "code": "FORBIDDEN"}]


def test_data_with_errors_can_be_a_failure(graph: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={"data": DATA, "errors": [{"message": "no access"}]})
    with pytest.raises(UpstreamError, match="no access"):
        graph(operations={"repos": {"query": REPOS, "partial": "fail"}}).call("repos", login="ada")


def test_a_partial_answer_is_not_kept(graph: Start, http_peer: HttpPeer) -> None:
    made = graph(operations={"repos": {"query": REPOS, "cache": "5m"}})
    http_peer.reply("*", json={"data": DATA, "errors": [{"message": "no"}]}, times=1)
    made.call("repos", login="ada")
    http_peer.reply("*", json={"data": DATA})
    assert made.full("repos", login="ada").header.get("cache") is None
    assert made.full("repos", login="ada").header["cache"] == "fresh"
    assert made.full("repos", login="bob").header.get("cache") is None
    assert http_peer.count() == 3


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        ({"message": "slow down", "type": "RATE_LIMITED"}, RateLimited, True),
        ({"message": "who", "extensions": {"code": "UNAUTHENTICATED"}}, UpstreamError, False),
        ({"message": "bad", "extensions": {"code": "GRAPHQL_VALIDATION_FAILED"}}, UpstreamError, False),
        ({"message": "oops", "extensions": {"code": "INTERNAL_SERVER_ERROR"}}, UpstreamError, True),
        ({"message": "says nothing more"}, UpstreamError, False),
        ("no object at all", UpstreamError, False),
    ],
)
def test_errors_without_data_are_told_apart(
    graph: Start, http_peer: HttpPeer, error: Any, kind: type[RegrowError], retryable: bool
) -> None:
    http_peer.reply("*", json={"data": None, "errors": [error]}, headers={"Retry-After": "9"})
    with pytest.raises(kind) as caught:
        graph().call("get_user_repos", login="ada")
    assert (caught.value.retryable, caught.value.started) == (retryable, "yes")
    if kind is RateLimited:
        assert caught.value.retry_after_s == 9.0


def test_a_query_that_failed_inside_the_peer_is_repeated_and_a_mutation_is_not(
    graph: Start, http_peer: HttpPeer
) -> None:
    broken = {"data": None, "errors": [{"message": "oops", "extensions": {"code": "INTERNAL_SERVER_ERROR"}}]}
    http_peer.reply("*", json={"data": DATA})
    http_peer.reply("*", json=broken, times=2)
    made = graph(retry=QUICKLY)
    assert made.full("get_user_repos", login="ada").header["tries"] == 3
    http_peer.reply("*", json=broken)
    with pytest.raises(UpstreamError):
        made.call("star", id="x")
    assert http_peer.count() == 4


@pytest.mark.parametrize("status", [200, 294, 400, 422])
def test_of_the_new_content_type_the_body_counts_whatever_its_status(
    graph: Start, http_peer: HttpPeer, status: int
) -> None:
    body = b'{"data": null, "errors": [{"message": "unknown field"}]}'
    http_peer.reply("*", status=status, body=body, headers={"Content-Type": NEW + "; charset=utf-8"})
    with pytest.raises(UpstreamError, match="unknown field") as caught:
        graph().call("get_user_repos", login="ada")
    assert caught.value.status == status


def test_of_plain_json_a_status_outside_of_2xx_counts(graph: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=400, json={"errors": [{"message": "unknown field"}]})
    with pytest.raises(UpstreamError, match="answered 400") as caught:
        graph().call("get_user_repos", login="ada")
    assert caught.value.body == {"errors": [{"message": "unknown field"}]}


@pytest.mark.parametrize("body", [b"[]", b'{"message": "hello"}', b'{"data": null}', b"<html>", b""])
def test_what_is_no_answer_of_graphql_is_a_decode_error(graph: Start, http_peer: HttpPeer, body: bytes) -> None:
    http_peer.reply("*", body=body, headers={"Content-Type": "application/json"})
    with pytest.raises(DecodeError):
        graph().call("get_user_repos", login="ada")


def test_the_exports_tell_the_variables(graph: Start) -> None:
    exported = graph().plan.exports["get_user_repos"]
    assert exported.doc == "query UserRepos"
    assert exported.schema()["required"] == ["login"]
    assert exported.schema()["additionalProperties"] is False
    assert STAR.startswith("mutation")


def test_a_problem_that_stands_in_the_place_of_an_answer_is_told(graph: Start, http_peer: HttpPeer) -> None:
    body = b'{"title": "Maintenance", "detail": "Back at noon.", "window": "12:00"}'
    http_peer.reply("*", status=503, body=body, headers={"Content-Type": "application/problem+json"})
    with pytest.raises(UpstreamError, match="answered 503: Maintenance: Back at noon") as caught:
        graph().call("get_user_repos", login="ada")
    assert caught.value.retryable is True
    assert caught.value.details["problem"]["window"] == "12:00"


def test_a_stale_answer_of_a_query_is_used_at_once_and_renewed(graph: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={"data": DATA})
    table = {"query": REPOS, "cache": "10ms", "stale_while_revalidate": "5m"}
    made = graph(operations={"repos": table})
    made.call("repos", login="ada")
    gevent.sleep(0.02)
    assert made.full("repos", login="ada").header["cache"] == "stale"
    http_peer.wait_for_requests(2)


def test_answers_of_queries_may_be_kept_in_redis_apart_by_their_variables(
    graph: Start, http_peer: HttpPeer, redis: RedisServer
) -> None:
    http_peer.reply("*", handler=lambda request: Reply(json={"data": request.json()["variables"]["login"]}))
    table = {"query": REPOS, "cache": "5m"}
    made = graph(redis_url=redis.url, cache_store="redis", operations={"repos": table})
    assert [made.call("repos", login=login) for login in ("ada", "bob", "ada")] == ["ada", "bob", "ada"]
    assert http_peer.count() == 2
    with redis.connect() as client:
        assert len(client.keys("*:answers:*:e:*")) == 2
