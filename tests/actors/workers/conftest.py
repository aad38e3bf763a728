"""A conversation with one real child process, without any actor; and a whole pool under its supervisor."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import psutil
import pytest
from gevent.event import Event
from gevent.queue import Queue

from actors.integrations import python
from actors.seam import Context
from actors.workers import child
from actors.workers.process import Command, Exit, WorkerProcess, encode, environment
from config.schema import Duration
from runtime import clock, events
from runtime.messages import Call
from runtime.names import whereis
from runtime.promise import Promise
from runtime.ref import Ref
from supervisors import Backoff, Supervisor

USER_CODE = Path(__file__).parent / "user_code"
MAX_MESSAGE = 1 << 20
PATIENCE_S = 20.0


class Conversation:
    """One child process whose messages, lines and end wait in queues."""

    def __init__(
        self,
        inherited: tuple[str, ...] = (),
        python: str = sys.executable,
        max_message: int = MAX_MESSAGE,
        **setup: Any,
    ) -> None:
        self.heard: Queue[child.FromChild | Exit] = Queue()
        self.lines: list[tuple[str, str]] = []
        self.process = WorkerProcess(
            Command(python, environment(inherited)),
            max_message=max_message,
            on_message=self.heard.put,
            on_exit=self.heard.put,
            on_line=lambda stream, line: self.lines.append((stream, line)),
        )
        fields: dict[str, Any] = {
            "directory": None,
            "path": [str(USER_CODE)],
            "functions": ["faulty:*", "statistics:mean"],
            "preload": [],
            "init": None,
            "max_message": max_message,
            "address_space": 1 << 30,
            "nice": 0,
        }
        self.process.send(encode(child.Setup(**(fields | setup))))
        self._calls = 0

    def next(self) -> child.FromChild | Exit:
        message: child.FromChild | Exit = self.heard.get(timeout=PATIENCE_S)
        return message

    def send(self, function: str, *args: Any, arrays: Any = "list", **kwargs: Any) -> None:
        self._calls += 1
        self.process.send(encode(child.Call(self._calls, function, list(args), kwargs, arrays)))

    def call(self, function: str, *args: Any, arrays: Any = "list", **kwargs: Any) -> child.FromChild | Exit:
        self.send(function, *args, arrays=arrays, **kwargs)
        return self.next()

    def result(self, function: str, *args: Any, arrays: Any = "list", **kwargs: Any) -> Any:
        said = self.call(function, *args, arrays=arrays, **kwargs)
        assert isinstance(said, child.Returned), said
        return said.value

    def end(self) -> None:
        self.process.kill()
        assert self.process.wait(PATIENCE_S)


@pytest.fixture
def converse() -> Iterator[Callable[..., Conversation]]:
    """Starts child processes and waits for what each says first; all are ended after the test."""
    started: list[Conversation] = []

    def start(**options: Any) -> Conversation:
        started.append(Conversation(**options))
        return started[-1]

    yield start
    for conversation in started:
        conversation.end()


@pytest.fixture
def conversation(converse: Callable[..., Conversation]) -> Conversation:
    """One child process that is ready for calls."""
    started = converse()
    assert isinstance(started.next(), child.Ready)
    return started


class RunningPool:
    """A pool as the daemon would run it: planned from its configuration, under a supervisor."""

    def __init__(self, config: dict[str, Any], folder: Path) -> None:
        fields: dict[str, Any] = {
            "functions": ["faulty:*", "statistics:mean"],
            "path": [USER_CODE],
            "workers": 1,
            "kill_grace": Duration("200ms"),
            "max_restarts": 1000,
        }
        context = Context(state_dir=folder, config_dir=folder, redis_url=None, daemon_name="test")
        checked = python.PythonConfig(**(fields | config))
        self.plan = python.plan("ml", checked, context)
        backoff = Backoff(base_s=0.01, max_s=0.1)
        for spec in self.plan.children:
            spec.backoff = backoff
        self.supervisor = Supervisor.start(
            children=self.plan.children, max_restarts=checked.max_restarts, max_seconds=float(checked.max_seconds)
        )

    @property
    def front(self) -> Ref:
        ref = whereis("ml")
        assert ref is not None
        return ref

    def worker(self, index: int = 1) -> Ref:
        ref = whereis(f"ml/worker-{index}")
        assert ref is not None
        return ref

    def process(self, index: int = 1) -> psutil.Process:
        """The process that a worker owns now."""
        return psutil.Process(self.worker(index).actor.status()["pid"])

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.front.actor.status()
        return status

    def call(self, function: str, *args: Any, timeout: float = PATIENCE_S, **kwargs: Any) -> Any:
        """Ask, as the wire would, and return the result or raise the error."""
        return self.front.call("call", self.body(function, *args, **kwargs), timeout=timeout)

    def request(self, function: str, *args: Any, timeout: float = PATIENCE_S, **kwargs: Any) -> Promise:
        """Ask and return the promise at once."""
        promise = Promise(deadline=clock.now() + timeout)
        self.front.request(Call("call", self.body(function, *args, **kwargs)), promise)
        return promise

    def body(self, function: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self.plan.exports["call"].check({"function": function, "args": list(args), "kwargs": kwargs})

    def stop(self) -> None:
        self.supervisor.stop(timeout=PATIENCE_S)


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Callable[..., RunningPool]]:
    """Starts a pool of one worker, or as configured; it is stopped after the test."""
    started: list[RunningPool] = []

    def start(**config: Any) -> RunningPool:
        started.append(RunningPool(config, tmp_path))
        return started[-1]

    yield start
    for running in started:
        running.stop()


@pytest.fixture
def happened() -> Iterator[EventLog]:
    """The events published during the test; `happened.wait("worker.started")` waits for the next one of a topic."""
    log = EventLog()
    unsubscribe = events.subscribe(log.add)
    yield log
    unsubscribe()


class EventLog:
    """Events in order, and a way to wait for more."""

    def __init__(self) -> None:
        self.seen: list[events.Event] = []
        self._news = Event()

    def add(self, event: events.Event) -> None:
        self.seen.append(event)
        self._news.set()

    def of(self, topic: str, **fields: Any) -> list[dict[str, Any]]:
        """Return the fields of the events of a topic that have these fields among theirs."""
        return [event.fields for event in self.seen if event.topic == topic and fields.items() <= event.fields.items()]

    def wait(self, topic: str, count: int = 1, **fields: Any) -> list[dict[str, Any]]:
        """Return the same as `of` as soon as there are `count` of them."""
        with gevent.Timeout(PATIENCE_S):
            while len(self.of(topic, **fields)) < count:
                self._news.clear()
                self._news.wait()
        return self.of(topic, **fields)
