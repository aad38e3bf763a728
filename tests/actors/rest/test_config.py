"""What may stand in an API's table, and what is said about what may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.integrations.rest import Rest
from actors.seam import Context
from config.errors import ConfigErrors
from config.load import load_table

BASE: dict[str, Any] = {"base_url": "https://api.github.com"}


def errors_of(folder: Path, **keys: Any) -> dict[str, str]:
    with pytest.raises(ConfigErrors) as caught:
        load_table(Rest, {**BASE, **keys}, folder, environ={})
    return {str(error.path if hasattr(error, "path") else error): str(error) for error in caught.value.errors}


def all_text(folder: Path, **keys: Any) -> str:
    return "\n".join(errors_of(folder, **keys).values())


def test_the_defaults_are_those_of_the_reference(tmp_path: Path) -> None:
    config = load_table(Rest, BASE, tmp_path, environ={})
    assert (config.timeout, config.connect_timeout, config.try_timeout) == (30.0, 5.0, None)
    assert (config.retry.retries, config.retry.base, config.retry.max, config.retry.jitter) == (3, 0.1, 10.0, 0.25)
    assert (config.breaker.failures, config.breaker.window, config.breaker.reset_after) == (5, 60.0, 30.0)
    assert (config.breaker.probes, config.breaker.longest_s) == (1, 300.0)
    assert (config.concurrency, config.rate_limit, config.fallback, config.cache) == (25, None, None, 0.0)
    assert (config.max_response, config.max_redirects) == (8 << 20, 5)
    assert (config.cache_store, config.cache_size, config.cache_entry_size) == ("memory", 16 << 20, 1 << 20)
    assert (config.stale_while_revalidate, config.max_stale) == (0.0, 86400.0)


def test_a_batch_is_a_hundred_items_or_five_seconds_unless_told_otherwise(tmp_path: Path) -> None:
    operations = {"notify": {"request": "POST /messages", "batch": {}}}
    batch = load_table(Rest, {**BASE, "operations": operations}, tmp_path, environ={}).operations["notify"].batch
    assert batch is not None
    assert (batch.max_size, batch.max_delay, batch.max_bytes, batch.queue) == (100, 5.0, 1 << 20, 10_000)
    assert (batch.into, batch.answers, batch.error) == (None, "each", None)


def test_the_whole_example_of_the_reference_is_accepted(tmp_path: Path) -> None:
    table = {
        **BASE,
        "headers": {"X-GitHub-Api-Version": "2022-11-28"},
        "auth": {"bearer": "${GITHUB_TOKEN}"},
        "timeout": "30s",
        "retry": {"retries": 3, "base": "100ms", "max": "10s", "jitter": 0.25},
        "breaker": {"failures": 5, "window": "1m", "reset_after": "30s", "probes": 1},
        "rate_limit": {"requests": 5000, "window": "1h", "header": "X-RateLimit-Remaining"},
        "concurrency": 25,
        "fallback": "cache",
        "operations": {"get_user": {"request": "GET /users/{username}", "cache": "5m"}},
    }
    config = load_table(Rest, table, tmp_path, environ={"GITHUB_TOKEN": "tok-0123456789"})
    assert config.operations["get_user"].cache == 300.0
    assert "tok-0123456789" not in repr(config)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"rate_limit": {"requests": 5, "window": "1s", "burst": 5}}, 'algorithm = "token_bucket" only'),
        ({"operations": {"o": {"request": "GET /x", "cost": 2}}}, "no rate_limit"),
        (
            {"rate_limit": {"requests": 5, "window": "1s"}, "operations": {"o": {"request": "GET /x", "cost": 6}}},
            "is 6 and rate_limit.requests 5",
        ),
        (
            {
                "rate_limit": {"requests": 5, "window": "1s", "algorithm": "token_bucket", "burst": 3},
                "operations": {"o": {"request": "GET /x", "cost": 4}},
            },
            "is 4 and rate_limit.burst 3",
        ),
        ({"breaker": {"count": [429, 500], "ignore": [500]}}, "500 stands in count too"),
        ({"breaker": {"count": ["crash"]}}, "breaker.count"),
        ({"breaker": {"ignore": [200]}}, "breaker.ignore"),
        ({"base_url": "ftp://x"}, "http:// or https://"),
        ({"base_url": "https://u:p@x"}, "user name or password"),
        ({"base_url": "https://x/?a=b"}, "query or fragment"),
        ({"base_url": "http://x:99999999"}, "no url"),
        ({"auth": {}}, "one of bearer, api_key, basic"),
        ({"auth": {"bearer": "a", "basic": {"username": "u", "password": "p"}}}, "bearer and basic"),
        ({"auth": {"api_key": "k"}}, "query or header"),
        ({"auth": {"bearer": "k", "query": "q"}}, "there is no api_key"),
        ({"auth": {"bearer": "a\nb"}}, "line break"),
        ({"headers": {"X-A": "a\r\nX-B: b"}}, "line break"),
        ({"headers": {"bad name": "x"}}, "not allowed here"),
        ({"retry": {"base": "10s", "max": "1s"}}, "shorter than base"),
        ({"breaker": {"failures": 0}}, "from 1"),
        ({"breaker": {"reset_after": "0s"}}, "longer than zero"),
        ({"breaker": {"max_reset_after": "1s"}}, "shorter than reset_after"),
        ({"rate_limit": {"window": "1h"}}, "requests"),
        ({"rate_limit": {"requests": 1, "window": "1h", "reset_header": "X"}}, "needs header"),
        ({"fallback": "cash"}, '"cache"'),
        ({"concurrency": 0}, "from 1 to 1000"),
        ({"operations": {"x": {"request": "FETCH /x"}}}, "begins with one of"),
        ({"operations": {"x": {"request": "POST /x", "cache": "5m"}}}, "only answers of GET are kept"),
        ({"operations": {"x": {"request": "GET /x", "stale_while_revalidate": "5m"}}}, "are not kept"),
        (
            {"operations": {"x": {"request": "GET /x", "cache": "peer", "stale_while_revalidate": "5m"}}},
            'with cache = "peer" it is',
        ),
        ({"operations": {"x": {"request": "GET /x", "repeatable": True}}}, "may be repeated anyway"),
        ({"operations": {"x": {"request": "GET /x", "query": ["a"]}}}, "go to the query anyway"),
        ({"operations": {"x": {"request": "POST /{a}", "query": ["a"]}}}, "fills a place"),
        ({"operations": {"x y": {"request": "GET /x"}}}, "not allowed here"),
        ({"operations": {"x": {"request": "GET /x", "params": {"__slots__": "any"}}}}, "not allowed here"),
        ({"operations": {"x": {"request": "GET /x", "params": {"a": {"required": True, "default": 1}}}}}, "no default"),
        ({"operations": {"x": {"request": "GET /x", "pages": 1}}}, "there is no such key"),
        ({"operations": {"x": {"request": "POST /x", "paginate": "link"}}}, "only GET has pages"),
        ({"operations": {"x": {"request": "GET /x", "paginate": "link", "cache": "5m"}}}, "neither kept"),
        ({"operations": {"x": {"request": "GET /x", "select": "a..b"}}}, "empty step"),
        ({"operations": {"x": {"request": "GET /x", "body": "form"}}}, "GET has no body"),
        ({"operations": {"x": {"request": "POST /x", "body": "multipart", "content_type": "a/b"}}}, "boundary"),
        ({"operations": {"x": {"request": "GET /x", "headers": {"h": "Host"}}}}, "not an argument's to say"),
        ({"operations": {"x": {"request": "GET /{h}", "headers": {"h": "X-H"}}}}, "goes to the path"),
        ({"operations": {"x": {"request": "GET /x", "batch": {}}}}, "no body that could hold a batch"),
        ({"operations": {"x": {"request": "POST /{a}", "batch": {}}}}, "cannot differ between its items"),
        ({"operations": {"x": {"request": "POST /x", "query": ["a"], "batch": {}}}}, "cannot differ between its items"),
        ({"operations": {"x": {"request": "POST /x", "headers": {"a": "X-A"}, "batch": {}}}}, "cannot differ"),
        ({"operations": {"x": {"request": "POST /x", "body": "form", "batch": {}}}}, "is JSON"),
        ({"operations": {"x": {"request": "POST /x", "format": "text", "batch": {}}}}, "holds no list"),
        ({"operations": {"x": {"request": "POST /x", "fallback": {"default": 1}, "batch": {}}}}, "nothing stands in"),
        ({"operations": {"x": {"request": "POST /x", "batch": {"queue": 5}}}}, "less than one batch"),
        ({"operations": {"x": {"request": "POST /x", "batch": {"error": "e", "answers": "all"}}}}, "no places"),
        ({"operations": {"x": {"request": "POST /x", "batch": {"error": "a..b"}}}}, "empty step"),
        ({"operations": {"load": {"request": "GET /x"}}, "storage": {}}, "is a call of the storage"),
        ({"storage": {"path": "/{id}"}}, "asset and partition are"),
        ({"storage": {}, "s3": {"bucket": "assets"}}, "give storage or s3"),
        ({"s3": {"bucket": "Not_A_Bucket"}}, "s3.bucket"),
        ({"proxy": "socks5://x"}, "begins with http:// or https://"),
        ({"proxy": "http://x/path"}, "ends there"),
        ({"tls": {"ca_file": "nowhere.pem"}}, "is no file"),
        ({"tls": {"key_file": "key.pem"}}, "is the key of a cert_file"),
        ({"tls": {"verify": False}}, "there is no such key"),
        ({"auth": {"hmac": {"secret": "k", "message": "{date}"}}}, "no place of a message"),
        ({"auth": {"hmac": {"secret": "k", "message": "{timestamp}{body}"}}}, "timestamp_header"),
        ({"auth": {"oauth2": {"token_url": "x", "client_id": "a", "client_secret": "b"}}}, "begins with http"),
        ({"tiemout": "1s"}, "timeout"),
        ({"timeout": 30}, '"30s"'),
    ],
)
def test_a_mistake_is_named_with_what_to_write(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    assert said in all_text(tmp_path, **keys)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = all_text(
        tmp_path,
        base_url="nowhere",
        headers={"A": "\n"},
        operations={"a": {"request": "GET"}, "b": {"request": "POST /b", "cache": "1m"}},
    )
    for part in ("base_url", "headers", "operations.a.request", "operations.b.cache"):
        assert part in text


def test_every_key_is_documented_in_the_source_of_its_table() -> None:
    source = Path(__file__).parents[3].joinpath("actors/integrations/rest.py").read_text()
    for field in msgspec.structs.fields(Rest):
        if field.name in Rest.__annotations__:
            at = source.index(f"    {field.name}: ", source.index("class Rest("))
            assert '"""' in source[at : source.index('\n    """', at) + 8]


def test_planning_an_api_touches_neither_network_nor_disk(tmp_path: Path) -> None:
    from actors.integrations import rest

    config = load_table(Rest, {**BASE, "concurrency": 3}, tmp_path, environ={})
    plan = rest.plan("planned", config, Context(tmp_path, tmp_path, None, "test"))
    names = [child.name for child in plan.children]
    assert names == [
        "planned/cache", "planned/limiter", "planned/breaker", "planned/worker-1", "planned/worker-2",
        "planned/worker-3", "planned",
    ]  # fmt: skip
    assert plan.timeout_s == 31.0
