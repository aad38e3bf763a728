"""Many calls while sessions, servers and actors end at random: one answer each, and what it says is what is stored."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import psycopg
import pytest

from actors.database.operation import OperationConfig
from actors.integrations.database import DatabaseConfig, plan
from actors.seam import Context
from config.schema import DatabaseUrl
from regrow.protocol.errors import RegrowError
from runtime import clock
from runtime.messages import Call
from runtime.names import whereis
from runtime.promise import Promise
from runtime.ref import Ref
from supervisors import Supervisor
from tests.support.servers.postgres import PostgresServer

CALLERS = 8
POOL_SIZE = 4
DEADLINE_S = 20.0


class Walk:
    """Calls that each store one row of their own, and what became of them."""

    def __init__(self, calls: int) -> None:
        self.answers: Counter[int] = Counter()
        self.kept: set[int] = set()
        self.refused: set[int] = set()
        self.unknown: set[int] = set()
        self._ids = iter(range(calls))

    def call(self) -> None:
        for number in self._ids:
            promise = Promise(deadline=clock.now() + DEADLINE_S, callback=partial(self._note, number))
            front = whereis("db")
            assert front is not None
            front.request(Call("add", {"id": number}), promise)
            while not promise.done:
                gevent.sleep(0.0005)

    def _note(self, number: int, promise: Promise) -> None:
        self.answers[number] += 1
        error = promise.error
        if error is None:
            self.kept.add(number)
            return
        assert isinstance(error, RegrowError), error
        (self.refused if error.started == "no" else self.unknown).add(number)


def walk(server: PostgresServer, folder: Path, calls: int, seed: int) -> tuple[Walk, Counter[int], Counter[str]]:
    """Return the answers, how often each row is stored, and what was ended."""
    operations: dict[str, Any] = {
        "add": OperationConfig(sql="INSERT INTO walked SELECT :id FROM pg_sleep(0.002)", kind="execute")
    }
    url = DatabaseUrl.parse(server.url(), folder)
    setup = ["DROP TABLE IF EXISTS walked", "CREATE TABLE walked (id int)"]
    config = DatabaseConfig(url=url, operations=operations, setup=setup, pool_size=POOL_SIZE, breaker=None)
    root: Ref = Supervisor.start(
        plan("db", config, Context(folder, folder, None, "test")).children, max_restarts=10_000, max_seconds=5
    )
    found, ended, chance = Walk(calls), Counter[str](), random.Random(seed)

    def end_at_random() -> None:
        while True:
            gevent.sleep(chance.uniform(0.005, 0.04))
            what = chance.choices(("session", "actor", "server"), (20, 6, 1))[0]
            if what == "session":
                with psycopg.connect(server.url(), autocommit=True) as admin:
                    pids = "SELECT pid FROM pg_stat_activity WHERE application_name = 'regrow/test/db'"
                    admin.execute(f"SELECT pg_terminate_backend(pid) FROM ({pids} ORDER BY random() LIMIT 1) s")
            elif what == "actor":
                part = whereis(f"db/connection-{chance.randint(1, POOL_SIZE)}")
                if part is not None:
                    part.kill()
            else:
                server.restart("fast")
            ended[what] += 1

    first = whereis("db")
    assert first is not None
    killer = gevent.spawn(end_at_random)
    try:
        gevent.joinall([gevent.spawn(found.call) for _ in range(CALLERS)], raise_error=True)
    finally:
        killer.kill()
        root.stop()
    server.start()
    with psycopg.connect(server.url()) as admin:
        stored: Counter[int] = Counter(dict(admin.execute("SELECT id, count(*) FROM walked GROUP BY id").fetchall()))
    return found, stored, ended


def check(found: Walk, stored: Counter[int], calls: int) -> None:
    assert found.answers == Counter(range(calls)), "one answer each"
    assert max(stored.values()) == 1, "nothing is stored twice"
    assert found.kept <= set(stored), "what was answered is stored"
    assert not found.refused & set(stored), "what was refused is not"
    assert set(stored) <= found.kept | found.unknown


@pytest.mark.allow_leaks("timer")  # a kill runs no hook of the actor, so its timers end by themselves
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a kill while it connects, likewise
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_each_call_has_one_answer_and_it_is_true_while_everything_ends_at_random(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    found, stored, ended = walk(postgres_server, tmp_path, 2_000, seed=3)

    check(found, stored, 2_000)
    assert len(found.kept) > 1_000
    assert ended["session"] > 10


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.allow_leaks("timer")  # a kill runs no hook of the actor, so its timers end by themselves
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a kill while it connects, likewise
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_ten_thousand_calls_have_one_true_answer_each_while_everything_ends_at_random(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    found, stored, _ended = walk(postgres_server, tmp_path, 10_000, seed=5)

    check(found, stored, 10_000)
