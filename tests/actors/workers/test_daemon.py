"""The pool in a real daemon: what a client, an operator and the kernel see of it."""

from __future__ import annotations

import io
import signal
import time
from collections.abc import Iterator

import gevent
import msgspec
import numpy as np
import psutil
import pytest

import regrow
from actors.workers.child import ARRAY_EXT
from regrow.client import Client
from regrow.protocol.errors import ActorDown, Forbidden, TooLarge
from tests.actors.workers.conftest import PATIENCE_S, USER_CODE
from tests.support.daemon import Daemon
from tests.support.fixtures import StartDaemon
from tests.support.processes import await_end, end_processes

TOML = f"""
[daemon]
drain_timeout = "500ms"

[integrations.ml]
type = "python"
path = ["{USER_CODE}"]
functions = ["faulty:*", "statistics:mean"]
kill_grace = "200ms"
"""


@pytest.fixture
def running(daemon: StartDaemon) -> Daemon:
    return daemon(TOML)


@pytest.fixture
def client(running: Daemon) -> Iterator[Client]:
    with regrow.connect(running.endpoint, timeout=PATIENCE_S) as connected:
        yield connected


def busy_worker(running: Daemon, client: Client) -> tuple[psutil.Process, gevent.Greenlet[..., object]]:
    """Begin a call that never ends; return its process and the greenlet that waits for the answer."""

    def ask() -> object:
        try:
            return client.ask("ml", "call", function="faulty:shout_and_spin")
        except Exception as error:  # noqa: BLE001 - handed to the test, whatever it is
            return error

    asking = gevent.spawn(ask)
    pid = int(running.wait_for_log(r"spinning in (\d+)").group(1))
    return psutil.Process(pid), asking


def metric(running: Daemon, line: str) -> float:
    text = running.get("/metrics").text
    return float(next(found for found in text.splitlines() if found.startswith(line)).split()[-1])


def test_kill_9_of_a_worker_during_a_call_is_told_at_once_and_seen_by_operators(
    running: Daemon, client: Client
) -> None:
    process, asking = busy_worker(running, client)
    process.kill()
    answer = asking.get(timeout=2.0)
    assert isinstance(answer, ActorDown)
    assert (answer.started, answer.details["signal"]) == ("yes", "SIGKILL")
    assert client.ask("ml", "call", function="statistics:mean", args=[[1, 2, 3]]) == 2
    running.wait_for_log('"event":"actor.restarted","actor":"ml/worker-')
    restarts = [metric(running, f'regrow_actor_restarts_total{{actor="ml/worker-{index}"') for index in (1, 2)]
    assert sorted(restarts) == [0, 1]
    assert "1 restart" in running.run("tree").stdout


def test_sigkill_of_the_daemon_leaves_no_worker_behind(running: Daemon, client: Client) -> None:
    _, asking = busy_worker(running, client)
    client.ask("ml", "call", function="statistics:mean", args=[[1, 2, 3]])  # the other one has started as well
    workers = running.children()
    assert [worker.num_fds() for worker in workers] == [5, 5], "nothing of the daemon's is open in a worker"
    running.kill()
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    assert isinstance(asking.get(timeout=PATIENCE_S), regrow.RegrowError)


@pytest.fixture
def leftovers() -> Iterator[list[psutil.Process]]:
    """Processes that nobody but the test ends."""
    found: list[psutil.Process] = []
    yield found
    end_processes([process for process in found if process.is_running()])


def detached(client: Client, function: str, leftovers: list[psutil.Process]) -> psutil.Process:
    process = psutil.Process(client.ask("ml", "call", function=f"detached:{function}"))
    leftovers.append(process)
    return process


def end(running: Daemon, number: int) -> None:
    """End the daemon without the check that nothing is left below it."""
    running.process.send_signal(number)
    running.process.wait(PATIENCE_S)


def lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.allow_leaks("process")  # what a function detaches is meant to outlive its daemon; the fixture ends it
def test_an_orderly_stop_ends_what_workers_started_but_not_what_they_detached(
    daemon: StartDaemon, leftovers: list[psutil.Process]
) -> None:
    running = daemon(TOML.replace('"faulty:*"', '"detached:*"'))
    with regrow.connect(running.endpoint, timeout=PATIENCE_S) as client:
        child = detached(client, "in_the_session_of_the_worker", leftovers)
        own = detached(client, "in_its_own_session", leftovers)
    end(running, signal.SIGTERM)
    assert not await_end([child], PATIENCE_S)
    assert lives(own)


@pytest.mark.allow_leaks("process")  # nobody is left to end them; the fixture does
def test_sigkill_of_the_daemon_ends_its_workers_and_not_what_these_had_started(
    daemon: StartDaemon, leftovers: list[psutil.Process]
) -> None:
    running = daemon(TOML.replace('"faulty:*"', '"detached:*"'))
    with regrow.connect(running.endpoint, timeout=PATIENCE_S) as client:
        child = detached(client, "in_the_session_of_the_worker", leftovers)
        own = detached(client, "in_its_own_session", leftovers)
    workers = [process for process in running.children() if process.pid not in (child.pid, own.pid)]
    end(running, signal.SIGKILL)
    assert not await_end(workers, PATIENCE_S)
    assert [lives(child), lives(own)] == [True, True], "as docs/workers.md says"


def test_an_orderly_stop_ends_busy_workers_too(running: Daemon, client: Client) -> None:
    _, asking = busy_worker(running, client)
    began = time.monotonic()
    running.stop()
    assert time.monotonic() - began < 5.0
    assert isinstance(asking.get(timeout=PATIENCE_S), regrow.RegrowError)


def test_a_second_signal_ends_daemon_and_workers_at_once(daemon: StartDaemon) -> None:
    running = daemon(TOML.replace("500ms", "20s"))
    with regrow.connect(running.endpoint, timeout=PATIENCE_S) as client:
        _, asking = busy_worker(running, client)
        running.send_signal(signal.SIGTERM)
        running.wait_for_log("drain")
        running.send_signal(signal.SIGTERM)
        running.wait(5.0)
        assert isinstance(asking.get(timeout=PATIENCE_S), regrow.RegrowError)


def test_a_call_past_its_deadline_frees_its_worker(running: Daemon, client: Client) -> None:
    with pytest.raises(regrow.DeadlineExceeded):
        client.ask("ml", "call", function="faulty:spin", timeout=0.5)
    running.wait_for_log('"event":"worker.killed".*"reason":"deadline"')
    assert client.ask("ml", "call", function="faulty:add", args=[1, 1]) == 2
    assert metric(running, 'regrow_pool_kills_total{actor="ml",reason="deadline"}') == 1


def test_workers_do_not_hold_up_the_daemons_readiness(daemon: StartDaemon) -> None:
    files = {"code/never.py": "import time\ntime.sleep(100)\n"}
    running = daemon(TOML.replace(f'path = ["{USER_CODE}"]', 'path = ["code"]\npreload = ["never"]'), files=files)
    assert running.get("/readyz").status_code == 200
    assert metric(running, 'regrow_pool_workers{actor="ml",state="starting"}') == 2


def test_what_is_not_allowed_is_forbidden_over_the_wire(client: Client) -> None:
    with pytest.raises(Forbidden, match=r"allowed: faulty:\*, statistics:mean"):
        client.ask("ml", "call", function="os:system", args=["true"])


def test_a_fifty_megabyte_result_is_refused_and_the_worker_serves_on(client: Client) -> None:
    with pytest.raises(TooLarge):
        client.ask("ml", "call", function="faulty:big", args=[50_000_000])
    assert client.ask("ml", "call", function="faulty:add", args=[1, 1]) == 2


def test_large_results_do_not_pile_up_in_the_daemon(daemon: StartDaemon) -> None:
    running = daemon(
        '[gateway]\nmax_message = "64MiB"\nmax_outbox_per_client = "128MiB"\n' + TOML + 'max_message = "64MiB"\n'
    )
    own = psutil.Process(running.pid)
    with regrow.connect(running.endpoint, timeout=PATIENCE_S) as client:
        client.ask("ml", "call", function="faulty:add", args=[1, 1])
        before = own.memory_info().rss
        for _ in range(5):
            assert (
                len(client.ask("ml", "call", function="faulty:big", args=[40_000_000], codec="msgpack")) == 40_000_000
            )
        client.ping()
        assert own.memory_info().rss - before < 60_000_000


def test_arrays_pass_over_msgpack_without_loss(client: Client) -> None:
    array = np.linspace(0, 1, 1000, dtype="<f4").reshape(10, 100)
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    sent = msgspec.msgpack.Ext(ARRAY_EXT, file.getvalue())
    back = client.ask("ml", "call", function="faulty:double_array", args=[sent], arrays="ext", codec="msgpack")
    assert back.code == ARRAY_EXT
    np.testing.assert_array_equal(np.load(io.BytesIO(back.data), allow_pickle=False), array * 2)


def test_the_description_names_the_allowed_functions(client: Client) -> None:
    described = client.describe("ml")
    assert "Allowed: faulty:*, statistics:mean" in str(described)


def test_a_stream_and_its_progress_pass_over_the_wire(client: Client) -> None:
    with client.stream("ml", "stream", function="faulty:count_to", args=[1000]) as parts:
        assert list(parts) == list(range(1000))
    with client.stream("ml", "stream", function="faulty:report_a_million_times", progress=True) as parts:
        assert list(parts)[-1] == {"item": "done"}


def test_workers_that_cannot_start_make_the_supervisor_give_up_and_no_caller_hangs(daemon: StartDaemon) -> None:
    running = daemon(TOML + 'preload = ["killed_always"]\n')
    with regrow.connect(running.endpoint, timeout=PATIENCE_S) as client:
        given_up = gevent.spawn(running.wait_for_log, '"event":"child.parked"|"state":"parked"|parked')
        slowest_s, refusals = 0.0, 0
        while not given_up.ready():
            began = time.monotonic()
            with pytest.raises((regrow.Unavailable, ActorDown)):
                client.ask("ml", "call", function="faulty:add", args=[1, 1])
            slowest_s, refusals = max(slowest_s, time.monotonic() - began), refusals + 1
            gevent.sleep(0.02)
        with pytest.raises(regrow.Unavailable) as caught:
            client.ask("ml", "call", function="faulty:add", args=[1, 1])
    assert caught.value.started == "no"
    assert caught.value.retry_after_s is not None
    assert refusals > 0
    assert slowest_s < 5.0
