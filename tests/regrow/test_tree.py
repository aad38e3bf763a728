"""The root tree as it is made from a configuration: what each entry's supervisor is told, without a daemon process."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.integrations import INTEGRATIONS
from regrow.daemon import load_config
from regrow.tree import PARK, START_TIMEOUT_S, Tree
from runtime.actor import Actor
from supervisors import Backoff, ChildSpec

ACTOR = '[actors.entry]\nclass = "tests.regrow.test_tree:Clerk"\n'
INTEGRATION = '[integrations.entry]\ntype = "rest"\nbase_url = "http://127.0.0.1:9"\n'
BOTH = pytest.mark.parametrize("table", [ACTOR, INTEGRATION], ids=["actor", "integration"])


class Clerk(Actor):
    """Anybody's actor."""


def entry_of(folder: Path, table: str) -> ChildSpec:
    """Return the spec of the supervisor that the tree makes for the one entry of this configuration."""
    file = folder / "regrow.toml"
    file.write_text(table)
    groups = Tree(load_config(file), INTEGRATIONS).specs([])
    [entry] = [entry for group in groups for entry in group.args[0]]
    assert isinstance(entry, ChildSpec)
    return entry


def children_of(entry: ChildSpec) -> list[ChildSpec]:
    children: list[ChildSpec] = entry.args[0]
    assert children
    return children


@BOTH
def test_an_entry_s_supervisor_heals_three_restarts_within_five_seconds_by_default(tmp_path: Path, table: str) -> None:
    assert entry_of(tmp_path, table).kwargs == {"max_restarts": 3, "max_seconds": 5.0}


@BOTH
def test_an_entry_s_supervisor_heals_as_many_restarts_as_its_table_says(tmp_path: Path, table: str) -> None:
    entry = entry_of(tmp_path, table + 'max_restarts = 9\nmax_seconds = "1m"\n')
    assert entry.kwargs == {"max_restarts": 9, "max_seconds": 60.0}


@BOTH
def test_an_entry_that_gives_up_is_parked_by_default(tmp_path: Path, table: str) -> None:
    assert entry_of(tmp_path, table).park == PARK


@BOTH
def test_an_entry_that_escalates_is_not_parked(tmp_path: Path, table: str) -> None:
    assert entry_of(tmp_path, table + 'on_give_up = "escalate"\n').park is None


def test_the_actor_of_an_entry_waits_before_each_restart_by_default(tmp_path: Path) -> None:
    [child] = children_of(entry_of(tmp_path, ACTOR))
    assert child.backoff == Backoff(base_s=0.1, max_s=30.0, jitter=0.25, reset_after_s=60.0)


@BOTH
def test_the_backoff_of_the_table_is_the_backoff_of_the_children(tmp_path: Path, table: str) -> None:
    text = table + 'backoff = { base = "2s", max = "9s", jitter = 0.5, reset_after = "3m" }\n'
    wanted = Backoff(base_s=2.0, max_s=9.0, jitter=0.5, reset_after_s=180.0)
    assert wanted in [child.backoff for child in children_of(entry_of(tmp_path, text))]


@BOTH
def test_no_child_of_an_entry_may_take_longer_than_a_minute_to_start(tmp_path: Path, table: str) -> None:
    limits = {child.start_timeout_s for child in children_of(entry_of(tmp_path, table))}
    assert limits == {START_TIMEOUT_S} == {60.0}


def test_an_actor_may_have_a_start_timeout_of_its_own(tmp_path: Path) -> None:
    [child] = children_of(entry_of(tmp_path, ACTOR + 'start_timeout = "7s"\n'))
    assert child.start_timeout_s == 7.0
