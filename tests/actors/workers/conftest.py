"""A conversation with one real child process, without any actor."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent.queue import Queue

from actors.workers import child
from actors.workers.process import Command, Exit, WorkerProcess, encode, environment

USER_CODE = Path(__file__).parent / "user_code"
MAX_MESSAGE = 1 << 20
PATIENCE_S = 20.0


class Conversation:
    """One child process whose messages, lines and end wait in queues."""

    def __init__(self, inherited: tuple[str, ...] = (), folder: Path | None = None, **setup: Any) -> None:
        self.heard: Queue[child.FromChild | Exit] = Queue()
        self.lines: list[tuple[str, str]] = []
        self.process = WorkerProcess(
            Command(sys.executable, folder, environment(inherited)),
            max_message=MAX_MESSAGE,
            on_message=self.heard.put,
            on_exit=self.heard.put,
            on_line=lambda stream, line: self.lines.append((stream, line)),
        )
        fields: dict[str, Any] = {
            "path": [str(USER_CODE)],
            "functions": ["faulty:*", "statistics:mean"],
            "preload": [],
            "init": None,
            "max_message": MAX_MESSAGE,
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
