"""Test data that nobody here made, read where it lies: beside the checkout, in shared/vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "vectors"


def vectors(name: str) -> list[dict[str, Any]]:
    """Return the cases of a file of JSON lines; empty when the folder is not there."""
    file = FOLDER / name
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text().splitlines() if line.strip()]


def document(name: str) -> Any:
    """Return a JSON file, None when the folder is not there."""
    file = FOLDER / name
    return json.loads(file.read_text()) if file.is_file() else None


#: for tests that have nothing to say without the vectors
needs_vectors = pytest.mark.skipif(not FOLDER.is_dir(), reason="the shared vectors are not beside this checkout")
