"""Faults against a daemon of its own: one for a module, because each test must leave it as good as it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import gevent
import pytest

import regrow
from regrow import RegrowError
from tests.support.daemon import Daemon

QUICKLY_S = 6.0
"""What "at once" is allowed to take on a busy machine; where nothing but a timer can answer, tests say so."""

T = TypeVar("T")


class Caller:
    """A client of one daemon whose answers are timed."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.client = regrow.connect(daemon.endpoint)

    def ask(self, target: str, method: str, /, **arguments: Any) -> Any:
        return self.client.ask(target, method, arguments)

    def error(self, kind: type[RegrowError], target: str, method: str, /, *, timeout: float | None = None,
              **arguments: Any) -> RegrowError:  # fmt: skip
        """Return the error of this very class that an ask is answered with, which must come quickly."""
        began = time.monotonic()
        with pytest.raises(RegrowError) as caught:
            self.client.ask(target, method, arguments, timeout=timeout)
        assert type(caught.value) is kind, repr(caught.value)
        assert time.monotonic() - began < QUICKLY_S
        return caught.value

    def later(self, target: str, method: str, /, *, timeout: float | None = None, **arguments: Any) -> Later:
        """Ask in the background."""
        return Later(gevent.spawn(self._outcome, target, method, timeout, arguments))

    def _outcome(self, target: str, method: str, timeout: float | None, arguments: dict[str, Any]) -> Any:
        try:
            return self.client.ask(target, method, arguments, timeout=timeout)
        except RegrowError as error:
            return error

    def recovered(self, target: str, method: str, /, **arguments: Any) -> Any:
        """Ask until it is answered: nothing tells another process that a peer may be asked again."""
        return until(lambda: self.ask(target, method, **arguments))

    def close(self) -> None:
        self.client.close()


class Later:
    """The answer to an ask in the background."""

    def __init__(self, greenlet: gevent.Greenlet[..., Any]) -> None:
        self._greenlet = greenlet

    def value(self) -> Any:
        """Return the answer, or the typed error that it was; it must come quickly."""
        with gevent.Timeout(QUICKLY_S, AssertionError("there is no answer")):
            return self._greenlet.get()

    def error(self, kind: type[RegrowError]) -> RegrowError:
        value = self.value()
        assert type(value) is kind, repr(value)
        return value


def until(attempt: Callable[[], T], *, within_s: float = 15.0) -> T:
    """Return what `attempt` returns once it raises no typed error any more."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return attempt()
        except RegrowError:
            if time.monotonic() > deadline:
                raise
            gevent.sleep(0.05)


def running(toml: str, files: dict[str, str] | None = None) -> Iterator[Daemon]:
    """A daemon for a module's tests; it must live through all of them and end in good order."""
    made = Daemon(toml, files=files)
    try:
        made.start()
        pid = made.pid
        yield made
        assert made.is_running()
        assert made.pid == pid
    finally:
        made.close()


@pytest.fixture
def caller(served: Daemon) -> Iterator[Caller]:
    made = Caller(served)
    yield made
    made.close()
    if not served.is_running():
        pytest.fail(f"the daemon has ended; its log:\n{served.log}", pytrace=False)
