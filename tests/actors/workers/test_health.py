"""Setup, teardown and health check of a pool's processes: real processes, under a real supervisor and a real daemon."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest

import regrow
from actors.workers.job import HEALTHY, KILLS, RECYCLES, WORKERS
from config.schema import Duration, PositiveDuration
from config.secret import Secret
from regrow.protocol.errors import DeadlineExceeded, Unavailable
from tests.actors.workers.conftest import PATIENCE_S, USER_CODE, EventLog, RunningPool
from tests.support.fixtures import StartDaemon

StartPool = Callable[..., RunningPool]
SOON = PositiveDuration("100ms")
NEVER = PositiveDuration("1h")


class Resource:
    """What the functions in `user_code/licensed.py` see and have noted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def be_sick(self, how: str) -> None:
        (self.folder / "sick.new").write_text(how)
        (self.folder / "sick.new").rename(self.folder / "sick")

    def be_well(self) -> None:
        (self.folder / "sick").unlink()

    def hold(self) -> None:
        (self.folder / "hold").touch()

    def let_go(self) -> None:
        (self.folder / "hold").unlink()

    def noted(self, what: str) -> list[int]:
        """The processes that have noted this, in order."""
        notes = self.folder / "notes"
        lines = notes.read_text().splitlines() if notes.exists() else []
        return [int(line.split()[1]) for line in lines if line.split()[0] == what]

    def wait_for(self, what: str, count: int) -> list[int]:
        with gevent.Timeout(PATIENCE_S):
            while len(self.noted(what)) < count:  # another process writes it
                gevent.sleep(0.01)
        return self.noted(what)


@pytest.fixture
def resource(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resource:
    folder = tmp_path / "resource"
    folder.mkdir()
    monkeypatch.setenv("RESOURCE", str(folder))
    return Resource(folder)


@pytest.fixture
def start(pool: StartPool, resource: Resource) -> StartPool:
    """Starts a pool of one worker whose functions use the resource."""

    def start_pool(**config: Any) -> RunningPool:
        fields: dict[str, Any] = {"functions": ["licensed:*"], "env": ["RESOURCE"], "init": "licensed:set_up"}
        return pool(**(fields | {"kill_grace": Duration("5s")} | config))

    return start_pool


# -- teardown ---------------------------------------------------------------------------------------------------------


def test_the_teardown_runs_once_in_each_process_when_the_pool_stops(
    start: StartPool, resource: Resource, happened: EventLog
) -> None:
    running = start(workers=2, teardown="licensed:tear_down")
    for _ in range(2):
        running.call("licensed:pid")
    resource.wait_for("setup", 2)
    running.stop()
    assert sorted(resource.noted("teardown")) == sorted(resource.noted("setup"))
    assert len(set(resource.noted("teardown"))) == 2
    assert len(happened.of("worker.output", line="torn down")) == 2
    assert not happened.of("worker.teardown_failed")


def test_the_teardown_may_be_a_coroutine(start: StartPool, resource: Resource) -> None:
    running = start(teardown="licensed:tear_down_on_a_loop")
    pid = running.call("licensed:pid")
    running.stop()
    assert resource.noted("teardown") == [pid]


def test_a_recycled_process_tears_down(start: StartPool, resource: Resource, happened: EventLog) -> None:
    running = start(max_calls=1, teardown="licensed:tear_down")
    first, second = running.call("licensed:pid"), running.call("licensed:pid")
    happened.wait("worker.started", count=3)
    assert resource.noted("teardown") == [first, second]


def test_a_process_that_is_not_needed_any_more_tears_down(
    start: StartPool, resource: Resource, happened: EventLog
) -> None:
    running = start(max_workers=2, scale_up_after=SOON, scale_down_after=SOON, teardown="licensed:tear_down")
    promises = [running.request("licensed:wait", 0.5) for _ in range(2)]
    pids = {promise.wait(PATIENCE_S) for promise in promises}
    happened.wait("worker.recycled", reason="not_needed")
    (gone,) = resource.wait_for("teardown", 1)
    assert gone in pids
    assert running.process().pid != gone


def test_a_process_that_is_killed_does_not_tear_down(start: StartPool, resource: Resource, happened: EventLog) -> None:
    running = start(teardown="licensed:tear_down", kill_grace=Duration("200ms"))
    running.call("licensed:pid")
    with pytest.raises(DeadlineExceeded):
        running.call("licensed:wait", 60, timeout=0.2)
    happened.wait("worker.started", count=2)
    assert resource.noted("teardown") == []
    assert not happened.of("worker.teardown_failed")


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("tear_down_and_raise", "it raised ValueError: the licence was not given back: ***"),
        ("tear_down_for_ever", "it was not over within 0.3 s, and was killed"),
        ("tear_down_and_die", "its process exited with code 3"),
    ],
)
def test_a_teardown_that_fails_is_told_and_the_process_is_replaced(
    start: StartPool, happened: EventLog, function: str, error: str
) -> None:
    Secret("hunter2-hunter2")
    running = start(max_calls=1, teardown=f"licensed:{function}", kill_grace=Duration("300ms"))
    worker, first = running.worker(), running.call("licensed:pid")
    assert running.call("licensed:pid") != first
    told = happened.of("worker.teardown_failed")[0]
    assert told == {"actor": "ml/worker-1", "error": f"teardown licensed:{function}: {error}"}
    assert running.worker() is worker


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("tear_down_and_raise", "it raised ValueError"),
        ("tear_down_for_ever", "it was not over within 0.3 s, and was killed"),
        ("tear_down_and_die", "its process ended before it was over"),
    ],
)
def test_a_teardown_that_fails_is_told_and_the_pool_stops(
    start: StartPool, happened: EventLog, function: str, error: str
) -> None:
    running = start(teardown=f"licensed:{function}", kill_grace=Duration("300ms"))
    running.call("licensed:pid")
    running.stop()
    (told,) = happened.of("worker.teardown_failed")
    assert told["error"].startswith(f"teardown licensed:{function}: {error}")


@pytest.mark.parametrize("key", ["teardown", "health_check"])
def test_a_name_that_does_not_exist_is_told_at_the_start(start: StartPool, key: str) -> None:
    running = start(**{key: "licensed:nothing"})
    words = key.replace("_", " ")
    with pytest.raises(Unavailable, match=f"finding {words} licensed:nothing raised AttributeError"):
        running.call("licensed:pid")


# -- health -----------------------------------------------------------------------------------------------------------


def test_a_fresh_process_is_checked_once_before_its_first_call(start: StartPool, resource: Resource) -> None:
    running = start(health_check="licensed:marked", check_interval=NEVER)
    resource.hold()
    promise = running.request("licensed:pid")
    resource.wait_for("check", 1)
    assert not promise.done
    assert WORKERS.value("ml", "starting") == 1
    resource.let_go()
    pid = promise.wait(PATIENCE_S)
    assert resource.noted("setup") == resource.noted("check") == [pid]


def test_an_idle_process_is_checked_every_interval_and_lives(start: StartPool, resource: Resource) -> None:
    running = start(health_check="licensed:healthy", check_interval=SOON)
    pid = running.call("licensed:pid")
    assert set(resource.wait_for("check", 4)) == {pid}
    assert running.call("licensed:pid") == pid
    assert running.status()["health"] == "healthy"


def test_a_process_is_not_checked_while_a_call_runs(start: StartPool, resource: Resource) -> None:
    running = start(health_check="licensed:healthy", check_interval=SOON)
    running.call("licensed:pid")
    promise = running.request("licensed:wait", 0.5)
    gevent.sleep(0)
    before = len(resource.noted("check"))
    promise.wait(PATIENCE_S)
    assert len(resource.noted("check")) <= before + 1, "one may have been at work when the call came"
    resource.wait_for("check", before + 2)


def test_a_call_that_comes_during_a_check_waits_for_its_end_only(start: StartPool, resource: Resource) -> None:
    running = start(health_check="licensed:marked", check_interval=SOON)
    pid = running.call("licensed:pid")
    resource.hold()
    resource.wait_for("check", len(resource.noted("check")) + 1)
    promise = running.request("licensed:pid")
    gevent.sleep(0.05)
    assert not promise.done
    assert running.status()["queued"] == 1
    resource.let_go()
    assert promise.wait(PATIENCE_S) == pid


def test_a_call_that_comes_during_a_check_goes_to_another_worker(start: StartPool, resource: Resource) -> None:
    running = start(workers=2, health_check="licensed:marked", check_interval=NEVER)
    resource.wait_for("check", 2)
    checked = set(resource.noted("check"))
    busy, free = (running.process(index).pid for index in (1, 2))
    assert {busy, free} == checked
    for _ in range(2):
        running.call("licensed:pid")
    with gevent.Timeout(PATIENCE_S):
        while running.status()["idle"] < 2:
            gevent.sleep(0.01)
    resource.hold()
    running.worker(1).actor._check_health()
    resource.wait_for("check", 3)
    assert [running.call("licensed:pid") for _ in range(5)] == [free] * 5
    resource.let_go()


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("raise", "it raised RuntimeError: the device is gone"),
        ("spin", "it took longer than 0.3 s"),
        ("once", "it returned false"),
        ("no answer of hunter2-hunter2", "no answer of ***"),
    ],
)
def test_an_unhealthy_process_is_replaced_and_costs_no_restart(
    start: StartPool, resource: Resource, happened: EventLog, how: str, error: str
) -> None:
    Secret("hunter2-hunter2")
    running = start(
        health_check="licensed:marked",
        check_interval=SOON,
        check_timeout=PositiveDuration("300ms"),
        teardown="licensed:tear_down",
        max_restarts=0,
        quarantine_deaths=1,
    )
    worker, first = running.worker(), running.call("licensed:pid")
    recycled = RECYCLES.value("ml", "unhealthy")
    resource.be_sick(how)
    told = happened.wait("worker.unhealthy")[0]
    assert told == {"actor": "ml/worker-1", "error": f"health check licensed:marked: {error}"}
    if how != "once":
        resource.be_well()
    assert running.call("licensed:pid") != first
    assert running.worker() is worker
    assert RECYCLES.value("ml", "unhealthy") > recycled
    assert happened.of("worker.recycled", reason="unhealthy")
    assert (first in resource.noted("teardown")) == (how != "spin"), "one that hangs is killed"
    assert running.status()["health"] == "healthy"


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("sick_in_a_coroutine", "the loop says no"),
        ("a_number", "it returned a int, expected None, true, false or a text"),
        ("numpy_says_no", "it returned false"),
    ],
)
def test_what_a_check_returns_is_never_mistaken_for_health(
    start: StartPool, happened: EventLog, function: str, error: str
) -> None:
    start(health_check=f"licensed:{function}")
    assert happened.wait("worker.unhealthy")[0]["error"] == f"health check licensed:{function}: {error}"


def test_a_pool_is_unhealthy_while_fresh_processes_are_and_refuses_calls(
    start: StartPool, resource: Resource, happened: EventLog
) -> None:
    resource.be_sick("the licence server is away")
    running = start(workers=2, max_restarts=0, quarantine_deaths=1, health_check="licensed:marked", check_interval=SOON)
    started = {worker: running.worker(worker) for worker in (1, 2)}
    with pytest.raises(Unavailable, match="no worker of ml can start.*the licence server is away") as caught:
        running.call("licensed:pid")
    assert (caught.value.started, caught.value.retry_after_s) == ("no", 1.0)
    status = running.status()
    assert (status["health"], status["state"]) == ("unhealthy", "waiting")
    assert status["problems"]["ml/worker-1"] == "health check licensed:marked: the licence server is away"
    assert HEALTHY.value("ml") == 0
    happened.wait("worker.unhealthy", count=4)
    assert {worker: running.worker(worker) for worker in (1, 2)} == started, "no restart was spent"

    resource.be_well()

    with gevent.Timeout(PATIENCE_S):
        while running.status()["health"] == "unhealthy":
            gevent.sleep(0.02)
    assert isinstance(running.call("licensed:pid"), int)
    assert HEALTHY.value("ml") == 1
    assert "state" not in running.status()
    with gevent.Timeout(PATIENCE_S):
        while running.status()["problems"]:  # until the other one is ready as well
            gevent.sleep(0.02)


def test_fresh_processes_that_are_unhealthy_are_followed_by_growing_pauses(
    start: StartPool, resource: Resource, happened: EventLog
) -> None:
    resource.be_sick("no")
    start(health_check="licensed:marked")
    began = time.monotonic()
    happened.wait("worker.unhealthy", count=3)
    assert time.monotonic() - began >= 0.75 * (0.5 + 1.0)


def test_a_pool_whose_process_is_paused_between_starts_stops_at_once(
    start: StartPool, resource: Resource, happened: EventLog
) -> None:
    resource.be_sick("no")
    running = start(health_check="licensed:marked")
    happened.wait("worker.recycled", reason="unhealthy")
    began = time.monotonic()
    running.stop()
    assert time.monotonic() - began < 3.0


def test_a_pool_without_a_check_is_unhealthy_while_no_worker_can_start(pool: StartPool, tmp_path: Path) -> None:
    module = tmp_path / "mended_later.py"
    module.write_text("raise RuntimeError('not yet')\n")
    running = pool(path=[tmp_path], functions=["mended_later:*"], preload=["mended_later"])
    with pytest.raises(Unavailable):
        running.call("mended_later:f")
    assert (running.status()["health"], HEALTHY.value("ml")) == ("unhealthy", 0)
    module.write_text("def f():\n    return 'mended'\n")
    with gevent.Timeout(PATIENCE_S):
        while running.status()["health"] == "unhealthy":
            gevent.sleep(0.02)
    assert HEALTHY.value("ml") == 1
    assert running.call("mended_later:f") == "mended"


def test_a_pool_without_a_check_is_healthy_whatever_its_calls_do(pool: StartPool, happened: EventLog) -> None:
    running = pool()
    running.call("faulty:pid")
    running.process().send_signal(signal.SIGKILL)
    happened.wait("worker.started", count=2)
    with pytest.raises(DeadlineExceeded):
        running.call("faulty:spin", timeout=0.2)
    assert running.call("faulty:add", 1, 1) == 2
    assert running.status()["health"] == "healthy"
    assert not happened.of("worker.unhealthy")


def test_a_process_that_is_at_its_check_when_the_pool_stops_ends_within_the_grace(
    start: StartPool, resource: Resource
) -> None:
    running = start(health_check="licensed:marked", check_interval=SOON, kill_grace=Duration("200ms"))
    running.call("licensed:pid")
    resource.hold()
    resource.wait_for("check", len(resource.noted("check")) + 1)
    began = time.monotonic()
    running.stop()
    assert time.monotonic() - began < 3.0


def test_checks_and_calls_in_turns_harm_no_call(start: StartPool, resource: Resource) -> None:
    killed = KILLS.value("ml", "deadline")
    running = start(workers=2, health_check="licensed:healthy", check_interval=PositiveDuration("1ms"))
    pids = set()
    for _ in range(200):
        promises = [running.request("licensed:pid") for _ in range(5)]
        pids |= {promise.wait(PATIENCE_S) for promise in promises}
        gevent.sleep(0.002)
    assert len(pids) <= 2
    assert pids <= set(resource.noted("setup"))
    assert len(resource.noted("check")) > 50
    assert KILLS.value("ml", "deadline") == killed


# -- in a daemon ------------------------------------------------------------------------------------------------------

TOML = f"""
[integrations.ml]
type = "python"
path = ["{USER_CODE}"]
functions = ["licensed:*"]
env = ["RESOURCE"]
workers = 1
kill_grace = "5s"
init = "licensed:set_up"
teardown = "licensed:tear_down"
health_check = "licensed:marked"
check_interval = "100ms"
"""


def test_operators_see_an_unhealthy_pool_and_a_stopped_daemon_has_torn_down(
    daemon: StartDaemon, resource: Resource
) -> None:
    running = daemon(TOML, env={"RESOURCE": str(resource.folder)})
    with regrow.connect(running.endpoint, timeout=PATIENCE_S) as client:
        client.ask("ml", "call", function="licensed:pid")
        assert json.loads(running.get("/readyz").text)["failing"] == []
        assert 'regrow_pool_healthy{actor="ml"} 1.0' in running.get("/metrics").text

        resource.be_sick("the device is gone")
        running.wait_for_log('"level":"warning".*"event":"worker.unhealthy".*the device is gone')
        running.wait_for_log("ml/worker-1.*the device is gone")
        ready = running.get("/readyz")
        assert ready.status_code == 200, "an integration that is down is no reason to take the daemon out of service"
        assert [ailing["actor"] for ailing in json.loads(ready.text)["failing"]] == ["ml"]
        assert 'regrow_pool_healthy{actor="ml"} 0.0' in running.get("/metrics").text
        front = json.loads(running.get("/actors/ml").text)
        assert (front["state"], front["detail"]["health"]) == ("waiting", "unhealthy")

        resource.be_well()
        with gevent.Timeout(PATIENCE_S):
            while json.loads(running.get("/readyz").text)["failing"]:
                gevent.sleep(0.05)
        last = client.ask("ml", "call", function="licensed:pid")
        assert 'regrow_pool_recycles_total{actor="ml",reason="unhealthy"}' in running.get("/metrics").text
    running.stop()
    assert resource.noted("teardown")[-1] == last
    assert os.getpid() not in resource.noted("setup")
