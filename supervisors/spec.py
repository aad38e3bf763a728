"""Child specs and supervisor flags: what a supervisor is told, and the checks of it (OTP, `supervisor:init/1`).

Specs and flags may hold anything; the supervisor checks them all before it starts the first child, in OTP's order, and
names the first thing that is wrong. Defaults are OTP's; trees made from a configuration pass their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from regrow.protocol.errors import Invalid
from supervisors.backoff import Backoff

RESTARTS = ("permanent", "transient", "temporary")
STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one")
DYNAMIC_STRATEGIES = (
    "simple_one_for_one",
    "one_for_one",
)  # with a template (OTP), with a full spec at each start (Elixir)
TYPES = ("worker", "supervisor")
AUTO_SHUTDOWNS = ("never", "any_significant", "all_significant")
DEFAULT_WORKER_SHUTDOWN_S = 5.0

Shutdown = float | Literal["infinity", "brutal_kill"]


class _Missing:
    def __repr__(self) -> str:
        return "missing"


MISSING: Any = _Missing()


class SpecError(Invalid):
    """A child spec or flag is wrong: `kind` is OTP's word for it (`invalid_restart_type`), `value` what was found."""

    code = "invalid_arguments"

    def __init__(self, kind: str, value: Any = MISSING, expected: str = "") -> None:
        found = "" if value is MISSING else f": {value!r}"
        super().__init__(f"{kind}{found}{', expected ' + expected if expected else ''}")
        self.kind = kind
        self.value = value


class ChildSpec:
    """How a supervisor starts, restarts and stops one child.

    `start` is an actor class, started with `args` and `kwargs`, or a function that returns the ref of an actor it
    started (or a pair of ref and extra information). `shutdown` is seconds to wait before killing, "infinity" or
    "brutal_kill". `name` registers the actor. `backoff`, `park` and `measured` are ours, beyond OTP: a delay before
    each restart; what to do instead of counting when the child, a supervisor, gave up; and whether its messages are
    measured for the metrics. With `on_dependency_down="wait"` a crash that is blamed on a dependency (runtime.blame)
    spends no intensity: the child waits until one of `depends_on` is back. A start that takes longer than
    `start_timeout_s` (None, as in OTP: no limit) is killed and has failed with the reason `timeout`.
    """

    __slots__ = (
        "args",
        "backoff",
        "depends_on",
        "exports",
        "id",
        "kwargs",
        "mailbox",
        "measured",
        "meter",
        "modules",
        "name",
        "on_dependency_down",
        "park",
        "restart",
        "shutdown",
        "significant",
        "start",
        "start_timeout_s",
        "timeout_s",
        "type",
    )

    def __init__(
        self,
        id: Any = MISSING,
        start: Any = MISSING,
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
        restart: Any = "permanent",
        shutdown: Any = MISSING,
        type: Any = MISSING,
        significant: Any = False,
        modules: Any = "dynamic",
        mailbox: int | None = None,
        timeout_s: float | None = None,
        start_timeout_s: float | None = None,
        backoff: Backoff | None = None,
        park: Backoff | None = None,
        measured: bool = False,
        exports: Mapping[str, Any] | None = None,
        depends_on: Sequence[str] = (),
        on_dependency_down: Literal["restart", "wait"] = "restart",
    ) -> None:
        self.id = id
        self.start = start
        self.args = tuple(args)
        self.kwargs = dict(kwargs or {})
        self.name = name
        self.restart = restart
        self.type = _default_type(start) if type is MISSING else type
        self.shutdown = shutdown if shutdown is not MISSING else self._default_shutdown()
        self.significant = significant
        self.modules = modules
        self.mailbox = mailbox
        self.timeout_s = timeout_s
        self.start_timeout_s = start_timeout_s
        self.backoff = backoff
        self.park = park
        self.measured = measured
        self.meter: Any = None
        self.exports = exports
        self.depends_on = tuple(depends_on)
        self.on_dependency_down = on_dependency_down

    def copy(self) -> ChildSpec:
        """Return a spec that is equal and may be changed. Never switches."""
        twin = ChildSpec.__new__(ChildSpec)
        for name in ChildSpec.__slots__:
            setattr(twin, name, getattr(self, name))
        return twin

    def _default_shutdown(self) -> Any:
        return "infinity" if self.type == "supervisor" else DEFAULT_WORKER_SHUTDOWN_S

    def __repr__(self) -> str:
        return f"<ChildSpec {self.id} {self.restart} {self.type} shutdown={self.shutdown}>"


def _default_type(start: Any) -> str:
    return "supervisor" if getattr(start, "supervises", False) else "worker"


class Flags:
    """A supervisor's flags: strategy, intensity (`max_restarts` within `max_seconds`) and automatic shutdown."""

    __slots__ = ("auto_shutdown", "max_restarts", "max_seconds", "strategy")

    def __init__(
        self,
        strategy: Any = "one_for_one",
        max_restarts: Any = 1,
        max_seconds: Any = 5,
        auto_shutdown: Any = "never",
    ) -> None:
        self.strategy = strategy
        self.max_restarts = max_restarts
        self.max_seconds = max_seconds
        self.auto_shutdown = auto_shutdown

    def check(self, strategies: Sequence[str] = STRATEGIES) -> None:
        """Raise `SpecError` for the first flag that is wrong. Never switches."""
        if self.strategy not in strategies:
            raise SpecError("invalid_strategy", self.strategy, _one_of(strategies))
        if not _is_integer(self.max_restarts) or self.max_restarts < 0:
            raise SpecError("invalid_intensity", self.max_restarts, "a whole number of restarts, 0 or more")
        if not _is_number(self.max_seconds) or self.max_seconds <= 0:
            raise SpecError("invalid_period", self.max_seconds, "a number of seconds above 0")
        if self.auto_shutdown not in AUTO_SHUTDOWNS:
            raise SpecError("invalid_auto_shutdown", self.auto_shutdown, _one_of(AUTO_SHUTDOWNS))
        if self.strategy == "simple_one_for_one" and self.auto_shutdown != "never":  # as OTP does since release 26
            raise SpecError("bad_combination", (("auto_shutdown", self.auto_shutdown), ("strategy", self.strategy)))


def check_spec(spec: Any, auto_shutdown: str | None = None) -> ChildSpec:  # noqa: C901 - a ladder of short checks in OTP's order
    """Return the spec, or raise `SpecError` for the first thing that is wrong with it. Never switches."""
    if not isinstance(spec, ChildSpec):
        raise SpecError("invalid_child_spec", spec, "a ChildSpec")
    if spec.id is MISSING:
        raise SpecError("missing_id", expected="an id, unique among the children of this supervisor")
    if not _is_hashable(spec.id):
        raise SpecError("invalid_id", spec.id, "an id that can be a key of a dictionary")
    if spec.start is MISSING:
        raise SpecError("missing_start", expected="an actor class or a function that starts one")
    if not callable(spec.start):
        raise SpecError("invalid_mfa", spec.start, "an actor class or a function that starts one")
    if spec.restart not in RESTARTS:
        raise SpecError("invalid_restart_type", spec.restart, _one_of(RESTARTS))
    if not isinstance(spec.significant, bool):
        raise SpecError("invalid_significant", spec.significant, "true or false")
    if spec.significant and auto_shutdown == "never":
        raise SpecError("bad_combination", (("auto_shutdown", "never"), ("significant", True)))
    if spec.significant and spec.restart == "permanent":
        raise SpecError("bad_combination", (("restart", "permanent"), ("significant", True)))
    if spec.type not in TYPES:
        raise SpecError("invalid_child_type", spec.type, _one_of(TYPES))
    if spec.shutdown not in ("infinity", "brutal_kill") and (not _is_number(spec.shutdown) or spec.shutdown < 0):
        raise SpecError("invalid_shutdown", spec.shutdown, 'seconds, "infinity" or "brutal_kill"')
    if spec.modules != "dynamic":
        if not isinstance(spec.modules, list | tuple):
            raise SpecError("invalid_modules", spec.modules, '"dynamic" or a list of module names')
        for module in spec.modules:
            if not isinstance(module, str):
                raise SpecError("invalid_module", module, "a module name")
    return spec


def check_childspecs(specs: Iterable[Any], auto_shutdown: str | None = None) -> None:
    """Raise `SpecError` for the first wrong or doubled spec (OTP's check_childspecs). Never switches."""
    if not isinstance(specs, list | tuple):
        raise SpecError("badarg", specs, "a list of child specs")
    if auto_shutdown is not None and auto_shutdown not in AUTO_SHUTDOWNS:
        raise SpecError("badarg", auto_shutdown, _one_of(AUTO_SHUTDOWNS))
    seen = set()
    for spec in specs:
        check_spec(spec, auto_shutdown)
        if spec.id in seen:
            raise SpecError("duplicate_child_name", spec.id, "each id once")
        seen.add(spec.id)


def _one_of(words: Sequence[str]) -> str:
    return "one of " + ", ".join(words)


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


Start = Callable[..., Any]
