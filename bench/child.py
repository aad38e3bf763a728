"""The program inside a Python contestant: it imports one module and answers each line with one call of a function."""

from __future__ import annotations

import sys

if __name__ == "__main__" and "--patched" in sys.argv:
    from gevent import monkey

    monkey.patch_all()

import gc
import importlib
import os
import traceback
from collections.abc import Callable
from typing import Any


def main() -> None:
    """Answer rounds until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not become an answer
    module = importlib.import_module(sys.argv[1])
    for line in sys.stdin:
        answers.write(_answer(module, line.split()) + "\n")
    closing: Callable[[], None] | None = getattr(module, "close", None)
    if closing is not None:
        closing()
    answers.flush()
    os._exit(0)  # non-daemon threads and processes of a peer must not hold up the bench


def _answer(module: Any, words: list[str]) -> str:
    function = getattr(module, words[0])
    params = {key: _number(value) for key, value in (word.split("=") for word in words[1:])}
    gc.collect()
    try:
        figures: dict[str, float] = function(**params)
    except Exception as error:  # noqa: BLE001 - an edge: the bench reports it and goes on with the others
        traceback.print_exc()
        return f"error: {type(error).__name__}: {error}".replace("\n", " ")
    return " ".join(f"{key}={value!r}" for key, value in figures.items())


def _number(text: str) -> int | float:
    return float(text) if "." in text or "e" in text else int(text)


if __name__ == "__main__":
    main()
