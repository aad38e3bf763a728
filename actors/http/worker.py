"""A worker of an API: one call at a time, through the loop of tries; and what a response means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from actors.http import fields, freshness
from actors.http.body import excerpt
from actors.http.client import Request, Response
from actors.http.links import links
from actors.http.operation import OUTCOMES, REQUEST_SECONDS, REQUESTS, Answered, Job, Page, Settings, Verdict, WorkerUp
from actors.http.problem import problem
from actors.http.token import NewToken, Token
from actors.resilience.abort import Abort, CallerGone
from actors.resilience.cache import Forget, Keep, LetGo
from actors.resilience.guarded import Try, ask_part, refused_by_peer, tell_part
from actors.resilience.normaliser import of_answer
from actors.resilience.quota import Lesson
from config.secret import redact
from regrow.protocol.errors import (
    Cancelled,
    DeadlineExceeded,
    DecodeError,
    NotFound,
    RateLimited,
    RegrowError,
    TimedOut,
    TooLarge,
    UpstreamError,
)
from runtime import clock, telemetry
from runtime.actor import Actor
from runtime.messages import WithHeader
from runtime.names import whereis

# The headers of an error response that its error carries on; none of them identifies the caller.
TOLD_HEADERS = frozenset(
    {"content-type", "date", "location", "ratelimit", "retry-after", "www-authenticate", "x-request-id"}
)
# Beside 429: these carry a Retry-After that speaks of the peer's load.
PAUSING_STATUSES = frozenset({403, 429, 503})


# An answer that can be asked for again is kept for so long, though it may neither be used nor stand in.
KEEP_FOR_ASKING_S = 86400.0
# So long is waited until other daemons have heard of a change.
FORGET_LIMIT_S = 1.0
# A list that comes in parts is put together up to so many entries.
MAX_LISTED = 100_000
# The longest stale-if-error that is believed.
LONGEST_STAND_IN_S = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class _Done:
    """A try that went well: the answer, the value, how it may be kept, and what the reply's header tells beside it."""

    answered: Answered
    value: object
    header: Mapping[str, Any]
    terms: freshness.Terms | None


class Worker(Actor):
    """Runs the calls that the front hands it."""

    def __init__(self, settings: Settings, lane: int) -> None:
        super().__init__()
        self._settings = settings
        self._lane = lane

    def on_start(self) -> None:
        """Tell the front, which waits for this worker if it has just been restarted."""
        front = whereis(self._settings.name)
        if front is not None:
            front.post(WorkerUp(self._lane))

    def on_receive(self, message: object) -> WithHeader | Page:
        """Run one call. Switches greenlets."""
        if not isinstance(message, Job):
            raise TypeError(f"a worker of {self._settings.name} got a message of type {type(message).__name__}")
        abort = Abort()
        self.on_abandon(abort.fire)
        try:
            with abort:
                return self._run(message)
        except CallerGone:
            doing = self._settings.doing(message.operation)
            raise Cancelled(f"{doing}: the caller gave up", started="unknown") from None

    def _run(self, job: Job) -> WithHeader | Page:
        tries = 0
        operation = job.operation

        def perform(current: Try) -> _Done:
            nonlocal tries
            tries = current.number
            return self._perform(job, current)

        def guarded() -> _Done:
            return self._settings.guarded.run(
                perform,
                deadline=job.stops,
                ends=job.ends,
                try_limit_s=self._settings.try_limit_s,
                cost=operation.cost,
                repeatable=lambda error: operation.repeatable or job.keyed or refused_by_peer(error),
            )

        done = guarded()
        if operation.more is not None:
            done = self._whole(job, done, guarded)
        answered = done.answered
        if job.key is not None and done.terms is not None:
            self._keep(job, job.key, answered, done.terms)
        elif job.key is not None and self._settings.shares_answers:
            tell_part(f"{self._settings.name}/cache", LetGo(job.key))
        elif not operation.reads and job.group:
            self._forget(job.group)
        if operation.max_pages:
            return self._page(job, done)
        told = answered.told(self._settings)
        return WithHeader(done.value, {"status": answered.status, "headers": told, "tries": tries, **done.header})

    def _whole(self, job: Job, done: _Done, ask: Callable[[], _Done]) -> _Done:
        """Ask for the rest of a list until it is whole."""
        doing = self._settings.doing(job.operation)
        found: list[Any] = []
        while True:
            if not isinstance(done.value, list):
                raise DecodeError(f"{doing}: the answer is not a list but of type {type(done.value).__name__}")
            found += done.value
            if len(found) > MAX_LISTED:
                raise TooLarge(f"{doing}: the list has more than {MAX_LISTED} entries", started="yes")
            rest = None if job.operation.more is None else job.operation.more(done.answered.body, job.request)
            if rest is None:
                return replace(done, value=found)
            job.request = rest
            done = ask()

    def _page(self, job: Job, done: _Done) -> Page:
        doing = self._settings.doing(job.operation)
        if not isinstance(done.value, list):
            found = type(done.value).__name__
            raise DecodeError(f"{doing}: a page is a list and this one is {found}, name the list with select")
        try:
            next_url = links(done.answered.headers.get("link"), job.request.url).get("next")
        except ValueError:
            raise DecodeError(f"{doing}: its Link header names no valid next page") from None
        return Page(done.value, next_url)

    def _perform(self, job: Job, current: Try) -> _Done:
        settings, operation = self._settings, job.operation
        doing = settings.doing(operation)
        outcome = "cancelled"
        failure: RegrowError | None = None
        began = clock.now()
        telemetry.began(settings.name, operation.name)
        try:
            done = self._exchanged(job, current, began, doing)
        except TimedOut as error:
            failure = error
            if current.own_limit:
                outcome = "timeout"
                raise
            outcome = "deadline_exceeded"
            raise DeadlineExceeded(
                f"{doing}: the caller's deadline passed while {settings.host} was asked", started=error.started
            ) from error
        except RegrowError as error:
            outcome = error.code if error.code in OUTCOMES else "failed"
            failure = error
            raise
        else:
            outcome = "ok"
            return done
        finally:
            REQUESTS.inc(settings.name, operation.name, outcome)
            took_s = clock.now() - began
            REQUEST_SECONDS.observe(took_s, settings.name, operation.name)
            telemetry.ended(settings.name, operation.name, took_s, failure, outcome=outcome)

    def _exchanged(self, job: Job, current: Try, began: float, doing: str) -> _Done:
        """Send, and say what came back means; a body that is not what it says counts against the peer."""
        operation = job.operation
        ends = began + current.limit_s
        if job.promise.done:
            # The front died, and has told the caller that nothing was sent: so nothing is.
            raise CallerGone
        job.promise.started = True
        response = self._sent(job, job.request, ends, doing)
        limits = self._learn(current.ticket, response)
        known = job.known
        if response.status == 304 and known is not None and not freshness.is_same(known.headers, response.headers):
            # It speaks of another answer than the kept one, so the whole one is asked for.
            plain = {
                name: value for name, value in job.request.headers.items() if name not in freshness.CALLERS_OWN_RULES
            }
            response = self._sent(job, replace(job.request, headers=plain), ends, doing)
            limits = self._learn(current.ticket, response)
            known = None
        if response.status == 304 and known is not None:
            answered = Answered(known.status, freshness.refreshed(known.headers, response.headers), known.body)
            header: Mapping[str, Any] = {"cache": "revalidated"}
            terms = self._terms(job, _lasting(answered.headers, response.headers), clock.now() - began)
        else:
            verdict = None if operation.judge is None else operation.judge(response, limits, doing)
            if verdict is None:
                if (missing := self._missing(job, response, doing)) is not None:
                    return _Done(_answered(response), missing.value, {}, None)
                if not _is_success(response.status, operation.accepts):
                    raise failure(response, limits, doing, self._settings.host)
            answered = _answered(response)
            keeps = response.status == 200 and (verdict is None or verdict.complete)
            terms = self._terms(job, response.headers, clock.now() - began, response) if keeps else None
            if verdict is not None:
                return _Done(answered, verdict.value, verdict.header, terms)
            header = {}
        return _Done(answered, answered.value(operation, doing), header, terms)

    def _sent(self, job: Job, request: Request, ends: float, doing: str) -> Response:
        """Send with the credentials of the moment; a token that the peer does not take is replaced once."""
        settings = self._settings
        if not settings.needs_token:
            return settings.client.send(request, limit_s=ends - clock.now(), doing=doing, sign=settings.sign)
        token = self._token(None, ends)
        response = settings.client.send(_bearing(request, token), limit_s=ends - clock.now(), doing=doing)
        if response.status == 401:
            renewed = self._token(token, ends)
            if renewed != token:
                # A 401 says that nothing was done, so this is no repetition that could do harm.
                response = settings.client.send(_bearing(request, renewed), limit_s=ends - clock.now(), doing=doing)
        return response

    def _token(self, spurned: Token | None, ends: float) -> Token:
        token: Token = ask_part(f"{self._settings.name}/token", NewToken(spurned), ends)
        return token

    def _missing(self, job: Job, response: Response, doing: str) -> Verdict | None:
        """Say what a 404 means where it is an answer; raises NotFound. None when it is a failure like any other."""
        how = job.operation.missing
        if response.status != 404 or how == "error":
            return None
        if how == "not_found":
            raise NotFound(f"{doing}: {self._settings.host} has no such thing", started="yes")
        return Verdict(False if how == "false" else None, {}, complete=False)

    def _terms(
        self, job: Job, headers: Mapping[str, str], took_s: float, response: Response | None = None
    ) -> freshness.Terms | None:
        operation = job.operation
        if job.key is None:
            return None
        if job.request.method != "GET" or (response is not None and response.redirected):
            # What is said about a redirect's target, or an answer to a POST, is not said about this url.
            return freshness.Terms(operation.fresh_s, None, None, 0.0, explicit=False)
        return freshness.terms(
            headers,
            wall=clock.wall(),
            took_s=took_s,
            ttl_s=operation.fresh_s,
            shared=operation.shared,
            authorized=job.authorized,
        )

    def _learn(self, ticket: int, response: Response) -> fields.Limits:
        """Tell the limiter what the response says about the peer's own limit."""
        settings = self._settings
        limits = fields.limits(
            response.headers,
            clock.wall(),
            remaining_header=settings.remaining_header,
            reset_header=settings.reset_header,
        )
        pause_s = limits.retry_after_s if response.status in PAUSING_STATUSES else None
        if pause_s is not None or limits.remaining is not None:
            # One that is lost is no loss: the next response says it again.
            tell_part(f"{settings.name}/limiter", Lesson(ticket, limits.remaining, limits.reset_s, pause_s))
        return limits

    def _keep(self, job: Job, key: str, answered: Answered, terms: freshness.Terms) -> None:
        operation = job.operation
        stale_s = operation.stale_s
        if terms.stand_in_s is not None and operation.may_stand_in:
            stale_s = min(terms.stand_in_s, LONGEST_STAND_IN_S)
        refresh_s = operation.refresh_s if terms.refresh_s is None else min(terms.refresh_s, LONGEST_STAND_IN_S)
        keep = Keep(
            key,
            msgspec.msgpack.encode(answered),
            terms.fresh_s if operation.caches else 0.0,
            stale_s,
            keep_s=KEEP_FOR_ASKING_S if freshness.conditions(answered.headers) else 0.0,
            age_s=terms.age_s,
            group=job.group,
            refresh_s=refresh_s if operation.caches else 0.0,
            took_s=clock.now() - (job.ends - operation.timeout_s),
        )
        # One that is lost is asked for again.
        tell_part(f"{self._settings.name}/cache", keep)

    def _forget(self, group: str) -> None:
        """What was changed is no longer what it was (RFC 9111, 4.4)."""
        name = f"{self._settings.name}/cache"
        if not self._settings.shares_answers:
            tell_part(name, Forget(group))
            return
        try:
            # Once the caller knows of the change, no daemon answers with what was before.
            ask_part(name, Forget(group), clock.now() + FORGET_LIMIT_S)
        except RegrowError:
            pass


def _answered(response: Response) -> Answered:
    return Answered(response.status, freshness.kept_headers(response.headers), response.body)


def _is_success(status: int, accepts: frozenset[int] | None) -> bool:
    return 200 <= status < 300 if accepts is None else status in accepts


def _bearing(request: Request, token: Token) -> Request:
    return replace(request, headers={**request.headers, "authorization": f"Bearer {token.value}"})


def _lasting(kept: Mapping[str, str], answer: Mapping[str, str]) -> dict[str, str]:
    """Return what a renewed answer still says about its time: not its old Date and Age, which are of another day."""
    of_the_moment = {"age", "date"}
    lasting = {name: value for name, value in kept.items() if name not in of_the_moment}
    return {**lasting, **{name: value for name, value in answer.items() if name in of_the_moment}}


def failure(response: Response, limits: fields.Limits, doing: str, host: str) -> RateLimited | UpstreamError:
    """Return the error that a response outside of 2xx means, with a bounded piece of its body. Never switches."""
    kind = response.headers.get("content-type")
    return of_answer(
        response.status,
        excerpt(response.body, kind),
        doing=doing,
        host=host,
        headers={name: redact(value) for name, value in response.headers.items() if name in TOLD_HEADERS},
        problem=problem(response.body, kind),
        retry_after_s=limits.retry_after_s,
        remaining=limits.remaining,
        reset_s=limits.reset_s,
    )
