"""A worker of an API: one call at a time, through the loop of tries; and what a response means."""

from __future__ import annotations

import msgspec

from actors.http import fields
from actors.http.body import excerpt
from actors.http.client import Response
from actors.http.operation import REQUEST_SECONDS, REQUESTS, Answered, Job, Settings, WorkerUp
from actors.resilience.abort import Abort, CallerGone
from actors.resilience.cache import Keep
from actors.resilience.classify import is_permanent_refusal, status_verdict
from actors.resilience.guarded import Try, refused_by_peer, tell_part
from actors.resilience.quota import Lesson
from regrow.protocol.errors import (
    Cancelled,
    DeadlineExceeded,
    RateLimited,
    RegrowError,
    TimedOut,
    UpstreamError,
)
from runtime import clock
from runtime.actor import Actor
from runtime.messages import WithHeader
from runtime.names import whereis

# The headers of an error response that its error carries on; none of them identifies the caller.
TOLD_HEADERS = frozenset(
    {"content-type", "date", "location", "ratelimit", "retry-after", "www-authenticate", "x-request-id"}
)
# Beside 429: these carry a Retry-After that speaks of the peer's load.
PAUSING_STATUSES = frozenset({403, 429, 503})


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

    def on_receive(self, message: object) -> WithHeader:
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

    def _run(self, job: Job) -> WithHeader:
        tries = 0

        def perform(current: Try) -> tuple[Answered, object]:
            nonlocal tries
            tries = current.number
            return self._perform(job, current)

        answered, value = self._settings.guarded.run(
            perform,
            deadline=job.stops,
            ends=job.ends,
            try_limit_s=self._settings.try_limit_s,
            repeatable=lambda error: job.operation.repeatable or job.keyed or refused_by_peer(error),
        )
        if job.key is not None and answered.status == 200:
            self._keep(job, job.key, answered)
        return WithHeader(value, {"status": answered.status, "headers": answered.headers, "tries": tries})

    def _perform(self, job: Job, current: Try) -> tuple[Answered, object]:
        settings, operation = self._settings, job.operation
        doing = settings.doing(operation)
        outcome = "cancelled"
        began = clock.now()
        try:
            response = settings.client.send(job.request, limit_s=current.limit_s, doing=doing)
            limits = self._learn(current.ticket, response)
            if not 200 <= response.status < 300:
                raise failure(response, limits, doing, settings.host)
            answered = self._answered(response)
            # A body that is not what it says it is counts against the peer: it is decoded before the try is over.
            value = answered.value(operation, doing)
        except TimedOut as error:
            if current.own_limit:
                outcome = "timeout"
                raise
            outcome = "deadline_exceeded"
            raise DeadlineExceeded(
                f"{doing}: the caller's deadline passed while {settings.host} was asked", started=error.started
            ) from error
        except RegrowError as error:
            outcome = error.code
            raise
        else:
            outcome = "ok"
            return answered, value
        finally:
            REQUESTS.inc(settings.name, operation.name, outcome)
            REQUEST_SECONDS.observe(clock.now() - began, settings.name, operation.name)

    def _answered(self, response: Response) -> Answered:
        told = {name: value for name, value in response.headers.items() if name in self._settings.reply_headers}
        return Answered(response.status, told, response.headers.get("content-type"), response.body)

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

    def _keep(self, job: Job, key: str, answered: Answered) -> None:
        content = msgspec.msgpack.encode(answered)
        # One that is lost is asked for again.
        tell_part(f"{self._settings.name}/cache", Keep(key, content, job.operation.fresh_s, job.operation.stale_s))


def failure(response: Response, limits: fields.Limits, doing: str, host: str) -> RateLimited | UpstreamError:
    """Return the error that a response outside of 2xx means, with a bounded piece of its body. Never switches."""
    status = response.status
    body = excerpt(response.body, response.headers.get("content-type"))
    details = {"headers": {name: value for name, value in response.headers.items() if name in TOLD_HEADERS}}
    # GitHub among others says 403 where it means 429.
    if status == 429 or (status == 403 and (limits.remaining == 0 or limits.retry_after_s is not None)):
        wait_s = limits.retry_after_s
        if wait_s is None and limits.remaining == 0:
            wait_s = limits.reset_s
        return RateLimited(
            f"{doing}: {host} answered {status}, its rate limit is spent"
            + ("" if wait_s is None else f", come back in {wait_s:.3g} s"),
            started="yes",
            retryable=not is_permanent_refusal(body),
            retry_after_s=wait_s,
            details={**details, "status": status, "body": body},
        )
    return UpstreamError(
        f"{doing}: {host} answered {status}",
        status=status,
        body=body,
        retryable=status_verdict(status).retryable,
        retry_after_s=limits.retry_after_s,
        details=details,
    )
