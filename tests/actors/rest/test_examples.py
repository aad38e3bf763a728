"""The shipped examples against servers that behave as the APIs' documentation says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

import config
from actors.integrations import INTEGRATIONS
from actors.seam import Context
from config.load import load
from regrow.protocol.errors import InvalidArguments, RateLimited, UpstreamError
from runtime.messages import Call
from runtime.streams import iterate
from supervisors import Supervisor
from tests.actors.rest.conftest import Api, outcome
from tests.support.http_peer import HttpPeer, Reply
from tests.support.http_peer import Request as Arrived

EXAMPLES = Path(config.__file__).parent / "examples"
ENVIRON = {
    "GITHUB_TOKEN": "github-token-of-the-test",
    "OPENWEATHER_API_KEY": "weather-key-of-the-test",
    "STRIPE_SECRET_KEY": "stripe-key-of-the-test",
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "aws-secret-of-the-test",
}


class Shipped(Api):
    """An integration of a shipped file, with its addresses pointing at the test's server."""

    def __init__(self, file: str, name: str, environ: dict[str, str]) -> None:
        loaded = load(EXAMPLES / file, INTEGRATIONS, is_actor=lambda _: True, environ={**ENVIRON, **environ})
        entry = loaded.integrations[name]
        self.name = name
        folder = Path("/nonexistent")
        self.plan = INTEGRATIONS[entry.type].plan(name, entry.config, Context(folder, folder, None, "test"))
        self.supervisor = Supervisor.start(children=self.plan.children, max_restarts=1000, max_seconds=1.0)


Ship = Callable[..., Shipped]


@pytest.fixture
def shipped() -> Iterator[Ship]:
    started: list[Shipped] = []

    def start(file: str, name: str, **environ: str) -> Shipped:
        started.append(Shipped(file, name, environ))
        return started[-1]

    yield start
    for each in started:
        each.supervisor.stop()


class GitHub:
    """Users with entity tags, pages, a rate limit that 304 does not count, and issues."""

    def __init__(self, peer: HttpPeer, left: int = 10) -> None:
        self.peer = peer
        self.left = left
        self.issues: list[Any] = []
        peer.reply("*", handler=self.answer)

    def headers(self) -> dict[str, str]:
        return {
            "X-RateLimit-Limit": "5000",
            "X-RateLimit-Remaining": str(self.left),
            "X-RateLimit-Reset": "40",
            "Cache-Control": "private, max-age=0, s-maxage=60",
            "Vary": "Accept, Authorization, Cookie, X-GitHub-OTP",
            "Date": formatdate(usegmt=True),
        }

    def answer(self, request: Arrived) -> Reply:
        if request.headers.get("authorization") != "Bearer github-token-of-the-test":
            return Reply(status=401, json={"message": "Bad credentials"})
        if request.path == "/rate_limit":
            return Reply(json={"resources": {"core": {"remaining": self.left}}}, headers=self.headers())
        if request.headers.get("if-none-match") == '"u1"':
            return Reply(status=304, headers={**self.headers(), "ETag": '"u1"'})
        if self.left <= 0:
            return Reply(status=403, json={"message": "API rate limit exceeded"}, headers=self.headers())
        self.left -= 1
        if request.path == "/users/octocat":
            return Reply(json={"login": "octocat"}, headers={**self.headers(), "ETag": '"u1"'})
        if request.path == "/users/octocat/repos":
            page = int(request.query.get("page", "1"))
            more = f'<{self.peer.url}/users/octocat/repos?page={page + 1}>; rel="next"'
            return Reply(
                json=[{"name": f"r{page}"}], headers={**self.headers(), **({"Link": more} if page < 3 else {})}
            )
        if request.method == "POST":
            self.issues.append(request.json())
            return Reply(status=201, json={"number": len(self.issues)}, headers=self.headers())
        return Reply(status=404, json={"message": "Not Found"}, headers=self.headers())


def test_github_as_shipped(shipped: Ship, http_peer: HttpPeer) -> None:
    github = GitHub(http_peer)
    made = shipped("github.toml", "github", GITHUB_API_URL=http_peer.url)
    assert made.call("get_user", username="octocat") == {"login": "octocat"}
    assert made.full("get_user", username="octocat").header["cache"] == "revalidated"
    assert github.left == 9
    assert made.call("create_issue", owner="o", repo="r", title="broken") == {"number": 1}
    assert github.issues == [{"title": "broken"}]
    repos = made.front.ask(Call("list_repos", {"username": "octocat"}), timeout=5.0)
    assert list(iterate(repos)) == [{"name": "r1"}, {"name": "r2"}, {"name": "r3"}]
    assert made.call("get_rate_limit")["resources"]["core"]["remaining"] == 5
    assert http_peer.requests[0].headers["x-github-api-version"] == "2022-11-28"
    assert http_peer.requests[0].headers["accept"] == "application/vnd.github+json"


def test_githubs_spent_limit_is_told_by_its_own_headers(shipped: Ship, http_peer: HttpPeer) -> None:
    GitHub(http_peer, left=0)
    made = shipped("github.toml", "github", GITHUB_API_URL=http_peer.url)
    with pytest.raises(RateLimited) as caught:
        made.call("create_issue", timeout=5.0, owner="o", repo="r", title="x")
    assert caught.value.retry_after_s is not None and 30 < caught.value.retry_after_s <= 40


def test_weather_as_shipped(shipped: Ship, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /weather", json={"name": "London", "main": {"temp": 9.5}})
    made = shipped("weather.toml", "weather", OPENWEATHER_API_URL=http_peer.url)
    for _ in range(3):
        assert made.call("get_current", q="London")["name"] == "London"
    assert [request.query for request in http_peer.requests] == [
        {"q": "London", "units": "metric", "appid": "weather-key-of-the-test"}
    ]
    http_peer.stop()
    assert made.call("get_forecast", timeout=2.0, q="London") == {"status": "unavailable"}
    assert made.full("get_current", q="London").header["cache"] == "fresh"


def test_a_weather_key_that_is_wrong_is_not_shown(shipped: Ship, http_peer: HttpPeer) -> None:
    http_peer.reply("*", status=401, json={"cod": 401, "message": "Invalid API key weather-key-of-the-test"})
    made = shipped("weather.toml", "weather", OPENWEATHER_API_URL=http_peer.url)
    with pytest.raises(UpstreamError) as caught:
        made.call("get_current", q="London")
    assert "weather-key" not in str(caught.value.to_wire())


class Stripe:
    """Charges whose first answer is kept under its key; the connection of some is lost after the work was done."""

    def __init__(self, peer: HttpPeer, *, lost: int = 0) -> None:
        self.answers: dict[str, tuple[bytes, dict[str, Any]]] = {}
        self.charges: list[dict[str, list[str]]] = []
        self.lost = lost
        peer.reply("POST /charges", handler=self.charge)
        peer.reply("GET /charges", json={"object": "list", "data": [{"id": "ch_1"}], "has_more": False})

    def charge(self, request: Arrived) -> Reply:
        key = request.headers.get("idempotency-key", "")
        known = self.answers.get(key)
        if known is not None and known[0] != request.body:
            return Reply(status=400, json={"error": {"type": "idempotency_error"}})
        if known is None:
            self.charges.append(parse_qs(request.body.decode()))
            known = self.answers[key] = (request.body, {"id": f"ch_{len(self.charges)}"})
        if self.lost > 0:
            self.lost -= 1
            return Reply(reset=True)
        return Reply(json=known[1])


def test_stripe_as_shipped_charges_once_though_answers_are_lost(shipped: Ship, http_peer: HttpPeer) -> None:
    stripe = Stripe(http_peer, lost=1)
    made = shipped("stripe.toml", "stripe", STRIPE_API_URL=http_peer.url)
    assert made.call("create_charge", timeout=10.0, amount=500, currency="eur") == {"id": "ch_1"}
    assert stripe.charges == [{"amount": ["500"], "currency": ["eur"]}]
    assert http_peer.count("POST /charges") == 2
    assert made.call("list_charges") == [{"id": "ch_1"}]


def test_stripe_as_shipped_sends_bursts_of_twenty_and_goes_on_steadily(shipped: Ship, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /charges/ch_1", json={})
    made = shipped("stripe.toml", "stripe", STRIPE_API_URL=http_peer.url)
    began = time.monotonic()
    calls = [made.begin("get_charge", id="ch_1") for _ in range(40)]
    assert [outcome(call) for call in calls] == [{}] * 40
    # Twenty at once and twenty more at 80 a second.
    assert time.monotonic() - began >= 0.24


def test_a_callers_own_key_makes_its_repeated_call_the_same(shipped: Ship, http_peer: HttpPeer) -> None:
    stripe = Stripe(http_peer)
    made = shipped("stripe.toml", "stripe", STRIPE_API_URL=http_peer.url)
    for _ in range(2):
        assert made.call("create_charge", idempotency_key="order-7", amount=5, currency="eur") == {"id": "ch_1"}
    assert len(stripe.charges) == 1
    with pytest.raises(UpstreamError) as caught:
        made.call("create_charge", idempotency_key="order-7", amount=6, currency="eur")
    assert caught.value.status == 400


def test_githubs_graphql_as_shipped(shipped: Ship, http_peer: HttpPeer) -> None:
    nodes = [{"name": "regrow", "stargazerCount": 7}]
    http_peer.reply("POST /graphql", json={"data": {"user": {"repositories": {"nodes": nodes}}}})
    made = shipped("github_graphql.toml", "graph", GITHUB_GRAPHQL_URL=http_peer.url + "/graphql")
    assert made.call("get_user_repos", login="octocat") == nodes
    assert http_peer.requests[0].json()["variables"] == {"login": "octocat", "first": 10}
    with pytest.raises(InvalidArguments):
        made.call("get_user_repos", first=3)
    http_peer.reply("POST /graphql", json={"data": {"addStar": {"starrable": {"stargazerCount": 8}}}}, times=1)
    before = made.part("limiter").actor.status()["used"]
    assert made.call("add_star", id="R_1") == 8
    assert made.part("limiter").actor.status()["used"] == before + 5
    limited = {"data": None, "errors": [{"type": "RATE_LIMITED", "message": "API rate limit exceeded"}]}
    http_peer.reply("POST /graphql", json=limited, headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "40"})
    with pytest.raises(RateLimited):
        made.call("get_user_repos", timeout=5.0, login="somebody-else")


def test_s3_as_shipped_signs_what_it_keeps(shipped: Ship, http_peer: HttpPeer) -> None:
    objects: dict[str, bytes] = {}

    def keep(request: Arrived) -> Reply:
        assert request.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
        assert "/us-east-1/s3/aws4_request" in request.headers["authorization"]
        assert len(request.headers["x-amz-content-sha256"]) == 64
        if request.method == "PUT":
            objects[request.path] = request.body
            return Reply()
        return Reply(body=objects[request.path]) if request.path in objects else Reply(status=404)

    http_peer.reply("*", handler=keep)
    made = shipped("s3.toml", "assets", S3_ENDPOINT_URL=http_peer.url)
    made.call("store", asset="users", partition="2026-11-21", data=[{"name": "ada"}])
    assert list(objects) == ["/assets/data/users/2026-11-21.json"]
    assert made.call("load", asset="users", partition="2026-11-21") == [{"name": "ada"}]
    assert made.call("exists", asset="users", partition="2026-11-22") is False
