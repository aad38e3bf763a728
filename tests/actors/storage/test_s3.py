"""The storage contract in a bucket: of moto, which checks every signature."""

from __future__ import annotations

from typing import Any

import pytest

from actors.storage.actor import ActorStorage
from regrow.protocol.errors import DecodeError, InvalidArguments, NotFound, UpstreamError
from tests.actors.rest.conftest import Start
from tests.actors.storage.conftest import Moto
from tests.support.http_peer import HttpPeer, Reply
from tests.support.http_peer import Request as Arrived
from tests.support.peers import needs_peers

KEYS = {"access_key": "AKIDEXAMPLE", "secret_key": "${TOKEN}", "service": "s3"}


def storage(api: Start, url: str, keys: dict[str, Any] = KEYS, **s3: Any) -> ActorStorage:
    table = {"bucket": "assets", "prefix": "data/", "suffix": ".json", **s3}
    api("objects", base_url=url, operations={}, auth={"aws_signature_v4": keys}, s3=table)
    return ActorStorage("objects")


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
