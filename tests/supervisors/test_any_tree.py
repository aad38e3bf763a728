"""Any tree and any sequence of failures: what must hold of all of them, whatever happened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from regrow.testing import ManualClock
from runtime import names
from runtime.reasons import KILL, NORMAL, SHUTDOWN, ExitReason, StartFailed, Stop
from runtime.ref import Ref
from supervisors import (
    ChildSpec,
    DynamicSupervisor,
    Supervisor,
    count_children,
    delete_child,
    get_childspec,
    restart_child,
    start_child_of,
    start_dynamic,
    terminate_child,
    which_children,
)
from supervisors.errors import ChildRestarting, ChildRunning, ChildStartFailed
from tests.supervisors.workshop import Boom, Tool, Workshop

STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one")
RESTARTS = st.sampled_from(["permanent", "permanent", "transient", "temporary"])
REASONS = st.sampled_from([None, NORMAL, SHUTDOWN, KILL, ExitReason("boom")])

worker = st.fixed_dictionaries(
    {
        "kind": st.just("worker"),
        "restart": RESTARTS,
        "named": st.booleans(),
        "shutdown": st.sampled_from([5.0, "infinity", "brutal_kill"]),
    }
)
dynamic = st.fixed_dictionaries(
    {"kind": st.just("dynamic"), "restart": RESTARTS, "intensity": st.integers(0, 3), "children": st.integers(0, 3)}
)


def supervisors(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {
            "kind": st.just("supervisor"),
            "restart": RESTARTS,
            "strategy": st.sampled_from(STRATEGIES),
            "intensity": st.integers(0, 3),
            "children": st.lists(children, max_size=4),
        }
    )


trees = supervisors(st.recursive(st.one_of(worker, dynamic), supervisors, max_leaves=10))


class AnyTree(RuleBasedStateMachine):
    """Builds a tree, then lets its parts end, fail, be stopped and be started again."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.clock.install()
        self.shop = Workshop(self.clock)
        self.root: Ref | None = None
        self.keys = 0
        self.by_hand: set[int] = set()  # supervisors whose children were not started in their order alone

    # -- building

    @initialize(tree=trees)
    def build(self, tree: dict[str, Any]) -> None:
        children = [self.spec(child) for child in tree["children"]]
        self.root = self.shop.supervise(*children, strategy=tree["strategy"], max_restarts=50, max_seconds=3600)
        self.fill(self.root)

    def spec(self, node: dict[str, Any]) -> ChildSpec:
        self.keys += 1
        key = f"k{self.keys}"
        if node["kind"] == "worker":
            # A named actor must be gone at once when its supervisor is killed, so it does not trap exits.
            name = key if node["named"] else None
            return self.shop.spec(
                key, name=name, restart=node["restart"], shutdown=node["shutdown"], trap_exit=name is None
            )
        limit = {"max_restarts": node["intensity"], "max_seconds": 3600}
        if node["kind"] == "dynamic":
            template = ChildSpec("tool", Tool, args=(self.shop,), restart=node["restart"])
            return ChildSpec(key, DynamicSupervisor, args=(template,), kwargs=limit, restart="permanent")
        children = [self.spec(child) for child in node["children"]]
        return ChildSpec(
            key,
            Supervisor,
            args=(children,),
            kwargs={**limit, "strategy": node["strategy"]},
            restart=node["restart"],
        )

    def fill(self, supervisor: Ref) -> None:
        for ref in list(self.below(supervisor)):
            if ref.actor_class is DynamicSupervisor:
                for _ in range(2):
                    self.keys += 1
                    start_dynamic(ref, f"k{self.keys}")

    # -- looking

    def below(self, supervisor: Ref) -> Iterator[Ref]:
        """Yield all living actors of the tree, each supervisor before its children, in start order."""
        for _, child, _ in reversed(which_children(supervisor)):
            if isinstance(child, Ref):
                yield child
                if child.actor_class in (Supervisor, DynamicSupervisor):
                    yield from self.below(child)

    def everybody(self) -> list[Ref]:
        assert self.root is not None
        return [self.root, *self.below(self.root)] if self.root.is_alive() else []

    def pick(self, data: Any, *kinds: type) -> Ref | None:
        found = [ref for ref in self.everybody() if ref.actor_class in kinds and ref is not self.root]
        return data.draw(st.sampled_from(found)) if found else None

    # -- what can happen

    @precondition(lambda self: self.root is not None)
    @rule(data=st.data(), reason=REASONS)
    def a_worker_ends(self, data: Any, reason: ExitReason | None) -> None:
        ref = self.pick(data, Tool)
        if ref is not None:
            ref.tell(Boom("bug") if reason is None else Stop(reason))
            self.clock.settle()

    @precondition(lambda self: self.root is not None)
    @rule(data=st.data())
    def several_are_killed_at_once(self, data: Any) -> None:
        found = [ref for ref in self.everybody() if ref.actor_class is Tool]
        for ref in data.draw(st.lists(st.sampled_from(found), max_size=3, unique=True)) if found else []:
            ref.kill()
        self.clock.settle()

    @precondition(lambda self: self.root is not None)
    @rule(data=st.data())
    def a_supervisor_is_killed(self, data: Any) -> None:
        ref = self.pick(data, Supervisor, DynamicSupervisor)
        if ref is not None:
            ref.kill()
            self.clock.settle()

    @precondition(lambda self: self.root is not None)
    @rule(data=st.data(), failures=st.integers(1, 3))
    def a_worker_crashes_and_cannot_start(self, data: Any, failures: int) -> None:
        ref = self.pick(data, Tool)
        if ref is not None:
            key = ref.actor.key
            self.shop.faults[key] = [StartFailed(ExitReason("not_now")) for _ in range(failures)]
            ref.tell(Boom("bug"))
            self.clock.settle()
            self.shop.faults.pop(key, None)

    @precondition(lambda self: self.root is not None)
    @rule(data=st.data())
    def an_operator_stops_starts_or_deletes_a_child(self, data: Any) -> None:
        found = [ref for ref in self.everybody() if ref.actor_class is Supervisor and which_children(ref)]
        if not found:
            return
        supervisor = data.draw(st.sampled_from(found))
        listed = which_children(supervisor)
        key = data.draw(st.sampled_from([key for key, _, _ in listed]))
        self.by_hand.add(supervisor.serial)
        call = data.draw(st.sampled_from([terminate_child, restart_child, delete_child]))
        try:
            call(supervisor, key)
        except (ChildRunning, ChildRestarting, ChildStartFailed):
            pass
        self.clock.settle()

    @precondition(lambda self: self.root is not None)
    @rule(data=st.data(), node=worker)
    def an_operator_adds_a_child(self, data: Any, node: dict[str, Any]) -> None:
        found = [ref for ref in self.everybody() if ref.actor_class is Supervisor]
        if found:
            start_child_of(data.draw(st.sampled_from(found)), self.spec(node))

    # -- what must hold

    @invariant()
    def whoever_is_alive_is_listed_by_its_living_supervisor(self) -> None:
        if self.root is None:
            return
        alive = {ref for _, ref in self.shop.ever if ref.is_alive()}
        listed = {ref for ref in self.everybody() if ref.actor_class is Tool}
        assert alive == listed

    @invariant()
    def counts_agree_with_the_list(self) -> None:
        for ref in self.everybody() if self.root is not None else []:
            if ref.actor_class is Tool:
                continue
            rows = which_children(ref)
            counts = count_children(ref)
            assert counts["active"] == sum(isinstance(child, Ref) for _, child, _ in rows)
            assert counts["workers"] + counts["supervisors"] == len(rows)
            assert counts["specs"] == (1 if ref.actor_class is DynamicSupervisor else len(rows))
            assert [child for _, child, _ in rows if child == "restarting"] == []

    @invariant()
    def a_temporary_child_is_not_listed_without_an_actor(self) -> None:
        for supervisor in self.everybody() if self.root is not None else []:
            if supervisor.actor_class is Supervisor:
                absent = [key for key, child, _ in which_children(supervisor) if child is None]
                assert [key for key in absent if get_childspec(supervisor, key).restart == "temporary"] == []

    @invariant()
    def every_end_was_told_exactly_once(self) -> None:
        for _, ref in self.shop.ever:
            assert self.shop.downs.get(ref, 0) == (0 if ref.is_alive() else 1)

    @invariant()
    def no_name_is_left_behind(self) -> None:
        assert not any(line.endswith("still named") for line in self.shop.log)
        for name in names.registered():
            holder = names.whereis(name)
            assert holder is not None
            assert holder.is_alive()
            assert holder.name == name

    @invariant()
    def groups_run_in_start_order(self) -> None:
        for supervisor in self.everybody() if self.root is not None else []:
            if supervisor.actor_class is not Supervisor or supervisor.serial in self.by_hand:
                continue
            if supervisor.actor.flags.strategy in ("one_for_all", "rest_for_one"):
                serials = [ref.serial for _, ref, _ in reversed(which_children(supervisor)) if isinstance(ref, Ref)]
                assert serials == sorted(serials)

    def teardown(self) -> None:
        try:
            if self.root is not None and self.root.is_alive():
                self.stop_in_reverse()
        finally:
            self.shop.close()
            self.clock.uninstall()

    def stop_in_reverse(self) -> None:
        assert self.root is not None
        inside = [ref for ref in self.everybody() if ref.actor_class is DynamicSupervisor]
        order = [ref for ref in self.everybody() if ref.actor_class is Tool and ref.parent not in inside]
        everyone = [ref for ref in self.everybody() if ref.actor_class is Tool]
        keys = {ref: ref.actor.key for ref in everyone}
        self.shop.told()
        self.root.stop(timeout=None)
        assert not any(ref.is_alive() for ref in everyone)
        ended = [line.split()[1] for line in self.shop.told() if line.startswith("end ")]
        apart = {keys[ref] for ref in everyone} - {keys[ref] for ref in order}
        assert [key for key in ended if key not in apart] == [keys[ref] for ref in reversed(order)]
        assert sorted(ended) == sorted(keys.values())


TestAnyTree = AnyTree.TestCase
TestAnyTree.settings = settings(
    max_examples=60,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
