"""What a database pool counts; the number of series is bounded by the configuration."""

from __future__ import annotations

from runtime.measure import Counter, Gauge, Histogram

CONNECTIONS = Gauge("database_connections", "connections of a database pool by state", ("actor", "state"))
WAIT = Histogram("database_wait_seconds", "time that operations waited for a free connection", ("actor",))
OPERATIONS = Counter(
    "database_operations_total", "operations of a database by what became of them", ("actor", "operation", "outcome")
)
SECONDS = Histogram("database_operation_seconds", "time from the request to its answer", ("actor", "operation"))
LOST = Counter("database_connections_lost_total", "open connections that broke", ("actor",))
REPEATS = Counter(
    "database_repeats_total", "operations tried again after a serialization failure or deadlock", ("actor",)
)

NOTIFIED = Counter("database_notifications_total", "notifications heard on listened channels", ("actor",))
HEALTHY = Gauge("database_healthy", "1 while a database has a connection that works, or needs none", ("actor",))

STATES = ("idle", "busy", "waiting", "closed", "absent")
OUTCOMES = ("ok", "refused", "invalid", "failed")


def declare(pool: str, operations: tuple[str, ...]) -> None:
    """Make every series of a configured pool exist from the start. Never switches."""
    for state in STATES:
        CONNECTIONS.declare(pool, state)
    for operation in operations:
        SECONDS.declare(pool, operation)
        for outcome in OUTCOMES:
            OPERATIONS.declare(pool, operation, outcome)
    WAIT.declare(pool)
    LOST.declare(pool)
    REPEATS.declare(pool)
    HEALTHY.declare(pool)
