"""What the guard of the plugin looks at, when the process changes under it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from regrow.testing import leftovers


def test_a_thread_that_ends_while_the_guard_looks_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def listed(folder: Path, _pattern: str) -> Iterable[Path]:
        return [folder / "0" / "children"]  # no thread has this number: it is as one that has ended

    monkeypatch.setattr(Path, "glob", listed)
    assert leftovers.child_processes() == set()
