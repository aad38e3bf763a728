"""The client against httpbin, which nobody here wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from regrow.protocol.errors import RegrowError, TimedOut, UpstreamError
from tests.actors.rest.conftest import Api, Start
from tests.support.peers import Foreign, needs_peers, program

pytestmark = [
    needs_peers,
    # The server is the module's, and so are its process and the reader of its output.
    pytest.mark.allow_leaks("process", "greenlet", "socket"),
]

OPERATIONS: dict[str, Any] = {
    "get": {"request": "GET /get"},
    "anything": {"request": "POST /anything/{name}"},
    "form": {"request": "POST /post", "body": "form", "select": "form"},
    "upload": {"request": "POST /post", "body": "multipart", "select": "files"},
    "raw": {"request": "PUT /put", "body": "raw", "content_type": "text/plain", "select": "data"},
    "status": {"request": "GET /status/{code}"},
    "compressed": {"request": "GET /{kind}"},
    "redirect": {"request": "GET /redirect/{times}"},
    "bytes": {"request": "GET /bytes/{size}"},
    "login": {"request": "GET /basic-auth/{user}/{password}"},
    "bearer": {"request": "GET /bearer"},
    "delay": {"request": "GET /delay/{seconds}", "timeout": "200ms"},
    "drip": {"request": "GET /drip", "timeout": "300ms"},
    "html": {"request": "GET /html"},
}


@pytest.fixture(scope="module")
def server() -> Iterator[Foreign]:
    with Foreign(program("plain_httpbin.py"), "{port}") as running:
        yield running


@pytest.fixture
def made(api: Start, server: Foreign) -> Api:
    return api(base_url=server.url, operations=OPERATIONS, auth={"bearer": "${TOKEN}"})


def test_query_headers_and_bodies_arrive(made: Api) -> None:
    got = made.call("get", q="a b&c", list=["1", "2"])
    assert got["args"] == {"q": "a b&c", "list": ["1", "2"]}
    assert got["headers"]["Authorization"] == "Bearer tok-secret-0123456789"
    posted = made.call("anything", name="ä/b", title="x")
    assert posted["json"] == {"title": "x"}
    assert made.call("form", a="1", b="ü") == {"a": "1", "b": "ü"}
    assert made.call("upload", file={"filename": "a.txt", "content": "hello"}) == {"file": "hello"}
    assert made.call("raw", body="as it is") == "as it is"


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 418, 429, 500, 502, 503, 504])
def test_every_status_is_typed(made: Api, code: int) -> None:
    with pytest.raises(RegrowError) as caught:
        made.call("status", code=code)
    assert caught.value.code == ("rate_limited" if code == 429 else "upstream_error")
    assert caught.value.details["status"] == code


@pytest.mark.parametrize("kind", ["gzip", "deflate"])
def test_compressed_answers_are_read(made: Api, kind: str) -> None:
    assert made.call("compressed", kind=kind)["gzipped" if kind == "gzip" else "deflated"] is True


def test_redirects_are_followed_so_far_and_no_further(made: Api) -> None:
    assert made.call("redirect", times=3)["url"].endswith("/get")
    with pytest.raises(UpstreamError, match="more than 5 times"):
        made.call("redirect", times=8)


def test_bytes_and_html_come_as_what_they_are(made: Api) -> None:
    assert len(made.call("bytes", size=1000)) == 1000
    assert isinstance(made.call("bytes", size=10), bytes)
    assert made.call("html").startswith("<!DOCTYPE html>")


def test_credentials_are_taken(api: Start, server: Foreign, made: Api) -> None:
    assert made.call("bearer") == {"authenticated": True, "token": "tok-secret-0123456789"}
    basic = {"basic": {"username": "ada", "password": "${TOKEN}"}}
    other = api("basic", base_url=server.url, operations=OPERATIONS, auth=basic)
    answer = other.call("login", user="ada", password="tok-secret-0123456789")
    assert answer["authenticated"] is True


@pytest.mark.parametrize(("operation", "args"), [("delay", {"seconds": 3}), ("drip", {"duration": 3, "numbytes": 10})])
def test_what_is_slow_ends_at_its_time(made: Api, operation: str, args: dict[str, Any]) -> None:
    with pytest.raises(TimedOut):
        made.call(operation, **args)
