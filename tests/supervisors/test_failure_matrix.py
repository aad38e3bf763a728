"""The failure matrix: every strategy, restart type and exit reason, at every point of a child's life."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from runtime import events
from runtime.reasons import KILL, NORMAL, SHUTDOWN, ExitReason, Shutdown, StartFailed, Stop
from supervisors import terminate_child
from tests.supervisors.workshop import Boom, Workshop, reports, states

STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one")
RESTARTS = ("permanent", "transient", "temporary")
ENDS: dict[str, ExitReason | None] = {
    "normal": NORMAL,
    "shutdown": SHUTDOWN,
    "shutdown with a detail": Shutdown("x"),
    "another reason": ExitReason("boom"),
    "kill by itself": KILL,
    "an exception": None,
    "killed from outside": None,
}
ORDERLY = ("normal", "shutdown", "shutdown with a detail")


def cause(end: str) -> BaseException:
    reason = ENDS[end]
    return Boom("bug") if reason is None else Stop(reason)


def while_handling() -> Iterator[object]:
    """For b of (a, b, c): who stops, who starts, and how b is listed after it ended while it worked."""
    for strategy, restart, end in itertools.product(STRATEGIES, RESTARTS, ENDS):
        comes_back = restart == "permanent" or (restart == "transient" and end not in ORDERLY)
        if not comes_back:
            stopped, started = "", ""
        else:
            stopped, started = {"one_for_one": ("", "b"), "one_for_all": ("ca", "abc"), "rest_for_one": ("c", "bc")}[
                strategy
            ]
        listed = "running" if comes_back else None if restart == "temporary" else "undefined"
        yield pytest.param(strategy, restart, end, stopped, started, listed, id=f"{strategy}-{restart}-{end}")


@pytest.mark.parametrize(("strategy", "restart", "end", "stopped", "started", "listed"), list(while_handling()))
def test_a_child_that_ends_while_it_works(
    workshop: Workshop, strategy: str, restart: str, end: str, stopped: str, started: str, listed: str | None
) -> None:
    supervisor = workshop.supervise("a", workshop.spec("b", restart=restart), "c", strategy=strategy)
    workshop.told()
    if end == "killed from outside":
        workshop.kill("b")
    else:
        workshop.end("b", cause(end))
    told = workshop.told()
    if not end.startswith(("an exception", "killed")) and told[0] == "stop b":
        del told[0]  # the hook of its own orderly end
    assert told[0].startswith("end b")
    assert [line for line in told[1:] if line.startswith("stop")] == [f"stop {key}" for key in stopped]
    assert [line for line in told[1:] if line.startswith("start")] == [f"start {key}" for key in started]
    assert states(supervisor).get("b") == listed
    assert states(supervisor)["a"] == states(supervisor)["c"] == "running"


@pytest.mark.parametrize("end", [end for end in ENDS if end != "killed from outside"])
@pytest.mark.parametrize("restart", RESTARTS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_child_whose_first_start_fails_fails_its_supervisor(
    workshop: Workshop, strategy: str, restart: str, end: str
) -> None:
    workshop.faults["b"] = [cause(end)]
    with pytest.raises(StartFailed) as failed:
        workshop.supervise("a", workshop.spec("b", restart=restart), "c", strategy=strategy)
    assert workshop.told() == ["start a", "fail b", "stop a", "end a shutdown"]
    assert failed.value.reason.detail.id == "b"


@pytest.mark.parametrize("end", [end for end in ENDS if end != "killed from outside"])
@pytest.mark.parametrize("restart", ["permanent", "transient"])
@pytest.mark.parametrize(
    ("strategy", "attempts"),
    [
        ("one_for_one", ["fail b", "start b"]),
        ("one_for_all", ["start a", "fail b", "start a", "start b", "start c"]),
        ("rest_for_one", ["fail b", "start b", "start c"]),
    ],
)
def test_a_child_whose_restart_fails_is_tried_again(
    workshop: Workshop, strategy: str, attempts: list[str], restart: str, end: str
) -> None:
    supervisor = workshop.supervise("a", workshop.spec("b", restart=restart), "c", strategy=strategy, max_restarts=2)
    workshop.faults["b"] = [cause(end)]
    workshop.told()
    workshop.end("b")
    assert [line for line in workshop.told() if line.startswith(("start", "fail"))] == attempts
    assert states(supervisor) == {"c": "running", "b": "running", "a": "running"}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("restart", RESTARTS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_child_that_ends_otherwise_while_it_is_stopped(
    workshop: Workshop, published: list[events.Event], strategy: str, restart: str, end: str
) -> None:
    def stopping() -> None:
        if end == "killed from outside":
            workshop.refs["b"].kill()
        raise cause(end)

    child = workshop.spec("b", restart=restart, on_stop=stopping)
    supervisor = workshop.supervise("a", child, "c", strategy=strategy, max_restarts=0)
    workshop.told()
    terminate_child(supervisor, "b")
    assert [line for line in workshop.told() if not line.startswith("stop")] == [
        f"end b {'killed' if end == 'killed from outside' else 'crashed' if end == 'an exception' else ENDS[end].kind}"  # type: ignore[union-attr]
    ]
    expected = end != "shutdown" and (restart == "permanent" or end not in ORDERLY)
    assert [context for context, _, _ in reports(published)] == (["shutdown_error"] if expected else [])
    assert states(supervisor).get("b") == (None if restart == "temporary" else "undefined")
    assert states(supervisor)["a"] == states(supervisor)["c"] == "running"
