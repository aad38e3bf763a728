"""The tree as it is shown to people."""

from __future__ import annotations

from typing import Any

from config.secret import Secret
from runtime.actor import Actor
from runtime.introspect import snapshot
from supervisors import ChildSpec, Supervisor


class Talkative(Actor):
    def __init__(self, password: Secret) -> None:
        super().__init__()
        self.password = password

    def status(self) -> dict[str, Any]:
        url = f"https://me:{self.password.reveal()}@localhost/"
        return {"url": url, "tried": [url], "peers": {"first": url}, "calls": 3}


def test_a_status_that_repeats_a_secret_is_shown_without_it() -> None:
    root = Supervisor.start([ChildSpec("talker", Talkative, args=(Secret("opensesame-42"),))])
    try:
        shown = snapshot(root).to_json()["children"][0]["detail"]
    finally:
        root.stop()
    assert shown == {
        "url": "https://me:***@localhost/",
        "tried": ["https://me:***@localhost/"],
        "peers": {"first": "https://me:***@localhost/"},
        "calls": 3,
    }
