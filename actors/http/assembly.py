"""The part of the tree that one API is: its settings, and the actors that stand in the order of a call."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec

from actors.http import front, operation, token
from actors.http.client import HttpClient
from actors.http.front import Front, InFlight
from actors.http.operation import Gathered, KeyRule, Operation, Settings
from actors.http.signing import HmacRule, Sign, aws_signer, hmac_signer
from actors.http.tables import Auth, HttpApi
from actors.http.token import FETCH_LIMIT_S, MAX_ANSWER_BYTES, Grant, TokenKeeper, TokenTable
from actors.http.worker import Worker
from actors.resilience import batcher, breaker, cache, guarded, limiter
from actors.resilience.batcher import Batch, Batcher
from actors.resilience.breaker import Breaker, CircuitTable
from actors.resilience.cache import Cache
from actors.resilience.guarded import Guarded
from actors.resilience.limiter import DEFAULT_WINDOW_S, Limiter, QuotaTable
from actors.resilience.shared import RedisLink, SharedCircuit, SharedQuota, shared_key
from actors.resilience.shared_shelf import SharedShelf, derive
from actors.resilience.shelf import Shelf
from actors.seam import Context, Plan
from config.secret import Secret, register
from supervisors import ChildSpec

# The daemon's own default deadline lies behind the integration's time limit by this much, so that a caller that names
# no deadline hears what happened and not merely that time is up.
ANSWER_MARGIN_S = 1.0
# A call counts its time from its arrival at the front, so a worker that exceeds this is stuck.
WORKER_MARGIN_S = 10.0


def assemble(
    name: str,
    config: HttpApi,
    context: Context,
    operations: Mapping[str, Operation],
    *,
    key_rule: KeyRule | None = None,
    accept: str = "application/json, */*;q=0.5",
    whole_url: bool = False,
) -> Plan:
    """Return the part of the tree for an API with these operations. Never switches.

    `whole_url`: base_url is the one address, to which no path is added.
    """
    base_url = config.base_url if whole_url else config.base_url.rstrip("/")
    settings = _settings(name, config, base_url, operations, key_rule, accept)
    circuit, quota = CircuitTable(), QuotaTable()
    shelf = Shelf(config.cache_size, max_entry_bytes=config.cache_entry_size)
    answers: SharedShelf | None = None
    if context.redis_url is not None:
        if config.cache_store == "redis":
            answers = _shared_shelf(name, config, settings, context.redis_url)
        _share(name, config, context.redis_url, circuit, quota)
    delay_s = max((each.batching.max_delay_s for each in operations.values() if each.batching is not None), default=0.0)
    timeout_s = settings.longest_s + ANSWER_MARGIN_S + delay_s
    down = {"on_redis_down": config.on_redis_down}
    children = [
        ChildSpec(id="cache", start=Cache, args=(name, shelf, answers), name=f"{name}/cache"),
        ChildSpec(
            id="limiter", start=Limiter, args=(name, config.rate_limit, quota), kwargs=down, name=f"{name}/limiter"
        ),
        ChildSpec(
            id="breaker",
            start=Breaker,
            args=(name, config.breaker, circuit),
            kwargs={**down, "front": name},
            name=f"{name}/breaker",
        ),
        *_token_keeper(name, config),
        *(
            ChildSpec(
                id=f"worker-{lane + 1}",
                start=Worker,
                args=(settings, lane),
                name=settings.worker_name(lane),
                # The front stops first and ends what is under way; a worker has nothing of its own to put in order.
                shutdown="brutal_kill",
                timeout_s=settings.longest_s + WORKER_MARGIN_S,
            )
            for lane in range(config.concurrency)
        ),
        ChildSpec(id="front", start=Front, args=(settings, InFlight()), name=name, timeout_s=timeout_s),
        # Behind the front, so that they stop before it and what they hold still goes.
        *_batchers(settings),
    ]
    exports = {each.name: each.exported for each in operations.values()}
    return Plan(children=children, exports=exports, timeout_s=timeout_s)


def _batchers(settings: Settings) -> list[ChildSpec]:
    specs = []
    for each in settings.operations.values():
        rules = each.batching
        if rules is None:
            continue
        kwargs = {
            "operation": each.name,
            "max_size": rules.max_size,
            "max_delay_s": rules.max_delay_s,
            "max_weight": rules.max_bytes,
            "queue": rules.queue,
            "timeout_s": each.timeout_s + ANSWER_MARGIN_S,
            "message": partial(_gathered, each),
            "split": rules.split(settings.doing(each), settings.host),
        }
        batcher.declare(settings.name, each.name)
        specs.append(
            ChildSpec(
                id=f"batcher-{each.name}",
                start=Batcher,
                args=(settings.name, settings.name),
                kwargs=kwargs,
                name=settings.batcher_name(each),
            )
        )
    return specs


def _gathered(each: Operation, batch: Batch) -> Gathered:
    return Gathered(each, batch.items, batch.key)


def _token_keeper(name: str, config: HttpApi) -> list[ChildSpec]:
    oauth = None if config.auth is None else config.auth.oauth2
    if oauth is None:
        return []
    grant = Grant(
        oauth.token_url, oauth.client_id, oauth.client_secret, oauth.scope, oauth.audience, oauth.style
    )  # fmt: skip
    client = _client(config, pool=1, max_response_bytes=MAX_ANSWER_BYTES)
    return [
        ChildSpec(
            id="token",
            start=TokenKeeper,
            args=(name, grant, TokenTable(), client),
            name=f"{name}/token",
            timeout_s=FETCH_LIMIT_S + WORKER_MARGIN_S,
        )
    ]


def _client(config: HttpApi, *, pool: int, max_response_bytes: int) -> HttpClient:
    tls = config.tls
    certificate = None if tls.cert_file is None else (tls.cert_file, tls.key_file or tls.cert_file)
    return HttpClient(
        pool=pool,
        connect_timeout_s=config.connect_timeout,
        max_response_bytes=max_response_bytes,
        max_redirects=config.max_redirects,
        proxy=None if config.proxy is None else config.proxy.reveal(),
        ca_file=tls.ca_file,
        certificate=certificate,
    )


def _share(name: str, config: HttpApi, url: Secret, circuit: CircuitTable, quota: QuotaTable) -> None:
    """Have circuit and quota kept in Redis, for every daemon that has this name at this address."""
    rate = config.rate_limit
    circuit.shared = SharedCircuit(RedisLink(url, name), shared_key(name, config.base_url, "circuit"))
    quota.shared = SharedQuota(
        RedisLink(url, name),
        shared_key(name, config.base_url, "quota"),
        None if rate is None else rate.requests,
        DEFAULT_WINDOW_S if rate is None else float(rate.window),
        burst=None if rate is None else rate.bucket,
    )


def _shared_shelf(name: str, config: HttpApi, settings: Settings, url: Secret) -> SharedShelf:
    """Have answers kept in Redis, for every daemon that would get the same ones: same address, credentials, headers."""
    said = [repr(settings.base_url), *(f"{key}: {value}" for key, value in sorted(settings.headers.items()))]
    said += [f"{key}={value}" for key, value in settings.secret_query]
    said += _revealed(config.auth)
    if config.tls.cert_file is not None:
        # A certificate of our own names the one who asks as a password does.
        said.append(hashlib.sha256(config.tls.cert_file.read_bytes()).hexdigest())
    place, key = derive("\n".join(said).encode(), f"{name} {config.base_url}")
    prefix = shared_key(name, config.base_url, f"answers:{place}")
    return SharedShelf(
        RedisLink(url, name), prefix, key, max_bytes=config.cache_size, max_entry_bytes=config.cache_entry_size
    )


def _revealed(value: object) -> list[str]:
    """Return all that a table of credentials says."""
    if isinstance(value, Secret):
        return [value.reveal()]
    if isinstance(value, msgspec.Struct):
        return [text for key in value.__struct_fields__ for text in (f"{key}:", *_revealed(getattr(value, key)))]
    return [repr(value)]


def _settings(
    name: str,
    config: HttpApi,
    base_url: str,
    operations: Mapping[str, Operation],
    key_rule: KeyRule | None,
    accept: str,
) -> Settings:
    auth_headers, secret_query = _credentials(config.auth)
    own_headers = {key.lower(): value for key, value in config.headers.items()}
    rate = config.rate_limit
    settings = Settings(
        name=name,
        host=urlsplit(config.base_url).hostname or "",
        base_url=base_url,
        headers={"accept": accept, **own_headers, **auth_headers},
        secret_query=secret_query,
        operations=operations,
        client=_client(config, pool=config.concurrency, max_response_bytes=config.max_response),
        guarded=Guarded(
            name,
            retry=config.retry,
            limiter=f"{name}/limiter",
            breaker=f"{name}/breaker",
            patience_s=config.breaker.patience,
            rules=config.breaker.rules,
        ),
        try_limit_s=config.try_timeout,
        remaining_header=None if rate is None else rate.header,
        reset_header=None if rate is None else rate.reset_header,
        reply_headers=frozenset(header.lower() for header in config.reply_headers),
        key_rule=key_rule,
        longest_s=max([float(config.timeout), *(each.timeout_s for each in operations.values())]),
        concurrency=config.concurrency,
        queue=config.queue,
        sign=_signer(config.auth),
        shares_answers=config.cache_store == "redis",
        needs_token=config.auth is not None and config.auth.oauth2 is not None,
    )
    for part in (breaker, limiter, cache, guarded, front, *([token] if settings.needs_token else [])):
        part.declare(name)
    operation.declare(settings)
    return settings


def _signer(auth: Auth | None) -> Sign | None:
    if auth is not None and auth.aws_signature_v4 is not None:
        aws = auth.aws_signature_v4
        return aws_signer(
            access_key=aws.access_key,
            secret_key=aws.secret_key,
            session_token=aws.session_token,
            region=aws.region,
            service=aws.service,
        )
    if auth is not None and auth.hmac is not None:
        own = auth.hmac
        rule: dict[str, Any] = {key: getattr(own, key) for key in ("secret", "algorithm", "encoding", "prefix")}
        stamp = None if own.timestamp_header is None else own.timestamp_header.lower()
        return hmac_signer(HmacRule(**rule, header=own.header.lower(), message=own.message, timestamp_header=stamp))
    return None


def _credentials(auth: Auth | None) -> tuple[dict[str, str], tuple[tuple[str, str], ...]]:
    """Return the headers and the query parameters that carry the credentials."""
    if auth is None:
        return {}, ()
    if auth.bearer is not None:
        return {"authorization": f"Bearer {auth.bearer.reveal()}"}, ()
    if auth.basic is not None:
        pair = f"{auth.basic.username}:{auth.basic.password.reveal()}"
        encoded = base64.b64encode(pair.encode()).decode()
        register(encoded, pinned=True)
        return {"authorization": f"Basic {encoded}"}, ()
    if auth.api_key is None:
        return {}, ()
    if auth.header is not None:
        return {auth.header.lower(): auth.api_key.reveal()}, ()
    return {}, ((auth.query or "", auth.api_key.reveal()),)
