"""The limiter's arithmetic as a pure state machine: own window or bucket, what the peer says is left, and its pauses.

The window is cut into slots and a slot counts until all of it has left the window. So never more than the limit goes in
any stretch of time as long as the window, at the price of up to one per cent of it, in memory that does not grow with
the limit. The bucket holds `burst` tokens and gets `limit` of them back in each window, steadily: never more goes in
any stretch of time than the burst and what came back in that time. A request takes as many tokens as it costs.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import ceil

SLOTS = 100
# Waits shorter than this are rounding errors of the slot arithmetic.
MIN_WAIT_S = 0.0005
# Far below any slot, far above the error of adding up times.
ROUNDING_S = 1e-6
# The same for parts of a token.
ROUNDING = 1e-6
# However absurd a peer's Retry-After is, it never silences an integration for longer.
MAX_PAUSE_S = 6 * 3600.0


@dataclass(slots=True)
class QuotaRecord:
    """All that outlives a limiter actor: [slot, tokens] pairs oldest first, or the tokens missing from the bucket as of
    `spent_at`; and what the peer taught.
    """

    slots: deque[list[int]] = field(default_factory=deque)
    spent: float = 0.0
    spent_at: float = 0.0
    issued: int = 0
    ceiling: int | None = None
    ceiling_until: float = 0.0
    learned_from: int = 0
    paused_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Admitted:
    """One request may go; `ticket` is how much has gone with it, told again with what its response taught."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Wait:
    """No request may go for `wait_s` seconds."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a response taught: requests left, seconds until the peer's window ends, a pause that it asks for."""

    ticket: int
    remaining: int | None = None
    reset_s: float | None = None
    pause_s: float | None = None


class Quota:
    """Admission over a record that somebody else keeps; `limit` None means that only the peer's own words count.

    With `burst` it is a bucket of so many tokens, else a sliding window.
    """

    def __init__(self, limit: int | None, window_s: float, record: QuotaRecord, *, burst: int | None = None) -> None:
        self.limit = limit
        self.window_s = window_s
        self.burst = burst
        self.record = record
        self._slot_s = window_s / SLOTS
        self._per_s = 0.0 if limit is None else limit / window_s

    def __repr__(self) -> str:
        burst = "" if self.burst is None else f", at most {self.burst} at once"
        return f"<Quota {self.limit} per {self.window_s:g} s{burst}, {self.record.issued} issued>"

    @property
    def largest(self) -> int | None:
        """The most that one request can ever cost; None when there is no bound."""
        return self.limit if self.burst is None else self.burst

    def admit(self, now: float, cost: int = 1) -> Admitted | Wait:
        """Take `cost` tokens now, or say how long to wait for them. Never switches."""
        wait_s = self.wait_s(now, cost)
        if wait_s > 0:
            return Wait(wait_s)
        record = self.record
        record.issued += cost
        if self.burst is not None:
            record.spent, record.spent_at = self._spent(now) + cost, now
        elif self.limit is not None:
            slot = self._slot(now)
            if record.slots and record.slots[-1][0] >= slot:
                record.slots[-1][1] += cost
            else:
                record.slots.append([slot, cost])
        return Admitted(record.issued)

    def wait_s(self, now: float, tokens: int = 1) -> float:
        """Return the seconds until so many more tokens could have gone, if nobody else asks; 0 when they may go now.

        Never switches.
        """
        record = self.record
        wait = max(0.0, record.paused_until - now)
        if record.ceiling is not None:
            if now >= record.ceiling_until:
                record.ceiling = None
            elif record.issued + tokens > record.ceiling:
                wait = max(wait, record.ceiling_until - now)
        return max(wait, self._window_wait_s(now, tokens) if self.burst is None else self._bucket_wait_s(now, tokens))

    def used(self, now: float) -> int:
        """Return how many tokens lie in the window that ends now, or miss from the bucket. Never switches."""
        if self.burst is not None:
            return ceil(self._spent(now) - ROUNDING)
        self._expire(now)
        return sum(count for _, count in self.record.slots)

    def learn(self, now: float, lesson: Lesson) -> None:
        """Take over what a response said about the peer's own limit. Never switches.

        Requests issued after the one that was answered may not be in the peer's count yet, so they are counted against
        what it said was left. An answer to an older request can only lower what a newer one taught.
        """
        record = self.record
        if lesson.pause_s is not None:
            record.paused_until = max(record.paused_until, now + min(lesson.pause_s, MAX_PAUSE_S))
        if lesson.remaining is None:
            return
        ticket = min(lesson.ticket, record.issued)
        ceiling = ticket + max(0, lesson.remaining)
        until = now + min(self.window_s if lesson.reset_s is None else lesson.reset_s, MAX_PAUSE_S)
        if ticket < record.learned_from and record.ceiling is not None:
            record.ceiling = min(record.ceiling, ceiling)
            return
        record.ceiling, record.ceiling_until, record.learned_from = ceiling, until, ticket

    def give_back(self, cost: int = 1) -> None:
        """Take back the newest tokens: their request was not sent after all. Never switches."""
        record = self.record
        record.issued = max(0, record.issued - cost)
        record.spent = max(0.0, record.spent - cost)
        while cost and record.slots:
            newest = record.slots[-1]
            back = min(cost, newest[1])
            newest[1] -= back
            cost -= back
            if not newest[1]:
                record.slots.pop()

    def forget(self) -> None:
        """Forget what was spent and learned. Never switches."""
        record = self.record
        record.slots.clear()
        record.spent = 0.0
        record.ceiling = None
        record.paused_until = 0.0

    def _slot(self, now: float) -> int:
        return int(now // self._slot_s)

    def _expire(self, now: float) -> None:
        slots = self.record.slots
        while slots and self._leaves(slots[0][0]) <= now + ROUNDING_S:
            slots.popleft()

    def _leaves(self, slot: int) -> float:
        """Return when all of a slot has left the window."""
        return (slot + SLOTS + 1) * self._slot_s

    def _spent(self, now: float) -> float:
        """Return how many tokens miss from the bucket now."""
        record = self.record
        return max(0.0, record.spent - max(0.0, now - record.spent_at) * self._per_s)

    def _bucket_wait_s(self, now: float, tokens: int) -> float:
        missing = self._spent(now) + tokens - (self.burst or 0)
        return 0.0 if missing <= ROUNDING else max(missing / self._per_s, MIN_WAIT_S)

    def _window_wait_s(self, now: float, tokens: int) -> float:
        if self.limit is None:
            return 0.0
        used = self.used(now)
        if used + tokens <= self.limit:
            return 0.0
        # Beyond one full window the pattern repeats: the nth token goes when the (nth - limit)th of this window left.
        cycles, over = divmod(used + tokens - 1 - self.limit, self.limit)
        wait, freed = 0.0, 0
        for slot, count in self.record.slots:
            freed += count
            if freed > over:
                wait = self._leaves(slot) - now
                break
        else:
            cycles += 1
        return max(wait + cycles * self.window_s, MIN_WAIT_S)
