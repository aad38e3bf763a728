from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("name", ["config", "actors", "runtime", "supervisors", "tests"])
def test_python_m_works_in_a_folder_whose_modules_have_names_of_ours(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("raise RuntimeError('the wrong module')")
    (tmp_path / "regrow.toml").write_text("[daemon]\nname = 'beside'\n")
    command = [sys.executable, "-m", "regrow", "check"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "regrow.toml is good" in done.stdout
