"""The commands on files, and what every command has in common."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from regrow import cli
from regrow.version import VERSION

GREETER = """
from regrow import Actor, exported


class Greeter(Actor):
    @exported
    def greet(self, name: str) -> str:
        return "Hello, " + name
"""


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = cli.main(arguments)
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def test_help_names_every_status_and_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert all(word in out for word in ("69", "70", "71", "75", "78", "REGROW_CONFIG", "REGROW_ENDPOINT"))


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version")[:2] == (0, f"regrow {VERSION}\n")


@pytest.mark.parametrize(
    "arguments",
    [(), ("nonsense",), ("ask",), ("ask", "a.b", "--timeout", "x"), ("ask", "a.b", "--timeout", "-1")],
    ids=str,
)
def test_wrong_usage_is_2_and_goes_to_stderr(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err


def test_a_starter_can_be_written_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "new"
    status, out, err = run(capsys, "init", str(folder))
    assert status == 0
    assert str(folder / "regrow.toml") in out
    assert "regrow run" in err
    before = (folder / "regrow.toml").read_text()
    status, out, err = run(capsys, "init", str(folder))
    assert (status, out) == (1, "")
    assert "exist already, nothing was written" in err
    assert (folder / "regrow.toml").read_text() == before


def test_check_tells_that_a_file_is_good(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "regrow.toml"
    file.write_text("[daemon]\nname = 'x'\n")
    assert run(capsys, "check", "--config", str(file)) == (0, f"{file} is good: 0 actors, 0 integrations\n", "")


def test_check_tells_every_mistake_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "regrow.toml"
    file.write_text("[deamon]\n[http]\nbind = 5\n[integrations.x]\ntype = 'rst'\n")
    status, out, err = run(capsys, "check", "--config", str(file))
    assert (status, out) == (78, "")
    assert "3 configuration problems, nothing was started" in err
    status, out, _ = run(capsys, "check", "--json", "--config", str(file))
    assert status == 78
    assert len(json.loads(out)["errors"]) == 3


def test_a_dump_shows_defaults_and_no_secret(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLI_TEST_TOKEN", "token-of-the-cli-test")
    file = tmp_path / "regrow.toml"
    file.write_text("[http]\nread_token = '${CLI_TEST_TOKEN}'\n")
    status, out, _ = run(capsys, "check", "--dump", "--config", str(file))
    assert status == 0
    assert json.loads(out)["gateway"]["bind"] == ["tcp://127.0.0.1:5757"]
    assert "token-of-the-cli-test" not in out


def test_the_schema_is_json_and_the_reference_is_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(run(capsys, "schema")[1])["title"] == "regrow.toml"
    assert run(capsys, "schema", "--markdown")[1].startswith("# Configuration reference")


def test_without_a_configuration_run_tells_the_way_to_init(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "regrow", "run"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False,
        env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 78
    assert "regrow init" in done.stderr


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    script = f"{sys.executable} -m regrow schema | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")
