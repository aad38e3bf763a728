"""Actors off the hub in a real daemon, as a configuration names them."""

from __future__ import annotations

import pytest

import regrow
from tests.actors.workers.conftest import PATIENCE_S
from tests.support.fixtures import StartDaemon

CODE = """
import os, time
import regrow

class Model(regrow.Actor):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.asked = 0

    @regrow.exported
    def predict(self, x: int) -> dict:
        self.asked += 1
        return {"name": self.name, "y": 2 * x, "asked": self.asked, "pid": os.getpid()}

    @regrow.exported
    def spin(self) -> None:
        while True:
            pass

    @regrow.exported
    def count(self, to: int):
        yield from range(to)
"""
TOML = """
[daemon]
path = ["code"]

[actors.model]
class = "models:Model"
args = { name = "first" }
run_in = "PLACE"
timeout = "500ms"
"""


@pytest.mark.parametrize("place", ["process", "thread"])
def test_an_actor_off_the_hub_is_asked_like_any_other(daemon: StartDaemon, place: str) -> None:
    running = daemon(TOML.replace("PLACE", place), files={"code/models.py": CODE})
    with regrow.connect(running.endpoint, timeout=PATIENCE_S) as client:
        answer = client.ask("model", "predict", x=21)
        assert (answer["name"], answer["y"], answer["asked"]) == ("first", 42, 1)
        assert client.ask("model", "predict", x=1)["asked"] == 2
        with client.stream("model", "count", to=10) as parts:
            assert list(parts) == list(range(10))


def test_a_spinning_handler_is_killed_with_its_process_and_the_daemon_serves_on(daemon: StartDaemon) -> None:
    running = daemon(TOML.replace("PLACE", "process"), files={"code/models.py": CODE})
    with regrow.connect(running.endpoint, timeout=PATIENCE_S) as client:
        first = client.ask("model", "predict", x=1)["pid"]
        with pytest.raises(regrow.RegrowError):
            client.ask("model", "spin", timeout=0.2)
        running.wait_for_log('"event":"actor.restarted","actor":"model"')
        again = client.ask("model", "predict", x=1)
        assert again["asked"] == 1
        assert again["pid"] != first


def test_the_daemons_end_leaves_no_process_of_an_actor(daemon: StartDaemon) -> None:
    running = daemon(TOML.replace("PLACE", "process"), files={"code/models.py": CODE})
    children = running.children()
    assert len(children) == 1
    running.kill()
    assert not any(child.is_running() and child.status() != "zombie" for child in children)
