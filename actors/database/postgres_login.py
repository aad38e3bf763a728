"""How a connection to PostgreSQL is made: one host after the other, each within its time, with today's password."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
import psycopg
from psycopg.conninfo import conninfo_to_dict

from actors.database.engine import MAX_TEXT_CHARS, Lost
from config.secret import Secret, redact

MAX_PASSWORD_BYTES = 64 << 10
MAX_HOSTS = 16
#: invalid_password and invalid_authorization_specification
_REJECTED = ("password authentication failed", "no password supplied")


@dataclass(frozen=True, slots=True)
class PostgresLogin:
    """Where the servers are and who asks; `connect` may be called from several greenlets."""

    url: Secret
    application_name: str
    password: Secret | None = None
    #: read anew for every connection, so that a rotated password needs no restart
    password_file: Path | None = None
    connect_timeout_s: float = 5.0
    silence_s: float = 30.0

    def connect(self, timeout_s: float, **options: Any) -> psycopg.Connection[Any]:
        """Return a connection to the first host that fits; raise `Lost` with what the last one said.

        Each host may take `connect_timeout_s`, and all of them together that many times as long. Switches greenlets.
        """
        password = self._password()
        try:
            return self._connect(password, timeout_s, options)
        except Lost as lost:
            # the file may have been written between the reading and the login
            fresh = self._password()
            if not any(text in lost.reason for text in _REJECTED) or fresh == password:
                raise
            return self._connect(fresh, timeout_s, options)

    def _connect(self, password: Secret | None, timeout_s: float, options: dict[str, Any]) -> psycopg.Connection[Any]:
        parameters = self._parameters(password)
        attempts = _attempts(parameters)
        reasons = []
        for attempt in attempts:
            limit_s = min(timeout_s, self.connect_timeout_s)
            late = gevent.Timeout(limit_s)
            late.start()
            try:
                return psycopg.connect(**attempt, **options)
            except gevent.Timeout as timeout:
                if timeout is not late:
                    raise
                reasons.append(f"no connection within {limit_s:.3g} s, the server does not answer")
            except psycopg.Error as error:
                reasons.append(connect_text(error))
            finally:
                late.close()
        if len(reasons) == 1:
            raise Lost(reasons[0], sent=False)
        raise Lost(
            f"none of {len(reasons)} attempts led to a server: {'; '.join(reasons)}"[:MAX_TEXT_CHARS], sent=False
        )

    def _password(self) -> Secret | None:
        if self.password_file is None:
            return self.password
        try:
            with self.password_file.open("rb") as file:
                text = file.read(MAX_PASSWORD_BYTES).decode().rstrip("\r\n")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise Lost(f"the password file {self.password_file} cannot be read: {why}", sent=False) from None
        if not text:
            raise Lost(f"the password file {self.password_file} is empty", sent=False)
        return Secret(text)

    def _parameters(self, password: Secret | None) -> dict[str, Any]:
        parameters: dict[str, Any] = {
            "application_name": self.application_name,
            "keepalives_idle": max(1, int(self.silence_s)),
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": int(self.silence_s * 1000),
            "client_encoding": "UTF8",
        }
        parameters |= conninfo_of(self.url)
        # the driver's own limit, in whole seconds, comes after ours
        parameters.setdefault("connect_timeout", max(2, int(self.connect_timeout_s) + 1))
        if password is not None:
            parameters["password"] = password.reveal()
        return parameters


def conninfo_of(url: Secret) -> dict[str, Any]:
    """Return the parts of a PostgreSQL URL; raise ValueError without its text when it does not parse.

    Never switches.
    """
    try:
        found = dict(conninfo_to_dict(url.reveal()))
    except psycopg.Error:
        raise ValueError(
            "the url is no connection URL: percent-encode reserved characters in user and password (@ is %40), "
            "or give the password in its own key"
        ) from None
    hosts, ports = _listed(found.get("host")), _listed(found.get("port"))
    if len(hosts) > MAX_HOSTS:
        raise ValueError(f"the url names {len(hosts)} hosts, at most {MAX_HOSTS} are allowed")
    if len(ports) not in (1, len(hosts)):
        raise ValueError(f"the url names {len(hosts)} hosts and {len(ports)} ports: give one port or one for each host")
    return found


def connect_text(error: psycopg.Error) -> str:
    """Return what a failed or lost connection says, in one line without secrets. Never switches."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    text = lines[0].removeprefix("connection failed: ").removeprefix("consuming input failed: ")
    if text.startswith("connection to server") and text.endswith(("failed:", "?")) and len(lines) > 1:
        text = f"{text} {lines[1]}"
    return redact(text)[:MAX_TEXT_CHARS]


def _attempts(parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """One set of parameters for each host, in the order in which libpq would try them."""
    hosts, addresses, ports = (_listed(parameters.get(key)) for key in ("host", "hostaddr", "port"))
    count = max(len(hosts), len(addresses))
    attempts = []
    for index in range(count):
        attempt = dict(parameters)
        for key, listed in (("host", hosts), ("hostaddr", addresses), ("port", ports)):
            if key in parameters:
                attempt[key] = listed[index] if len(listed) > 1 else listed[0]
        attempts.append(attempt)
    if parameters.get("load_balance_hosts") == "random":
        random.shuffle(attempts)
    if parameters.get("target_session_attrs") == "prefer-standby" and count > 1:
        standbys = [{**attempt, "target_session_attrs": "standby"} for attempt in attempts]
        return standbys + [{**attempt, "target_session_attrs": "any"} for attempt in attempts]
    return attempts


def _listed(value: object) -> list[str]:
    return str(value or "").split(",")
