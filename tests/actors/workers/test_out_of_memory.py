"""The kernel's own out-of-memory killer takes a worker, in a real memory cgroup; and what is told of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors.workers import spawn
from actors.workers.memory import LOOK_EVERY_S, OutOfMemoryKills
from regrow.protocol.errors import ActorDown
from regrow.testing import ManualClock
from tests.actors.workers.conftest import RunningPool
from tests.support.memory_cgroup import MemoryCgroup

StartPool = Callable[..., RunningPool]


@pytest.fixture
def small_group() -> Iterator[MemoryCgroup]:
    """A memory cgroup of 128 MB, of version 1 or 2."""
    try:
        group = MemoryCgroup("regrow-test", 128 << 20)
    except OSError as error:
        pytest.skip(f"no memory cgroup, version 1 or 2, can be made below /sys/fs/cgroup, which takes root: {error}")
    yield group
    group.remove()


def test_a_worker_that_the_kernel_kills_for_memory_is_told_as_that_and_the_pool_heals(
    pool: StartPool, small_group: MemoryCgroup
) -> None:
    running = pool(max_memory=None)
    assert running.call("faulty:add", 1, 1) == 2
    process = running.process()
    assert OutOfMemoryKills().has_grown() is False, "the kernel of this machine counts such kills"
    small_group.add(process.pid)
    with pytest.raises(ActorDown) as caught:
        running.call("faulty:hog", 600)
    assert small_group.kills() == 1
    assert caught.value.started == "yes"
    assert caught.value.details["signal"] == "SIGKILL"
    assert caught.value.details["memory_was_out"] is True
    assert "was ended by SIGKILL (the kernel killed for lack of memory just then" in str(caught.value)
    assert running.call("faulty:add", 2, 2) == 4
    assert running.process().pid != process.pid


def test_a_worker_that_somebody_kills_is_not_said_to_have_been_out_of_memory(
    pool: StartPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another test may have let the kernel kill a moment ago.
    monkeypatch.setattr(spawn, "OUT_OF_MEMORY_KILLS", OutOfMemoryKills())
    running = pool()
    running.call("faulty:add", 1, 1)
    with pytest.raises(ActorDown) as caught:
        running.call("faulty:shoot_self", 9)
    assert caught.value.details["memory_was_out"] is False
    assert "lack of memory" not in str(caught.value)


def counting(path: Path, count: int) -> None:
    path.write_text(f"pgfault 7\noom_kill {count}\nnr_other 1\n")


@pytest.fixture
def manual_clock() -> Iterator[ManualClock]:
    with ManualClock() as installed:
        yield installed


def test_a_kill_is_seen_for_one_to_two_intervals_and_then_forgotten(tmp_path: Path, manual_clock: ManualClock) -> None:
    counting(tmp_path / "vmstat", 3)
    kills = OutOfMemoryKills(tmp_path / "vmstat")
    kills.look()
    assert kills.has_grown() is False
    counting(tmp_path / "vmstat", 4)
    assert kills.has_grown() is True
    manual_clock.advance(LOOK_EVERY_S)
    kills.look()
    assert kills.has_grown() is True, "a look between the kill and its being told does not hide it"
    manual_clock.advance(LOOK_EVERY_S)
    kills.look()
    assert kills.has_grown() is False


@pytest.mark.parametrize("content", [None, "pgfault 7\n"])
def test_where_the_kernel_does_not_count_nothing_is_claimed(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "vmstat").write_text(content)
    assert OutOfMemoryKills(tmp_path / "vmstat").has_grown() is None
