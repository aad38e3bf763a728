"""The planned part of the tree under a real supervisor: who comes back, and what callers notice."""

from __future__ import annotations

from pathlib import Path

import gevent
import pytest

from actors.database.operation import OperationConfig
from actors.integrations import INTEGRATIONS
from actors.integrations.database import DatabaseConfig, plan
from actors.seam import Context, Plan
from config.schema import DatabaseUrl
from regrow.protocol.errors import RegrowError
from runtime import clock
from runtime.names import whereis
from runtime.ref import Ref
from runtime.signals import when_ended
from supervisors import Supervisor

OPERATIONS = {
    "one": OperationConfig(sql="SELECT 1", kind="value"),
    "endless": OperationConfig(
        sql="WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n", kind="value"
    ),
}


def make_plan(folder: Path) -> Plan:
    url = DatabaseUrl.parse("sqlite:///a.db", folder)
    config = DatabaseConfig(url=url, operations=OPERATIONS, pool_size=2)
    return plan("db", config, Context(folder, folder, None, "test"))


def part(name: str) -> Ref:
    """Return the actor of a name, as soon as there is one."""
    until = clock.now() + 5.0
    while (ref := whereis(name)) is None:
        assert clock.now() < until, f"{name} did not come back"
        gevent.sleep(0.01)  # a name is registered without telling anybody
    return ref


def test_the_type_database_is_registered() -> None:
    assert INTEGRATIONS["database"].config is DatabaseConfig


def test_the_plan_names_a_breaker_each_connection_and_the_front(tmp_path: Path) -> None:
    names = [child.name for child in make_plan(tmp_path).children]

    assert names == ["db/breaker", "db/connection-1", "db/connection-2", "db"]


@pytest.mark.allow_leaks("timer")  # a kill runs no hook of the actor, so its timers end by themselves
@pytest.mark.parametrize("killed", ["db", "db/connection-1", "db/breaker"])
def test_each_part_comes_back_and_the_next_call_works(tmp_path: Path, killed: str) -> None:
    root: Ref = Supervisor.start(make_plan(tmp_path).children, max_restarts=3, max_seconds=5)
    try:
        assert part("db").call("one") == 1
        ended = when_ended(part(killed))

        part(killed).kill()
        ended.wait(5.0)

        assert part(killed).is_alive()
        assert part("db").call("one") == 1
    finally:
        root.stop()


@pytest.mark.allow_leaks("timer")  # a kill runs no hook of the actor, so its timers end by themselves
def test_a_connection_killed_in_the_middle_of_a_statement_fails_that_call_only(tmp_path: Path) -> None:
    root: Ref = Supervisor.start(make_plan(tmp_path).children, max_restarts=3, max_seconds=5)
    try:
        part("db").call("one")
        caller = gevent.spawn(_error_of, "endless")
        gevent.sleep(0.1)

        part("db/connection-1").kill()

        error = caller.get(timeout=5)
        assert (error.code, error.started) == ("actor_down", "yes")
        assert part("db").call("one") == 1
    finally:
        root.stop()


def test_the_tree_stops_quickly_while_a_statement_runs(tmp_path: Path) -> None:
    root: Ref = Supervisor.start(make_plan(tmp_path).children, max_restarts=3, max_seconds=5)
    part("db").call("one")
    caller = gevent.spawn(_error_of, "endless")
    gevent.sleep(0.1)
    began = clock.now()

    root.stop()

    assert clock.now() - began < 3.0
    assert caller.get(timeout=5).started == "yes"


def _error_of(operation: str) -> RegrowError:
    with pytest.raises(RegrowError) as caught:
        part("db").call(operation, timeout=20.0)
    return caught.value
