"""Requests that are signed, tokens that are fetched and renewed, proxies, and certificates of one's own."""

from __future__ import annotations

import base64
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import gevent
import pytest

from actors.http.token import TOKENS
from regrow.protocol.errors import ConnectionFailed, DecodeError, UpstreamError
from regrow.testing.clock import ManualClock
from tests.actors.rest.conftest import QUICKLY, Start, outcome
from tests.support.http_peer import HttpPeer, RawPeer, Reply
from tests.support.http_peer import Request as Arrived


def oauth(peer: HttpPeer, **keys: Any) -> dict[str, Any]:
    whole = {"token_url": peer.url + "/token", "client_id": "me", "client_secret": "${TOKEN}", **keys}
    return {"auth": {"oauth2": whole}}


class Tokens:
    """A token endpoint, and an API that takes only the last token it gave."""

    def __init__(self, peer: HttpPeer, lifetime_s: int = 3600) -> None:
        self.given = 0
        self.good = ""
        self.lifetime_s = lifetime_s
        peer.reply("POST /token", handler=self.give)
        peer.reply("GET /users/ada", handler=self.serve)

    def give(self, request: Arrived) -> Reply:
        self.given += 1
        self.good = f"token-number-{self.given}-of-the-test"
        return Reply(json={"access_token": self.good, "token_type": "Bearer", "expires_in": self.lifetime_s})

    def serve(self, request: Arrived) -> Reply:
        good = request.headers.get("authorization") == f"Bearer {self.good}"
        return Reply(json={"login": "ada"}) if good else Reply(status=401, json={"message": "bad token"})


def test_one_token_is_fetched_and_shared_by_all_calls(api: Start, http_peer: HttpPeer) -> None:
    tokens = Tokens(http_peer)
    made = api("shared", **oauth(http_peer, scope="read write"))
    calls = [made.begin("get_user", username="ada") for _ in range(20)]
    assert [outcome(call) for call in calls] == [{"login": "ada"}] * 20
    assert tokens.given == 1
    asked = http_peer.requests[0]
    assert asked.body == b"grant_type=client_credentials&scope=read+write"
    pair = base64.b64encode(b"me:tok-secret-0123456789").decode()
    assert asked.headers["authorization"] == f"Basic {pair}"
    assert TOKENS.value("shared", "ok") == 1
    assert made.part("token").actor.status()["fetched"] == 1


def test_name_and_secret_can_go_into_the_form(api: Start, http_peer: HttpPeer) -> None:
    Tokens(http_peer)
    api(**oauth(http_peer, style="body", audience="x")).call("get_user", username="ada")
    assert http_peer.requests[0].body == (
        b"grant_type=client_credentials&audience=x&client_id=me&client_secret=tok-secret-0123456789"
    )
    assert "authorization" not in http_peer.requests[0].headers


def test_a_token_is_renewed_before_it_ends(api: Start, http_peer: HttpPeer) -> None:
    with ManualClock() as clock:
        tokens = Tokens(http_peer, lifetime_s=100)
        made = api(**oauth(http_peer))
        made.call("get_user", username="ada")
        clock.advance(85)
        made.call("get_user", username="ada")
        assert tokens.given == 1
        clock.advance(10)
        made.call("get_user", username="ada")
        assert tokens.given == 2


def test_a_token_that_the_peer_no_longer_takes_is_replaced_once(api: Start, http_peer: HttpPeer) -> None:
    with ManualClock() as clock:
        tokens = Tokens(http_peer)
        made = api(**oauth(http_peer))
        made.call("get_user", username="ada")
        tokens.good = "revoked"
        clock.advance(60)
        answer = made.full("get_user", username="ada")
        assert (answer.value, answer.header["tries"], tokens.given) == ({"login": "ada"}, 1, 2)
        http_peer.reply("GET /users/ada", status=401)
        clock.advance(60)
        with pytest.raises(UpstreamError, match="401"):
            made.call("get_user", username="ada")
        assert tokens.given == 3


def test_a_token_outlives_the_actor_that_keeps_it(api: Start, http_peer: HttpPeer) -> None:
    tokens = Tokens(http_peer)
    made = api(**oauth(http_peer))
    made.call("get_user", username="ada")
    made.part("token").kill()
    made.part("token")
    made.call("get_user", username="ada")
    assert tokens.given == 1


def test_a_token_endpoint_that_fails_fails_the_call_before_it_began(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("POST /token", status=401, json={"error": "invalid_client"})
    with pytest.raises(UpstreamError, match="token endpoint answered 401") as caught:
        api(retry=QUICKLY, **oauth(http_peer)).call("make_issue", title="x")
    assert (caught.value.started, caught.value.retryable) == ("no", False)
    assert http_peer.count() == 1


def test_a_token_endpoint_that_is_busy_is_asked_again_even_for_a_post(api: Start, http_peer: HttpPeer) -> None:
    Tokens(http_peer)
    http_peer.reply("POST /issues", json={})
    http_peer.reply("POST /token", status=503, times=2)
    assert api(retry=QUICKLY, **oauth(http_peer)).full("make_issue", title="x").header["tries"] == 3


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"access_token": ""}', b'{"access_token": "a\\nb"}', b'{"access_token":"x","token_type":"mac"}'],
)
def test_an_answer_without_a_token_is_a_decode_error_that_shows_none_of_it(
    api: Start, http_peer: HttpPeer, body: bytes
) -> None:
    http_peer.reply("POST /token", body=body)
    with pytest.raises(DecodeError) as caught:
        api(**oauth(http_peer)).call("get_user", username="ada")
    assert "first_bytes" not in caught.value.details


def test_no_token_stands_in_an_error(api: Start, http_peer: HttpPeer) -> None:
    Tokens(http_peer)
    http_peer.reply("GET /users/ada", status=400, body=b"you said token-number-1-of-the-test")
    with pytest.raises(UpstreamError) as caught:
        api(**oauth(http_peer)).call("get_user", username="ada")
    assert "token-number-1" not in str(caught.value.to_wire())


def test_each_try_is_signed_anew(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", json={})
    http_peer.reply("*", status=503, times=1)
    rule = {"secret": "${TOKEN}", "message": "{method}{path}{body}", "header": "X-Hub-Signature", "prefix": "sha256="}
    api(retry=QUICKLY, auth={"hmac": rule}).call("put_issue", number=7, title="x")
    first, second = (request.headers["x-hub-signature"] for request in http_peer.requests)
    assert first == second and first.startswith("sha256=") and len(first) == 71


def test_a_signed_request_is_signed_again_on_its_own_host_and_bare_elsewhere(api: Start, http_peer: HttpPeer) -> None:
    other = HttpPeer()
    other.start()
    http_peer.reply("GET /users/ada", status=302, headers={"Location": "/moved"})
    http_peer.reply("GET /moved", status=302, headers={"Location": other.url + "/there"})
    other.reply("*", json={})
    keys = {
        "access_key": "AKIDEXAMPLE",
        "secret_key": "${TOKEN}",
        "service": "execute-api",
        "session_token": "sess-1234",
    }
    api(auth={"aws_signature_v4": keys}).call("get_user", username="ada")
    first, second = (request.headers["authorization"] for request in http_peer.requests)
    assert first.startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "us-east-1/execute-api/aws4_request" in first
    assert second != first
    assert http_peer.requests[0].headers["x-amz-security-token"] == "sess-1234"
    assert not {"authorization", "x-amz-security-token", "x-amz-date"} & other.requests[0].headers.keys()
    other.stop()


def test_everything_goes_through_the_proxy(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("*", handler=lambda request: Reply(json={"path": request.path}))
    proxy = http_peer.url.replace("http://", "http://ada:${TOKEN}@")
    made = api(base_url="http://api.example.invalid", proxy=proxy)
    made.call("get_user", username="ada")
    arrived = http_peer.requests[0]
    assert arrived.headers["host"] == "api.example.invalid"
    pair = base64.b64encode(b"ada:tok-secret-0123456789").decode()
    assert arrived.headers["proxy-authorization"] == f"Basic {pair}"


def test_a_proxy_that_is_down_is_named_and_nothing_was_started(api: Start, http_peer: HttpPeer) -> None:
    http_peer.stop()
    with pytest.raises(ConnectionFailed, match="through the proxy") as caught:
        api(base_url="http://api.example.invalid", proxy=http_peer.url).call("get_user", username="ada")
    assert caught.value.started == "no"


def test_a_tunnel_that_the_proxy_refuses_started_nothing(api: Start, raw_peer: RawPeer) -> None:
    def refuse(connection: socket.socket) -> None:
        assert connection.recv(65536).startswith(b"CONNECT api.example.invalid:443")
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    raw_peer.behave(refuse)
    with pytest.raises(ConnectionFailed, match="through the proxy") as caught:
        api(base_url="https://api.example.invalid", proxy=raw_peer.url).call("get_user", username="ada")
    assert caught.value.started == "no"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that is its own authority, and its key, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make certificates")
    folder = tmp_path_factory.mktemp("tls")
    command = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1",
        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem",
    ]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=30)
    return folder


def test_an_own_authority_and_an_own_certificate_are_used(api: Start, raw_peer: RawPeer, certificates: Path) -> None:
    cert, key = certificates / "cert.pem", certificates / "key.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.load_verify_locations(cert)
    context.verify_mode = ssl.CERT_REQUIRED
    heard: list[Any] = []

    def serve(connection: socket.socket) -> None:
        try:
            with context.wrap_socket(connection, server_side=True) as secured:
                heard.append(secured.getpeercert())
                secured.recv(65536)
                secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}")
        except ssl.SSLError:
            pass

    raw_peer.behave(serve)
    url = raw_peer.url.replace("http:", "https:")
    with pytest.raises(ConnectionFailed, match="is not trusted"):
        api("strict", base_url=url).call("get_user", username="ada")
    tls = {"ca_file": str(cert), "cert_file": str(cert), "key_file": str(key)}
    assert api(base_url=url, tls=tls).call("get_user", username="ada") == {}
    assert heard[-1]["subject"] == ((("commonName", "127.0.0.1"),),)
    gevent.sleep(0)
