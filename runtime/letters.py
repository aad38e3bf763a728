"""Dead letters: messages that no actor handled, counted by why, for every actor and not only the measured ones."""

from __future__ import annotations

from runtime.measure import Counter

REASONS = ("actor_died", "expired", "mailbox_full")

DEAD_LETTERS = Counter("dead_letters_total", "messages that no actor handled", ("reason",))
for _reason in REASONS:
    DEAD_LETTERS.declare(_reason)

_died, _expired, _full = (DEAD_LETTERS.cell(reason) for reason in REASONS)


def died(count: int) -> None:
    """Count messages that were queued at an actor when it ended. Never switches."""
    _died.value += count


def expired() -> None:
    """Count a request that was given up before its actor began it. Never switches."""
    _expired.value += 1


def full() -> None:
    """Count a message that found a mailbox full. Never switches."""
    _full.value += 1
