"""The same pool over a Ray cluster of this machine; only where Ray is installed.

Another interpreter than this one may have it: REGROW_RAY_PYTHON=/path/to/venv/bin/python.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import psutil
import pytest
from gevent import subprocess

from actors.integrations import python
from config.schema import PositiveDuration
from regrow.protocol.errors import ActorDown, DeadlineExceeded, ExecutionError, InvalidArguments, NotFound
from runtime.streams import iterate
from tests.actors.workers.conftest import PATIENCE_S, EventLog, RunningPool
from tests.actors.workers.test_streaming import opened

INTERPRETER = Path(os.environ.get("REGROW_RAY_PYTHON", sys.executable))
HAS_RAY = "REGROW_RAY_PYTHON" in os.environ or importlib.util.find_spec("ray") is not None

needs_ray = pytest.mark.skipif(not HAS_RAY, reason="the package ray is not installed")
StartPool = Callable[..., RunningPool]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A Ray head on a free port, stopped after the last test."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(INTERPRETER.parent / "ray"), "start", "--head", f"--port={port}", "--num-cpus=2", "--block"]
    options = ["--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats"]
    head = subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, text=True
    )
    assert head.stdout is not None
    with gevent.Timeout(60):
        for line in head.stdout:
            if "Ray runtime started" in line:
                break
    yield f"127.0.0.1:{port}"
    family = [head_process := psutil.Process(head.pid), *head_process.children(recursive=True)]
    for process in family:
        if process.is_running():
            process.terminate()
    _, alive = psutil.wait_procs(family, timeout=10)
    for process in alive:
        process.kill()
    head.stdout.close()
    head.wait()


@pytest.fixture
def remote(pool: StartPool, cluster: str) -> RunningPool:
    """A pool of one worker on the cluster."""
    return pool(
        backend="ray", ray_address=cluster, python=INTERPRETER, kill_grace=PositiveDuration("2s"), quarantine_deaths=100
    )


def test_a_pool_without_the_package_says_what_to_install() -> None:
    if importlib.util.find_spec("ray") is not None:
        pytest.skip("the package ray is installed")
    with pytest.raises(ExceptionGroup) as caught:
        python.PythonConfig(functions=["statistics:mean"], backend="ray", ray_address="localhost:6379")
    assert "pip install 'regrow[ray]'" in str(caught.value.exceptions[0])


def test_a_cluster_needs_an_address() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        python.PythonConfig(functions=["statistics:mean"], backend="ray", python=Path(sys.executable))
    assert "needs the address of the cluster" in str(caught.value.exceptions[0])


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.allow_leaks("process")  # Ray's own, which the fixture of the module ends
def test_the_contract_of_a_pool_holds_on_a_cluster(remote: RunningPool, happened: EventLog) -> None:
    assert remote.call("faulty:add", 2, b=3, timeout=60) == 5
    pid = remote.call("faulty:pid")
    assert pid != remote.process().pid
    value: Any = {"rows": [{"a": 1, "b": [1, 2, [3]]}], "n": None, "x": b"\x00"}
    assert remote.call("faulty:echo", value) == value
    with pytest.raises(ExecutionError, match="raised ValueError: oh"):
        remote.call("faulty:raise_error", "oh")
    with pytest.raises(NotFound, match="defines no public function nothing"):
        remote.call("faulty:nothing")
    with pytest.raises(InvalidArguments, match="missing a required argument"):
        remote.call("faulty:add", 1)
    assert list(iterate(opened(remote, "faulty:count_to", 200))) == list(range(200))
    assert remote.call("faulty:pid") == pid, "none of these ends the process on the cluster"


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.allow_leaks("process")  # Ray's own, which the fixture of the module ends
def test_a_deadline_kills_the_process_on_the_cluster_by_force(remote: RunningPool) -> None:
    process = psutil.Process(remote.call("faulty:pid", timeout=60))
    with pytest.raises(DeadlineExceeded):
        remote.call("faulty:spin_in_c", timeout=1.0)
    process.wait(10)
    assert remote.call("faulty:add", 1, 1, timeout=60) == 2


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.allow_leaks("process")  # Ray's own, which the fixture of the module ends
def test_a_process_that_dies_on_the_cluster_is_actor_down(remote: RunningPool) -> None:
    remote.call("faulty:add", 1, 1, timeout=60)
    with pytest.raises(ActorDown) as caught:
        remote.call("faulty:leave_at_once", 3, timeout=PATIENCE_S)
    assert caught.value.started == "yes"
    assert remote.call("faulty:add", 1, 1, timeout=60) == 2
