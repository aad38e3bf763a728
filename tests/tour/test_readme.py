"""What the README states as a fact is a fact: files, functions, metrics, commands, statuses."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from regrow import cli
from regrow.protocol import errors, exits
from tests.support.daemon import Daemon
from tests.tour.readme import README, ROOT, blocks, default_configuration, metric_names, section


def test_every_link_to_a_file_or_section_leads_somewhere() -> None:
    text = README.read_text()
    anchors = {
        "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c in "-_")
        for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        else:
            assert (ROOT / target).exists(), target


def rows_of_paths() -> list[tuple[str, str]]:
    found = []
    for row in re.findall(r"^\| [^|]* \| ([^|]*\.py`) \|$", section("The two paths"), re.MULTILINE):
        names, _, files = row.rpartition(" in ")
        paths = re.findall(r"`([^`]+\.py)`", files)
        functions = re.findall(r"`([^`]+)`", names)
        for index, function in enumerate(functions):
            found.append((function, paths[min(index, len(paths) - 1)] if len(paths) > 1 else paths[0]))
    return found


@pytest.mark.parametrize(("function", "file"), rows_of_paths())
def test_every_row_of_the_two_paths_names_a_function_that_is_there(function: str, file: str) -> None:
    defined = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.ClassDef):
            defined |= {f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
        elif isinstance(node, ast.FunctionDef):
            defined.add(node.name)
    assert function in defined


def test_both_paths_have_their_rows() -> None:
    assert len(rows_of_paths()) >= 27


def test_every_command_is_told() -> None:
    parser = cli.parser()
    commands = next(action.choices for action in parser._actions if action.choices)
    told = set(re.findall(r"^\| `regrow (\w+)", section("Command line"), re.MULTILINE))
    assert told == set(commands)


def test_every_exit_status_is_told() -> None:
    told = {int(status) for status in re.findall(r"^\| (\d+) \|", section("Command line"), re.MULTILINE)}
    assert told == {value for name, value in vars(exits).items() if name.startswith("EX_")}


def test_every_error_code_is_told_in_its_group() -> None:
    told = {}
    for group, codes in re.findall(r"^\| `(\w+)`: [^|]* \| ([^|]*) \|$", section("Errors"), re.MULTILINE):
        told[group] = set(codes.split(", "))
    for group in ("Refused", "Invalid", "Failed"):
        known = {cls.code for cls in vars(errors).values() if is_leaf(cls, getattr(errors, group))}
        assert told[group] == known


def is_leaf(cls: object, group: type) -> bool:
    return isinstance(cls, type) and issubclass(cls, group) and cls is not group


def test_the_pages_made_from_the_code_are_what_the_code_says(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "regrow.reference", str(tmp_path)], check=True, cwd=ROOT, timeout=60)
    for page in ("configuration.md", "metrics.md"):
        made = (tmp_path / page).read_text()
        assert (ROOT / "docs" / page).read_text() == made, f"docs/{page} is old, run `make docs`"


@pytest.fixture(scope="module")
def default_daemon() -> Iterator[Daemon]:
    """A daemon with the default configuration, on ports and in a folder of its own."""
    made = Daemon(default_configuration())
    try:
        made.start()
        yield made
    finally:
        made.close()


def test_every_metric_that_is_told_is_shown_and_every_one_shown_is_listed(default_daemon: Daemon) -> None:
    shown = set(re.findall(r"^# HELP regrow_(\S+)", default_daemon.get("/metrics").text, re.MULTILINE))
    assert metric_names(README.read_text()) <= shown
    listed = set(re.findall(r"^\| `regrow_(\w+)`", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))
    assert shown <= listed, "docs/metrics.md is old, run `make docs`"


def test_every_http_path_is_there(default_daemon: Daemon) -> None:
    told = re.findall(r"`(/[a-z]+)(?:/(?:NAME|ID))?`", section("HTTP and metrics").partition("Every metric")[0])
    assert {"/livez", "/readyz", "/metrics", "/tree", "/crashes"} <= set(told)
    for path in set(told) - {"/actors"}:
        assert default_daemon.get(path).status_code == 200, path
    assert default_daemon.get("/actors/greeter").json()["name"] == "greeter"


def test_the_lines_of_the_client_library_run(default_daemon: Daemon) -> None:
    text = next(block.text for block in blocks(section("Clients and the wire")) if block.language == "py")
    text = text.replace("tcp://127.0.0.1:5757", default_daemon.endpoint)
    exec(compile(text, "README.md", "exec"), {})  # noqa: S102 - the README is ours, and this is its test
    assert default_daemon.run("ask", "greeter.count").stdout == "1\n"


def test_the_greeter_is_the_starters_in_short() -> None:
    text = next(block.text for block in blocks(section("Your own actors")) if block.language == "py")
    space: dict[str, Any] = {}
    exec(compile(text, "README.md", "exec"), space)  # noqa: S102 - as above
    ref = space["Greeter"].start(greeting="Hi")
    assert ref.call("greet", {"name": "Ada", "times": 2}) == "Hi, Ada! Hi, Ada!"
    with pytest.raises(errors.InvalidArguments):
        ref.call("greet", {"name": "Ada", "times": 101})
    ref.stop()
