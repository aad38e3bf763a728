"""Actors of a user, which know nothing of where they run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gevent.monkey import get_original

from config.secret import Secret
from regrow.protocol.errors import Refused
from runtime.actor import Actor, exported

#: as C code that blocks, and not as a patched call, which would switch greenlets
native_sleep = get_original("time", "sleep")


class Counter(Actor):
    """Keeps a number, and misbehaves on request."""

    def __init__(self, start: int = 0, told: Path | None = None, key: Secret | None = None) -> None:
        super().__init__()
        self.number = start
        self.told = told
        self.key = key
        self.began_in = threading.get_ident()
        self.answer: Any = None

    def on_stop(self) -> None:
        if self.told is not None:
            self.told.write_text("stopped")

    def status(self) -> dict[str, object]:
        return {"number": self.number}

    def on_receive(self, message: Any) -> Any:
        if message == "die":
            os._exit(7)
        if message == "later":
            self.number += 100
            self.answer.resolve(self.number)
        return ["heard", message]

    @exported
    def add(self, number: int) -> int:
        """Add to the number."""
        self.number += number
        return self.number

    @exported
    def where(self) -> dict[str, Any]:
        """Tell where this runs."""
        return {"pid": os.getpid(), "thread": threading.get_ident(), "began_in": self.began_in}

    @exported
    def kinds(self) -> list[str]:
        """Tell the types of the arguments of __init__."""
        return [type(self.told).__name__, type(self.key).__name__]

    @exported
    def reveal(self) -> str:
        """Give the secret away."""
        assert self.key is not None
        return f"{len(self.key.reveal())} characters"

    @exported
    def refuse(self) -> None:
        """Refuse."""
        raise Refused("not today", retry_after_s=3.0)

    @exported
    def fail(self) -> None:
        """Crash."""
        raise ValueError("this went wrong")

    @exported
    def die(self) -> None:
        """End the process."""
        os._exit(9)

    @exported
    def busy(self, seconds: float) -> int:
        """Keep a processor busy and never let go."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pass
        return self.number

    @exported
    def hang(self, path: str) -> str:
        """Wait for a file."""
        while not os.access(path, os.F_OK):
            pass
        return "done"

    @exported
    def left_s(self) -> float:
        """Tell what is left until the deadline."""
        return self.remaining_s(1000.0)

    @exported
    def soon(self) -> int:
        """Send a message to itself, and answer when it came."""
        self.answer = self.defer()
        self.send_after(0.01, "later")
        return 0

    @exported
    def count(self, to: int) -> Iterator[int]:
        """Count."""
        yield from range(to)

    @exported
    def leave(self) -> str:
        """Stop after this message."""
        self.stop()
        return "bye"

    @exported
    def answer_later(self) -> str:
        """Answer by a promise, from another thread."""
        promise = self.defer()
        threading.Thread(target=promise.resolve, args=("late",)).start()
        return "early"

    @exported
    def unsendable(self) -> object:
        """Return what cannot leave a process."""
        return object()


class HangsAtStart(Actor):
    """Starts when there is a file, and hangs until then."""

    def __init__(self, path: str) -> None:
        super().__init__()
        while not os.access(path, os.F_OK):
            native_sleep(0.001)


class NeverStarts(Actor):
    """Fails to start."""

    def on_start(self) -> None:
        raise RuntimeError("no model")
