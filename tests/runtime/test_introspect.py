"""The tree as it is shown to people."""

from __future__ import annotations

import gc
import json
import time
from typing import Any

import gevent
import msgspec

from config.secret import Secret
from runtime.actor import Actor
from runtime.introspect import Pace, snapshot
from runtime.ref import Ref
from supervisors import ChildSpec, Supervisor


class Quiet(Actor):
    pass


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


def test_a_large_tree_is_shown_in_slices_so_that_nobody_waits_for_it() -> None:
    specs = [ChildSpec(id=f"part{number}", start=Quiet) for number in range(20_000)]
    root: Ref = Supervisor.start(specs, max_restarts=3, max_seconds=5)
    turns: list[float] = []

    def take_turns() -> None:
        while True:
            before = time.process_time()  # what other programs take of the machine is not ours
            gevent.sleep(1e-6)  # over the loop's timer: who is only ready may get its turn while sockets wait
            turns.append(time.process_time() - before)

    gc.collect()
    gc.disable()  # a collection of this whole process is no part of it
    ticker = gevent.spawn(take_turns)
    try:
        text = snapshot(root, pace=Pace()).encode(Pace())
    finally:
        ticker.kill()
        gc.enable()
        root.stop()

    assert len(turns) > 10
    assert max(turns) < 0.02
    assert len(json.loads(text)["children"]) == 20_000


def test_a_tree_that_changes_while_it_is_shown_is_still_a_tree() -> None:
    specs = [ChildSpec(id=f"part{number}", start=Quiet) for number in range(3_000)]
    root: Ref = Supervisor.start(specs, max_restarts=1_000_000, max_seconds=5)
    killed = 0

    def disturb() -> None:
        nonlocal killed
        for fact in list(root.actor.child_facts(0)[0])[::7]:
            if fact.ref is not None:
                fact.ref.kill()
                killed += 1
            gevent.sleep(0)

    disturber = gevent.spawn(disturb)
    try:
        found = snapshot(root, pace=Pace())
        text = found.encode(Pace())
    finally:
        disturber.kill()
        root.stop()

    assert killed > 0
    assert json.loads(text)["path"] == "root"
    assert len(found.children) == 3_000


def test_a_tree_in_slices_is_the_same_as_at_once() -> None:
    root: Ref = Supervisor.start([ChildSpec(id="a", start=Quiet, name="a-part")], max_restarts=3, max_seconds=5)
    try:
        node = snapshot(root, pace=Pace())
        assert json.loads(node.encode(Pace())) == json.loads(msgspec.json.encode(node.to_json(), enc_hook=str))
    finally:
        root.stop()
