"""The stream of one call: what its function yields, and how far it says it is, as its reader pulls.

Nothing is made in the process that was not pulled, so a slow reader holds one batch and its worker waits in silence. A
reader that closes early closes the generator, whose clean-up runs; one that gives up a pull (deadline, cancel) ends the
process, because nobody knows when that pull would have come back.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from actors.workers.job import Unread, Wanted
from regrow.protocol.errors import Cancelled, Conflict
from runtime import clock
from runtime.promise import Promise
from runtime.streams import IDLE_S, Batch

if TYPE_CHECKING:
    from actors.workers.child import Progress
    from actors.workers.job import Job
    from runtime.ref import Ref


def shown(report: Progress) -> dict[str, Any]:
    """Return a report of progress as readers and operators see it. Never switches."""
    facts: dict[str, Any] = {"percent": round(100 * report.done / report.total, 1)}
    facts |= {"done": report.done, "total": report.total}
    return facts | {"note": report.note} if report.note else facts


class CallStream:
    """A `Source` over one call; `opened` is settled with it as soon as the function has something to say.

    With `progress` each part is an object with one key, `item` or `progress`, of which only the newest report is kept;
    without it each part is an item. A function that is no generator gives one item, its result.
    """

    __slots__ = (
        "_asked",
        "_error",
        "_idle",
        "_is_over",
        "_is_streaming",
        "_items",
        "_job",
        "_pull",
        "_report",
        "_with_progress",
        "_worker",
        "opened",
    )

    def __init__(self, opened: Promise, *, with_progress: bool) -> None:
        self.opened = opened
        self._with_progress = with_progress
        self._job: Job | None = None
        self._worker: Ref | None = None
        self._items: deque[Any] = deque()
        self._report: dict[str, Any] | None = None
        self._pull: tuple[Promise, int] | None = None
        self._asked = False
        self._is_streaming = False
        self._is_over = False
        self._error: BaseException | None = None
        self._idle: clock.Timer | None = None

    # -- the pool's side

    def of(self, job: Job) -> None:
        """Become the stream of this job, which is over when its promise is settled. Never switches."""
        self._job = job
        job.promise.callback = self._over
        self.opened.on_abandon = _GivingUp(self.opened, job)

    def begun(self, worker: Ref) -> None:
        """Hear that a process has been sent the call. Never switches."""
        self._worker = worker
        self.opened.started = True

    @property
    def is_unwanted(self) -> bool:
        """Whether whoever asked for it was answered with an error. Never switches."""
        return self.opened.error is not None

    def streaming(self) -> None:
        """Hear that items may be pulled. Never switches."""
        self._is_streaming = True
        self._news()

    def reported(self, report: Progress) -> None:
        """Take a report of progress. Never switches."""
        if self._with_progress and not self._is_over:
            self._report = shown(report)
            self._news()

    def add(self, values: list[Any], *, done: bool) -> None:
        """Take the items of a pull. Never switches."""
        self._asked = False
        for value in values:
            self._add(value)
        if not done:
            self._news()

    def _add(self, value: Any) -> None:
        self._items.append({"item": value} if self._with_progress else value)

    def _over(self, promise: Promise) -> None:
        self._is_over, self._error = True, promise.error
        if promise.error is None and not self._is_streaming:
            self._add(promise.value)
        if promise.error is not None:
            self.opened.reject(promise.error)
        self._news()

    def _news(self) -> None:
        self.opened.resolve(self)
        self._answer()
        self._expect_pull()

    def _answer(self) -> None:
        if self._pull is None:
            return
        promise, most = self._pull
        parts: list[Any] = []
        if self._report is not None:
            parts.append({"progress": self._report})
            self._report = None
        while self._items and len(parts) < most:
            parts.append(self._items.popleft())
        if parts or (self._is_over and self._error is None):
            self._pull = None
            promise.resolve(Batch(parts, self._is_over and self._error is None and not self._items))
        elif self._is_over:
            self._pull = None
            promise.reject(self._error or _unread())
        elif self._is_streaming and not self._asked and self._worker is not None and self._job is not None:
            self._asked = True
            self._worker.post(Wanted(self._job, most))

    # -- the reader's side

    def pull(self, most: int, promise: Promise) -> None:
        """Ask for the next parts; `promise` is settled with a `Batch` or an error. Never switches."""
        if self._pull is not None and not self._pull[0].done:
            promise.reject(Conflict("this stream is being read already, one pull at a time"))
            return
        self._stop_idling()
        self._pull = (promise, max(1, most))
        promise.on_abandon = self._give_up
        self._answer()
        self._expect_pull()

    def close(self) -> None:
        """Want no more: a generator is closed, any other function is ended with its process. Never switches."""
        self._stop_idling()
        self._items.clear()
        if self._is_over or self._job is None:
            return
        if self._is_streaming and self._worker is not None:
            self._worker.post(Unread(self._job))
        else:
            self._job.promise.abandon(_unread())

    def _give_up(self) -> None:
        pull, self._pull = self._pull, None
        if self._job is not None and pull is not None:
            self._job.promise.abandon(pull[0].error or _unread())

    def _expect_pull(self) -> None:
        self._stop_idling()
        if self._pull is None and not self._is_over:
            self._idle = clock.after(IDLE_S, self.close)

    def _stop_idling(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def __repr__(self) -> str:
        return f"<CallStream of {self._job!r}, {'over' if self._is_over else 'open'}>"


class _GivingUp:
    """What happens when whoever asked for a stream gives up before it has anything to say."""

    __slots__ = ("_job", "_opened")

    def __init__(self, opened: Promise, job: Job) -> None:
        self._opened = opened
        self._job = job

    def withdraw(self) -> bool:
        """Take the call back from a process that has not begun it; True when one has. Never switches."""
        return self._job.withdraw()

    def __call__(self) -> None:
        self._job.promise.abandon(self._opened.error or _unread())


def _unread() -> Cancelled:
    return Cancelled("the stream was closed by its reader", started="yes")
