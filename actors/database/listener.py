"""LISTEN and NOTIFY as events: one connection of its own that hears what the configured channels carry.

Each notification becomes the event `database.notified`. Notifications sent while this connection was lost are lost,
as PostgreSQL keeps none; `database.listening` with `again = true` tells whoever must look for itself then.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actors.database import metrics
from actors.database.connection import Check, Recovered, Suspect
from actors.database.engine import Lost
from actors.database.postgres import PostgresEngine
from config.secret import redact
from regrow.protocol.errors import DatabaseError
from runtime import clock, events
from runtime.actor import Actor
from runtime.names import whereis

#: so many notifications are published in one go, then others get their turn
AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """Whom the listener of a pool connects to, and what it hears."""

    pool: str
    engine: Callable[[], PostgresEngine]
    channels: tuple[str, ...]
    connect_timeout_s: float
    check_interval_s: float
    backoff_base_s: float = 0.1
    backoff_max_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Connect:
    """Connect and listen, unless it does already."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """The socket of the connection of that number has something to read."""

    number: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Ask the server for a sign of life."""


class Listener(Actor):
    """Found as `<pool>/listener`."""

    timeout = 120.0

    def __init__(self, settings: ListenerSettings) -> None:
        super().__init__()
        self.settings = settings
        self.engine = settings.engine()
        self.state = "waiting"
        self.notified = 0
        self.last_error: str | None = None
        self._number = 0
        self._failures = 0
        self._heard_before = False
        self._retry: clock.Timer | None = None
        self._tick: clock.Timer | None = None

    def on_start(self) -> None:
        """Begin to connect; the start never waits for the database."""
        metrics.NOTIFIED.declare(self.settings.pool)
        self.ref.post(Connect())
        self._tick = self.send_after(self.settings.check_interval_s, Tick())

    def on_stop(self) -> None:
        self._end()

    def on_failure(self, *_error: object) -> None:
        self._end()

    def status(self) -> dict[str, Any]:
        """Return whether it listens and to what. Never switches."""
        detail: dict[str, Any] = {
            "state": self.state,
            "channels": list(self.settings.channels),
            "notified": self.notified,
        }
        if self.last_error is not None:
            detail["error"] = self.last_error
        return detail

    def on_receive(self, message: object) -> Any:
        """Connect, publish what came, look after the connection. Switches greenlets."""
        if isinstance(message, Connect | Recovered):
            if not self.engine.is_open:
                self._connect()
        elif isinstance(message, Arrived):
            if message.number == self._number and self.engine.is_open:
                self._publish()
        elif isinstance(message, Check):
            self._look_after()
        elif isinstance(message, Tick):
            self._look_after()
            self._tick = self.send_after(self.settings.check_interval_s, Tick())
        else:
            return super().on_receive(message)
        return None

    def _connect(self) -> None:
        settings = self.settings
        self._number += 1
        try:
            self.engine.open(settings.connect_timeout_s)
            self.engine.listen(settings.channels, settings.connect_timeout_s)
        except (Lost, DatabaseError) as error:
            self._lose(error.reason if isinstance(error, Lost) else str(error))
            return
        self.state, self.last_error, self._failures = "listening", None, 0
        events.publish(
            "database.listening", actor=settings.pool, channels=list(settings.channels), again=self._heard_before
        )
        self._heard_before = True
        self._publish()

    def _publish(self) -> None:
        pool = self.settings.pool
        try:
            found = self.engine.notifications(AT_ONCE)
        except Lost as lost:
            self._lose(lost.reason)
            return
        for channel, payload in found:
            self.notified += 1
            metrics.NOTIFIED.inc(pool)
            events.publish("database.notified", actor=pool, channel=channel, payload=redact(payload))
        number = self._number
        if len(found) == AT_ONCE:
            self.ref.post(Arrived(number))
        else:
            self.engine.when_readable(lambda: self.ref.post(Arrived(number)))

    def _look_after(self) -> None:
        if not self.engine.is_open:
            return
        try:
            self.engine.ping(self.settings.connect_timeout_s)
        except Lost as lost:
            self._lose(lost.reason)
        else:
            self._publish()  # what came together with the answer

    def _lose(self, reason: str) -> None:
        was_listening = self.state == "listening"
        self.engine.discard()
        self.state, self.last_error = "waiting", reason
        if was_listening:
            metrics.LOST.inc(self.settings.pool)
            events.publish("database.connection_lost", actor=self.settings.pool, connection="listener", error=reason)
            pool = whereis(self.settings.pool)
            if pool is not None:
                pool.post(Suspect())
        pause_s = min(self.settings.backoff_max_s, self.settings.backoff_base_s * 2 ** min(self._failures, 16))
        self._failures += 1
        if self._retry is not None:
            self._retry.cancel()
        self._retry = self.send_after(pause_s * random.uniform(0.75, 1.25), Connect())

    def _end(self) -> None:
        for timer in (self._retry, self._tick):
            if timer is not None:
                timer.cancel()
        self.engine.discard()
