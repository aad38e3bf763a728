"""The daemon patches the standard library before anything else, or refuses: each case in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.process
@pytest.mark.parametrize("name", ["requests", "psycopg", "redis", "zmq", "ssl"])
def test_the_daemon_refuses_to_be_imported_after_a_library_that_keeps_the_unpatched_sockets(name: str) -> None:
    ended = python(f"import {name}\nimport regrow.daemon\nprint('imported')")
    assert ended.returncode == 1
    assert "imported\n" not in ended.stdout
    assert name in ended.stderr.split(" was imported before gevent")[0]
    assert "start the daemon with `regrow run`" in ended.stderr


@pytest.mark.process
def test_a_library_that_was_imported_after_patching_is_no_reason_to_refuse() -> None:
    ended = python(
        "from gevent import monkey; monkey.patch_all()\nimport requests, psycopg\n"
        "import regrow.daemon\nprint('imported')"
    )
    assert (ended.returncode, ended.stdout) == (0, "imported\n")


@pytest.mark.process
def test_importing_the_daemon_first_patches_for_all_that_come_later() -> None:
    ended = python("import regrow.daemon, requests\nfrom gevent import monkey\nprint(monkey.is_module_patched('ssl'))")
    assert (ended.returncode, ended.stdout) == (0, "True\n")
