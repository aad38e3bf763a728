from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import gevent
import psutil
import pytest

from tests.support import leaks
from tests.support.leaks import LeakGuard


def test_nothing_left_behind_is_no_leak() -> None:
    guard = LeakGuard()
    gevent.spawn(gevent.sleep, 0)
    with socket.socket():
        pass
    subprocess.run([sys.executable, "-c", ""], check=True)
    assert guard.leaks() == []


def test_a_waiting_greenlet_is_a_leak_and_is_ended() -> None:
    guard = LeakGuard()
    left = gevent.spawn(gevent.sleep, 3600)
    [line] = guard.leaks()
    assert line.startswith("greenlet: ")
    assert "test_leaks.py" in line
    assert left.dead


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the guard's kill ends the thread
def test_a_patched_thread_is_a_leak() -> None:
    guard = LeakGuard()
    thread = threading.Thread(target=gevent.sleep, args=(3600,))
    thread.start()
    assert [line.split(":")[0] for line in guard.leaks()] == ["greenlet"]
    thread.join(1.0)


def test_an_open_socket_is_a_leak() -> None:
    guard = LeakGuard()
    with socket.socket() as left:
        left.bind(("127.0.0.1", 0))
        left.listen()
        [line] = guard.leaks()
    assert line.startswith("socket: ")
    assert "LISTEN" in line


def test_a_living_child_is_a_leak_and_is_ended() -> None:
    guard = LeakGuard()
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    [line] = guard.leaks()
    assert f"process {left.pid}" in line
    assert left.wait(5) == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="orphans can be adopted on Linux only")
def test_an_orphan_of_a_child_is_a_leak() -> None:
    guard = LeakGuard()
    program = (
        "import subprocess, sys; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'], "
        "stdout=subprocess.DEVNULL); print(child.pid)"
    )
    output = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE).stdout
    [line] = guard.leaks()
    assert f"process {int(output)}" in line
    assert not psutil.pid_exists(int(output)) or psutil.Process(int(output)).status() == psutil.STATUS_ZOMBIE


@pytest.mark.allow_leaks("greenlet")
def test_the_mark_lets_a_kind_pass() -> None:
    guard = LeakGuard()
    gevent.spawn(gevent.sleep, 3600)
    assert guard.leaks(allowed={"greenlet"}) == []


class _Names:
    kind = "name"

    def __init__(self) -> None:
        self.names: set[str] = set()

    def alive(self) -> Mapping[Hashable, Any]:
        return {name: name for name in self.names}

    def settle(self, leaked: Iterable[Any], timeout_s: float) -> None:
        del leaked, timeout_s

    def describe(self, leaked: Any) -> str:
        return str(leaked)

    def end(self, leaked: Iterable[Any]) -> None:
        self.names -= set(leaked)


def test_a_registered_kind_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "_checks", [])
    names = _Names()
    leaks.register(names)
    guard = LeakGuard()
    names.names.add("github/breaker")
    assert guard.leaks() == ["name: github/breaker"]
    assert names.names == set()


def test_a_test_that_leaks_fails_and_the_next_one_does_not(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["tests.support.leaks"]')
    pytester.makepyfile(
        """
        import gevent

        def test_leaves_a_greenlet():
            gevent.spawn(gevent.sleep, 3600)

        def test_leaves_nothing():
            pass
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["the test left behind:", "*greenlet: *sleep*spawned at *"])
