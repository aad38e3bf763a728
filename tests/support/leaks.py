"""The leak guard: a test that leaves something running or open fails, and what it left is ended for the next one.

A kind of thing that can leak is a `LeakCheck`. Greenlets, child processes and sockets are here; whoever knows another
kind (actors, timers, names) calls `register` once.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Generator, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import gevent
import psutil
import pytest
from gevent.greenlet import Greenlet

from tests.support.processes import await_end, children_of_this_process, end_processes

GRACE_S = 1.0
"""How long what a test has ended properly may take to be gone."""


class LeakCheck(Protocol):
    """One kind of thing that a test can leave behind."""

    kind: str
    """One word; the argument of `@pytest.mark.allow_leaks`."""

    def alive(self) -> Mapping[Hashable, Any]:
        """Return what exists now, by an identity that is never used twice in a session."""
        ...

    def settle(self, leaked: Iterable[Any], timeout_s: float) -> None:
        """Return when `leaked` has ended by itself, or after `timeout_s`."""
        ...

    def describe(self, leaked: Any) -> str:
        """Return one line that lets its maker be found."""
        ...

    def end(self, leaked: Iterable[Any]) -> None:
        """End it, so that later tests are not disturbed."""
        ...


class Greenlets:
    """gevent greenlets, also those behind patched threads; raw greenlets of runner pools are the pool's affair."""

    kind = "greenlet"

    def __init__(self) -> None:
        self._known: weakref.WeakSet[Greenlet[..., Any]] = weakref.WeakSet()
        Greenlet.add_spawn_callback(self._known.add)

    def alive(self) -> Mapping[Hashable, Any]:
        return {greenlet.minimal_ident: greenlet for greenlet in list(self._known) if not greenlet.dead}

    def settle(self, leaked: Iterable[Any], timeout_s: float) -> None:
        gevent.joinall(list(leaked), timeout=timeout_s)

    def describe(self, leaked: Any) -> str:
        spawned_at = leaked.spawning_stack
        while spawned_at is not None and "/gevent/" in spawned_at.f_code.co_filename:
            spawned_at = spawned_at.f_back
        where = f", spawned at {spawned_at.f_code.co_filename}:{spawned_at.f_lineno}" if spawned_at else ""
        return f"{leaked!r}{where}"

    def end(self, leaked: Iterable[Any]) -> None:
        gevent.killall(list(leaked), timeout=GRACE_S)


class Processes:
    """Child processes, among them the orphans of children (see `processes.adopt_orphans`)."""

    kind = "process"

    def alive(self) -> Mapping[Hashable, Any]:
        return {(pid, process.create_time()): process for pid, process in children_of_this_process().items()}

    def settle(self, leaked: Iterable[Any], timeout_s: float) -> None:
        await_end(list(leaked), timeout_s)

    def describe(self, leaked: Any) -> str:
        try:
            return f"process {leaked.pid}: {' '.join(leaked.cmdline()) or leaked.name()}"
        except psutil.Error:
            return f"process {leaked.pid}"

    def end(self, leaked: Iterable[Any]) -> None:
        end_processes(list(leaked))


class Sockets:
    """Open sockets of this process, by file descriptor and inode."""

    kind = "socket"
    _folder = Path("/proc/self/fd")

    def alive(self) -> Mapping[Hashable, Any]:
        found: dict[Hashable, Any] = {}
        try:
            names = list(self._folder.iterdir())
        except OSError:
            return found
        for name in names:
            try:
                target = str(name.readlink())
            except OSError:
                continue
            if target.startswith("socket:"):
                found[target] = (int(name.name), target)
        return found

    def settle(self, leaked: Iterable[Any], timeout_s: float) -> None:
        # What nothing refers to any more is closed by the collector; what is closed on a switch needs one.
        gevent.sleep(0)
        gc.collect()
        gevent.idle()

    def describe(self, leaked: Any) -> str:
        descriptor, target = leaked
        for connection in psutil.Process().net_connections("all"):
            if connection.fd == descriptor:
                return f"{target} {connection.status} {connection.laddr} -> {connection.raddr}"
        return f"{target} (descriptor {descriptor})"

    def end(self, leaked: Iterable[Any]) -> None:
        # Closing a descriptor under a living socket object would hit whoever is given its number next.
        del leaked


_checks: list[LeakCheck] = []


def register(check: LeakCheck) -> None:
    """Guard one more kind from the next test on; a second check of the same kind replaces the first."""
    _checks[:] = [*(known for known in _checks if known.kind != check.kind), check]


for _check in (Greenlets(), Processes(), Sockets()):
    register(_check)


class LeakGuard:
    """Compares what is alive after a test with what was before it."""

    def __init__(self) -> None:
        self._before = {check.kind: set(check.alive()) for check in _checks}

    def _leaked(self, check: LeakCheck) -> dict[Hashable, Any]:
        before = self._before.get(check.kind, set())
        return {identity: thing for identity, thing in check.alive().items() if identity not in before}

    def leaks(self, allowed: Iterable[str] = ()) -> list[str]:
        """Return a line for each thing left behind, after a grace; end what was left behind."""
        lines: list[str] = []
        # Last registered, first looked at: a living actor explains its greenlet and its socket.
        for check in reversed(_checks):
            leaked = self._leaked(check)
            if leaked:
                check.settle(leaked.values(), GRACE_S)
                leaked = self._leaked(check)
            if leaked:
                if check.kind not in allowed:
                    lines += [f"{check.kind}: {check.describe(thing)}" for thing in leaked.values()]
                check.end(leaked.values())
        return lines


_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember which tests failed before their teardown."""
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


@pytest.fixture(autouse=True)
def leak_guard(request: pytest.FixtureRequest) -> Iterator[LeakGuard]:
    """Fail the test that leaves something behind. A test that failed already is only cleaned up after."""
    guard = LeakGuard()
    yield guard
    item = request.node
    lines = guard.leaks({kind for mark in item.iter_markers("allow_leaks") for kind in mark.args})
    if lines and not item.stash.get(_failed, False):
        pytest.fail("the test left behind:\n" + "\n".join(f"  {line}" for line in lines), pytrace=False)
