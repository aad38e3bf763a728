"""How the daemon starts, refuses to start, drains and ends; each with its exit status."""

from __future__ import annotations

import signal
import socket
import time

import psutil
import pytest

from regrow import Cancelled, Draining
from tests.faults.conftest import Caller
from tests.support.daemon import Daemon
from tests.support.fixtures import StartDaemon
from tests.tour.readme import default_configuration

CONFIG = """
[daemon]
path = ["."]
drain_timeout = "{drain}"

[actors.slow]
class = "slow:Slow"
shutdown = "500ms"
"""
FILES = {
    "slow.py": """
import gevent
from regrow import Actor, exported


class Slow(Actor):
    @exported
    def work(self, seconds: float) -> str:
        print("work begins", flush=True)
        gevent.sleep(seconds)
        return "done"

    def on_stop(self) -> None:
        print("stopped in good order", flush=True)
""",
    "hanging.py": """
import gevent
from regrow import Actor


class Hanging(Actor):
    def on_stop(self) -> None:
        print("stopping takes forever", flush=True)
        gevent.sleep(3600)
""",
    "stubborn.py": """
import gevent
from regrow import Actor, exported


class Stubborn(Actor):
    def on_start(self) -> None:
        self.send_after(0.0, "crash")

    def on_receive(self, message: object) -> None:
        raise RuntimeError("never gets anywhere")
""",
}


def slow_daemon(daemon: StartDaemon, drain: str = "10s") -> tuple[Daemon, Caller]:
    started = daemon(CONFIG.format(drain=drain), files=FILES)
    return started, Caller(started)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_drain_answers_the_work_in_flight_and_refuses_what_comes_later(
    daemon: StartDaemon, number: signal.Signals
) -> None:
    served, caller = slow_daemon(daemon)
    caller.client.welcome()
    pending = caller.later("slow", "work", seconds=0.8)
    served.wait_for_log("work begins")
    served.send_signal(number)
    served.wait_for_log('"event":"daemon.draining"')
    assert served.get("/readyz").status_code == 503
    refused = caller.later("slow", "work", seconds=0.0).error(Draining)
    assert refused.started == "no"
    assert refused.retry_after_s is not None
    assert pending.value() == "done"
    assert served.wait() == 0
    assert "stopped in good order" in served.log
    caller.close()


def test_a_drain_that_takes_too_long_answers_what_is_left_and_ends_with_75(daemon: StartDaemon) -> None:
    served, caller = slow_daemon(daemon, drain="200ms")
    pending = caller.later("slow", "work", seconds=20.0)
    served.wait_for_log("work begins")
    served.send_signal(signal.SIGTERM)
    assert pending.error(Cancelled).started == "yes"
    assert served.wait() == 75
    caller.close()


def test_a_tree_that_does_not_stop_in_time_is_left_behind_with_75_and_a_last_word(daemon: StartDaemon) -> None:
    toml = """
    [daemon]
    path = ["."]
    drain_timeout = "0s"
    stop_timeout = "300ms"
    [actors.hanging]
    class = "hanging:Hanging"
    shutdown = "1h"
    """
    served = daemon(toml, files=FILES)
    served.send_signal(signal.SIGTERM)
    served.wait_for_log("stopping takes forever")
    assert served.wait() == 75
    assert '"event":"daemon.stop_timed_out"' in served.log
    assert '"event":"daemon.stopped"' not in served.log


def test_a_second_signal_ends_the_daemon_at_once(daemon: StartDaemon) -> None:
    served, caller = slow_daemon(daemon, drain="1m")
    pending = caller.later("slow", "work", seconds=20.0)
    served.wait_for_log("work begins")
    served.send_signal(signal.SIGTERM)
    served.wait_for_log('"event":"daemon.draining"')
    began = time.monotonic()
    served.send_signal(signal.SIGINT)
    assert served.wait() == 128 + signal.SIGINT
    assert time.monotonic() - began < 5.0
    assert pending.value().started == "unknown"
    caller.close()


def test_a_taken_gateway_port_is_71_and_its_holder_is_named(daemon: StartDaemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = daemon(f'[gateway]\nbind = ["tcp://127.0.0.1:{port}"]\n', ready=False)
        assert refused.wait() == 71
    assert f"127.0.0.1:{port}" in refused.log
    assert str(psutil.Process().pid) in refused.log


def test_a_taken_http_port_is_71_and_its_holder_is_named(daemon: StartDaemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = daemon(f'[http]\nbind = "127.0.0.1:{port}"\n', ready=False)
        assert refused.wait() == 71
    assert f"127.0.0.1:{port}" in refused.log
    assert str(psutil.Process().pid) in refused.log


def test_a_second_daemon_in_the_same_folder_is_71_and_names_the_first(daemon: StartDaemon) -> None:
    first = daemon()
    second = daemon(f'[daemon]\nstate_dir = "{first.state_dir}"\n', ready=False)
    assert second.wait() == 71
    assert f"pid {first.pid}" in second.log
    assert first.get("/livez").status_code == 200


def test_a_killed_daemon_leaves_nothing_that_hinders_its_successor(daemon: StartDaemon) -> None:
    served, caller = slow_daemon(daemon)
    served.kill()
    served.start()
    assert caller.ask("slow", "work", seconds=0.0) == "done"
    assert served.run("tree").returncode == 0
    caller.close()


def test_a_wrong_configuration_is_78_with_all_mistakes_and_nothing_started(daemon: StartDaemon) -> None:
    refused = daemon('[deamon]\nname = "x"\n[actors.a]\nclass = "nowhere:Nobody"\n', ready=False)
    assert refused.wait() == 78
    assert "2 configuration problems, nothing was started" in refused.log
    assert "nearest:  daemon" in refused.log
    assert not refused.state_dir.exists()


def test_a_tree_that_gives_up_ends_the_daemon_with_70(daemon: StartDaemon) -> None:
    toml = """
    [daemon]
    path = ["."]
    [actors.stubborn]
    class = "stubborn:Stubborn"
    backoff = { base = "1ms", max = "1ms", jitter = 0.0 }
    max_restarts = 1
    on_give_up = "escalate"
    """
    refused = daemon(toml, files=FILES, ready=False)
    assert refused.wait() == 70
    assert "the tree gave up" in refused.log


def test_an_entry_that_gives_up_is_parked_and_the_daemon_serves_on(daemon: StartDaemon) -> None:
    toml = """
    [daemon]
    path = ["."]
    [actors.stubborn]
    class = "stubborn:Stubborn"
    backoff = { base = "1ms", max = "1ms", jitter = 0.0 }
    max_restarts = 1
    [actors.slow]
    class = "slow:Slow"
    """
    served = daemon(toml, files=FILES)
    served.wait_for_log('"event":"actor.parked"')
    assert served.get("/readyz").status_code == 200
    caller = Caller(served)
    assert caller.ask("slow", "work", seconds=0.0) == "done"
    caller.close()
    tree = served.run("tree").stdout
    assert "failed" in tree
    assert "gave up" in tree


UNABLE = {
    "unable.py": """
import gevent
from regrow import Actor, exported


class Unable(Actor):
    def __init__(self, password: str) -> None:
        super().__init__()
        raise RuntimeError(f"nobody lets {password} in")


class Hanging(Actor):
    def on_start(self) -> None:
        gevent.sleep(3600)


class Able(Actor):
    @exported
    def double(self, number: int) -> int:
        return 2 * number
"""
}


def test_an_actor_that_raises_or_hangs_at_its_first_start_is_parked_and_the_others_serve(daemon: StartDaemon) -> None:
    toml = """
    [daemon]
    path = ["."]
    [actors.unable]
    class = "unable:Unable"
    args = { password = "${UNABLE_PASSWORD}" }
    [actors.hanging]
    class = "unable:Hanging"
    start_timeout = "200ms"
    [actors.able]
    class = "unable:Able"
    """
    served = daemon(toml, files=UNABLE, env={"UNABLE_PASSWORD": "swordfish-and-chips"})
    caller = Caller(served)
    assert caller.ask("able", "double", number=21) == 42
    caller.close()
    failing = {entry["actor"]: entry for entry in served.get("/readyz").json()["failing"]}
    assert "nobody lets *** in" in failing["root/actors/unable"]["why"]
    assert "timeout" in failing["root/actors/hanging"]["why"]
    why = served.run("why", "unable").stdout
    assert "RuntimeError: nobody lets *** in" in why
    assert "Traceback" in why
    assert "swordfish" not in why + served.log + served.run("tree").stdout + served.get("/tree").text


def test_an_actor_without_which_the_tree_shall_not_start_is_named_with_what_it_raised(daemon: StartDaemon) -> None:
    toml = """
    [daemon]
    path = ["."]
    [actors.unable]
    class = "unable:Unable"
    args = { password = "${UNABLE_PASSWORD}" }
    on_give_up = "escalate"
    """
    refused = daemon(toml, files=UNABLE, env={"UNABLE_PASSWORD": "swordfish-and-chips"}, ready=False)
    assert refused.wait() == 70
    assert "the tree did not start: unable raised RuntimeError: nobody lets *** in" in refused.log


@pytest.mark.slow
def test_a_second_start_is_ready_soon_and_the_idle_daemon_is_small(daemon: StartDaemon) -> None:
    served = daemon(default_configuration(), measured=False)
    assert served.stop() == 0
    began = time.monotonic()
    served.start()
    ready_s = time.monotonic() - began
    resident_mb = psutil.Process(served.pid).memory_info().rss / 1e6
    # 1.5 s are promised on a machine that does nothing else. Here other tests take the processors: this limit finds
    # blunders alone, the benchmark tells the time. Memory depends on nobody: 90 MB without the workers, as promised.
    assert ready_s < 6.0
    assert resident_mb < 90.0
