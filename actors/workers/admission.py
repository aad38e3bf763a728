"""What a call passes before it stands in line: the pool's limiter, then its breaker, where the configuration has them.

Each is asked by name and answers with a message, so the front never waits. A part that crashed is asked again until its
supervisor has brought it back, and fails no call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actors.resilience.breaker import Permit, Settled
from actors.resilience.circuit import Outcome
from actors.resilience.limiter import Admit
from actors.workers.job import Job
from regrow.protocol.errors import Overloaded, RegrowError, Unavailable
from runtime import clock
from runtime.names import whereis
from runtime.origin import client_of
from runtime.promise import ClientPromise, Promise
from runtime.ref import Ref

PART_PATIENCE_S = 2.0
PART_PAUSE_S = 0.02
RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class Answered:
    """A part has answered for a job; `part` is None when it was not there to be asked."""

    job: Job
    stage: int
    part: Ref | None
    answer: Promise | None


class Admission:
    """Leads jobs past the parts; `then` gets those that passed, the others are answered. Never switches."""

    def __init__(self, front: Ref, limiter: str | None, breaker: str | None, then: Callable[[Job], object]) -> None:
        self._front = front
        self._then = then
        self._breaker = breaker
        self._stages: list[tuple[str, Any]] = []
        if limiter is not None:
            self._stages.append((limiter, Admit()))
        if breaker is not None:
            self._stages.append((breaker, Permit()))

    def begin(self, job: Job) -> None:
        """Lead a job to the first part. Never switches."""
        self._ask(job, 0)

    def answered(self, news: Answered) -> None:
        """Lead a job on after a part's answer. Never switches."""
        job, answer = news.job, news.answer
        job.asked = None
        if job.promise.done:
            if answer is not None and answer.error is None and self._is_permit(news.stage):
                job.permit = answer.value
                settle(self._breaker, job, "unknown")
        elif answer is None or (answer.error is not None and not _is_verdict(answer.error, news.part)):
            self._ask(job, news.stage)
        elif answer.error is not None:
            job.promise.reject(answer.error)
        else:
            if self._is_permit(news.stage):
                job.permit = answer.value
            job.part_missing_since = None
            self._ask(job, news.stage + 1)

    def _is_permit(self, stage: int) -> bool:
        return self._stages[stage][0] == self._breaker

    def _ask(self, job: Job, stage: int) -> None:
        if stage == len(self._stages):
            self._then(job)
            return
        name, message = self._stages[stage]
        part = whereis(name)
        if part is None:
            self._ask_later(job, stage, name)
            return
        post = self._front.post
        job.asked = ClientPromise(
            client_of(job.promise),
            deadline=job.promise.deadline,
            callback=lambda answer: post(Answered(job, stage, part, answer)),
        )
        part.request(message, job.asked)

    def _ask_later(self, job: Job, stage: int, name: str) -> None:
        now = clock.now()
        if job.part_missing_since is None:
            job.part_missing_since = now
        if now - job.part_missing_since > PART_PATIENCE_S:
            job.promise.reject(
                Unavailable(f"{name} is not running, come back in 1 s", actor=name, retry_after_s=RETRY_AFTER_S)
            )
        else:
            clock.after(PART_PAUSE_S, self._front.post, Answered(job, stage, None, None))


def _is_verdict(error: BaseException, part: Ref | None) -> bool:
    """Tell whether a part refused, rather than died with the question in hand."""
    return isinstance(error, RegrowError) and part is not None and part.is_alive()


def settle(breaker: str | None, job: Job, outcome: Outcome) -> None:
    """Tell the breaker how a permitted call ended; at most once for each job. Never switches."""
    permit, job.permit = job.permit, None
    if permit is None or breaker is None:
        return
    ref = whereis(breaker)
    if ref is None:
        return
    try:
        ref.tell(Settled(permit, outcome))
    except (Overloaded, Unavailable):
        # A lost outcome costs one count; a probe's place comes back with its lease.
        pass
