"""Starting a process: what it gets, how its end is heard, and that the hub is not held up."""

from __future__ import annotations

import os
import sys
import time

import pytest
from gevent.event import Event

from actors.workers.spawn import Spawned

PATIENCE_S = 20.0


def run(code: str, descriptors: dict[int, int] | None = None) -> Spawned:
    over = Event()
    spawned = Spawned([sys.executable, "-S", "-c", code], {"A": "b"}, descriptors or {}, over.set)
    assert spawned.code is None
    assert over.wait(PATIENCE_S)
    return spawned


@pytest.mark.parametrize(("code", "expected"), [("", 0), ("import os; os._exit(7)", 7), ("import os; os.abort()", -6)])
def test_the_end_is_heard_with_its_code(code: str, expected: int) -> None:
    assert run(code).code == expected


def test_it_has_the_environment_session_and_descriptors_it_was_given() -> None:
    read_end, write_end = os.pipe()
    code = (
        "import os; os.write(3, repr([dict(os.environ).get('A'), os.getsid(0) == os.getpid(), os.read(0, 1)]).encode())"
    )
    assert run(code, {3: write_end}).code == 0
    os.close(write_end)
    assert os.read(read_end, 1000) == b"['b', True, b'']"
    os.close(read_end)


def test_a_process_that_ends_at_once_is_heard_of() -> None:
    for _ in range(20):
        over = Event()
        spawned = Spawned(["/bin/true"], {}, {}, over.set)
        assert over.wait(PATIENCE_S)
        assert spawned.code == 0


def test_a_program_that_is_not_there_is_an_error_at_once() -> None:
    with pytest.raises(FileNotFoundError):
        Spawned(["/no/such/program"], {}, {}, lambda: None)


def test_signals_after_the_end_reach_nobody() -> None:
    spawned = run("")
    spawned.signal(9)
    assert spawned.code == 0


def test_the_hub_is_held_up_for_a_few_milliseconds_at_most() -> None:
    took = []
    for _ in range(10):
        over = Event()
        began = time.perf_counter()
        Spawned([sys.executable, "-S", "-c", ""], {}, {}, over.set)
        took.append(time.perf_counter() - began)
        assert over.wait(PATIENCE_S)
    # A fork of this process takes several times this even on an idle machine.
    assert min(took) < 0.005
