"""Keeps files open, and knows nothing of the process that it runs in."""

from __future__ import annotations

from typing import TextIO

KEPT: list[TextIO] = []


def keep_files(folder: str, number: int) -> None:
    """Writes to files that stay open, as a log or a results file does; what is written stays in their buffers."""
    for name in range(number):
        file = open(f"{folder}/{name}", "w", encoding="ascii")  # noqa: PTH123, SIM115 - it is kept
        file.write("kept")
        KEPT.append(file)
