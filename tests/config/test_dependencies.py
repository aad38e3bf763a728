"""depends_on names other entries."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.integrations import INTEGRATIONS
from config.errors import ConfigErrors
from config.load import load

GOOD = """
[integrations.db]
type = "database"
url = "sqlite:///app.db"
[integrations.ml]
type = "python"
functions = ["statistics:mean"]
depends_on = ["{name}"]
on_dependency_down = "wait"
"""


def test_an_entry_may_wait_for_another_one(tmp_path: Path) -> None:
    file = tmp_path / "regrow.toml"
    file.write_text(GOOD.format(name="db"))
    assert load(file, INTEGRATIONS).integrations["ml"].config.depends_on == ["db"]


@pytest.mark.parametrize(("name", "message", "nearest"), [("dbb", "no such entry", "db"), ("ml", "itself", None)])
def test_a_dependency_that_does_not_exist_is_an_error_that_names_the_nearest(
    tmp_path: Path, name: str, message: str, nearest: str | None
) -> None:
    file = tmp_path / "regrow.toml"
    file.write_text(GOOD.format(name=name))
    with pytest.raises(ConfigErrors) as caught:
        load(file, INTEGRATIONS)
    (error,) = caught.value.errors
    assert message in error.problem
    assert error.nearest == nearest
