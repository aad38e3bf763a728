"""Signatures against material of others: Amazon's own suite and examples, and RFC 4231's HMAC cases."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import botocore.auth
import pytest

from actors.http.client import Request
from actors.http.signing import HmacRule, aws_signer, hmac_signer, unknown_places
from config.secret import Secret
from regrow.testing.clock import ManualClock
from tests.support.vectors import needs_vectors, vectors

GENERIC = vectors("sigv4/generic.jsonl")
S3 = vectors("sigv4/s3.jsonl")
HMACS = vectors("webhook-hmac-hex/cases.jsonl")

# What the client never sends, so that no signature of ours could be like it.
NEVER_SENT = {
    "get-header-key-duplicate": "a header is sent once",
    "get-header-value-order": "a header is sent once",
    "get-header-value-multiline": "no header value has a line break",
    "get-utf8": "a path is percent-encoded before it is signed",
}


def at(monkeypatch: pytest.MonkeyPatch, timestamp: str) -> None:
    moment = datetime.fromisoformat(timestamp).astimezone(UTC).replace(tzinfo=None)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: moment)


def parsed(text: str) -> tuple[str, str, dict[str, str], bytes]:
    head, _, body = text.partition("\n\n")
    first, *lines = head.rstrip("\n").split("\n")
    method, _, rest = first.partition(" ")
    target = rest.rpartition(" ")[0]
    headers = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return method, target, headers, body.encode()


def signature(request: Request) -> str:
    return request.headers["authorization"].rpartition("Signature=")[2]


def is_ours(case: dict[str, Any]) -> bool:
    context = case["context"]
    return case["id"] not in NEVER_SENT and context["normalize"] and not context["sign_body"]


@needs_vectors
@pytest.mark.parametrize("case", [case for case in GENERIC if is_ours(case)], ids=lambda case: case["id"])
def test_amazons_suite_gets_the_same_signatures(monkeypatch: pytest.MonkeyPatch, case: dict[str, Any]) -> None:
    context = case["context"]
    at(monkeypatch, context["timestamp"])
    method, target, headers, body = parsed(case["request"])
    keys = context["credentials"]
    token = keys.get("token") if not context.get("omit_session_token") else None
    sign = aws_signer(
        access_key=Secret(keys["access_key_id"]),
        secret_key=Secret(keys["secret_access_key"]),
        session_token=None if token is None else Secret(token),
        region=context["region"],
        service=context["service"],
    )
    host = next(value for name, value in headers.items() if name.lower() == "host")
    signed = sign(Request(method, f"https://{host}{target}", headers, body or None))
    assert signature(signed) == case["header"]["signature"]


@needs_vectors
@pytest.mark.parametrize(
    "case", [case for case in S3 if case["payload_hash"] != "UNSIGNED-PAYLOAD"], ids=lambda case: case["id"]
)
def test_the_examples_of_s3_get_the_same_signatures(monkeypatch: pytest.MonkeyPatch, case: dict[str, Any]) -> None:
    if "Date" in case["headers"]:
        pytest.skip("the signer writes a Date header anew, which this example signs as it was")
    at(monkeypatch, case["timestamp"])
    sign = aws_signer(
        access_key=Secret(case["access_key_id"]),
        secret_key=Secret(case["secret_access_key"]),
        session_token=None,
        region=case["region"],
        service=case["service"],
    )
    query = "?" + case["canonical_query"] if case["canonical_query"] else ""
    url = f"https://{case['headers']['Host']}{case['path']}{query}"
    mine = {"host", "x-amz-date", "x-amz-content-sha256"}
    headers = {name: value for name, value in case["headers"].items() if name.lower() not in mine}
    signed = sign(Request(case["method"], url, headers, case["body"].encode() or None))
    assert signature(signed) == case["signature"]


@needs_vectors
def test_the_coverage_is_as_stated() -> None:
    # Left out, each for one reason: what is never sent; paths that are not normalised, which only S3 signs; and a body
    # whose digest goes along in a header, which only S3 wants.
    unnormalised = [case for case in GENERIC if not case["context"]["normalize"]]
    digests = [case for case in GENERIC if case["context"]["sign_body"]]
    assert (len(GENERIC), sum(map(is_ours, GENERIC))) == (25, 15)
    assert (len(NEVER_SENT), len(unnormalised), len(digests)) == (4, 5, 1)
    # Of the examples of S3 one is presigned, which is no request, and one signs a Date header.
    kinds = [(case["payload_hash"] == "UNSIGNED-PAYLOAD", "Date" in case["headers"]) for case in S3]
    assert sorted(kinds) == [(False, False), (False, True), (True, False)]


def signer(**keys: Any) -> Any:
    rule = {"algorithm": "sha256", "encoding": "hex", "prefix": "", "message": "{body}", "timestamp_header": None}
    return hmac_signer(HmacRule(**{"secret": Secret("a-key-of-the-test"), "header": "x-signature", **rule, **keys}))


@needs_vectors
@pytest.mark.parametrize("case", HMACS, ids=lambda case: case["id"])
def test_a_hex_hmac_of_the_body_is_that_of_the_standard(case: dict[str, Any]) -> None:
    key = bytes.fromhex(case["key_hex"])
    try:
        secret = Secret(key.decode())
    except UnicodeDecodeError:
        pytest.skip("a key from a configuration is text")
    signed = signer(secret=secret)(Request("POST", "https://x.example/", {}, bytes.fromhex(case["body_hex"])))
    assert signed.headers["x-signature"] == case["hex_digest"]


def test_the_message_names_what_is_signed_and_the_time_goes_along() -> None:
    with ManualClock(wall_s=1_700_000_000.0):
        sign = signer(
            message="{timestamp}.{method}.{host}{path}?{query}.{body_sha256}.{body}",
            timestamp_header="x-timestamp",
            encoding="base64",
            prefix="v1=",
            algorithm="sha512",
        )
        signed = sign(Request("PUT", "https://x.example:8443/a b?c=d", {"y": "z"}, b"body"))
    stamp = signed.headers["x-timestamp"]
    digest = hashlib.sha256(b"body").hexdigest()
    message = f"{stamp}.PUT.x.example:8443/a%20b?c=d.{digest}.body"
    made = hmac.new(b"a-key-of-the-test", message.encode(), hashlib.sha512).digest()
    assert signed.headers["x-signature"] == "v1=" + base64.b64encode(made).decode()
    assert signed.headers["y"] == "z"
    assert urlsplit(signed.url).path == "/a%20b"


def test_a_place_that_does_not_exist_is_found() -> None:
    assert unknown_places("{body}{date}") == ["date"]
