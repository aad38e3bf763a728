"""What the gateway counts: requests when read, answers when made, and the answers that nobody was there to get."""

from __future__ import annotations

from regrow.protocol.errors import ERRORS
from regrow.protocol.frames import REQUEST_OPS, TERMINAL_OPS
from runtime.measure import Counter, Gauge

CLIENTS = Gauge("wire_clients", "clients with a connection that has sent something")
IN_FLIGHT = Gauge("wire_requests_in_flight", "asks that were read and not answered yet")
TOLD = Gauge("wire_tells_in_flight", "messages of TELL whose work is queued or going on")
OUTBOX_BYTES = Gauge("wire_outbox_bytes", "answers that wait for their client to read")
REQUESTS = Counter("wire_requests_total", "messages of clients, by op; those that are none count as invalid", ("op",))
ANSWERS = Counter("wire_answers_total", "answers made, by op", ("op",))
REFUSED = Counter("wire_refused_total", "messages that the gateway itself refused, by error code", ("reason",))
UNDELIVERED = Counter("wire_undelivered_total", "answers that could not be given to their client", ("reason",))
DISCONNECTS = Counter("wire_disconnects_total", "connections that ended, also by a frame above twice max_message")
STRANGERS = Counter("wire_strangers_total", "connections refused for their key", ("reason",))
SUBSCRIPTIONS = Gauge("wire_subscriptions", "subscriptions of clients to events")
EVENTS_LOST = Counter("wire_events_lost_total", "events that left the ring before a slow subscriber read them")
REPLAYED = Counter("wire_replayed_total", "asks answered from the memory of their idem key")

INVALID = "invalid"
GATEWAY_CODES = (
    "bad_request",
    "too_large",
    "not_found",
    "invalid_arguments",
    "forbidden",
    "conflict",
    "overloaded",
    "unavailable",
    "draining",
)

for _op in [*REQUEST_OPS.values(), INVALID]:
    REQUESTS.declare(_op)
for _op in [*sorted(TERMINAL_OPS), "PART", "EVENT", "GAP", "BYE"]:
    ANSWERS.declare(_op)
for _code in GATEWAY_CODES:
    assert _code in ERRORS
    REFUSED.declare(_code)
for _reason in ("gone", "slow_client"):
    UNDELIVERED.declare(_reason)
for _reason in ("unknown_key", "no_curve"):
    STRANGERS.declare(_reason)
