from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.processes import Child, ChildFailed, await_end
from tests.support.servers.folders import sweep


@pytest.fixture
def started() -> Iterator[list[Child]]:
    children: list[Child] = []
    yield children
    for child in children:
        child.kill()


def python(program: str) -> Child:
    return Child([sys.executable, "-u", "-c", program])


def test_a_line_of_the_log_can_be_waited_for(started: list[Child]) -> None:
    child = python("import sys, time\nprint('port 17', file=sys.stderr)\nprint('ready')\ntime.sleep(3600)")
    started.append(child)
    assert child.wait_for_line(r"port (\d+)").group(1) == "17"
    child.wait_for_line("ready")
    assert child.is_running()


def test_a_line_can_be_waited_for_after_a_mark(started: list[Child]) -> None:
    child = python(
        "import signal\nsignal.signal(signal.SIGUSR1, lambda *_: print('ready'))\nprint('ready')\nsignal.pause()"
    )
    started.append(child)
    child.wait_for_line("ready")
    mark = child.lines_written
    child.send_signal(signal.SIGUSR1)
    child.wait_for_line("ready", after_line=mark)
    assert child.log == "ready\nready"


def test_an_end_without_the_line_is_told_at_once_with_the_log(started: list[Child]) -> None:
    child = python("print('no such file'); raise SystemExit(78)")
    started.append(child)
    with pytest.raises(ChildFailed, match="ended without a line like 'ready'; its log:\nno such file"):
        child.wait_for_line("ready")
    assert child.wait(5.0) == 78


def test_silence_is_told_after_the_limit(started: list[Child]) -> None:
    child = python("import time; time.sleep(3600)")
    started.append(child)
    with pytest.raises(ChildFailed, match="wrote no line like 'ready' within 0.05 s"):
        child.wait_for_line("ready", 0.05)


def test_one_that_ignores_the_signal_is_killed_and_that_is_a_failure(started: list[Child]) -> None:
    child = python(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready')\ntime.sleep(3600)"
    )
    started.append(child)
    child.wait_for_line("ready")
    with pytest.raises(ChildFailed, match="did not end within 0.1 s"):
        child.stop(timeout_s=0.1)
    assert child.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
def test_servers_end_when_the_test_run_is_killed_and_the_next_run_removes_their_folders(tmp_path: Path) -> None:
    run = tmp_path / "test_run.py"
    run.write_text(
        """
def test_run(postgres, redis, _session_redis):
    import os, signal, psutil
    children = psutil.Process().children(recursive=True)
    with open("pids", "w") as file:
        file.write(" ".join(str(child.pid) for child in children))
    with open("owner", "w") as file:
        file.write(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    (tmp_path / "conftest.py").write_text(
        'from gevent import monkey\nmonkey.patch_all()\npytest_plugins = ["tests.support.fixtures"]\n'
    )
    project = Path(__file__).parents[2]
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(run)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(project), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert finished.returncode == -signal.SIGKILL, finished.stdout
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) >= 2
    assert await_end([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], 5.0) == []
    owner = (tmp_path / "owner").read_text()
    sweep()
    assert list(Path(tempfile.gettempdir()).glob(f"regrow-test-{owner}-*")) == []
