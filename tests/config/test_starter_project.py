from __future__ import annotations

import importlib
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.starter_project import STARTER, write_starter
from regrow.protocol.errors import InvalidArguments


def test_it_writes_a_configuration_an_actor_and_a_readme(tmp_path: Path) -> None:
    written = write_starter(tmp_path / "new" / "project")
    names = {path.relative_to(tmp_path / "new/project").as_posix() for path in written}
    assert {"regrow.toml", "README.md", "my_app/__init__.py", "my_app/greeting.py", "python/iris.py"} <= names
    assert all(path.is_file() for path in written)
    assert tomllib.loads((tmp_path / "new/project/regrow.toml").read_text())["actors"]["greeter"]


def test_what_is_written_can_be_edited(tmp_path: Path) -> None:
    assert all(path.stat().st_mode & stat.S_IWUSR for path in write_starter(tmp_path))


def test_it_writes_beside_other_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    write_starter(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["regrow.toml", "my_app/greeting.py"])
def test_it_never_overwrites_and_then_writes_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match=f"{name} exists already, nothing was written"):
        write_starter(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_it_does_not_follow_a_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "regrow.toml").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        write_starter(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_nothing_that_was_made_by_running_it_is_written(tmp_path: Path) -> None:
    cache = STARTER / "my_app" / "__pycache__"
    existed = cache.exists()
    cache.mkdir(exist_ok=True)
    try:
        assert not [path for path in write_starter(tmp_path) if "__pycache__" in path.parts]
    finally:
        if not existed:
            cache.rmdir()


class TestWhatIsWritten:
    """The starter's own code, as a newcomer runs it first."""

    @pytest.fixture(autouse=True)
    def _importable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_starter(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.syspath_prepend(tmp_path / "python")

    @pytest.fixture
    def greeter(self) -> Iterator[Any]:
        ref = importlib.import_module("my_app.greeting").Greeter.start(greeting="Good morning")
        yield ref
        if ref.is_alive():
            ref.stop()

    def test_the_greeter_greets_and_counts(self, greeter: Any) -> None:
        assert greeter.call("greet", {"name": "Ada"}) == "Good morning, Ada!"
        assert greeter.call("greet", {"name": "Ada", "times": 2}) == "Good morning, Ada! Good morning, Ada!"
        assert greeter.call("count", {}) == 2

    def test_the_greeter_refuses_and_lives(self, greeter: Any) -> None:
        with pytest.raises(InvalidArguments, match="times is 101"):
            greeter.call("greet", {"name": "Ada", "times": 101})
        assert greeter.call("count", {}) == 0

    def test_the_greeter_crashes_when_it_is_asked_to(self, greeter: Any) -> None:
        with pytest.raises(RuntimeError, match="on purpose"):
            greeter.call("crash", {})
        assert not greeter.is_alive()

    def test_the_model_knows_its_flowers(self) -> None:
        predict = importlib.import_module("iris").predict
        assert predict(5.1, 3.5, 1.4, 0.2)["species"] == "setosa"
        assert predict(6.7, 3.0, 5.2, 2.3)["species"] == "virginica"
