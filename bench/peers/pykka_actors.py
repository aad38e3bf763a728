"""Pykka's own actors: on threads, or on greenlets when the process is patched."""

from __future__ import annotations

import threading
from typing import Any

import pykka

from bench.timing import Watch


class Echo(pykka.ThreadingActor):
    def on_receive(self, message: Any) -> Any:
        return message


def ask(n: int, askers: int, measured: int = 0) -> dict[str, float]:
    """Time `n` asks by `askers` threads of one actor."""
    echo = Echo.start()
    each = max(1, n // askers)

    def work() -> None:
        for _ in range(each):
            echo.ask("hello")

    threads = [threading.Thread(target=work) for _ in range(askers)]
    watch = Watch()
    if askers == 1:
        work()
    else:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    watch.stop()
    echo.stop()
    return watch.per(each * askers)


def tell(n: int, burst: int) -> dict[str, float]:
    """Time `n` tells in bursts, each drained by an ask."""
    echo = Echo.start()
    bursts = max(1, n // burst)
    watch = Watch()
    for _ in range(bursts):
        for _ in range(burst):
            echo.tell("hello")
        echo.ask("flush")
    watch.stop()
    echo.stop()
    return watch.per(bursts * burst)
