"""The page that a process shares with its daemon, from both sides: on every call they agree whether it had begun."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Iterator

import pytest

from actors.workers.child import Connection
from actors.workers.page import LOWEST_FD, Page


class Sides:
    """Both sides in one process: `send` gives messages, `take` takes the next one."""

    def __init__(self) -> None:
        self.page = Page()
        ours, theirs = socket.socketpair()
        self._ours = ours
        self.process = Connection(theirs.detach(), self.page.fd)
        self.page.close_fd()
        self.sent = 0

    def send(self, number: int = 1) -> None:
        self._ours.sendall(((4).to_bytes(4, "big") + b"call") * number)
        self.sent += number

    def take(self) -> bool:
        """Take the next message; True when it is to be left alone."""
        payload = self.process.receive()
        assert payload is not None
        assert bytes(payload) == b"call"
        return self.process.was_taken_back()

    def close(self) -> None:
        self._ours.close()
        self.process._socket.close()


@pytest.fixture
def sides() -> Iterator[Sides]:
    both = Sides()
    yield both
    both.close()


def test_its_descriptor_is_above_those_that_a_child_has() -> None:
    page = Page()
    assert page.fd >= LOWEST_FD
    assert not os.get_inheritable(page.fd)
    page.close_fd()


def test_the_daemon_sees_the_number_of_the_message_that_was_taken_last(sides: Sides) -> None:
    assert sides.page.begun() == 0
    sides.send(3)
    sides.take()
    sides.take()
    assert sides.page.begun() == 2


def test_what_is_taken_back_before_it_was_taken_is_left_alone_and_what_comes_later_is_not(sides: Sides) -> None:
    sides.send(3)
    assert not sides.take()
    assert sides.page.take_back(3) == 1
    sides.send()
    assert [sides.take() for _ in range(3)] == [True, True, False]


def test_what_was_taken_cannot_be_taken_back(sides: Sides) -> None:
    sides.send(2)
    taken = [sides.take(), sides.take()]
    assert sides.page.take_back(2) == 2
    assert taken == [False, False]


@pytest.mark.parametrize("seed", range(5))
def test_in_any_order_of_both_sides_each_message_is_run_or_taken_back_and_never_both(sides: Sides, seed: int) -> None:
    chance = random.Random(seed)
    run: set[int] = set()
    taken_back: set[int] = set()
    taken = 0
    for _ in range(300):
        step = chance.random()
        if step < 0.5:
            sides.send()
        elif step < 0.9 and taken < sides.sent:
            taken += 1
            if not sides.take():
                run.add(taken)
        else:
            begun = sides.page.take_back(sides.sent)
            taken_back |= set(range(begun + 1, sides.sent + 1)) - taken_back
    while taken < sides.sent:
        taken += 1
        if not sides.take():
            run.add(taken)
    assert not run & taken_back
    assert run | taken_back == set(range(1, sides.sent + 1))


def test_the_time_is_that_of_answered_calls_and_only_of_the_process_itself(sides: Sides) -> None:
    sides.send()
    began = time.perf_counter_ns()
    sides.take()
    assert sides.page.busy_ns() == 0
    sides.process.note_time()
    noted = sides.page.busy_ns()
    assert 0 < noted <= time.perf_counter_ns() - began
    sides.process._owner = os.getppid()  # as a fork of the process finds it
    sides.process.note_time()
    assert sides.page.busy_ns() == noted


def test_a_system_without_memory_files_has_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    assert Page.where_possible() is None
