"""The same pool over Ray clusters of this machine; only where Ray is installed.

`make ray` installs it into .venv/ray; any other interpreter that has it will do: REGROW_RAY_PYTHON=/path/to/python.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import psutil
import pytest
from gevent import subprocess

from actors.integrations import python
from actors.workers.ray_bridge import leave_unless_reachable
from config.schema import PositiveDuration
from regrow.protocol.errors import ActorDown, DeadlineExceeded, ExecutionError, InvalidArguments, NotFound, Unavailable
from runtime.streams import iterate
from tests.actors.workers.conftest import PATIENCE_S, EventLog, RunningPool
from tests.actors.workers.test_streaming import opened

INSTALLED = Path(__file__).parents[3] / ".venv" / "ray" / "bin" / "python"
INTERPRETER = Path(os.environ.get("REGROW_RAY_PYTHON", INSTALLED if INSTALLED.exists() else sys.executable))
HAS_RAY = str(INTERPRETER) != sys.executable or importlib.util.find_spec("ray") is not None

needs_ray = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed; make ray installs it")
StartPool = Callable[..., RunningPool]


class Node:
    """One node of a cluster: a raylet with its helpers, started by `ray start --block`."""

    def __init__(self, *arguments: str) -> None:
        command = [str(INTERPRETER.parent / "ray"), "start", "--block", "--node-ip-address=127.0.0.1", *arguments]
        self._process = subprocess.Popen(
            [*command, "--disable-usage-stats"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        assert self._process.stdout is not None
        with gevent.Timeout(60):
            for line in self._process.stdout:
                if "Ray runtime started" in line:
                    break

    def stop(self) -> None:
        """End all processes of the node."""
        found = self._processes()
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _, alive = psutil.wait_procs(found, timeout=10)
        for process in alive:
            process.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait()

    def lose(self) -> None:
        """End all processes of the node as a power cut does."""
        found = self._processes()
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=10)

    def _processes(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            top = psutil.Process(self._process.pid)
            return [top, *top.children(recursive=True)]
        return []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A Ray head on a free port, stopped after the last test."""
    port = free_port()
    head = Node("--head", f"--port={port}", "--num-cpus=2", "--include-dashboard=false")
    yield f"127.0.0.1:{port}"
    head.stop()


@pytest.fixture
def remote(pool: StartPool, cluster: str) -> RunningPool:
    """A pool of one worker on the cluster."""
    return pool(
        backend="ray", ray_address=cluster, python=INTERPRETER, kill_grace=PositiveDuration("2s"), quarantine_deaths=100
    )


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "[::1]")])
def test_a_head_is_found_at_an_address_of_either_kind(
    family: socket.AddressFamily, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail(f"it left with {code}"))
    try:
        head = socket.create_server((address.strip("[]"), 0), family=family)
    except OSError as error:
        pytest.skip(f"this machine has no {address}: {error}")
    with head:
        leave_unless_reachable(f"{address}:{head.getsockname()[1]}")


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


class TwoNodes:
    """A head without processors, where the daemon's bridges are, and nodes that run the functions."""

    def __init__(self) -> None:
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self._port = port
        self.nodes: list[Node] = []
        self.add_head()
        self.add()

    def add_head(self) -> None:
        self.nodes.append(Node("--head", f"--port={self._port}", "--num-cpus=0", "--include-dashboard=false"))

    def add(self) -> None:
        self.nodes.append(Node(f"--address={self.address}", "--num-cpus=1"))

    def stop(self) -> None:
        for node in reversed(self.nodes):
            node.stop()


@pytest.fixture
def two_nodes() -> Iterator[TwoNodes]:
    nodes = TwoNodes()
    yield nodes
    nodes.stop()


def called_until_it_is_available(running: RunningPool, function: str) -> Any:
    """Call as a client does that obeys retry_after_s: Ray takes a while to see that a node is gone."""
    with gevent.Timeout(120):
        while True:
            try:
                return running.call(function, timeout=60)
            except Unavailable as refusal:
                gevent.sleep(refusal.retry_after_s or 1.0)


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.allow_leaks("process")  # Ray's own, which the fixture ends
def test_functions_run_on_another_node_than_the_daemons_and_outlive_its_loss(
    pool: StartPool, two_nodes: TwoNodes
) -> None:
    running = pool(
        backend="ray",
        ray_address=two_nodes.address,
        python=INTERPRETER,
        functions=["on_ray:*"],
        kill_grace=PositiveDuration("2s"),
        quarantine_deaths=100,
    )
    first = running.call("on_ray:node", timeout=60)
    nodes = {each["id"]: each["cpus"] for each in running.call("on_ray:nodes", timeout=60)}
    assert len(nodes) == 2
    assert nodes[first] == 1, "the head has no processor to offer"
    asked = running.request("on_ray:sleep", 600, timeout=60)
    gevent.sleep(1)  # it has begun; nothing tells of it
    two_nodes.nodes[1].lose()
    with pytest.raises(ActorDown) as caught:
        asked.wait(60)
    assert caught.value.started == "yes"
    assert "the worker on the cluster is gone" in str(caught.value.details["stderr"])
    two_nodes.add()
    assert called_until_it_is_available(running, "on_ray:node") not in nodes


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.allow_leaks("process")  # Ray's own, which the fixture ends
def test_the_loss_of_the_head_is_actor_down_and_then_unavailable_until_it_is_back(
    pool: StartPool, two_nodes: TwoNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "3")  # instead of a minute
    running = pool(
        env=["RAY_gcs_rpc_server_reconnect_timeout_s"],
        backend="ray",
        ray_address=two_nodes.address,
        python=INTERPRETER,
        functions=["on_ray:*"],
        kill_grace=PositiveDuration("2s"),
        quarantine_deaths=100,
    )
    running.call("on_ray:node", timeout=60)
    asked = running.request("on_ray:sleep", 600, timeout=60)
    gevent.sleep(1)  # it has begun; nothing tells of it
    two_nodes.nodes[0].lose()
    with pytest.raises(ActorDown) as caught:
        asked.wait(60)
    assert caught.value.started == "yes"
    assert "Failed to connect to GCS" in str(caught.value.details["stderr"])
    with pytest.raises(Unavailable) as refused:
        running.call("on_ray:node", timeout=60)
    assert refused.value.started == "no"
    assert f"the head of the cluster does not answer at {two_nodes.address}" in str(refused.value)
    two_nodes.nodes[1].stop()
    two_nodes.add_head()
    two_nodes.add()
    assert called_until_it_is_available(running, "on_ray:node")
