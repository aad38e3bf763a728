"""Back-off.

How long to wait before the next restart. Ours, beyond OTP: off in code, on in trees from a configuration.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

MAX_EXPONENT = 30


@dataclass(frozen=True)
class Backoff:
    """`base_s` doubled for each restart in a row, at most `max_s`, plus or minus `jitter` of it (0 to 1).

    A child that stayed up for `reset_after_s` begins anew.
    """

    base_s: float = 0.1
    max_s: float = 30.0
    jitter: float = 0.25
    reset_after_s: float = 60.0

    def delay_s(self, attempt: int, pick: random.Random | None = None) -> float:
        """Return the delay before restart number `attempt` (1, 2, ...) in a row. Never switches."""
        delay = min(self.max_s, self.base_s * 2.0 ** min(attempt - 1, MAX_EXPONENT))
        swing = (pick or _random).uniform(-self.jitter, self.jitter)
        return max(0.0, delay * (1.0 + swing))


_random = random.Random()
