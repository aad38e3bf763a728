"""Child specs and flags: what is wrong is named, in OTP's order, before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.actor import Actor
from runtime.reasons import StartFailed
from supervisors import ChildSpec, DynamicSupervisor, Flags, SpecError, Supervisor, check_childspecs


class Worker(Actor):
    """Something to start."""


def spec(**wrong: Any) -> ChildSpec:
    return ChildSpec(**{"id": "a", "start": Worker, **wrong})


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"start": "no function", "restart": "never"}, "invalid_mfa"),
        ({"restart": "never", "significant": "maybe"}, "invalid_restart_type"),
        ({"significant": "maybe", "type": "gadget"}, "invalid_significant"),
        ({"type": "gadget", "shutdown": "soon"}, "invalid_child_type"),
        ({"shutdown": -1, "modules": "all"}, "invalid_shutdown"),
        ({"shutdown": float("nan")}, "invalid_shutdown"),
        ({"shutdown": True}, "invalid_shutdown"),
        ({"modules": "all"}, "invalid_modules"),
        ({"modules": ["good", 1]}, "invalid_module"),
        ({"id": ["not", "hashable"]}, "invalid_id"),
    ],
)
def test_of_two_mistakes_the_one_that_otp_checks_first_is_named(wrong: dict[str, Any], kind: str) -> None:
    with pytest.raises(SpecError) as found:
        check_childspecs([spec(**wrong)])
    assert found.value.kind == kind


def test_a_missing_id_is_named_before_a_missing_start() -> None:
    with pytest.raises(SpecError, match="missing_id"):
        check_childspecs([ChildSpec()])
    with pytest.raises(SpecError, match="missing_start"):
        check_childspecs([ChildSpec("a")])


def test_a_significant_child_is_refused_first_for_the_mode_and_then_for_being_permanent() -> None:
    significant = spec(significant=True)
    with pytest.raises(SpecError) as found:
        check_childspecs([significant], "never")
    assert found.value.value == (("auto_shutdown", "never"), ("significant", True))
    for mode in (None, "any_significant"):
        with pytest.raises(SpecError) as found:
            check_childspecs([significant], mode)
        assert found.value.value == (("restart", "permanent"), ("significant", True))


def test_an_id_that_stands_twice_is_named() -> None:
    with pytest.raises(SpecError) as found:
        check_childspecs([spec(), spec()])
    assert (found.value.kind, found.value.value) == ("duplicate_child_name", "a")


def test_the_defaults_are_those_of_otp() -> None:
    worker, supervisor, flags = spec(), spec(start=Supervisor), Flags()
    assert (worker.restart, worker.shutdown, worker.type, worker.significant) == ("permanent", 5.0, "worker", False)
    assert (supervisor.shutdown, supervisor.type) == ("infinity", "supervisor")
    assert (flags.strategy, flags.max_restarts, flags.max_seconds) == ("one_for_one", 1, 5)
    assert flags.auto_shutdown == "never"


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        ({"strategy": "all_for_one", "max_restarts": -1}, "invalid_strategy"),
        ({"strategy": "simple_one_for_one"}, "invalid_strategy"),
        ({"max_restarts": -1, "max_seconds": 0}, "invalid_intensity"),
        ({"max_restarts": 1.5}, "invalid_intensity"),
        ({"max_restarts": True}, "invalid_intensity"),
        ({"max_seconds": 0, "auto_shutdown": "always"}, "invalid_period"),
        ({"max_seconds": float("inf")}, "invalid_period"),
        ({"auto_shutdown": "always"}, "invalid_auto_shutdown"),
    ],
)
def test_a_supervisor_with_wrong_flags_does_not_start(flags: dict[str, Any], kind: str) -> None:
    with pytest.raises(StartFailed) as found:
        Supervisor.start([spec()], **flags)
    assert found.value.reason.kind == "supervisor_data"
    assert found.value.reason.detail.kind == kind


def test_a_dynamic_supervisor_with_a_template_has_no_automatic_shutdown() -> None:
    with pytest.raises(StartFailed) as found:
        DynamicSupervisor.start(spec(restart="transient", significant=True), auto_shutdown="any_significant")
    assert found.value.reason.detail.kind == "bad_combination"


def test_all_specs_are_checked_before_the_first_child_starts() -> None:
    started: list[str] = []

    def start() -> None:
        started.append("first")

    with pytest.raises(StartFailed) as found:
        Supervisor.start([spec(start=start), spec(id="b", restart="never")])
    assert (found.value.reason.kind, started) == ("start_spec", [])


@pytest.mark.parametrize("made", [None, "flags", (Flags(),), (Flags(), [], 1)])
def test_an_init_that_returns_anything_else_fails_the_start(made: Any) -> None:
    class Odd(Supervisor):
        def init(self) -> Any:
            return made

    with pytest.raises(StartFailed) as found:
        Odd.start()
    assert found.value.reason.kind == "bad_return"


def test_flags_that_are_none_are_named() -> None:
    class Odd(Supervisor):
        def init(self) -> Any:
            return {"strategy": "one_for_one"}, []

    with pytest.raises(StartFailed) as found:
        Odd.start()
    assert found.value.reason.detail.kind == "invalid_type"
