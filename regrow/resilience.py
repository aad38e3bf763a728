"""The parts that keep a failing peer from spreading, for actors of your own; each is of use alone.

Actors, to stand under your supervisor: `Limiter`, `Breaker`, `Cache`, `Batcher`. What outlives them when they crash is
made beside them: `QuotaTable`, `CircuitTable`, `Shelf`, and with several daemons `SharedQuota`, `SharedCircuit` and
`SharedShelf` in Redis. `Guarded` runs a call of yours in the order limiter, breaker, call, outcome, retry; `cached`
asks the cache before. `normalise` turns whatever your call's library raises into the typed errors that these look at.
examples/guarded shows them at work.
"""

from __future__ import annotations

from actors.resilience.batcher import Batch, Batcher, Item, alike, each
from actors.resilience.breaker import Breaker, CircuitTable, Permit, Settled
from actors.resilience.cache import Cache, Forget, Keep, LetGo, Lookup
from actors.resilience.cached import cached
from actors.resilience.classify import classify, means_unavailable
from actors.resilience.guarded import Guarded, Try
from actors.resilience.limiter import Admit, GiveBack, Limiter, QuotaTable
from actors.resilience.normaliser import normalise
from actors.resilience.policy import BreakerPolicy, RatePolicy, RetryPolicy
from actors.resilience.quota import Lesson
from actors.resilience.shared import RedisLink, SharedCircuit, SharedQuota, shared_key
from actors.resilience.shared_shelf import SharedShelf, derive
from actors.resilience.shelf import Kept, Shelf
from config.schema import PositiveDuration as Duration
from runtime import clock
from runtime.names import whereis

__all__ = [
    "Admit",
    "Batch",
    "Batcher",
    "Breaker",
    "BreakerPolicy",
    "Cache",
    "CircuitTable",
    "Duration",
    "Forget",
    "GiveBack",
    "Guarded",
    "Item",
    "Keep",
    "Kept",
    "Lesson",
    "LetGo",
    "Limiter",
    "Lookup",
    "Permit",
    "QuotaTable",
    "RatePolicy",
    "RedisLink",
    "RetryPolicy",
    "Settled",
    "SharedCircuit",
    "SharedQuota",
    "SharedShelf",
    "Shelf",
    "Try",
    "alike",
    "cached",
    "classify",
    "clock",
    "derive",
    "each",
    "means_unavailable",
    "normalise",
    "shared_key",
    "whereis",
]
