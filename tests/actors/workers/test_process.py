"""The handle of a process: what reaches its owner, and that nothing of the process outlives it."""

from __future__ import annotations

import errno
import io
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import gevent
import msgspec
import numpy as np
import psutil
import pytest

from actors.workers import child
from actors.workers.process import Command, Exit, WorkerProcess, encode, environment
from tests.actors.workers.conftest import PATIENCE_S, USER_CODE, Conversation
from tests.support.processes import Child, await_end, end_processes


def ended(conversation: Conversation) -> Exit:
    said = conversation.next()
    assert isinstance(said, Exit), said
    return said


def test_a_process_leads_a_session_of_its_own_and_reads_nothing(conversation: Conversation) -> None:
    facts = conversation.result("faulty:facts")
    assert facts["pid"] == facts["session"] == conversation.process.pid
    assert facts["stdin"] == ""
    assert len(facts["argv"]) == 1


def test_only_the_configured_folders_stand_before_the_interpreters_own(conversation: Conversation) -> None:
    path = conversation.result("faulty:facts")["path"]
    assert path[0] == str(USER_CODE)
    assert not [entry for entry in path if entry in ("", str(Path(child.__file__).parent), str(Path.cwd()))]


def test_a_process_inherits_only_path_home_lang_and_what_is_listed(
    converse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGROW_TEST_HIDDEN", "1")
    monkeypatch.setenv("REGROW_TEST_LISTED", "2")
    conversation = converse(inherited=("REGROW_TEST_LISTED", "REGROW_TEST_ABSENT"))
    conversation.next()
    found = conversation.result("faulty:environment")
    assert found["REGROW_TEST_LISTED"] == "2"
    # Python itself sets LC_CTYPE when it coerces the C locale.
    assert set(found) - {"LC_CTYPE"} <= {"PATH", "HOME", "LANG", "REGROW_TEST_LISTED"}


def test_variables_that_are_not_set_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LANG", raising=False)
    assert "LANG" not in environment([])


def test_a_process_has_no_descriptors_but_its_own(conversation: Conversation) -> None:
    # The map of the shared page holds the last one.
    assert conversation.result("faulty:descriptors") == [0, 1, 2, 3, 5]


def test_what_functions_have_written_to_files_that_they_keep_open_is_there_after_an_orderly_end(
    converse: Callable[..., Conversation], tmp_path: Path
) -> None:
    conversation = converse(functions=["keeper:*"])
    assert isinstance(conversation.next(), child.Ready)
    conversation.result("keeper:keep_files", str(tmp_path), 4)
    conversation.process.close()
    assert isinstance(conversation.next(), Exit)
    assert [file.read_text() for file in sorted(tmp_path.iterdir())] == ["kept"] * 4


def test_a_process_runs_in_its_folder_and_as_nice_as_it_is_told(converse: Any, tmp_path: Path) -> None:
    conversation = converse(directory=str(tmp_path), nice=7)
    conversation.next()
    facts = conversation.result("faulty:facts")
    assert (facts["folder"], facts["nice"]) == (str(tmp_path), os.nice(0) + 7)


def test_prints_become_lines_and_never_touch_the_protocol(conversation: Conversation) -> None:
    assert conversation.result("faulty:shout") == "done"
    conversation.process.close()
    ended(conversation)
    assert sorted(conversation.lines) == [
        ("stderr", "on stderr"),
        ("stderr", "raw on 2"),
        ("stdout", "on stdout"),
        ("stdout", "raw on 1"),
    ]


def test_fifty_megabytes_of_stderr_hold_up_neither_the_process_nor_the_hub(conversation: Conversation) -> None:
    turns, over = [0], gevent.event.Event()

    def count_turns() -> None:
        while not over.is_set():
            turns[0] += 1
            gevent.sleep(0)

    counter = gevent.spawn(count_turns)
    assert conversation.result("faulty:flood", 50) == 50
    over.set()
    counter.join()
    # Nearly a thousand chunks; a reader that never lets go would leave others a turn or two.
    assert turns[0] > 300
    assert len(conversation.lines) < 60_000, "of 625 000"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM])
def test_the_end_by_a_signal_names_it(conversation: Conversation, number: signal.Signals) -> None:
    conversation.send("faulty:shoot_self", int(number))
    end = ended(conversation)
    assert end.code == -number
    assert str(end) == f"was ended by {number.name}"
    assert end.details()["signal"] == number.name


def test_the_end_by_exit_tells_the_code_and_the_last_words(conversation: Conversation) -> None:
    conversation.send("faulty:leave_at_once", 7)
    end = ended(conversation)
    assert (str(end), end.stderr) == ("exited with code 7", ("last words",))


def test_a_segmentation_fault_leaves_its_python_stack(conversation: Conversation) -> None:
    conversation.send("faulty:crash")
    end = ended(conversation)
    assert end.code == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in end.stderr
    assert any("in crash" in line for line in end.stderr)


def test_an_idle_process_ends_by_itself_when_its_socket_is_closed(conversation: Conversation) -> None:
    conversation.process.close()
    assert ended(conversation).code == 0


def test_a_loop_in_c_that_never_gives_the_interpreter_back_is_terminated(conversation: Conversation) -> None:
    conversation.send("faulty:spin_in_c")
    conversation.process.terminate()
    assert ended(conversation).code == -signal.SIGTERM


def test_a_grandchild_in_the_session_ends_with_the_process(conversation: Conversation) -> None:
    grandchild = psutil.Process(conversation.result("faulty:leave_a_grandchild"))
    conversation.process.kill()
    ended(conversation)
    assert not await_end([grandchild], PATIENCE_S)


def test_a_grandchild_that_keeps_the_socket_open_does_not_hide_the_end(conversation: Conversation) -> None:
    conversation.send("faulty:fork_a_sleeper_and_die")
    with gevent.Timeout(5):
        assert ended(conversation).code == 3


def test_a_grandchild_that_left_the_session_does_not_hide_the_end_either(conversation: Conversation) -> None:
    conversation.send("faulty:detach_a_sleeper_and_die")
    with gevent.Timeout(5):
        assert ended(conversation).code == 4
    ((_, pid),) = conversation.lines
    end_processes([psutil.Process(int(pid))])


def test_a_forked_twin_does_not_answer_a_second_time(conversation: Conversation) -> None:
    assert conversation.result("faulty:fork_and_return") > 0
    assert conversation.result("faulty:add", 1, 2) == 3
    assert conversation.heard.empty()


@pytest.mark.parametrize("function", ["faulty:write_garbage", "faulty:write_a_small_lie"])
def test_garbage_on_the_socket_ends_the_process(conversation: Conversation, function: str) -> None:
    conversation.send(function)
    end = ended(conversation)
    assert end.code == -signal.SIGKILL
    assert "broke the protocol" in str(end)


def test_a_process_that_closes_its_socket_and_lives_on_is_ended(conversation: Conversation) -> None:
    conversation.send("faulty:close_sockets")
    assert "closed its socket and lived on" in str(ended(conversation))


def test_the_last_answer_comes_before_the_end(conversation: Conversation) -> None:
    conversation.send("faulty:add", 1, 2)
    conversation.process.close()
    said = conversation.next()
    assert isinstance(said, child.Returned)
    assert ended(conversation).code == 0


def test_a_frame_larger_than_the_sockets_buffer_is_sent_without_waiting(conversation: Conversation) -> None:
    frame = encode(child.Call(1, "faulty:types_of", [b"a" * 20_000_000], {}, "list"))
    others: list[str] = []
    gevent.spawn(lambda: others.append("ran"))
    conversation.process.send(frame)
    assert not others
    said = conversation.next()
    assert isinstance(said, child.Returned)
    assert said.value == ["bytes"]


def test_messages_that_are_cut_anywhere_are_put_together_again_in_order(conversation: Conversation) -> None:
    chance = random.Random(5)
    sizes = [chance.choice((1, 40, 3000, 65_528, 70_000)) + chance.randrange(9) for _ in range(1000)]
    blob = b"".join(
        encode(child.Call(number, "faulty:echo", [b"a" * size], {}, "list")) for number, size in enumerate(sizes)
    )
    conversation.process.send(blob)
    for number, size in enumerate(sizes):
        said = conversation.next()
        assert isinstance(said, child.Returned)
        assert (said.id, len(said.value)) == (number, size)


def test_an_array_that_a_function_keeps_is_not_overwritten_by_the_next_message(conversation: Conversation) -> None:
    for value in range(3):
        file = io.BytesIO()
        np.save(file, np.full(100_000, value, dtype="i8"), allow_pickle=False)
        array = msgspec.msgpack.Ext(child.ARRAY_EXT, file.getvalue())
        assert conversation.result("faulty:keep_array", array) == list(range(value + 1))


def test_the_memory_of_a_process_and_of_what_it_started_is_seen_from_outside(conversation: Conversation) -> None:
    before = conversation.process.rss_bytes()
    conversation.result("faulty:leak", 50)
    after = conversation.process.rss_bytes()
    assert before is not None
    assert after is not None
    assert 45 << 20 < after - before < 60 << 20


def test_the_memory_of_an_ended_process_is_unknown(conversation: Conversation) -> None:
    conversation.end()
    assert conversation.process.rss_bytes() is None


def test_a_start_without_a_descriptor_left_fails_and_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    gevent.sleep(0.01)  # what earlier tests have closed
    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(os, "memfd_create", full)
    with pytest.raises(OSError, match="Too many open files"):
        Conversation()
    gevent.sleep(0.01)  # gevent closes descriptors in the next turn of its loop
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_process_without_a_page_works_as_well(monkeypatch: pytest.MonkeyPatch, converse: Any) -> None:
    monkeypatch.delattr(os, "memfd_create")
    conversation = converse()
    assert isinstance(conversation.next(), child.Ready)
    assert conversation.process.page is None
    assert conversation.result("faulty:descriptors") == [0, 1, 2, 3]


def test_a_fork_that_returns_from_the_function_adds_nothing_to_the_time_it_took(conversation: Conversation) -> None:
    took_ns = conversation.result("faulty:fork_and_return_twice")
    assert conversation.process.page is not None
    assert took_ns <= conversation.process.page.busy_ns() < took_ns + 150_000_000


def test_an_interpreter_that_is_not_there_fails_at_once_and_leaves_nothing_open(tmp_path: Path) -> None:
    gevent.sleep(0.01)  # what earlier tests have closed
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileNotFoundError):
        WorkerProcess(
            Command(str(tmp_path / "python"), {}),
            max_message=1,
            on_message=lambda _: None,
            on_exit=lambda _: None,
            on_line=lambda *_: None,
        )
    gevent.sleep(0.01)  # gevent closes descriptors in the next turn of its loop
    assert len(list(Path("/proc/self/fd").iterdir())) == before


OWNER = """
from gevent import monkey
monkey.patch_all()
import sys, gevent
sys.path[:0] = {path!r}
from tests.actors.workers.conftest import Conversation
busy = [Conversation() for _ in range(2)]
idle = Conversation()
loading = Conversation(preload=["faulty"], init="faulty:spin")
for one in (*busy, idle):
    one.next()
busy[0].send("faulty:spin")
busy[1].send("faulty:spin_in_c")
gevent.sleep(0.2)
print("pids", *[one.process.pid for one in (*busy, idle, loading)], flush=True)
gevent.sleep(100)
"""


def test_sigkill_of_the_owner_leaves_no_worker_whatever_it_does() -> None:
    owner = Child([sys.executable, "-c", OWNER.format(path=[str(USER_CODE.parents[3])])])
    try:
        pids = owner.wait_for_line(r"^pids (.*)").group(1).split()
        workers = [psutil.Process(int(pid)) for pid in pids]
        owner.send_signal(signal.SIGKILL)
        owner.wait(PATIENCE_S)
        assert not await_end(workers, PATIENCE_S)
    finally:
        owner.kill()


def test_the_kernel_takes_a_worker_before_the_daemon_when_memory_is_out(conversation: Conversation) -> None:
    own = int(Path("/proc/self/oom_score_adj").read_text())
    its = int(Path(f"/proc/{conversation.process.pid}/oom_score_adj").read_text())
    assert its == child.OOM_SCORE_ADJUST > own
