"""Many clients that die, actors that die every 10 ms, a daemon that drains: no answer is lost, none is doubled."""

from __future__ import annotations

import json
import random
import re
import sys
from collections import Counter
from pathlib import Path
from textwrap import dedent
from typing import Any

import gevent
import psutil
import pytest
from gevent.pool import Pool
from gevent.subprocess import PIPE, Popen

import regrow
from regrow.protocol.frames import TERMINAL_OPS
from tests.support.daemon import Daemon
from tests.support.fixtures import StartDaemon

PROJECT = Path(__file__).parents[2]
WORKERS = 4
KILL_EVERY_S = 0.01
#: a client has at most 30 requests in flight, so whatever its death interrupted is among these
LAST_KEYS = 30
ACTORS = dedent(
    """
    import random
    from collections import Counter
    from collections.abc import Iterator

    from runtime import clock
    from runtime.actor import Actor, exported
    from runtime.names import whereis

    LEDGER = Counter()


    class Worker(Actor):
        @exported
        def echo(self, value: object = None) -> object:
            '''Give back what came.'''
            return value

        @exported
        def wait(self, seconds: float) -> float:
            '''Answer after so long.'''
            clock.sleep(seconds)
            return seconds

        @exported
        def once(self, key: str) -> int:
            '''Count how often this was carried out.'''
            LEDGER[key] += 1
            clock.sleep(0.002)
            return LEDGER[key]

        @exported
        def count(self, to: int) -> Iterator[int]:
            '''Stream numbers.'''
            yield from range(to)


    class Chaos(Actor):
        def __init__(self) -> None:
            self.kills = 0

        def on_start(self) -> None:
            self.send_after(KILL_EVERY_S, "kill")

        def on_receive(self, message: object) -> None:
            victim = whereis(f"worker{random.randrange(4)}")
            if victim is not None:
                victim.kill()
                self.kills += 1
            self.send_after(KILL_EVERY_S, "kill")

        @exported
        def doubled(self) -> list[str]:
            '''Tell which keys were carried out more than once.'''
            return [key for key, count in LEDGER.items() if count > 1][:20]

        @exported
        def carried_out(self, key: str) -> int:
            '''Tell how often this key was carried out.'''
            return LEDGER[key]

        @exported
        def killed(self) -> int:
            '''Tell how many actors were killed.'''
            return self.kills
    """
).replace("KILL_EVERY_S", str(KILL_EVERY_S))
WORKER = """
[actors.worker{n}]
class = "chaos:Worker"
max_restarts = 100000
max_seconds = "1s"
backoff = {{ base = "1ms", max = "1ms", jitter = 0.0, reset_after = "1m" }}
"""
CONFIG = "".join(WORKER.format(n=n) for n in range(WORKERS)) + '[actors.chaos]\nclass = "chaos:Chaos"\n'


class Process:
    """One client process."""

    def __init__(self, endpoint: str, folder: Path, name: str) -> None:
        self.journal = folder / f"{name}.journal"
        self.journal.touch()
        command = [sys.executable, "-m", "tests.soak.wire_client", endpoint, name, str(self.journal)]
        self.process: Any = Popen(command, cwd=PROJECT, stdin=PIPE, stdout=PIPE)

    def say(self, word: str) -> None:
        self.process.stdin.write(f"{word}\n".encode())
        self.process.stdin.flush()

    def await_held(self) -> None:
        with gevent.Timeout(30):
            assert self.process.stdout.readline() == b"held\n"

    def kill(self) -> None:
        self.process.kill()
        self._close()

    def account(self) -> dict[str, Any]:
        """Return its last line, once it has ended by itself."""
        try:
            with gevent.Timeout(40):
                lines = self.process.stdout.read().splitlines()
            assert lines, "a client ended without an account"
            found: dict[str, Any] = json.loads(lines[-1])
        finally:
            self.process.kill()
            self._close()
        return found

    def _close(self) -> None:
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def keys(self) -> list[tuple[str, str]]:
        """Return target and key of every ask with an idem key that it sent, or was about to send."""
        words = [line.split() for line in self.journal.read_text().splitlines()]
        return [(found[0], found[1]) for found in words if len(found) == 2]


def soak(server: Daemon, folder: Path, *, clients: int, rounds: int, seconds: float, wild: int = 0) -> Counter[str]:
    """Run it and return what happened; `wild` clients go on talking while the daemon drains."""
    dice = random.Random(7)
    totals: Counter[str] = Counter()
    names = (f"c{number}" for number in range(1_000_000))
    for number in range(rounds):
        if number:
            server.start()
        running = [Process(server.endpoint, folder, next(names)) for _ in range(clients)]
        killed: list[Process] = []
        rss_mb: list[float] = []
        try:
            kills = max(1, int(seconds * 2))
            for _ in range(kills):
                gevent.sleep(seconds / kills)
                rss_mb.append(psutil.Process(server.pid).memory_info().rss / 1e6)
                victim = running.pop(dice.randrange(len(running)))
                victim.kill()
                killed.append(victim)
                running.append(Process(server.endpoint, folder, next(names)))
            for client in running:
                client.say("hold")
            for client in running:
                client.await_held()
            totals["settled"] += settle(server, killed)
            require_balance(server)
            totals["clients_killed"] += len(killed)
            # a restart of the daemon begins anew, so each round has to be flat by itself
            early, late = rss_mb[len(rss_mb) // 2], rss_mb[-1]
            assert late < early * 1.2 + 8, f"memory grew: {rss_mb}"
            totals["rss_mb"] = round(max(rss_mb))
            for client in running[:wild]:
                client.say("go")
            assert server.stop() == 0
            for client in running:
                account = client.account()
                assert account["wrong"] == [], account
                assert account["bye"], "a client did not hear of the drain"
                totals["sent"] += sum(account["sent"].values())
                totals.update({f"answer_{what}": count for what, count in account["answered"].items()})
                totals["lost"] += account["lost"]
            running = []
        finally:
            for client in running:
                client.kill()
    return totals


def settle(server: Daemon, killed: list[Process]) -> int:
    """Repeat the last asks of the killed clients with their keys: each is answered, nothing is carried out twice."""
    with regrow.connect(server.endpoint) as client:
        keys = [found for process in killed for found in process.keys()[-LAST_KEYS:]]
        pool = Pool(8)
        settled = sum(pool.imap_unordered(lambda found: settle_one(client, *found), keys))
        assert client.ask("chaos", "doubled") == []
        assert client.ask("chaos", "killed") > 50
    return settled


def settle_one(client: regrow.Client, target: str, key: str) -> int:
    for _ in range(200):
        try:
            assert client.ask(target, "once", {"key": key}, idem=key) == 1
        except regrow.Refused as error:  # it never started, and may be repeated
            gevent.sleep(error.retry_after_s or 0.01)
            continue
        except (regrow.ActorDown, regrow.Cancelled) as error:
            if error.started == "no":
                continue
            return 1
        assert client.ask("chaos", "carried_out", {"key": key}) == 1
        return 1
    raise AssertionError(f"{key} was never settled")


def require_balance(server: Daemon) -> None:
    """Require that every request that wants an answer has had one, or is in flight; read in one scrape."""
    text = server.get("/metrics").text
    requests = by_op(text, "regrow_wire_requests_total")
    answers = by_op(text, "regrow_wire_answers_total")
    in_flight = re.search(r"^regrow_wire_requests_in_flight (\S+)", text, re.MULTILINE)
    assert in_flight
    wanted = sum(count for op, count in requests.items() if op not in ("CANCEL", "CREDIT"))
    given = sum(count for op, count in answers.items() if op in TERMINAL_OPS)
    assert wanted == given + float(in_flight[1]), (requests, answers, in_flight[1])
    assert requests["ASK"] > 0


def by_op(text: str, name: str) -> dict[str, float]:
    found = re.findall(rf'^{name}{{op="(\w+)"}} (\S+)', text, re.MULTILINE)
    return {op: float(count) for op, count in found}


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_some_seconds_of_clients_and_actors_that_die_and_a_drain(daemon: StartDaemon, tmp_path: Path) -> None:
    server = daemon(CONFIG, files={"chaos.py": ACTORS}, measured=False)
    totals = soak(server, tmp_path, clients=6, rounds=1, seconds=5)
    assert totals["answer_REPLY"] > 100
    assert totals["settled"] > 0
    assert totals["lost"] == 0, "everything was held, so nothing may be lost in the drain"


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_minutes_of_fifty_clients_with_two_drains(daemon: StartDaemon, tmp_path: Path) -> None:
    server = daemon(CONFIG, files={"chaos.py": ACTORS}, measured=False)
    # what is sent while the daemon goes away may be lost unread; nothing else may
    totals = soak(server, tmp_path, clients=50, rounds=2, seconds=60, wild=25)
    sys.stdout.write(f"{dict(totals)}\n")
    assert totals["answer_REPLY"] > 10_000
    assert totals["lost"] < 0.01 * totals["sent"]
