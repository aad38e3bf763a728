from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge.gateway.harness import Wire, wire_on


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """A folder with a short name: the path of a unix socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="rg") as folder:
        yield Path(folder)


@pytest.fixture
def wire(state_dir: Path) -> Iterator[Wire]:
    with wire_on(state_dir) as wire:
        yield wire
