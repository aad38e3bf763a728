"""What everybody may rely on when a supervised actor ends: its name is free, and each is told exactly once."""

from __future__ import annotations

import pytest

from runtime.names import whereis
from runtime.promise import ActorUnavailable
from runtime.signals import monitor
from supervisors import Supervisor
from supervisors.supervisor import Request
from tests.supervisors.workshop import Workshop


@pytest.mark.parametrize("how", ["crash", "kill", "stop"])
def test_a_name_is_free_before_anybody_hears_of_the_end(workshop: Workshop, how: str) -> None:
    workshop.supervise(workshop.spec("a", name="clerk"))
    ref = workshop.refs["a"]
    held: list[object] = []
    monitor(ref, lambda _down: held.append(whereis("clerk")))
    if how == "crash":
        workshop.end("a")
    elif how == "kill":
        workshop.kill("a")
    else:
        ref.stop()
    assert held == [None]
    assert "end a still named" not in workshop.log


def test_a_restarted_actor_has_its_name_again(workshop: Workshop) -> None:
    workshop.supervise(workshop.spec("a", name="clerk"), max_restarts=3)
    before = whereis("clerk")
    workshop.end("a")
    workshop.clock.settle()
    after = whereis("clerk")
    assert after is workshop.refs["a"]
    assert after is not before


def test_each_monitor_gets_exactly_one_down(workshop: Workshop) -> None:
    workshop.supervise("a", max_restarts=10)
    counts = [0, 0, 0]
    ref = workshop.refs["a"]
    for at in range(3):
        monitor(ref, lambda _down, at=at: counts.__setitem__(at, counts[at] + 1))  # type: ignore[misc]
    workshop.end("a")
    workshop.kill("a")
    ref.kill()
    workshop.clock.settle()
    assert counts == [1, 1, 1]


def test_a_broken_monitor_keeps_no_other_from_its_down(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    from runtime import signals

    broken: list[object] = []
    monkeypatch.setattr(signals, "report", broken.append)
    workshop.supervise("a")
    heard: list[str] = []

    def fail(_down: object) -> None:
        raise ValueError

    monitor(workshop.refs["a"], fail)
    monitor(workshop.refs["a"], lambda down: heard.append(str(down.reason)))
    workshop.kill("a")
    assert heard == ["killed"]
    assert broken == [fail]
    assert workshop.refs["a"].is_alive()


def test_what_waits_in_the_mailbox_of_a_killed_actor_is_answered_as_never_started(workshop: Workshop) -> None:
    workshop.supervise("a")
    ref = workshop.refs["a"]
    futures = [ref.ask(number, block=False) for number in range(3)]
    ref.kill()
    for future in futures:
        with pytest.raises(ActorUnavailable) as refused:
            future.get()
        assert refused.value.started == "no"


def test_requests_and_exits_are_handled_in_the_order_of_the_mailbox(workshop: Workshop) -> None:
    from runtime.promise import Promise

    supervisor = workshop.supervise("a", "b", max_restarts=5)
    answers: list[Promise] = []

    def ask() -> None:
        answers.append(Promise())
        supervisor.request(Request("which_children"), answers[-1])

    before = workshop.refs["a"]
    ask()
    before.kill()
    ask()
    workshop.clock.settle()
    listed = [{key: child for key, child, _ in answer.wait()} for answer in answers]
    assert listed[0]["a"] is before
    assert listed[1]["a"] is workshop.refs["a"]


def test_a_supervisor_keeps_nothing_of_the_actors_that_ended() -> None:
    from regrow.testing import ManualClock

    with ManualClock() as manual_clock:
        workshop = Workshop(manual_clock)
        supervisor = workshop.supervise("a", max_restarts=1000)
        for _ in range(50):
            workshop.kill("a")
        assert supervisor.links is not None
        assert len(supervisor.links) == 1
        actor = supervisor.actor
        assert isinstance(actor, Supervisor)
        assert len(actor.by_ref) == 1
        workshop.close()
