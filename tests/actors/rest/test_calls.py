"""What is sent and what comes back, at a real HTTP server."""

from __future__ import annotations

import base64
import math
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.http.operation import REQUESTS
from actors.integrations import graphql, rest
from config.errors import ConfigErrors
from config.load import load_table
from regrow.protocol.errors import (
    ConnectionFailed,
    DecodeError,
    InvalidArguments,
    NotFound,
    RateLimited,
    TimedOut,
    TooLarge,
    UpstreamError,
)
from tests.actors.rest.conftest import Api, Start, outcome
from tests.support.http_peer import HttpPeer


def test_a_get_returns_the_decoded_body_and_its_header_says_what_was_answered(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /users/ada", json={"login": "ada"}, headers={"ETag": '"e1"', "X-Other": "no"})
    answer = api().full("get_user", username="ada", per_page=5)
    assert answer.value == {"login": "ada"}
    assert answer.header == {
        "status": 200,
        "headers": {"etag": '"e1"', "content-type": "application/json"},
        "tries": 1,
    }
    assert http_peer.requests[0].target == "/users/ada?per_page=5"


def test_a_post_sends_its_arguments_as_json(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("POST /issues", status=201, json={"number": 1})
    assert api().call("make_issue", title="x", labels=["a"]) == {"number": 1}
    arrived = http_peer.requests[0]
    assert arrived.json() == {"title": "x", "labels": ["a"]}
    assert arrived.headers["content-type"] == "application/json"


def test_no_content_is_none(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("DELETE /issues/7", status=204)
    assert api().call("remove", number=7) is None


@pytest.mark.parametrize(
    ("auth", "name", "value"),
    [
        ({"bearer": "${TOKEN}"}, "authorization", "Bearer tok-secret-0123456789"),
        ({"api_key": "${TOKEN}", "header": "X-Api-Key"}, "x-api-key", "tok-secret-0123456789"),
        (
            {"basic": {"username": "ada", "password": "${TOKEN}"}},
            "authorization",
            "Basic " + base64.b64encode(b"ada:tok-secret-0123456789").decode(),
        ),
    ],
)
def test_credentials_go_into_their_header(
    api: Start, http_peer: HttpPeer, auth: dict[str, Any], name: str, value: str
) -> None:
    http_peer.reply("*", json={})
    api(auth=auth).call("get_user", username="ada")
    assert http_peer.requests[0].headers[name] == value


def test_an_api_key_goes_into_the_query(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    api(auth={"api_key": "${TOKEN}", "query": "appid"}).call("get_user", username="ada", q="x")
    assert http_peer.requests[0].query == {"q": "x", "appid": "tok-secret-0123456789"}


def test_headers_of_the_configuration_are_sent(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    api(headers={"X-GitHub-Api-Version": "2022-11-28", "Accept": "text/x"}).call("get_user", username="a")
    arrived = http_peer.requests[0].headers
    assert (arrived["x-github-api-version"], arrived["accept"]) == ("2022-11-28", "text/x")


def test_a_path_under_the_base_url_is_kept(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /v2/users/ada", json={})
    api(base_url=http_peer.url + "/v2/").call("get_user", username="ada")
    assert http_peer.requests[0].path == "/v2/users/ada"


def test_declared_arguments_are_typed_and_have_defaults(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json=[])
    operation = {"request": "GET /repos", "params": {"page": {"type": "integer", "default": 1}, "sort": "string"}}
    made = api(operations={"list_repos": operation})
    made.call("list_repos", sort="name", other="kept")
    assert http_peer.requests[0].query == {"sort": "name", "page": "1", "other": "kept"}
    with pytest.raises(InvalidArguments, match="page"):
        made.call("list_repos", page="one")


def test_a_missing_argument_of_the_path_is_refused_before_anything_is_sent(api: Start, http_peer: HttpPeer) -> None:
    with pytest.raises(InvalidArguments, match="username"):
        api().call("get_user")
    with pytest.raises(InvalidArguments, match="whole segment"):
        api("second").call("get_user", username="..")
    assert http_peer.requests == []


def test_an_unknown_operation_names_those_there_are(api: Start) -> None:
    with pytest.raises(NotFound, match="get_user, make_issue, put_issue, remove"):
        api().call("get_usr", username="x")


@pytest.mark.parametrize(("status", "retryable"), [(400, False), (404, False), (422, False), (501, False)])
def test_an_error_status_is_an_upstream_error_with_a_piece_of_its_body(
    api: Start, http_peer: HttpPeer, status: int, retryable: bool
) -> None:
    http_peer.reply("*", status=status, json={"message": "Not Found"}, headers={"X-Request-Id": "r9"})
    with pytest.raises(UpstreamError) as caught:
        api(retry={"retries": 3, "base": "1ms"}).call("get_user", username="ada")
    assert (caught.value.status, caught.value.body) == (status, {"message": "Not Found"})
    assert caught.value.details["headers"]["x-request-id"] == "r9"
    assert caught.value.retryable is retryable
    assert caught.value.started == "yes"
    assert http_peer.count() == 1


def test_a_429_is_rate_limited_and_was_started(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=429, headers={"Retry-After": "17"})
    with pytest.raises(RateLimited) as caught:
        api().call("get_user", username="ada")
    assert (caught.value.started, caught.value.retry_after_s, caught.value.retryable) == ("yes", 17.0, True)


def test_githubs_403_without_requests_left_is_rate_limited(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=403, headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "30"})
    limit = {"requests": 5000, "window": "1h", "header": "X-RateLimit-Remaining"}
    with pytest.raises(RateLimited) as caught:
        api(rate_limit=limit).call("get_user", username="ada")
    assert caught.value.retry_after_s == 30.0


def test_an_ordinary_403_is_an_upstream_error(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=403, json={})
    with pytest.raises(UpstreamError):
        api().call("get_user", username="ada")


def test_a_body_that_is_not_what_it_says_is_a_decode_error(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", body=b"<html>oops", headers={"Content-Type": "application/json"})
    with pytest.raises(DecodeError) as caught:
        api().call("get_user", username="ada")
    assert caught.value.details["first_bytes"] == "<html>oops"


def test_html_where_json_was_configured_is_a_decode_error(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", body=b"<html>login please", headers={"Content-Type": "text/html"})
    operations = {"get": {"request": "GET /x", "format": "json"}}
    with pytest.raises(DecodeError, match="not valid json"):
        api(operations=operations).call("get")


def test_a_response_over_the_limit_is_too_large(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", body=b"x" * 2000)
    with pytest.raises(TooLarge):
        api(max_response="1KiB").call("get_user", username="ada")


def test_a_peer_that_is_down_is_a_connection_error_that_started_nothing(api: Start, http_peer: HttpPeer) -> None:
    http_peer.stop()
    with pytest.raises(ConnectionFailed) as caught:
        api().call("get_user", username="ada")
    assert (caught.value.started, caught.value.retryable) == ("no", True)


def test_a_peer_that_is_slow_is_a_timeout_of_the_integrations_own(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", hold=True)
    with pytest.raises(TimedOut, match=r"api\.get_user: no answer from 127\.0\.0\.1:\d+ within 0"):
        api(timeout="100ms").call("get_user", username="ada")
    http_peer.release()


def test_no_secret_stands_in_any_error(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=401, json={"message": "key tok-secret-0123456789 is not valid"})
    made = api(auth={"api_key": "${TOKEN}", "query": "appid"})
    with pytest.raises(UpstreamError) as refused:
        made.call("get_user", username="ada")
    http_peer.stop()
    with pytest.raises(ConnectionFailed) as down:
        made.call("get_user", username="ada")
    for error in (refused.value, down.value):
        assert "tok-secret" not in str(error.to_wire())
        assert "tok-secret" not in repr(error.__cause__)


def test_every_try_is_counted_by_how_it_ended(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=500)
    made = api("counted", retry={"retries": 2, "base": "1ms"})
    with pytest.raises(UpstreamError):
        made.call("get_user", username="ada")
    http_peer.reply("*", json={})
    made.call("get_user", username="ada")
    assert REQUESTS.value("counted", "get_user", "upstream_error") == 3
    assert REQUESTS.value("counted", "get_user", "ok") == 1


def test_every_series_exists_before_the_first_call(api: Start) -> None:
    api("quiet")
    outcomes = {labels[2] for labels in REQUESTS.series() if labels[:2] == ("quiet", "get_user")}
    assert {"ok", "upstream_error", "timeout"} <= outcomes


def test_its_exports_describe_the_operations(api: Start) -> None:
    exported = api().plan.exports["get_user"]
    assert exported.doc == "GET /users/{username}"
    assert exported.schema()["required"] == ["username"]
    assert exported.schema()["additionalProperties"] is True


def test_everything_that_goes_out_over_http_goes_through_one_client(
    api: Start, http_peer: HttpPeer, tmp_path: Path
) -> None:
    http_peer.reply("POST /token", json={"access_token": "t", "expires_in": 3600})
    http_peer.reply("*", json={"data": {}})
    oauth = {"oauth2": {"token_url": f"{http_peer.url}/token", "client_id": "me", "client_secret": "${TOKEN}"}}
    rest_api = api("one", auth=oauth, storage={"path": "/data/{partition}"})
    rest_api.call("get_user", username="ada")
    rest_api.call("load", asset="n", partition="p")
    table = {"base_url": f"{http_peer.url}/graphql", "operations": {"ask": {"query": "{ me }"}}}
    graph = Api("two", table, tmp_path, None, graphql.INTEGRATION)
    graph.call("ask")
    graph.supervisor.stop()
    assert [request.path for request in http_peer.requests] == ["/token", "/users/ada", "/data/p", "/graphql"]
    assert {request.headers["user-agent"] for request in http_peer.requests} == {"regrow"}
    # No other module of ours opens a connection to an HTTP peer.
    opens = re.compile(r"requests\.(Session|get|post|request)\(|HTTPAdapter|PoolManager\(|HTTPS?Connection\(")
    actors = Path(rest.__file__).parents[1]
    assert [file.name for file in actors.rglob("*.py") if opens.search(file.read_text())] == ["client.py"]


def test_unless_told_otherwise_25_calls_run_at_once_and_the_next_ones_wait(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", hold=True, json={})
    made = api()
    calls = [made.begin("get_user", username=f"u{number}") for number in range(40)]
    http_peer.wait_for_requests(25)
    assert made.front.actor.status()["waiting"] == 15
    assert (http_peer.count(), http_peer.connections) == (25, 25)
    http_peer.release()
    assert [outcome(call) for call in calls] == [{}] * 40


def test_no_time_limit_of_an_integration_is_endless(tmp_path: Path) -> None:
    def limits(config: Any) -> dict[str, float]:
        return {each.name: getattr(config, each.name) for each in msgspec.structs.fields(config)}

    made = load_table(rest.Rest, {"base_url": "http://127.0.0.1:1"}, tmp_path, environ={})
    found = limits(made) | limits(made.retry) | limits(made.breaker)
    for key in ("timeout", "connect_timeout", "max", "window", "reset_after", "probe_lease", "max_stale"):
        assert 0 < found[key] < math.inf
    for key in ("timeout", "connect_timeout"):
        for word in ("0s", "infinity", "never"):
            with pytest.raises(ConfigErrors):
                load_table(rest.Rest, {"base_url": "http://127.0.0.1:1", key: word}, tmp_path, environ={})
