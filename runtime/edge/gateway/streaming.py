"""Streaming asks: PARTs as fast as the client gives credit, then one END or ERROR.

Nothing is pulled from the actor without credit, nor while answers wait in the client's outbox, so a slow client holds
at most one batch here and never blocks the actor. A stream whose client gives no credit for IDLE_S seconds is ended.

`deadline_ms` bounds the whole stream; without it only the daemon's longest deadline does. Each pull has the target's
own timeout as well, so a stream may last long but no single part may. When the actor dies between two pulls the client
hears so at once, not at its next CREDIT.
"""

from __future__ import annotations

from typing import Any, Final

from gevent import get_hub

from regrow.protocol.errors import ActorDown, Cancelled, ExecutionError, RegrowError, Unavailable
from regrow.protocol.frames import MAX_CREDIT
from runtime import clock
from runtime.edge.gateway.outcome import Outcome, error_outcome
from runtime.edge.gateway.peer import Ask, AskKey, Peer
from runtime.messages import Call
from runtime.promise import ClientPromise, Promise
from runtime.reasons import Crashed
from runtime.ref import Ref
from runtime.signals import Down, Monitor, demonitor, monitor
from runtime.streams import IDLE_S, Source

DEFAULT_CREDIT: Final = 100
MAX_BATCH: Final = 100
#: how much one pull should bring; items are as large as they are, so their number adapts
BATCH_BYTES: Final = 1 << 20


class StreamAsk(Ask):
    """A streaming ask in flight: its source, its credit, and the pull under way."""

    __slots__ = (
        "_most",
        "_pulling",
        "_source",
        "_source_is_over",
        "_watch",
        "credit",
        "deadline",
        "parts",
        "timeout_s",
    )

    def __init__(self, peer: Peer, key: AskKey, id: bytes, target: str, *, credit: int | None) -> None:
        super().__init__(peer, key, id, (), target)
        self.credit = DEFAULT_CREDIT if credit is None else credit
        self.deadline = 0.0
        self.timeout_s = 0.0
        self.parts = 0
        self._source: Source | None = None
        self._source_is_over = False
        self._pulling = False
        self._most = 1
        self._watch: Monitor | None = None

    def begin(self, call: Call) -> None:
        """Ask the actor for the stream. Never switches."""
        self.promise = self._next_promise()
        self.ref.request(call, self.promise)

    def _next_promise(self) -> Promise:
        deadline = min(clock.now() + self.timeout_s, self.deadline)
        return ClientPromise(self.peer.identity, deadline=deadline, callback=self.settled)

    def give(self, credit: int) -> None:
        """Allow so many more parts. Never switches."""
        self.credit = min(self.credit + credit, MAX_CREDIT)
        self.go_on()

    @property
    def started(self) -> bool:
        return self._source is not None or super().started

    def has_begun(self) -> bool:
        """Tell the same, to who gives up the work: what has not begun never will. Never switches."""
        return self._source is not None or super().has_begun()

    def settled(self, promise: Promise) -> None:
        """Take the stream itself, or what one pull gave. Never switches."""
        value = promise.value
        if self.is_over:
            if self._source is None and _is_source(value):
                value.close()
            return
        self.promise = None
        if promise.error is not None:
            if self._source is not None and isinstance(promise.error, Unavailable):
                self._actor_ended()  # before this pull, but after the stream began
                return
            self.finish(self.service.outcome_of(promise, self.target, self.ref, self.codec))
        elif self._source is not None:
            self._send(value.items, over=value.done)
        elif _is_source(value):
            self._source = value
            maker = getattr(value, "ref", None)
            if isinstance(maker, Ref):
                self._watch = monitor(maker, self._actor_ended)
        else:
            error = ExecutionError(f"{self.target} did not answer with a stream but with {type(value).__name__}")
            self.finish(error_outcome(error, self.target, self.ref))
        if not self.is_over:
            if self._pulling:  # a source with items at hand settles at once: others get their turn in between
                get_hub().loop.run_callback(self.go_on)
            else:
                self.go_on()

    def _actor_ended(self, _down: Down | None = None) -> None:
        reason = self.ref.reason
        crash_id = reason.crash_id if isinstance(reason, Crashed) else None
        error = ActorDown(f"{self.target} ended in the middle of the stream", actor=self.target, crash_id=crash_id)
        self._source_is_over = True
        self.stop(error)

    def _send(self, items: list[Any], *, over: bool) -> None:
        sent_bytes = 0
        for item in items:
            part = self.service.part(item, {"seq": self.parts}, self.codec, self.target)
            if part.op == "ERROR":
                self.finish(part)
                return
            self.parts += 1
            self.credit -= 1
            sent_bytes += part.size_bytes
            self.peer.send_part(part, self.id)
            if self.is_over:  # the send found that the client is gone
                return
        if items:
            self._most = max(1, min(MAX_BATCH, 2 * self._most, BATCH_BYTES * len(items) // max(1, sent_bytes)))
        if over:
            self._source_is_over = True
            self.finish(Outcome("END", {"parts": self.parts}, b""))

    def go_on(self) -> None:
        """Pull the next batch when there is credit and the client reads. Never switches."""
        source = self._source
        if self.is_over or source is None or self.promise is not None:
            return
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.credit <= 0 or self.peer.outbox:
            if self.peer.outbox:
                self.peer.paused[self] = None
            self.timer = clock.after(IDLE_S, self._idle)
            return
        promise = self.promise = self._next_promise()
        self._pulling = True
        try:
            source.pull(min(self.credit, self._most), promise)
            promise.expire_at_deadline()
        finally:
            self._pulling = False

    def _idle(self) -> None:
        self.timer = None
        why = "its client gave no credit" if self.credit <= 0 else "its client did not read"
        self.stop(Cancelled(f"the stream was ended: {why} for {IDLE_S:g} s", started="yes"))

    def stop(self, error: RegrowError) -> None:
        """End the stream early with this error. Never switches."""
        promise = self.promise
        self.finish(error_outcome(error, self.target, self.ref))
        if promise is not None:
            promise.abandon(error)

    def finish(self, outcome: Outcome) -> None:
        """Send the END or ERROR and let go of the source. Never switches."""
        self.peer.paused.pop(self, None)
        if self._watch is not None:
            demonitor(self._watch)
            self._watch = None
        super().finish(outcome)
        source, self._source = self._source, None
        if source is not None and not self._source_is_over:
            source.close()


def _is_source(value: Any) -> bool:
    return callable(getattr(value, "pull", None)) and callable(getattr(value, "close", None))
