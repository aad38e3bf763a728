"""A signal that comes while something is still starting: the daemon gives the start up and ends in good order."""

from __future__ import annotations

import signal
from collections.abc import Callable

import requests

from tests.support.daemon import Daemon

HANGING = """
import gevent
from pathlib import Path
from regrow import Actor


class Hangs(Actor):
    def on_start(self) -> None:
        mark = Path(__file__).with_name("started_once")
        if "{first}" == "works" and not mark.exists():
            mark.touch()
            return
        print("hanging now", flush=True)
        gevent.sleep(3600)

    def on_receive(self, message: object) -> object:
        raise RuntimeError("told to crash")
"""
CONFIG = """
[daemon]
path = ["."]
[actors.hangs]
class = "hanging:Hangs"
start_timeout = "1h"
backoff = { base = "1ms", max = "1ms" }
"""


def test_a_signal_during_the_start_ends_the_daemon_with_0(daemon: Callable[..., Daemon]) -> None:
    made = daemon(CONFIG, files={"hanging.py": HANGING.replace("{first}", "hangs")}, ready=False)
    made.wait_for_log("hanging now")
    made.send_signal(signal.SIGTERM)
    assert made.wait(10.0) == 0
    assert "start.cut" in made.log


def test_a_signal_during_a_restart_that_hangs_ends_the_daemon_with_0(daemon: Callable[..., Daemon]) -> None:
    made = daemon(CONFIG, files={"hanging.py": HANGING.replace("{first}", "works")})
    token = (made.state_dir / "admin.token").read_text().strip()
    with requests.Session() as session:
        session.trust_env = False
        headers = {"Authorization": f"Bearer {token}"}
        answer = session.post(made.http + "/sys/kill/hangs", headers=headers, timeout=10)
    assert answer.status_code == 200
    made.wait_for_log("hanging now")
    made.send_signal(signal.SIGTERM)
    assert made.wait(10.0) == 0
