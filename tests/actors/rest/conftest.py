"""A configured API as the daemon runs it: its table checked by the loader, its plan under a supervisor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gevent
import pytest

from actors.integrations import rest
from actors.seam import Context, Integration, Plan
from config.load import load_table
from config.secret import Secret
from runtime import clock, events
from runtime.messages import Call, WithHeader
from runtime.names import whereis
from runtime.promise import Promise
from runtime.ref import Ref
from supervisors import Supervisor
from tests.support.http_peer import HttpPeer

OPERATIONS: dict[str, Any] = {
    "get_user": {"request": "GET /users/{username}"},
    "make_issue": {"request": "POST /issues"},
    "put_issue": {"request": "PUT /issues/{number}"},
    "remove": {"request": "DELETE /issues/{number}"},
}
# Tests of single faults want neither retries nor pauses; those of retries say so.
ONCE = {"retries": 0}
QUICKLY = {"retries": 3, "base": "5ms", "max": "20ms"}


class Api:
    """One running API."""

    def __init__(
        self,
        name: str,
        table: Mapping[str, Any],
        folder: Path,
        redis_url: str | None,
        kind: Integration = rest.INTEGRATION,
    ) -> None:
        self.name = name
        config = load_table(kind.config, table, folder, environ={"TOKEN": "tok-secret-0123456789"})
        url = None if redis_url is None else Secret(redis_url)
        self.plan: Plan = kind.plan(name, config, Context(folder, folder, url, "test"))
        self.supervisor = Supervisor.start(children=self.plan.children, max_restarts=1000, max_seconds=1.0)

    @property
    def front(self) -> Ref:
        return self.part("")

    def part(self, name: str) -> Ref:
        """The actor of that part now, waiting for its supervisor when it has just died."""
        for _ in range(1000):
            ref = whereis(f"{self.name}/{name}" if name else self.name)
            if ref is not None:
                return ref
            gevent.sleep(0.001)
        raise AssertionError(f"{self.name} has no {name or 'front'}")

    def call(self, operation: str, *, timeout: float | None = None, **args: Any) -> Any:
        """What the operation returns, within the default deadline unless told otherwise."""
        return self.full(operation, timeout=timeout, **args).value

    def full(self, operation: str, *, timeout: float | None = None, **args: Any) -> WithHeader:
        """The answer with its header."""
        answer = self.front.ask(Call(operation, args), timeout=self.plan.timeout_s if timeout is None else timeout)
        assert isinstance(answer, WithHeader)
        return answer

    def begin(self, operation: str, *, timeout: float = 10.0, **args: Any) -> Promise:
        """A call that runs while the test goes on."""
        promise = Promise(deadline=clock.now() + timeout)
        self.front.request(Call(operation, args), promise)
        gevent.sleep(0)
        return promise


Start = Callable[..., Api]


@pytest.fixture
def api(http_peer: HttpPeer, tmp_path: Path) -> Iterator[Start]:
    """Starts an API at the test's peer; keywords replace keys of its table."""
    started: list[Api] = []

    def start(name: str = "api", *, redis_url: str | None = None, **table: Any) -> Api:
        whole = {"base_url": http_peer.url, "operations": OPERATIONS, "retry": ONCE, **table}
        started.append(Api(name, whole, tmp_path, redis_url))
        return started[-1]

    yield start
    for each in reversed(started):
        each.supervisor.stop()


@pytest.fixture
def heard() -> Iterator[list[events.Event]]:
    """Every event that is published during the test."""
    seen: list[events.Event] = []
    unsubscribe = events.subscribe(seen.append)
    yield seen
    unsubscribe()


def outcome(promise: Promise) -> Any:
    """The value or error of a call that was begun, once it is there."""
    try:
        value = promise.wait(10.0)
    except Exception as error:  # noqa: BLE001 - the outcome is what the test looks at
        return error
    return value.value if isinstance(value, WithHeader) else value
