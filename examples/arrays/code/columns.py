"""What the workers run: one function that takes an array and gives one back."""

from __future__ import annotations

from typing import Any


def standardize(table: Any) -> Any:
    """Return the table with every column shifted to mean 0 and scaled to deviation 1, worked on in place."""
    table -= table.mean(axis=0)
    table /= table.std(axis=0)
    return table
