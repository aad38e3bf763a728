"""The tables that every integration over HTTP shares, and the rules across their keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from actors.http.signing import NEEDS_BOTOCORE, has_botocore, unknown_places
from actors.resilience.classify import OwnRules
from actors.resilience.policy import BreakerPolicy, OnRedisDown, RatePolicy, RetryPolicy
from config.schema import Duration, PositiveDuration, Problem, Size, Supervised, Table
from config.secret import Secret

TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "array": list[Any],
    "object": dict[str, Any],
    "any": Any,
}
ParamType = Literal["string", "integer", "number", "boolean", "array", "object", "any"]
HeaderName = Annotated[str, Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", max_length=100)]
Name = Annotated[str, Meta(pattern=r"^(?!__)[A-Za-z_][A-Za-z0-9_]*$", max_length=64)]


class Basic(Table, frozen=True, kw_only=True):
    """A user name and a password, sent as a Basic header."""

    username: str
    """The user name."""
    password: Secret
    """The password."""


class AwsSignature(Table, frozen=True, kw_only=True):
    """Signature Version 4 of Amazon's services and of all that speak like them; needs regrow[aws]."""

    access_key: Secret
    """The access key id."""
    secret_key: Secret
    """The secret access key."""
    session_token: Secret | None = None
    """The token of temporary credentials."""
    region: Annotated[str, Meta(pattern="^[a-z0-9-]+$", max_length=64)] = "us-east-1"
    """The region that the signature names."""
    service: Annotated[str, Meta(pattern="^[a-z0-9-]+$", max_length=64)]
    """The service that the signature names, such as s3 or execute-api."""

    def __post_init__(self) -> None:
        if not has_botocore():
            raise Problem(NEEDS_BOTOCORE)


class Hmac(Table, frozen=True, kw_only=True):
    """A keyed digest of the request in a header."""

    secret: Secret
    """The key."""
    header: HeaderName = "X-Signature"
    """The header that carries the signature."""
    algorithm: Literal["sha256", "sha512", "sha1"] = "sha256"
    """The digest."""
    encoding: Literal["hex", "base64"] = "hex"
    """How the signature is written."""
    prefix: Annotated[str, Meta(pattern="^[!-~ ]*$", max_length=100)] = ""
    """What stands before it, such as "sha256="."""
    message: Annotated[str, Meta(min_length=1, max_length=1000)] = "{body}"
    """What is signed; places are {method}, {host}, {path}, {query}, {timestamp}, {body} and {body_sha256}."""
    timestamp_header: HeaderName | None = None
    """The header that carries {timestamp}, in unix seconds; absent: none does."""

    def __post_init__(self) -> None:
        unknown = unknown_places(self.message)
        if unknown:
            raise Problem(f"{{{unknown[0]}}} is no place of a message", key="message")
        if "{timestamp}" in self.message and self.timestamp_header is None:
            raise Problem("signs a {timestamp} that the peer never sees: name a timestamp_header", key="message")


class OAuth2(Table, frozen=True, kw_only=True):
    """A token for client credentials (RFC 6749): fetched once, shared by all calls, renewed before it ends."""

    token_url: Annotated[str, Meta(min_length=1)]
    """Where tokens are made."""
    client_id: Annotated[str, Meta(min_length=1)]
    """The client's name."""
    client_secret: Secret
    """The client's secret."""
    scope: str | None = None
    """The scopes asked for, with spaces between them."""
    audience: str | None = None
    """The audience asked for, where the server wants one."""
    style: Literal["basic", "body"] = "basic"
    """Where name and secret go: a Basic header or the form."""

    def __post_init__(self) -> None:
        for problem in url_problems(self.token_url, "token_url"):
            raise problem


class Auth(Table, frozen=True, kw_only=True):
    """How requests prove who sends them: one of bearer, api_key, basic, aws_signature_v4, hmac and oauth2."""

    bearer: Secret | None = None
    """A token, sent as a Bearer header."""
    api_key: Secret | None = None
    """A key, sent in the query parameter or header that the next keys name."""
    query: Annotated[str, Meta(min_length=1)] | None = None
    """The query parameter that carries api_key."""
    header: HeaderName | None = None
    """The header that carries api_key."""
    basic: Basic | None = None
    """A user name and a password."""
    aws_signature_v4: AwsSignature | None = None
    """Each request signed for Amazon's services."""
    hmac: Hmac | None = None
    """Each request signed with a shared key."""
    oauth2: OAuth2 | None = None
    """A token that is fetched and renewed by itself."""

    def __post_init__(self) -> None:
        kinds = ("bearer", "api_key", "basic", "aws_signature_v4", "hmac", "oauth2")
        given = [key for key in kinds if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise Problem(f"one of {', '.join(kinds[:-1])} and {kinds[-1]} is needed, found {found}")
        places = [key for key in ("query", "header") if getattr(self, key) is not None]
        if self.api_key is not None and len(places) != 1:
            raise Problem("api_key needs either query or header, which say where it goes", key="api_key")
        if self.api_key is None and places:
            raise Problem("says where api_key goes, and there is no api_key", key=places[0])
        for key in ("bearer", "api_key"):
            secret = getattr(self, key)
            if secret is not None and not fits_header(secret.reveal()):
                raise Problem("holds a line break or a character that no header carries", key=key)


class Tls(Table, frozen=True, kw_only=True):
    """Certificates of one's own. There is no key that turns the check of the peer's certificate off."""

    ca_file: Path | None = None
    """The authorities that may have signed the peer's certificate (PEM), in place of the well-known ones."""
    cert_file: Path | None = None
    """Our own certificate (PEM), for peers that ask for one."""
    key_file: Path | None = None
    """The key of cert_file; absent: it stands in the same file."""

    def __post_init__(self) -> None:
        if self.key_file is not None and self.cert_file is None:
            raise Problem("is the key of a cert_file, and there is none", key="key_file")
        for key in ("ca_file", "cert_file", "key_file"):
            file = getattr(self, key)
            if file is not None and not file.is_file():
                raise Problem(f"{file} is no file", key=key)


class FallbackDefault(Table, frozen=True, kw_only=True):
    """A fixed answer."""

    default: Any
    """What callers get while there is no real answer."""


class ParamSpec(Table, frozen=True, kw_only=True):
    """One argument of an operation."""

    type: ParamType = "any"
    """What it must be."""
    required: bool = False
    """A call without it is refused before anything is sent."""
    default: Any = None
    """What is sent when the caller leaves it out; absent: nothing."""
    doc: str = ""
    """What DESCRIBE says about it."""

    def __post_init__(self) -> None:
        if self.required and self.default is not None:
            raise Problem("a required argument has no default", key="default")


Cost = Annotated[int, Meta(ge=1, le=10_000_000)]


class Idempotency(Table, frozen=True, kw_only=True):
    """A key that lets the peer recognise a repeated request, so that POST and PATCH may be retried."""

    header: HeaderName = "Idempotency-Key"
    """The header that carries it."""
    generate: bool = True
    """Make a key for each call that brings none, before its first try; all its tries carry the same."""
    argument: Name = "idempotency_key"
    """The argument by which a caller brings a key of its own; it is not sent as anything else."""


Counted = (
    Annotated[int, Meta(ge=300, le=599)]
    | Literal["connection_error", "decode_error", "rate_limited", "timeout", "too_large", "upstream_error"]
)


class HttpBreaker(BreakerPolicy, frozen=True, kw_only=True):
    """When the circuit opens and how it closes again, and which errors count."""

    count: list[Counted] = msgspec.field(default_factory=list)
    """Statuses and error codes that count as failures beside those that do anyway: statuses from 500 on,
    connection_error, timeout and decode_error. For example [429]."""
    ignore: list[Counted] = msgspec.field(default_factory=list)
    """Statuses and error codes that say nothing about the peer, neither good nor bad: for example [501, "timeout"]. A
    status goes before a code."""

    def __post_init__(self) -> None:
        super().__post_init__()
        both = [word for word in self.count if word in self.ignore]
        if both:
            raise Problem(f"{both[0]!r} stands in count too", key="ignore")

    @property
    def rules(self) -> OwnRules:
        """Which errors count."""
        return OwnRules(frozenset(self.count), frozenset(self.ignore))


class HttpApi(Supervised, frozen=True, kw_only=True):
    """What every integration over HTTP may say."""

    base_url: Annotated[str, Meta(min_length=1)]
    """Where every path of an operation is added to: "https://api.github.com"."""
    headers: dict[HeaderName, str] = msgspec.field(default_factory=dict)
    """Headers of every request."""
    auth: Auth | None = None
    """How requests prove who sends them."""
    timeout: PositiveDuration = PositiveDuration("30s")
    """The total time limit of a call: waiting, all tries and pauses. A caller's shorter deadline wins."""
    try_timeout: PositiveDuration | None = None
    """The time limit of each try, so that a hanging one leaves time for the next; absent: all that is left."""
    connect_timeout: PositiveDuration = PositiveDuration("5s")
    """How long connecting may take."""
    retry: RetryPolicy = RetryPolicy()
    """How failed tries are repeated."""
    breaker: HttpBreaker = HttpBreaker()
    """When calls are refused because the peer is known to fail."""
    rate_limit: RatePolicy | None = None
    """How many requests go; absent: only what the peer says in Retry-After and RateLimit fields counts."""
    concurrency: Annotated[int, Meta(ge=1, le=1000)] = 25
    """How many calls run at once."""
    queue: Annotated[int, Meta(ge=0, le=1_000_000)] = 1000
    """How many calls wait for one of them, in turns of their clients; more are refused with overloaded, those of the
    client first that has most calls waiting."""
    max_response: Size = Size("8MiB")
    """The largest response body, decompressed; a larger one is too_large."""
    max_redirects: Annotated[int, Meta(ge=0, le=20)] = 5
    """How many redirects are followed; 0 makes each an upstream_error. Another host gets none of our headers, and from
    an address of everybody none leads to one of a private network."""
    fallback: Literal["cache"] | FallbackDefault | None = None
    """What stands in while the peer is unavailable: cache (an older answer) or { default = ... }; reading only."""
    proxy: Secret | None = None
    """The proxy that everything goes through, as http://[user:password@]host:port; that of the environment never is."""
    tls: Tls = Tls()
    """Certificates of one's own."""
    cache: Duration | Literal["peer"] = Duration("0s")
    """How long answers of GET operations are used again when the peer says nothing about it (Cache-Control, Expires);
    peer: only as long as it says; "0s": not at all. Operations may say otherwise."""
    cache_size: Size = Size("16MiB")
    """The bound of kept answers, in memory and, for all daemons together, in Redis; the least recently used make
    room."""
    cache_entry_size: Size = Size("1MiB")
    """The largest answer that is kept."""
    cache_store: Literal["memory", "redis"] = "memory"
    """Where answers are kept. redis: in the Redis of [daemon], for every daemon that has this integration under the
    same name, at the same address and with the same credentials and headers; together they ask for an answer once.
    Answers lie there as they came, what was asked for does not show. While Redis does not answer, each daemon goes on
    with its own memory."""
    stale_while_revalidate: Duration = Duration("0s")
    """For so long after its time a kept answer is still used at once, while a newer one is asked for in the background;
    where the peer says how long an answer is fresh, only its own stale-while-revalidate counts."""
    max_stale: Duration = Duration("1d")
    """How long after its time an answer may still stand in, with fallback = "cache"; what the peer says about that
    (stale-if-error, must-revalidate) counts before it, and its stale-if-error also where no fallback is given."""
    reply_headers: list[HeaderName] = msgspec.field(
        default_factory=lambda: ["content-type", "etag", "last-modified", "link", "location", "x-request-id"]
    )
    """The response headers that callers see in the reply's header."""
    on_redis_down: OnRedisDown = "open"
    """With [daemon] redis, while it does not answer: open goes on with this daemon's own window and circuit, closed
    refuses with unavailable."""

    def needs_of_daemon(self) -> dict[str, str]:
        """Return which key of [daemon] each of these keys needs. Never switches."""
        return {"cache_store": "redis"} if self.cache_store == "redis" else {}


def api_problems(config: HttpApi) -> list[Problem]:
    """Return what is wrong with the shared keys taken together. Never switches."""
    problems = [*url_problems(config.base_url, "base_url"), *_header_problems(config.headers)]
    if config.proxy is not None:
        problems += _proxy_problems(config.proxy)
    return problems


def cost_problems(at: str, cost: int, rate: RatePolicy | None) -> list[Problem]:
    """Return what is wrong with what an operation costs. Never switches."""
    if cost > 1 and rate is None:
        return [Problem("there is no rate_limit of which a call could take more", key=f"{at}.cost")]
    if rate is not None and cost > rate.largest:
        what = "requests" if rate.bucket is None or rate.burst is None else "burst"
        return [Problem(f"is {cost} and rate_limit.{what} {rate.largest}: no call could ever go", key=f"{at}.cost")]
    return []


def _proxy_problems(proxy: Secret) -> list[Problem]:
    try:
        parts = urlsplit(proxy.reveal())
        _ = parts.port
    except ValueError:
        return [Problem("is no url", key="proxy")]
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path not in {"", "/"}:
        return [Problem("begins with http:// or https:// and a host, and ends there", key="proxy")]
    return []


def url_problems(url: str, key: str) -> list[Problem]:
    """Return what is wrong with an address. Never switches."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return [Problem("is no url", key=key)]
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return [Problem("begins with http:// or https:// and a host", key=key)]
    if parts.username is not None or parts.password is not None:
        return [Problem("holds a user name or password: write auth = { basic = ... }", key=key)]
    if parts.query or parts.fragment:
        return [Problem("has a query or fragment, which belongs to the operations", key=key)]
    return []


def fits_header(value: str) -> bool:
    """Tell whether a header can carry it. Never switches."""
    return value.isprintable() and value.isascii()


def _header_problems(headers: Mapping[str, str]) -> list[Problem]:
    return [
        Problem("holds a line break or a character that no header carries", key=f"headers.{name}")
        for name, value in headers.items()
        if not fits_header(value)
    ]
