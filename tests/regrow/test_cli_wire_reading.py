"""`regrow stream` and `regrow events`, each as a process of its own against a daemon that runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.daemon import PROGRAM, Daemon

CONFIG = """
[daemon]
path = ["."]
[actors.counter]
class = "counting:Counter"
"""
FILES = {
    "counting.py": '''
from collections.abc import Iterator

from regrow import Actor, exported


class Counter(Actor):
    @exported
    def count(self, to: int) -> Iterator[int]:
        """Counts up."""
        yield from range(to)

    @exported
    def crash(self) -> None:
        raise RuntimeError("on purpose")
''',
}


@pytest.fixture(scope="module")
def served() -> Iterator[Daemon]:
    made = Daemon(CONFIG, files=FILES)
    try:
        made.start()
        yield made
    finally:
        made.close()


def test_stream_prints_each_part(served: Daemon) -> None:
    done = served.run("stream", "counter.count", "to=3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n1\n2\n", "")


def test_stream_says_what_is_wrong(served: Daemon) -> None:
    done = served.run("stream", "counter.crash")
    assert done.returncode == 1
    assert "bad_request" in done.stderr


def test_events_are_printed_as_they_happen_and_since_gives_those_that_are_kept(served: Daemon) -> None:
    command = [str(PROGRAM), "events", "daemon.started", "actor.crashed", "--since", "0", "--count", "2", "--json"]
    with subprocess.Popen(
        [*command, "--endpoint", served.endpoint], stdout=subprocess.PIPE, text=True, cwd=served.folder
    ) as running:
        assert running.stdout is not None
        first = json.loads(running.stdout.readline())
        assert (first["kind"], first["topic"], first["fields"]["pid"]) == ("event", "daemon.started", served.pid)
        assert served.run("ask", "counter.crash").returncode == 1
        second = json.loads(running.stdout.readline())
        assert (second["topic"], second["fields"]["actor"]) == ("actor.crashed", "counter")
        assert second["seq"] > first["seq"]
        assert running.wait(10) == 0


def test_events_for_people_are_one_line_each(served: Daemon) -> None:
    done = served.run("events", "daemon.started", "--since", "0", "--count", "1")
    assert done.returncode == 0
    (line,) = done.stdout.splitlines()
    assert " daemon.started  name=regrow " in line


@pytest.mark.parametrize("arguments", [("--since", "-1"), ("--count", "0"), ("--count", "x"), ("Not A Topic",)])
def test_what_cannot_be_asked_for_is_said(served: Daemon, arguments: tuple[str, ...]) -> None:
    done = served.run("events", *arguments)
    assert done.returncode in {1, 2}
    assert done.stderr
