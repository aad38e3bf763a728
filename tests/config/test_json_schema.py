from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from typing import Any

import jsonschema
import pytest

from actors.integrations import INTEGRATIONS
from config.json_schema import json_schema
from tests.config.conftest import TYPES

SCHEMA = json_schema(TYPES)
VALID = """
[daemon]
name = "x"
drain_timeout = "1h30m"
redis = "${REDIS}"
[gateway]
max_message = 1024
max_clients = "${N}"
[gateway.curve]
secret_key_file = "k"
[[gateway.curve.clients]]
name = "billing"
public_key = ">l1]F6tSxKzsdlpLS<TNk(NLceziNm0e:M)VY]zm"
[http]
bind = "127.0.0.1:5758"
[actors.a]
class = "a:B"
shutdown = "brutal_kill"
args = { anything = [1] }
backoff = { base = "1s" }
[integrations.api]
type = "service"
base_url = "x"
limit = "8MiB"
workers = "${N}"
fallback = { default = 1 }
operations.get = { request = "GET /", cache = "5m" }
[integrations.other]
type = "service"
base_url = "y"
fallback = "cache"
"""


def validator(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_it_is_a_valid_schema_that_accepts_a_good_file() -> None:
    validator(SCHEMA).validate(tomllib.loads(VALID))


@pytest.mark.parametrize(
    "text",
    [
        "[gatway]",
        "[daemon]\nnme = 'x'",
        "[daemon]\ndrain_timeout = 30",
        "[daemon]\ndrain_timeout = '5 minutes'",
        "[daemon]\ndrain_timeout = ''",
        "[daemon]\npath = '.'",
        "[gateway]\nmax_clients = 0",
        "[gateway]\nmax_message = '8mb'",
        "[gateway]\nbind = ['127.0.0.1:80']",
        "[actors.a]",
        "[actors.Upper]\nclass = 'a:B'",
        "[actors.store]\nclass = 'a:B'",
        "[actors.a]\nclass = 'a:B'\nshutdown = 'infinity'",
        "[actors.a]\nclass = 'a:B'\nrestart = 'always'",
        "[integrations.a]\nbase_url = 'x'",
        "[integrations.a]\ntype = 'servce'\nbase_url = 'x'",
        "[integrations.a]\ntype = 'service'",
        "[integrations.a]\ntype = 'service'\nbase_url = 'x'\nretries = 3",
        "[integrations.a]\ntype = 'service'\nbase_url = 'x'\ntags = ['a', 'b', 'c', 'd']",
        "[integrations.a]\ntype = 'service'\nbase_url = 'x'\nfallback = 'cach'",
        "[integrations.a]\ntype = 'service'\nbase_url = 'x'\nratio = 1.5",
    ],
)
def test_it_refuses_what_the_daemon_refuses(text: str) -> None:
    assert not validator(SCHEMA).is_valid(tomllib.loads(text))


def test_keys_carry_their_documentation_and_defaults() -> None:
    daemon = SCHEMA["$defs"]["config.schema.Daemon"]["properties"]
    assert daemon["drain_timeout"]["description"].startswith("How long a drain waits")
    assert (daemon["drain_timeout"]["default"], daemon["path"]["default"]) == ("30s", ["."])


def test_inherited_keys_carry_their_documentation() -> None:
    assert SCHEMA["$defs"]["integration.service"]["properties"]["max_restarts"]["description"]


def test_every_key_of_ours_is_documented() -> None:
    schema = json_schema(INTEGRATIONS)
    undocumented = [
        f"{name}.{key}"
        for name, definition in schema["$defs"].items()
        for key, value in definition.get("properties", {}).items()
        if key != "type" and not value.get("description")
    ]
    assert undocumented == []


def test_the_schema_of_the_real_integrations_is_valid_and_json_safe() -> None:
    validator(json.loads(json.dumps(json_schema(INTEGRATIONS))))


def test_two_processes_give_the_same_text() -> None:
    program = (
        "import json\nfrom config.json_schema import json_schema\nfrom tests.config.conftest import TYPES\n"
        "print(json.dumps(json_schema(TYPES)))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert texts == {json.dumps(SCHEMA)}
