"""Every exchange that was recorded with GitHub's API: we ask what was asked, and hear what it said."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from config.secret import forget_all
from regrow.protocol.errors import UpstreamError
from tests.actors.rest.conftest import Start
from tests.support.http_peer import HttpPeer, Reply
from tests.support.http_peer import Request as Arrived
from tests.support.vectors import FOLDER, needs_vectors

pytestmark = needs_vectors

FILES = sorted((FOLDER / "github-rest").glob("*.json"))
GITHUB = "https://api.github.com"
#: what the recording's own client wrote of itself, and what depends on where the peer listens
ITS_OWN = {"accept", "authorization", "connection", "content-length", "content-type", "host", "user-agent"}


def exchanges(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(file.read_text())
    return found


class GitHub:
    """Says what it said then, in the order in which it said it."""

    def __init__(self, peer: HttpPeer, recorded: list[dict[str, Any]]) -> None:
        self.peer = peer
        self.left = list(recorded)
        peer.reply("*", handler=self.answer)

    def answer(self, request: Arrived) -> Reply:
        said = self.left.pop(0)
        assert (request.method.lower(), request.target) == (said["method"], said["path"])
        # As recorded; the lengths and the encoding are those of this peer, which sends the body as it is.
        headers = {
            name: str(value).replace(GITHUB, self.peer.url)
            for name, value in said["headers"].items()
            if name.lower() not in {"content-length", "content-encoding", "transfer-encoding", "connection"}
        }
        if said["status"] == 204:
            return Reply(status=204, headers=headers)
        return Reply(status=int(said["status"]), body=body_of(said["response"]), headers=headers)


def body_of(response: Any) -> bytes:
    return response.encode() if isinstance(response, str) else json.dumps(response).encode()


def operation(said: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The operation that asks as it was asked then, and its arguments."""
    path, _, query = said["path"].partition("?")
    table: dict[str, Any] = {"request": f"{said['method'].upper()} {path}"}
    args: dict[str, Any] = dict(parse_qsl(query))
    body = said.get("body")
    if isinstance(body, dict):
        args |= body
    elif said["method"] in {"post", "put", "patch"} and body:
        table |= {"body": "raw", "content_type": said["reqheaders"].get("content-type", "text/plain")}
        args["body"] = body
    if query and said["method"] not in {"get", "delete"}:
        table["query"] = list(dict(parse_qsl(query)))
    return table, args


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_recorded_exchanges_are_asked_and_answered_again(api: Start, http_peer: HttpPeer, file: Path) -> None:
    # Addresses of GitHub that other tests took out of a variable are masked in texts, as all that came through one is.
    forget_all()
    recorded = exchanges(file)
    github = GitHub(http_peer, recorded)
    asked = [operation(said) for said in recorded]
    tables = {f"ask_{number}": table for number, (table, _) in enumerate(asked)}
    made = api(operations=tables, max_redirects=0)
    for number, (said, (_, args)) in enumerate(zip(recorded, asked, strict=True)):
        if said["status"] >= 300:
            with pytest.raises(UpstreamError) as caught:
                made.call(f"ask_{number}", **args)
            assert (caught.value.status, caught.value.body) == (said["status"], said["response"])
            assert caught.value.retryable is False
        else:
            answer = made.full(f"ask_{number}", **args)
            assert answer.header["status"] == said["status"]
            assert answer.value == (None if said["response"] == "" else said["response"])
        sent = http_peer.requests[-1]
        body = said.get("body")
        if isinstance(body, dict):
            assert sent.json() == body
        elif said["method"] in {"post", "put", "patch"}:
            assert sent.body.decode() == (body or "")
    assert github.left == []


def test_githubs_redirect_of_a_renamed_repository_is_followed_with_the_credentials_of_its_host(
    api: Start, http_peer: HttpPeer
) -> None:
    recorded = exchanges(FOLDER / "github-rest" / "rename-repository.json")[1:]
    GitHub(http_peer, recorded)
    operations = {
        "get": {"request": "GET /repos/octokit-fixture-org/rename-repository"},
        "change": {"request": "PATCH /repos/octokit-fixture-org/rename-repository"},
    }
    made = api(operations=operations, auth={"bearer": "${TOKEN}"})
    assert made.call("get")["name"] == recorded[1]["response"]["name"]
    assert made.call("change", **recorded[2]["body"]) == recorded[3]["response"]
    assert {request.headers["authorization"] for request in http_peer.requests} == {"Bearer tok-secret-0123456789"}
    # 307 keeps method and body
    assert [request.json() for request in http_peer.requests[2:]] == [recorded[2]["body"]] * 2


def test_the_coverage_is_as_stated() -> None:
    everything = [said for file in FILES for said in exchanges(file)]
    assert (len(FILES), len(everything)) == (15, 53)
    assert Counter(said["status"] for said in everything) == {
        200: 28, 201: 12, 204: 8, 301: 1, 307: 1, 404: 1, 422: 2,
    }  # fmt: skip
