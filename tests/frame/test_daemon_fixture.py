from __future__ import annotations

import signal

import psutil
import pytest

from tests.support.fixtures import StartDaemon
from tests.support.processes import ChildFailed

WORKERS = """
[integrations.ml]
type = "python"
functions = ["statistics:mean"]
workers = 1
"""
LEAKY = """
import subprocess

from runtime.actor import Actor


class Leaky(Actor):
    def on_start(self) -> None:
        self.left = subprocess.Popen(["sleep", "3600"], start_new_session=True)
"""


def test_a_daemon_is_ready_when_the_fixture_gives_it_and_ends_in_good_order(daemon: StartDaemon) -> None:
    started = daemon(WORKERS)
    assert started.get("/livez").status_code == 200
    assert started.stop() == 0
    assert not started.is_running()


def test_the_command_line_reaches_the_daemon(daemon: StartDaemon) -> None:
    started = daemon(WORKERS)
    shown = started.run("tree", "--json")
    assert (shown.returncode, '"ml"' in shown.stdout) == (0, True), shown


def test_a_killed_daemon_starts_again_with_its_folder_and_ports(daemon: StartDaemon) -> None:
    started = daemon(WORKERS)
    first = started.pid
    started.kill()
    assert started.process.returncode == -signal.SIGKILL
    started.start()
    assert started.pid != first
    assert started.get("/livez").status_code == 200


def test_two_daemons_run_beside_each_other(daemon: StartDaemon) -> None:
    one, two = daemon(WORKERS), daemon(WORKERS)
    assert one.endpoint != two.endpoint
    assert [each.get("/livez").status_code for each in (one, two)] == [200, 200]


def test_a_daemon_that_refuses_to_start_gives_its_status_and_its_words(daemon: StartDaemon) -> None:
    started = daemon("[gatway]\n", ready=False)
    assert started.wait() == 78
    assert "gatway" in started.log


def test_a_daemon_that_leaves_a_process_behind_fails_the_test(daemon: StartDaemon) -> None:
    started = daemon('[daemon]\npath = ["."]\n[actors.leaky]\nclass = "leaky:Leaky"\n', files={"leaky.py": LEAKY})
    [left] = started.children()
    with pytest.raises(ChildFailed, match="left processes behind: [0-9]+ sleep 3600"):
        started.stop()
    started.close()
    assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE
