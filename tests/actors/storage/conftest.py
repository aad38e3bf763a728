"""Storages over HTTP, configured as the daemon does, and a bucket whose server checks every signature."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
import requests

from tests.actors.rest.conftest import api
from tests.support.peers import Foreign

__all__ = ["api"]


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
