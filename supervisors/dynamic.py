"""Dynamic supervisors: one_for_one over children that come and go, addressed by ref (OTP simple_one_for_one, Elixir).

With a template each start adds positional arguments to it (OTP); without one each start brings a full spec (Elixir), of
which the id is not kept. All children are stopped at the same time. A child is one record, so a million of them are
fine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, ClassVar

from runtime import clock
from runtime.introspect import ChildFacts
from runtime.promise import AskTimeout, Promise
from runtime.reasons import ExitReason, StartFailed
from runtime.ref import Ref
from supervisors.child import ABSENT, RESTARTING, Child, begin_to_stop, facts_of, let_go
from supervisors.errors import ChildStartFailed, NoSuchChild, NotForDynamic, TooManyChildren
from supervisors.spec import DYNAMIC_STRATEGIES, ChildSpec, check_spec
from supervisors.strategy import is_shutdown_error
from supervisors.supervisor import Request, Supervisor


class DynamicSupervisor(Supervisor):
    """Starts empty; children are started by `start_dynamic`, at most `max_children` of them at a time (None: no limit).

    A subclass may override `init`: flags with the strategy `simple_one_for_one` take exactly one spec, the template.
    """

    strategies: ClassVar[Sequence[str]] = DYNAMIC_STRATEGIES

    def __init__(
        self,
        template: Any = None,
        *,
        max_children: int | None = None,
        max_restarts: Any = 1,
        max_seconds: Any = 5,
        auto_shutdown: Any = "never",
    ) -> None:
        super().__init__(
            [] if template is None else [template],
            strategy="one_for_one" if template is None else "simple_one_for_one",
            max_restarts=max_restarts,
            max_seconds=max_seconds,
            auto_shutdown=auto_shutdown,
        )
        self.max_children = max_children
        self.template: ChildSpec | None = None
        self.waiting: dict[Ref, Child] = {}  # children between two attempts, by the ref they had

    def check_specs(self, specs: Sequence[Any]) -> None:
        if len(specs) != (self.flags.strategy == "simple_one_for_one"):
            raise StartFailed(ExitReason("bad_start_spec", list(specs)))
        super().check_specs(specs)

    def start_initial(self, specs: Sequence[ChildSpec]) -> None:
        self.template = specs[0] if specs else None

    # -- children by ref

    def forget(self, child: Child) -> None:
        if child.last_ref is not None:
            self.waiting.pop(child.last_ref, None)

    def listed(self, child: Child) -> Child | None:
        return self.waiting.get(child.last_ref) if child.last_ref is not None else None

    def retry_in(self, child: Child, delay_s: float) -> None:
        super().retry_in(child, delay_s)
        if child.last_ref is not None:
            self.waiting[child.last_ref] = child

    def wait_for_dependency(self, child: Child, reason: ExitReason) -> None:
        super().wait_for_dependency(child, reason)
        if child.last_ref is not None:
            self.waiting[child.last_ref] = child

    def restart_group(self, child: Child) -> Child | None:
        if child.last_ref is not None:
            self.waiting.pop(child.last_ref, None)
        again = self.restart_one(child)
        if again is not None and child.last_ref is not None:
            self.waiting[child.last_ref] = child
        return again

    def auto_shutdown(self, child: Child) -> None:
        return

    def do_start_child(self, *args: Any) -> Any:
        if self.max_children is not None and len(self.by_ref) + len(self.waiting) >= self.max_children:
            raise TooManyChildren(
                f"{self.ref.path} runs {self.max_children} children, its limit, come back later", retry_after_s=1.0
            )
        template = self.template
        if template is not None:
            child = Child(_with_args(template, args))
        else:
            (spec,) = args
            child = Child(check_spec(spec, self.flags.auto_shutdown))
        reason = self.start_one(child)
        if reason is not None:
            raise ChildStartFailed(reason, child.label)
        return (child.ref, child.info) if child.info is not None else child.ref

    def do_terminate_child(self, id: Any) -> None:
        if not isinstance(id, Ref):
            raise NotForDynamic(f"{self.ref.path} addresses its children by ref, not by {id!r}")
        child = self.by_ref.get(id)
        if child is not None:
            self.stop_one(child)
            return
        child = self.waiting.pop(id, None)
        if child is not None:
            child.set(ABSENT)
        elif id.is_alive():
            raise NoSuchChild(f"{id} is no child of {self.ref.path}")

    def do_restart_child(self, id: Any) -> Any:
        raise NotForDynamic(f"{self.ref.path} starts children only by start_child")

    def do_delete_child(self, id: Any) -> None:
        raise NotForDynamic(f"{self.ref.path} forgets children when they end")

    def do_get_childspec(self, id: Any) -> ChildSpec:
        child = self.by_ref.get(id) or self.waiting.get(id) if isinstance(id, Ref) else None
        if child is not None:
            return child.spec
        template = self.template
        if template is not None and (not id.is_alive() if isinstance(id, Ref) else id == template.id):
            return template
        raise NoSuchChild(f"{id!r} is no child of {self.ref.path}")

    def do_which_children(self) -> list[tuple[Any, Any, str]]:
        running = [(None, ref, child.spec.type) for ref, child in self.by_ref.items()]
        return running + [(None, RESTARTING, child.spec.type) for child in self.waiting.values()]

    def do_count_children(self) -> dict[str, int]:
        children = [*self.by_ref.values(), *self.waiting.values()]
        supervisors = sum(c.spec.type == "supervisor" for c in children)
        return {
            "specs": 1 if self.template is not None else len(children),
            "active": len(self.by_ref),  # as in OTP nobody asks each of them whether it is alive
            "supervisors": supervisors,
            "workers": len(children) - supervisors,
        }

    def child_facts(self, most: int) -> tuple[Iterable[ChildFacts], int]:
        children = [*islice(self.by_ref.values(), most), *islice(self.waiting.values(), most)]
        return map(facts_of, children), len(self.by_ref) + len(self.waiting) - len(children)

    def child_fact(self, label: str) -> ChildFacts | None:
        return None

    def status(self) -> dict[str, Any]:
        return {**super().status(), "strategy": "dynamic", "children": len(self.by_ref) + len(self.waiting)}

    # -- stopping all at the same time

    def stop_all(self) -> None:
        """Tell every child to stop, wait for all, kill each whose `shutdown` is over, report once per reason."""
        children = list(self.by_ref.items())
        for waiting in self.waiting.values():
            waiting.set(ABSENT)
        self.by_ref, self.waiting = {}, {}
        began = clock.now()
        left = [(ref, child, begin_to_stop(self.ref, ref, child.spec)) for ref, child in children]
        timed = [
            (child.spec.shutdown, ref, promise)
            for ref, child, promise in left
            if not isinstance(child.spec.shutdown, str)
        ]
        for limit_s, ref, promise in sorted(timed, key=lambda item: item[0]):
            if not _ended_by(promise, began + limit_s):
                ref.kill()
        reported: dict[tuple[Any, ExitReason], list[Child]] = {}
        for ref, child, promise in left:
            reason: ExitReason = promise.wait()
            let_go(self.ref, ref)
            child.set(ABSENT)
            if is_shutdown_error(child.spec.restart, child.spec.shutdown == "brutal_kill", reason):
                reported.setdefault((child.spec.id, reason), []).append(child)
        for (_, reason), group in reported.items():
            self.report("shutdown_error", GroupOffender(group[0], len(group)), reason)


class GroupOffender(Child):
    """Several dynamic children that left with the same reason, reported as one."""

    __slots__ = ("count",)

    def __init__(self, child: Child, count: int) -> None:
        super().__init__(child.spec)
        self.count = count

    @property
    def label(self) -> str:
        return f"{self.spec.id}*{self.count}"


def _with_args(template: ChildSpec, args: Iterable[Any]) -> ChildSpec:
    spec = template.copy()
    spec.args = (*template.args, *args)
    return spec


def _ended_by(promise: Promise, until: float) -> bool:
    """Wait for the end of a child until this instant and tell whether it came. Switches greenlets."""
    try:
        promise.wait(max(0.0, until - clock.now()))
    except AskTimeout:
        return False
    return True


def start_dynamic(supervisor: Ref, *args: Any) -> Any:
    """Start a child under a dynamic supervisor: template arguments, or one full spec. Switches greenlets."""
    return supervisor.ask(Request("start_child", *args), timeout=None)
