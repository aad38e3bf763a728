from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
MODULES = (
    "regrow/__init__.py",
    "regrow/cli.py",
    "regrow/client.py",
    "regrow/aio.py",
    "regrow/conform.py",
    "regrow/protocol/__init__.py",
    "regrow/protocol/errors.py",
    "runtime/__init__.py",
    "runtime/actor.py",
    "runtime/log.py",
    "runtime/edge/__init__.py",
    "runtime/edge/gateway.py",
    "runtime/edge/metrics.py",
    "supervisors/__init__.py",
    "actors/__init__.py",
    "actors/integrations/__init__.py",
    "actors/integrations/rest.py",
    "actors/integrations/python.py",
    "config/__init__.py",
    "config/schema.py",
    "config/load.py",
)
ALLOWED = {
    "regrow/cli.py": "import config.load\nimport actors\n",
    "regrow/client.py": "import zmq\nimport regrow.protocol.errors\n",
    "runtime/actor.py": "import pykka\nimport config.schema\nimport regrow.protocol.errors\n",
    "runtime/edge/gateway.py": "import zmq\nimport runtime.actor\n",
    "runtime/edge/metrics.py": "import prometheus_client\n",
    "supervisors/__init__.py": "import runtime.actor\n",
    "actors/integrations/__init__.py": "from actors.integrations import python, rest\n",
    "actors/integrations/rest.py": "import supervisors\nimport requests\n",
}
FORBIDDEN = [
    ("runtime/log.py", "supervisors", "imports point downward only"),
    ("supervisors/__init__.py", "actors", "imports point downward only"),
    ("actors/__init__.py", "regrow.cli", "imports point downward only"),
    ("runtime/actor.py", "regrow.client", "imports point downward only"),
    ("config/load.py", "actors", "imports point downward only"),
    ("regrow/protocol/errors.py", "regrow.client", "regrow.protocol is a leaf"),
    ("regrow/protocol/errors.py", "gevent", "regrow.protocol is a leaf"),
    ("regrow/client.py", "gevent", "the clients import regrow.protocol and nothing else"),
    ("regrow/conform.py", "runtime", "the clients import regrow.protocol and nothing else"),
    ("regrow/aio.py", "runtime.actor", "the clients import regrow.protocol and nothing else"),
    ("actors/integrations/rest.py", "actors.integrations.python", "one integration never imports another"),
    ("supervisors/__init__.py", "pykka", "pykka is imported by the actor core only"),
    ("runtime/edge/metrics.py", "zmq", "zmq is imported by the gateway and the clients only"),
    ("runtime/log.py", "prometheus_client", "prometheus_client is imported by the metrics edge only"),
    ("config/schema.py", "gevent", "config stands on the standard library and msgspec"),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of the project's shape whose imports are all allowed, under the project's own contracts."""
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    for module in MODULES:
        path = tmp_path / module
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ALLOWED.get(module, ""))
    return tmp_path


def check(tree: Path) -> tuple[int, str]:
    finished = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return finished.returncode, finished.stdout + finished.stderr


def broken(output: str) -> list[str]:
    return [line for line in output.splitlines() if " BROKEN" in line]


def test_the_allowed_imports_break_no_contract(tree: Path) -> None:
    status, output = check(tree)
    assert (status, broken(output)) == (0, []), output


@pytest.mark.parametrize(("module", "imported", "contract"), FORBIDDEN)
def test_a_forbidden_import_breaks_its_contract(tree: Path, module: str, imported: str, contract: str) -> None:
    path = tree / module
    path.write_text(f"{path.read_text()}import {imported}\n")
    status, output = check(tree)
    assert status == 1
    assert any(line.startswith(contract) for line in broken(output)), output
