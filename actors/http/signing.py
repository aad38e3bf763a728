"""Signed requests: AWS Signature Version 4 by botocore's own signer, and an HMAC over what a template names."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import urlsplit

import requests.utils

from actors.http.client import Request
from config.secret import Secret
from runtime import clock

Sign = Callable[[Request], Request]
NEEDS_BOTOCORE = "needs the package botocore: install regrow[aws]"

_PLACE = re.compile(r"\{([a-z0-9_]*)\}")
PLACES = frozenset({"body", "body_sha256", "host", "method", "path", "query", "timestamp"})


def has_botocore() -> bool:
    """Tell whether the signer is installed. Never switches."""
    try:
        import botocore.auth  # noqa: F401
    except ImportError:
        return False
    return True


def aws_signer(
    *, access_key: Secret, secret_key: Secret, session_token: Secret | None, region: str, service: str
) -> Sign:
    """Return what signs requests for one AWS service; needs botocore. Never switches."""
    import botocore.auth
    import botocore.awsrequest
    import botocore.credentials

    token = None if session_token is None else session_token.reveal()
    credentials = botocore.credentials.Credentials(access_key.reveal(), secret_key.reveal(), token)
    # S3 signs a path as it is, everything else a normalised one.
    kind = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth

    def sign(request: Request) -> Request:
        # The url in the very spelling in which it is sent.
        url = requests.utils.requote_uri(request.url)
        made = botocore.awsrequest.AWSRequest(
            method=request.method, url=url, data=request.body or b"", headers=dict(request.headers)
        )
        if service == "s3":
            # A checked digest of the body in place of a header that leaves it open.
            made.context["payload_signing_enabled"] = True
        kind(credentials, service, region).add_auth(made)
        return Request(request.method, url, {name.lower(): value for name, value in made.headers.items()}, request.body)

    return sign


@dataclass(frozen=True, slots=True)
class HmacRule:
    """What is signed, with what, and where the signature goes."""

    secret: Secret
    header: str
    algorithm: Literal["sha256", "sha512", "sha1"]
    encoding: Literal["hex", "base64"]
    prefix: str
    message: str
    timestamp_header: str | None


def unknown_places(message: str) -> list[str]:
    """Return the places of a message template that do not exist. Never switches."""
    return [place for place in _PLACE.findall(message) if place not in PLACES]


def hmac_signer(rule: HmacRule) -> Sign:
    """Return what adds the signature, and its timestamp, to a request. Never switches."""
    digest = {"sha1": hashlib.sha1, "sha256": hashlib.sha256, "sha512": hashlib.sha512}[rule.algorithm]

    def sign(request: Request) -> Request:
        url = requests.utils.requote_uri(request.url)
        parts = urlsplit(url)
        body = request.body or b""
        timestamp = str(int(clock.wall()))
        texts = {
            "body": body,
            "body_sha256": hashlib.sha256(body).hexdigest().encode(),
            "host": parts.netloc.encode(),
            "method": request.method.encode(),
            "path": (parts.path or "/").encode(),
            "query": parts.query.encode(),
            "timestamp": timestamp.encode(),
        }
        pieces = _PLACE.split(rule.message)
        message = b"".join(texts[piece] if index % 2 else piece.encode() for index, piece in enumerate(pieces))
        made = hmac.new(rule.secret.reveal().encode(), message, digest).digest()
        shown = made.hex() if rule.encoding == "hex" else base64.b64encode(made).decode()
        headers = {**request.headers, rule.header: rule.prefix + shown}
        if rule.timestamp_header is not None:
            headers[rule.timestamp_header] = timestamp
        return replace(request, url=url, headers=headers)

    return sign
