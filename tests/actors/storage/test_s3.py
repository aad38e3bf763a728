"""The storage contract in a bucket: of moto, which checks every signature."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
import requests

from actors.storage.actor import ActorStorage
from regrow.protocol.errors import DecodeError, InvalidArguments, NotFound, UpstreamError
from tests.actors.rest.conftest import Start
from tests.support.http_peer import HttpPeer, Reply
from tests.support.http_peer import Request as Arrived
from tests.support.peers import Foreign, needs_peers

KEYS = {"access_key": "AKIDEXAMPLE", "secret_key": "${TOKEN}", "service": "s3"}


def storage(api: Start, url: str, keys: dict[str, Any] = KEYS, **s3: Any) -> ActorStorage:
    table = {"bucket": "assets", "prefix": "data/", "suffix": ".json", **s3}
    api("objects", base_url=url, operations={}, auth={"aws_signature_v4": keys}, s3=table)
    return ActorStorage("objects")


class Moto:
    """A moto server with one user who may do everything."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys: dict[str, Any] = {}
        self._begin()

    def _begin(self) -> None:
        user = {"Action": "CreateUser", "UserName": "tester", "Version": "2010-05-08"}
        self._iam(user)
        policy = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}'
        self._iam({"Action": "PutUserPolicy", "UserName": "tester", "PolicyName": "all", "PolicyDocument": policy})
        made = self._iam({"Action": "CreateAccessKey", "UserName": "tester"})
        words = {name: made.partition(f"<{name}>")[2].partition("<")[0] for name in ("AccessKeyId", "SecretAccessKey")}
        self.keys = {"access_key": words["AccessKeyId"], "secret_key": words["SecretAccessKey"], "service": "s3"}
        self.bucket("PUT", "")
        requests.post(f"{self.url}/moto-api/reset-auth", data=b"0", timeout=10).raise_for_status()

    def _iam(self, form: dict[str, str]) -> str:
        scope = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0"
        answer = requests.post(
            self.url, data={"Version": "2010-05-08", **form}, headers={"Authorization": scope}, timeout=10
        )
        answer.raise_for_status()
        return answer.text

    def bucket(self, method: str, key: str, body: bytes = b"") -> None:
        made = botocore.awsrequest.AWSRequest(method=method, url=f"{self.url}/assets/{quote(key)}", data=body)
        pair = botocore.credentials.Credentials(self.keys["access_key"], self.keys["secret_key"])
        botocore.auth.S3SigV4Auth(pair, "s3", "us-east-1").add_auth(made)
        requests.request(method, made.url, data=body, headers=dict(made.headers), timeout=10).raise_for_status()


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with Foreign("-m", "moto.server", "-p", "{port}", environ={"HOME": "/tmp"}) as server:
        yield Moto(server.url)


@needs_peers
@pytest.mark.allow_leaks("process", "greenlet", "socket")  # the server is the module's, and so is its reader
def test_the_contract_holds_in_a_bucket(api: Start, moto: Moto) -> None:
    made = storage(api, moto.url, moto.keys)
    assert not made.exists("users", "2026-11-21")
    with pytest.raises(NotFound):
        made.load("users", "2026-11-21")
    made.store("users", [{"name": "ada"}], "2026-11-21")
    made.store("users", {"name": "bob"}, "2026-11-22")
    made.store("users2", 1, "2026-11-23")
    assert made.load("users", "2026-11-21") == [{"name": "ada"}]
    assert made.exists("users", "2026-11-21")
    assert made.list_partitions("users") == ["2026-11-21", "2026-11-22"]
    made.delete("users", "2026-11-21")
    made.delete("users", "2026-11-21")
    assert made.list_partitions("users") == ["2026-11-22"]
    assert made.list_partitions("nobody") == []


@needs_peers
@pytest.mark.allow_leaks("process", "greenlet", "socket")  # the server is the module's, and so is its reader
def test_a_wrong_secret_is_refused(api: Start, moto: Moto) -> None:
    made = storage(api, moto.url, {**moto.keys, "secret_key": "not-the-secret-of-that-key"})
    with pytest.raises(UpstreamError) as caught:
        made.load("users", "2026-11-22")
    assert caught.value.status == 403
    assert "SignatureDoesNotMatch" in str(caught.value.body)


@needs_peers
@pytest.mark.allow_leaks("process", "greenlet", "socket")  # the server is the module's, and so is its reader
def test_a_bucket_that_is_not_there_is_no_empty_storage(api: Start, moto: Moto) -> None:
    made = storage(api, moto.url, moto.keys, bucket="elsewhere")
    with pytest.raises(UpstreamError, match="no such bucket"):
        made.load("users", "2026-11-22")


def listing(keys: list[str], token: str | None) -> bytes:
    entries = "".join(f"<Contents><Key>{key}</Key></Contents>" for key in keys)
    rest = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    name = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    return f"<ListBucketResult {name}><Prefix>data/users/</Prefix>{rest}{entries}</ListBucketResult>".encode()


def test_a_long_list_is_put_together_from_its_parts(api: Start, http_peer: HttpPeer) -> None:
    http_peer.reply("GET /assets", body=listing(["data/users/3.json"], None))
    http_peer.reply("GET /assets", body=listing(["data/users/2.json", "data/users/note.txt"], "t 2"), times=1)
    http_peer.reply("GET /assets", body=listing(["data/users/1.json"], "t+1"), times=1)
    assert storage(api, http_peer.url).list_partitions("users") == ["1", "2", "3"]
    queries: list[dict[str, str]] = [request.query for request in http_peer.requests]
    assert [query.get("continuation-token") for query in queries] == [None, "t+1", "t 2"]
    assert all(query["prefix"] == "data/users/" and query["list-type"] == "2" for query in queries)


@pytest.mark.parametrize(
    "body", [b"<Contents>", b"<!DOCTYPE x [<!ENTITY a 'aaaa'>]><ListBucketResult>&a;</ListBucketResult>"]
)
def test_a_listing_that_is_none_is_a_decode_error(api: Start, http_peer: HttpPeer, body: bytes) -> None:
    http_peer.reply("*", body=body)
    with pytest.raises(DecodeError, match="not valid xml"):
        storage(api, http_peer.url).list_partitions("users")


@pytest.mark.parametrize(
    ("asset", "partition"), [("", "a"), ("..", "a"), ("a", "../b"), ("a/", "b"), ("a", "x\n"), ("a", "é" * 600)]
)
def test_a_key_that_would_be_another_path_is_refused(
    api: Start, http_peer: HttpPeer, asset: str, partition: str
) -> None:
    with pytest.raises(InvalidArguments):
        storage(api, http_peer.url, suffix="").load(asset, partition)
    assert http_peer.requests == []


@pytest.mark.parametrize(
    ("form", "data", "kind"), [("bytes", b"\x00\xff", "application/octet-stream"), ("text", "häh", "text/plain")]
)
def test_data_is_kept_in_the_configured_form(api: Start, http_peer: HttpPeer, form: str, data: Any, kind: str) -> None:
    kept: list[Arrived] = []

    def keep(request: Arrived) -> Reply:
        kept.append(request)
        return Reply()

    http_peer.reply("PUT /assets/data/a%C3%A9/x", handler=keep)
    http_peer.reply("GET /assets/data/a%C3%A9/x", handler=lambda request: Reply(body=kept[0].body))
    made = storage(api, http_peer.url, format=form, suffix="")
    made.store("aé", data, "x")
    assert kept[0].headers["content-type"].startswith(kind)
    assert made.load("aé", "x") == data
