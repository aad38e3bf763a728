"""The one place that turns any failure into a typed error: an exception of a library, an answer of HTTP, of GraphQL.

Foreign texts are left out, because they hold urls, values and so perhaps secrets; what a peer said of itself goes along
bounded and redacted. What a typed error then means (try again? whose fault?) says `classify`.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import sqlite3
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gevent
import msgspec
import redis.exceptions
import requests
import urllib3

from actors.resilience.classify import classify, is_permanent_refusal, status_verdict
from config.secret import redact
from regrow.protocol.errors import (
    ConnectionFailed,
    DatabaseError,
    DecodeError,
    Failed,
    InvalidArguments,
    RateLimited,
    RegrowError,
    Started,
    TimedOut,
    UpstreamError,
)

MAX_SAID_CHARS = 300
MAX_CAUSES = 50

# Words that GraphQL servers write into extensions.code or type, by what they mean.
LIMITED_WORDS = frozenset({"RATE_LIMITED", "RATE_LIMIT", "THROTTLED", "TOO_MANY_REQUESTS"})
REFUSED_WORDS = frozenset(
    {
        "BAD_USER_INPUT", "BAD_REQUEST", "FORBIDDEN", "GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED",
        "INSUFFICIENT_SCOPES", "NOT_FOUND", "PERSISTED_QUERY_NOT_FOUND", "UNAUTHENTICATED", "UNAUTHORIZED",
        "UNPROCESSABLE",
    }
)  # fmt: skip
BROKEN_WORDS = frozenset(
    {"INTERNAL", "INTERNAL_ERROR", "INTERNAL_SERVER_ERROR", "SERVICE_UNAVAILABLE", "TIMEOUT", "UNAVAILABLE"}
)

# PEP 249 names these classes for every driver. By SQLSTATE: lost connections and ending servers, wrong credentials, and
# what goes well when the same statement is sent again.
_DRIVER_ERRORS = frozenset(
    {"DataError", "DatabaseError", "IntegrityError", "InternalError", "NotSupportedError", "ProgrammingError"}
)
_LOST_ERRORS = frozenset({"InterfaceError", "OperationalError"})
_LOST_STATES = ("08", "57P")
_LOGIN_STATES = ("28", "3D")
_AGAIN_STATES = ("40001", "40P01", "53", "55P03")
_SQLITE_AGAIN = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_SQLITE_LOST = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR})

_WRAPPERS = (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError)

_AT = re.compile(r" - at `([^`]*)`$")
_MISSING = re.compile(r"missing required field `([^`]*)`")


def normalise(
    error: BaseException, doing: str, *, started: Started | None = None, where: str = "the peer", limit_s: float = 0.0
) -> RegrowError:
    """Turn any exception into a typed error that says what was being done. Never switches.

    Typed errors are returned as they are. `started` is what the caller knows of the work, where the exception itself
    proves nothing; `where` names the other side, and `limit_s` the time that connecting may take.
    """
    if isinstance(error, RegrowError):
        return error
    for cause in causes(error):
        found = (
            _of_http_library(cause, doing, started, where, limit_s)
            or _of_system(cause, doing, started, where)
            or _of_redis(cause, doing, where)
            or _of_driver(cause, doing, started)
            or _of_check(cause, doing, started)
        )
        if found is not None:
            return found
    if isinstance(error, OSError | requests.RequestException | urllib3.exceptions.HTTPError):
        return ConnectionFailed(f"{doing}: the connection to {where} failed ({type(error).__name__})", started=started)
    retryable = classify(error).retryable
    return Failed(f"{doing}: failed with {type(error).__name__}", started=started, retryable=retryable)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that it wraps, the outermost first. Never switches.

    requests and urllib3 hide causes in `reason` and `args`, and in what they were handling; elsewhere that may be
    something else entirely.
    """
    seen: set[int] = set()
    todo: list[object] = [error]
    while todo and len(seen) < MAX_CAUSES:
        found = todo.pop(0)
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        todo += [getattr(found, "reason", None), *found.args, found.__cause__]
        if isinstance(found, _WRAPPERS) and not found.__suppress_context__:
            todo.append(found.__context__)


def _of_http_library(
    cause: BaseException, doing: str, started: Started | None, where: str, limit_s: float
) -> RegrowError | None:
    match cause:
        case requests.HTTPError(response=requests.Response() as response):
            return of_answer(response.status_code, None, doing=doing, host=where)
        case requests.exceptions.ContentDecodingError() | urllib3.exceptions.DecodeError():
            return DecodeError(f"{doing}: the answer does not decompress", started=started)
        case urllib3.exceptions.NameResolutionError():
            return ConnectionFailed(f"{doing}: the host name {where} does not resolve", started="no")
        case urllib3.exceptions.ProxyError():
            text = f"{doing}: no connection to {where} through the proxy: {_os_word(cause)}"
            return ConnectionFailed(text, started=started)
        case urllib3.exceptions.NewConnectionError():
            return ConnectionFailed(f"{doing}: no connection to {where}: {_os_word(cause)}", started="no")
        case urllib3.exceptions.ConnectTimeoutError():
            within = f" within {limit_s:.3g} s" if limit_s else " in time"
            return ConnectionFailed(f"{doing}: no connection to {where}{within}", started="no")
        case urllib3.exceptions.ReadTimeoutError():
            return TimedOut(f"{doing}: no answer from {where} in time", started=started or "unknown")
        case urllib3.exceptions.InvalidChunkLength():
            return ConnectionFailed(f"{doing}: the answer from {where} is cut off or garbled", started=started)
        case urllib3.exceptions.IncompleteRead() | http.client.IncompleteRead():
            return ConnectionFailed(f"{doing}: the answer from {where} was cut off", started=started)
        case http.client.RemoteDisconnected():
            return ConnectionFailed(f"{doing}: {where} closed the connection", started=started)
        case http.client.HTTPException() | urllib3.exceptions.HeaderParsingError():
            return ConnectionFailed(f"{doing}: {where} did not answer in http", started="yes")
        case requests.exceptions.InvalidURL() | requests.exceptions.InvalidHeader():
            return Failed(f"{doing}: the request cannot be written as http", started="no", retryable=False)
    return None


def _of_system(cause: BaseException, doing: str, started: Started | None, where: str) -> RegrowError | None:
    match cause:
        case ssl.SSLCertVerificationError():
            text = f"{doing}: the certificate of {where} is not trusted ({cause.verify_message})"
            return ConnectionFailed(text, started="no", retryable=False)
        case socket.gaierror():
            return ConnectionFailed(f"{doing}: the host name {where} does not resolve", started="no")
        case ssl.SSLError():
            return ConnectionFailed(f"{doing}: no secure connection to {where} (TLS failed)", started=started)
        case ConnectionRefusedError():
            return ConnectionFailed(f"{doing}: no connection to {where}: connection refused", started="no")
        case ConnectionError():
            return ConnectionFailed(f"{doing}: {where} closed the connection", started=started)
        case TimeoutError() | gevent.Timeout():
            return TimedOut(f"{doing}: no answer from {where} in time", started=started or "unknown")
    return None


def _of_redis(cause: BaseException, doing: str, where: str) -> RegrowError | None:
    match cause:
        case redis.exceptions.AuthenticationError():
            return ConnectionFailed(f"{doing}: {where} refused our credentials", started="no", retryable=False)
        case redis.exceptions.TimeoutError():
            return TimedOut(f"{doing}: no answer from {where} in time", started="unknown")
        case redis.exceptions.ConnectionError():
            return ConnectionFailed(f"{doing}: no connection to {where}")
        case redis.exceptions.RedisError():
            return DatabaseError(f"{doing}: {where} refused the command ({type(cause).__name__})", retryable=False)
    return None


def _of_driver(cause: BaseException, doing: str, started: Started | None) -> RegrowError | None:
    """Name a failure of any database driver that follows PEP 249, by its classes and its SQLSTATE."""
    names = {each.__name__ for each in type(cause).__mro__ if each.__module__ != "builtins"}
    if "Error" not in names or not names & (_DRIVER_ERRORS | _LOST_ERRORS):
        return None
    state = getattr(cause, "sqlstate", None)
    number = getattr(cause, "sqlite_errorcode", None)
    condition = type(cause).__name__
    if isinstance(cause, sqlite3.Error):
        plain = None if number is None else number & 0xFF
        lost, again, login = plain in _SQLITE_LOST, plain in _SQLITE_AGAIN, False
    else:
        text = str(state or "")
        login = text.startswith(_LOGIN_STATES)
        lost = text.startswith(_LOST_STATES) or (state is None and bool(names & _LOST_ERRORS))
        again = text.startswith(_AGAIN_STATES)
    if login:
        text = f"{doing}: the database refused the login ({condition})"
        return ConnectionFailed(text, started="no", retryable=False, details=_state(state, condition))
    if lost:
        text = f"{doing}: the connection to the database failed ({condition})"
        return ConnectionFailed(text, started=started, details=_state(state, condition))
    text = f"{doing}: the database refused the statement ({condition})"
    return DatabaseError(text, retryable=again, details=_state(state, condition))


def _state(state: object, condition: str) -> dict[str, Any]:
    return {"condition": condition, **({"sqlstate": state} if isinstance(state, str) else {})}


def _of_check(cause: BaseException, doing: str, started: Started | None) -> RegrowError | None:
    match cause:
        case msgspec.ValidationError():
            field, why = field_of(str(cause))
            return InvalidArguments(f"{doing}: {field or 'the value'}: {why}", details={"fields": {field: why}})
        case json.JSONDecodeError() | msgspec.DecodeError() | UnicodeDecodeError():
            return DecodeError(f"{doing}: what came cannot be decoded ({type(cause).__name__})", started=started)
    return None


def field_of(text: str) -> tuple[str, str]:
    """Return which field msgspec's text is about ("" for the whole) and what is wrong with it. Never switches."""
    at = _AT.search(text)
    field = "" if at is None else at[1].removeprefix("$").removeprefix(".")
    why = _AT.sub("", text)
    missing = _MISSING.search(why)
    if missing is not None:
        return ".".join(part for part in (field, missing[1]) if part), "missing"
    return field, redact(why.replace("`", "'"))[:MAX_SAID_CHARS]


def of_answer(
    status: int,
    body: object,
    *,
    doing: str,
    host: str,
    headers: Mapping[str, str] | None = None,
    problem: Mapping[str, Any] | None = None,
    retry_after_s: float | None = None,
    remaining: int | None = None,
    reset_s: float | None = None,
) -> RateLimited | UpstreamError:
    """Return the error that an HTTP answer outside of 2xx means. Never switches.

    `body` is the bounded piece of its body that goes along, `headers` are those that do, `problem` is what it says of
    itself (RFC 9457); `retry_after_s`, `remaining` and `reset_s` are what it says of its limits.
    """
    details: dict[str, Any] = {"headers": dict(headers or {})}
    if problem is not None:
        details["problem"] = dict(problem)
    told = _in_its_words(problem)
    # GitHub among others says 403 where it means 429.
    if status == 429 or (status == 403 and (remaining == 0 or retry_after_s is not None)):
        wait_s = retry_after_s
        if wait_s is None and remaining == 0:
            wait_s = reset_s
        return RateLimited(
            f"{doing}: {host} answered {status}, its rate limit is spent"
            + ("" if wait_s is None else f", come back in {wait_s:.3g} s")
            + told,
            started="yes",
            retryable=not is_permanent_refusal(body),
            retry_after_s=wait_s,
            details={**details, "status": status, "body": body},
        )
    return UpstreamError(
        f"{doing}: {host} answered {status}{told}",
        status=status,
        body=body,
        retryable=status_verdict(status).retryable,
        retry_after_s=retry_after_s,
        details=details,
    )


def _in_its_words(problem: Mapping[str, Any] | None) -> str:
    said = [] if problem is None else [str(problem[key]) for key in ("title", "detail") if problem.get(key)]
    return "".join(f": {each.rstrip('.')}" for each in said)[:MAX_SAID_CHARS]


def of_graphql(
    errors: Sequence[Mapping[str, Any]], status: int, *, doing: str, wait_s: float | None
) -> RateLimited | UpstreamError:
    """Return the error that the errors of a GraphQL answer mean: whose fault it is, and whether to try again.

    `errors` are bounded and redacted already, `wait_s` is what the answer says of its rate limit. Never switches.
    """
    words = {word for error in errors for word in _words(error)}
    message = next((error["message"] for error in errors if error.get("message")), "no message")
    text = f"{doing}: answered with errors: {message}"
    body = {"errors": list(errors)}
    if words & LIMITED_WORDS:
        return RateLimited(text, started="yes", retry_after_s=wait_s, details={"status": status, "body": body})
    if words & BROKEN_WORDS and not words & REFUSED_WORDS:
        # The status says that all went well; what it means is that of a server's own failure.
        return UpstreamError(text, status=500, body=body, retryable=True, details={"http_status": status})
    return UpstreamError(text, status=status, body=body, retryable=False)


def _words(error: Mapping[str, Any]) -> set[str]:
    found = {error.get("code"), error.get("type")}
    return {word.upper() for word in found if isinstance(word, str)}


def _os_word(error: BaseException) -> str:
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
    return "not reachable"
