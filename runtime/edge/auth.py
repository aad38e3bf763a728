"""Who may do what over HTTP: bearer tokens for reading and for changing, and what holds without them.

Without a read token, reading is open to this machine and to nobody else. Changing always needs a token: the configured
one, or else the one that the daemon writes into its state folder, readable by its own user only.
"""

from __future__ import annotations

import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from config.secret import Secret, register
from regrow.protocol.errors import Forbidden, Unauthorized
from runtime.edge.ports import is_loopback

Access = Literal["open", "read", "admin"]

ADMIN_TOKEN_FILE: Final = "admin.token"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: `name` is for the audit log, `address` the peer's."""

    name: str
    address: str
    reads: bool
    changes: bool


class Auth:
    """The tokens of one HTTP edge."""

    def __init__(self, read_token: Secret | None, admin_token: Secret | None) -> None:
        self._read = read_token
        self._admin = admin_token

    def caller(self, authorization: str, address: str) -> Caller:
        """Return who asks; raises `Unauthorized` for a token that is not one of ours. Never switches."""
        local = is_loopback(address)
        if not authorization:
            return Caller("local" if local else "anonymous", address, reads=local and self._read is None, changes=False)
        scheme, _, token = authorization.strip().partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("http: the Authorization header must be 'Bearer <token>'")
        given = token.strip().encode("utf-8", "surrogateescape")
        # both are compared whatever the first one says, so that the time tells nothing
        admin, reader = _same(given, self._admin), _same(given, self._read)
        if admin:
            return Caller("admin", address, reads=True, changes=True)
        if reader:
            return Caller("reader", address, reads=True, changes=False)
        raise Unauthorized("http: the bearer token is not valid here")

    def check(self, caller: Caller, access: Access) -> None:
        """Raise `Unauthorized` or `Forbidden` unless the caller may. Never switches."""
        if access == "admin" and not caller.changes:
            if caller.name == "reader":
                raise Forbidden("http: the read token may not change anything, use the admin token")
            raise Unauthorized(
                "http: changing needs the admin token: http.admin_token of the configuration, "
                f"or without one the content of {ADMIN_TOKEN_FILE} in the daemon's state folder"
            )
        if access == "read" and not caller.reads:
            if self._read is None:
                raise Forbidden("http: without http.read_token only this machine may read")
            raise Unauthorized("http: reading needs the token http.read_token")


def write_admin_token(state_dir: Path) -> Secret:
    """Make a new admin token, write it to the state folder with mode 0600 and return it. Never switches."""
    token = Secret(secrets.token_urlsafe(32))
    register(token.reveal(), pinned=True)
    path, fresh = state_dir / ADMIN_TOKEN_FILE, state_dir / f"{ADMIN_TOKEN_FILE}.new"
    fresh.unlink(missing_ok=True)
    # created with its final mode: never readable by others, not even for a moment; replaced in one step
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token.reveal() + "\n")
    fresh.replace(path)
    return token


def read_admin_token(state_dir: Path) -> Secret | None:
    """Return the token that a daemon wrote into this state folder; None without one. Never switches."""
    try:
        text = (state_dir / ADMIN_TOKEN_FILE).read_text().strip()
    except OSError:
        return None
    return Secret(text) if text else None


def _same(given: bytes, token: Secret | None) -> bool:
    return hmac.compare_digest(given, token.reveal().encode() if token is not None else b"") and token is not None
