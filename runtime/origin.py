"""Whose request this is: what queues that are fair between clients go by.

A client is, in this order: who the gateway says it is (the name of its CURVE key, else its connection); the origin of
the request that the asking actor works on; the asking actor, when it asks of its own accord; else nobody in particular,
which all askers outside of actors share, and all that do not wait for their answer.
"""

from __future__ import annotations

from runtime import scheduler
from runtime.promise import Promise
from runtime.scheduler import Runner

NOBODY = ""
# Actors that ask one another in a ring wait for their deadlines; whoever looks must not go round with them.
MAX_STEPS = 32


def client_of(promise: Promise | None) -> str:
    """Return the client that a request comes from, `NOBODY` when none is known. Never switches."""
    found = NOBODY
    for _ in range(MAX_STEPS):
        if promise is None:
            break
        if promise.client:
            return promise.client
        asker = promise.waiter
        if asker.__class__ is not Runner or asker.ref is None:
            break
        found = f"actor {asker.ref.path}"
        promise = asker.reply
    return found


def current_client() -> str:
    """Return the client whose request the calling actor works on, `NOBODY` when none is known. Never switches."""
    return client_of(scheduler.current_promise())
