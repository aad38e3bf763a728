"""A paginated answer as a stream, and the other shapes of requests and answers."""

from __future__ import annotations

from typing import Any

import pytest

from regrow.protocol.errors import DecodeError, TooLarge, UpstreamError
from runtime.messages import Call
from runtime.streams import Source, iterate
from tests.actors.rest.conftest import QUICKLY, Api, Start
from tests.support.http_peer import HttpPeer, Reply
from tests.support.http_peer import Request as Arrived
from tests.support.vectors import document, needs_vectors

LISTED: dict[str, Any] = {"list": {"request": "GET /issues", "paginate": "link"}}


def pages(peer: HttpPeer, count: int, size: int = 3) -> None:
    def answer(request: Arrived) -> Reply:
        page = int(request.query.get("page", "1"))
        link = {"Link": f'</issues?page={page + 1}>; rel="next"'} if page < count else {}
        return Reply(json=[page * 100 + item for item in range(size)], headers=link)

    peer.reply("GET /issues", handler=answer)


def stream(made: Api, operation: str = "list", **args: Any) -> Source:
    found: Source = made.front.ask(Call(operation, args), timeout=5.0)
    return found


def test_the_items_of_all_pages_come_in_order(api: Start, http_peer: HttpPeer) -> None:
    pages(http_peer, 3)
    made = api(operations=LISTED, auth={"api_key": "${TOKEN}", "query": "key"})
    items = list(iterate(stream(made, state="open"), at_once=2))
    assert items == [100, 101, 102, 200, 201, 202, 300, 301, 302]
    assert [request.query["key"] for request in http_peer.requests] == ["tok-secret-0123456789"] * 3
    assert http_peer.requests[0].query["state"] == "open"


def test_a_page_is_asked_for_when_its_items_are_wanted_and_not_before(api: Start, http_peer: HttpPeer) -> None:
    pages(http_peer, 3)
    source = stream(api(operations=LISTED))
    assert http_peer.count() == 0
    reader = iterate(source, at_once=3)
    assert [next(reader) for _ in range(3)] == [100, 101, 102]
    assert http_peer.count() == 1
    next(reader)
    assert http_peer.count() == 2
    reader.close()  # type: ignore[attr-defined]


def test_an_empty_page_does_not_end_the_stream(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /issues", json=[1])
    http_peer.reply("GET /issues", json=[], headers={"Link": '</issues?page=2>; rel="next"'}, times=1)
    assert list(iterate(stream(api(operations=LISTED)))) == [1]


def test_a_failed_page_is_retried_like_any_call(api: Start, http_peer: HttpPeer) -> None:
    pages(http_peer, 2, size=1)
    http_peer.reply("GET /issues", status=503, times=2)
    assert list(iterate(stream(api(operations=LISTED, retry=QUICKLY)))) == [100, 200]


def test_the_list_may_lie_within_the_answer(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /search", json={"total": 2, "items": [1, 2]})
    made = api(operations={"list": {"request": "GET /search", "paginate": "link", "select": "items"}})
    assert list(iterate(stream(made))) == [1, 2]


def test_an_answer_that_is_no_list_says_what_to_write(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /issues", json={"items": []})
    with pytest.raises(DecodeError, match="name the list with select"):
        list(iterate(stream(api(operations=LISTED))))


def test_pages_without_end_end_at_the_limit(api: Start, http_peer: HttpPeer) -> None:
    pages(http_peer, 1000, size=1)
    made = api(operations={"list": {**LISTED["list"], "max_pages": 4}})
    with pytest.raises(TooLarge, match=r"max_pages \(4\)"):
        list(iterate(stream(made)))
    assert http_peer.count() == 4


@pytest.mark.parametrize("target", ["http://elsewhere.invalid/issues", "/issues", "http://[bad"])
def test_a_next_page_elsewhere_or_the_same_again_is_not_followed(api: Start, http_peer: HttpPeer, target: str) -> None:
    http_peer.reply("GET /issues", json=[1], headers={"Link": f'<{target}>; rel="next"'})
    with pytest.raises((UpstreamError, DecodeError), match="next page"):
        list(iterate(stream(api(operations=LISTED, auth={"bearer": "${TOKEN}"}))))
    assert http_peer.count() == 1


@needs_vectors
def test_githubs_own_pages_are_read_as_it_recorded_them(api: Start, http_peer: HttpPeer) -> None:
    exchanges = document("github-rest/paginate-issues.json")
    recorded = {each["path"]: each for each in exchanges if each["method"] == "get"}
    first = next(iter(recorded))

    def answer(request: Arrived) -> Reply:
        found = recorded[request.target]
        link = found["headers"].get("link", "").replace("https://api.github.com", http_peer.url)
        return Reply(json=found["response"], headers={"Link": link} if link else {})

    http_peer.reply("*", handler=answer)
    path, _, query = first.partition("?")
    made = api(operations={"list": {"request": f"GET {path}", "paginate": "link"}})
    args = dict(pair.split("=") for pair in query.split("&")) if query else {}
    items = list(iterate(stream(made, **args)))
    assert [item["number"] for item in items] == sorted((item["number"] for item in items), reverse=True)
    assert len(items) == sum(len(each["response"]) for each in recorded.values())
    assert http_peer.count() == len(recorded)


@needs_vectors
def test_githubs_own_refusal_is_told_with_its_words(api: Start, http_peer: HttpPeer) -> None:
    (recorded,) = document("github-rest/errors.json")
    http_peer.reply("*", status=int(recorded["status"]), json=recorded["response"])
    with pytest.raises(UpstreamError) as caught:
        api().call("make_issue", **recorded["body"])
    assert caught.value.status == 422
    assert caught.value.body == recorded["response"]
    assert caught.value.retryable is False


def test_a_form_a_multipart_and_a_raw_body_arrive_as_such(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    operations = {
        "charge": {"request": "POST /charges", "body": "form"},
        "upload": {"request": "POST /files", "body": "multipart"},
        "put": {"request": "PUT /blobs/{name}", "body": "raw", "content_type": "image/png", "query": ["dry"]},
    }
    made = api(operations=operations)
    made.call("charge", amount=500, currency="eur")
    made.call("upload", note="x", file={"filename": "a.txt", "content": "hello"})
    made.call("put", name="a b", dry=True, body=b"\x89PNG")
    form, upload, put = http_peer.requests
    assert (form.body, form.headers["content-type"]) == (
        b"amount=500&currency=eur", "application/x-www-form-urlencoded",
    )  # fmt: skip
    assert upload.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'filename="a.txt"' in upload.body and b"hello" in upload.body
    assert (put.target, put.body, put.headers["content-type"]) == ("/blobs/a%20b?dry=true", b"\x89PNG", "image/png")


def test_a_part_of_the_answer_can_be_selected(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={"items": [{"name": "a"}]})
    made = api(operations={"get": {"request": "GET /x", "select": "items.0.name"}})
    assert made.call("get") == "a"
