"""OAuth 2 client credentials (RFC 6749, 4.4): one token for all workers, fetched once and renewed before it ends."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote_plus, urlencode

import msgspec

from actors.http.body import excerpt
from actors.http.client import HttpClient, Request
from config.secret import Secret, register
from regrow.protocol.errors import DecodeError, RegrowError, UpstreamError
from runtime import clock
from runtime.actor import Actor
from runtime.measure import Counter

TOKENS = Counter("oauth2_tokens_total", "tokens asked for, by how that ended", ("actor", "outcome"))

FETCH_LIMIT_S = 10.0
# Without a word about it, and against nonsense.
DEFAULT_LIFETIME_S, LONGEST_LIFETIME_S = 300.0, 30 * 86400.0
# A token is renewed this much before its end, or a tenth of its life before.
EARLY_S, EARLY_SHARE = 30.0, 0.1
# A token that the peer has just made and already refuses is not replaced: the next one would fare no better.
YOUNG_S = 1.0
MAX_ANSWER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Token:
    """An access token: its number tells two of them apart without showing them."""

    number: int
    value: str = field(repr=False)
    made_at: float
    renew_at: float


@dataclass(frozen=True, slots=True)
class NewToken:
    """Ask for a token that is good now, and is not `spurned`, which the peer has refused."""

    spurned: Token | None


class TokenTable:
    """The token; it outlives the actor that renews it."""

    __slots__ = ("count", "token")

    def __init__(self) -> None:
        self.token: Token | None = None
        self.count = 0

    def __repr__(self) -> str:
        return f"<TokenTable {self.count} fetched>"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token is asked for with."""

    token_url: str
    client_id: str
    client_secret: Secret
    scope: str | None
    audience: str | None
    style: Literal["basic", "body"]

    def request(self) -> Request:
        """Return the request for a token. Never switches."""
        form = {"grant_type": "client_credentials"}
        if self.scope is not None:
            form["scope"] = self.scope
        if self.audience is not None:
            form["audience"] = self.audience
        headers = {"accept": "application/json", "content-type": "application/x-www-form-urlencoded"}
        if self.style == "body":
            form |= {"client_id": self.client_id, "client_secret": self.client_secret.reveal()}
        else:
            # RFC 6749, 2.3.1: both halves are form-encoded before they are joined.
            pair = f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret.reveal())}"
            basic = base64.b64encode(pair.encode()).decode()
            register(basic, pinned=True)
            headers["authorization"] = f"Basic {basic}"
        return Request("POST", self.token_url, headers, urlencode(form).encode())


class TokenKeeper(Actor):
    """Gives out the token of one integration; of many callers that need a new one, one fetch serves all."""

    def __init__(self, integration: str, grant: Grant, table: TokenTable, client: HttpClient) -> None:
        super().__init__()
        self._integration = integration
        self._grant = grant
        self._table = table
        self._client = client

    def on_start(self) -> None:
        """Make the series exist."""
        declare(self._integration)

    def on_stop(self) -> None:
        """Close the idle connections."""
        self._client.close()

    def on_receive(self, message: object) -> Token:
        """Return the token, a new one when need be. Switches greenlets."""
        if not isinstance(message, NewToken):
            raise TypeError(f"the token keeper of {self._integration} got a {type(message).__name__}")
        now = clock.now()
        token, spurned = self._table.token, message.spurned
        if token is not None and now < token.renew_at:
            is_spurned = spurned is not None and spurned.number == token.number
            if not is_spurned or now - token.made_at < YOUNG_S:
                return token
        try:
            fetched = self._fetch(now)
        except RegrowError as error:
            TOKENS.inc(self._integration, error.code if error.code in OUTCOMES else "failed")
            raise
        TOKENS.inc(self._integration, "ok")
        return fetched

    def status(self) -> Mapping[str, Any]:
        """Return how many tokens were fetched and for how long the present one is good. Never switches."""
        token = self._table.token
        left_s = None if token is None else max(0.0, round(token.renew_at - clock.now(), 1))
        return {"fetched": self._table.count, "renewed_in_s": left_s}

    def _fetch(self, now: float) -> Token:
        doing = f"{self._integration}: token"
        try:
            response = self._client.send(self._grant.request(), limit_s=FETCH_LIMIT_S, doing=doing)
            if response.status != 200:
                raise UpstreamError(
                    f"{doing}: the token endpoint answered {response.status}",
                    status=response.status,
                    body=excerpt(response.body, response.headers.get("content-type")),
                    retryable=response.status >= 500 or response.status == 429,
                )
            value, lifetime_s = _parsed(response.body, doing)
        except RegrowError as error:
            # Whatever became of the token: the request that needed it has not begun.
            error.started = "no"
            raise
        register(value)
        self._table.count += 1
        early_s = min(EARLY_S, lifetime_s * EARLY_SHARE)
        self._table.token = Token(self._table.count, value, now, now + max(lifetime_s - early_s, 0.0))
        return self._table.token


OUTCOMES = ("ok", "upstream_error", "connection_error", "timeout", "decode_error", "failed")


def declare(integration: str) -> None:
    """Make every series of a token keeper exist. Never switches."""
    for outcome in OUTCOMES:
        TOKENS.declare(integration, outcome)


def _parsed(body: bytes, doing: str) -> tuple[str, float]:
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        said = None
    value = said.get("access_token") if isinstance(said, dict) else None
    kind = said.get("token_type", "bearer") if isinstance(said, dict) else ""
    if not isinstance(value, str) or not value or not (value.isascii() and value.isprintable()):
        # Not even its first bytes are told: they may hold a token.
        raise DecodeError(f"{doing}: the token endpoint's answer holds no access_token ({len(body)} bytes)")
    if str(kind).lower() != "bearer":
        raise DecodeError(f"{doing}: the token endpoint gives tokens of another type than bearer")
    lasts = said.get("expires_in")
    if isinstance(lasts, str) and lasts.isascii() and lasts.isdigit():
        lasts = int(lasts[:18])
    if isinstance(lasts, bool) or not isinstance(lasts, int | float) or not lasts > 0:
        lasts = DEFAULT_LIFETIME_S
    return value, min(float(lasts), LONGEST_LIFETIME_S)
