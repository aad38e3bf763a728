"""One daemon at a time for one state folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from regrow.daemon import Lock, StartFailed


def test_the_holder_is_named(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    lock.take()
    with pytest.raises(StartFailed, match=f"pid {os.getpid()}") as caught:
        Lock(tmp_path).take()
    assert caught.value.status == 71
    lock.release()


def test_a_released_lock_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        lock = Lock(tmp_path)
        lock.take()
        lock.release()


def test_what_a_killed_daemon_left_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "daemon.lock").write_text("4194304\n")
    lock = Lock(tmp_path)
    lock.take()
    assert (tmp_path / "daemon.lock").read_text() == f"{os.getpid()}\n"
    lock.release()


def test_releasing_twice_does_no_harm(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    lock.take()
    lock.release()
    lock.release()
