"""The same class in a process, on a thread and on the hub: one API, one supervision; then what is special to each."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import psutil
import pytest
from gevent.event import AsyncResult

from actors.hosted import lane
from actors.hosted.process import ProcessActor
from actors.hosted.thread import ThreadActor
from actors.workers.child import OOM_SCORE_ADJUST
from config.secret import Secret
from regrow.protocol.errors import ExecutionError, InvalidArguments, Refused, RegrowError, Unavailable
from runtime import clock, events
from runtime.exports import exports_of
from runtime.messages import Call
from runtime.names import whereis
from runtime.promise import Promise
from runtime.reasons import Crashed, ExitReason
from runtime.ref import Ref
from runtime.signals import Down, monitor
from runtime.streams import iterate
from supervisors import Backoff, ChildSpec, Supervisor
from tests.actors.hosted.classes import Counter, HangsAtStart, NeverStarts
from tests.actors.workers.conftest import PATIENCE_S, EventLog

Start = Callable[..., Ref]
LOG = EventLog()
PLACES = ["hub", "thread", "process"]
AWAY = ["thread", "process"]


def spec(run_in: str, actor_class: type = Counter, timeout_s: float = 30.0, **args: Any) -> ChildSpec:
    """As the daemon's tree would write it."""
    name = f"{actor_class.__module__}:{actor_class.__name__}"
    start: Any = {"hub": actor_class, "thread": ThreadActor, "process": ProcessActor}[run_in]
    kwargs = {
        "hub": args,
        "thread": {"actor_class": actor_class, "args": args},
        "process": {"actor_class": name, "args": args, "exports": exports_of(actor_class)},
    }[run_in]
    return ChildSpec(
        "it",
        start,
        kwargs=kwargs,
        name="it",
        timeout_s=timeout_s,
        backoff=Backoff(base_s=0.01, max_s=0.1),
        exports=exports_of(actor_class),
    )


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts one actor under a supervisor and returns the supervisor's ref."""
    supervisors: list[Ref] = []

    def begin(run_in: str, **options: Any) -> Ref:
        supervisors.append(Supervisor.start([spec(run_in, **options)], max_restarts=100))
        return it()

    yield begin
    for supervisor in supervisors:
        supervisor.stop(timeout=PATIENCE_S)


@pytest.fixture(autouse=True)
def happened() -> Iterator[EventLog]:
    unsubscribe = events.subscribe(LOG.add)
    yield LOG
    unsubscribe()
    LOG.seen.clear()


def it() -> Ref:
    ref = whereis("it")
    assert ref is not None
    return ref


def restarted(old: Ref) -> Ref:
    """The next incarnation, once it runs."""
    starts = 1
    while LOG.wait("child.started", count=starts, actor="it")[-1]["incarnation"] <= old.serial:
        starts += 1
    return it()


class EndOf:
    """The end of an actor that is still to come."""

    def __init__(self, ref: Ref) -> None:
        self._down: AsyncResult[Down] = AsyncResult()
        monitor(ref, self._down.set)

    def reason(self) -> ExitReason:
        down = self._down.get(timeout=PATIENCE_S)
        assert down is not None
        return down.reason


@pytest.mark.parametrize("run_in", PLACES)
def test_a_call_is_answered_and_the_state_stays(start: Start, run_in: str) -> None:
    ref = start(run_in, start=5)
    assert ref.call("add", {"number": 2}) == 7
    assert ref.call("add", {"number": 2}) == 9


@pytest.mark.parametrize("run_in", PLACES)
def test_any_other_message_reaches_on_receive(start: Start, run_in: str) -> None:
    ref = start(run_in)
    ref.tell({"a": 1})
    assert ref.ask("hello") == ["heard", "hello"]


@pytest.mark.parametrize("run_in", PLACES)
def test_a_typed_error_is_the_answer_and_the_actor_lives(start: Start, run_in: str) -> None:
    ref = start(run_in, start=1)
    with pytest.raises(Refused, match="not today") as caught:
        ref.call("refuse", {})
    assert caught.value.retry_after_s == 3.0
    assert ref.call("add", {"number": 1}) == 2


@pytest.mark.parametrize("run_in", PLACES)
def test_an_escaped_exception_is_a_crash_that_the_supervisor_heals_with_fresh_state(start: Start, run_in: str) -> None:
    ref = start(run_in, start=1)
    ref.call("add", {"number": 1})
    end = EndOf(ref)
    with pytest.raises(Exception, match="this went wrong"):
        ref.call("fail", {})
    reason = end.reason()
    assert isinstance(reason, Crashed)
    assert "this went wrong" in str(reason.exception)
    assert restarted(ref).call("add", {"number": 1}) == 2


@pytest.mark.parametrize("run_in", PLACES)
def test_what_waited_at_a_crash_is_answered_as_never_started(start: Start, run_in: str) -> None:
    ref = start(run_in)
    first = Promise(deadline=clock.now() + PATIENCE_S)
    second = Promise(deadline=clock.now() + PATIENCE_S)
    ref.request(Call("fail", {}), first)
    ref.request(Call("add", {"number": 1}), second)
    with pytest.raises(Unavailable) as caught:
        second.wait(PATIENCE_S)
    assert caught.value.started == "no"
    restarted(ref)


@pytest.mark.parametrize("run_in", PLACES)
def test_on_stop_runs_at_an_orderly_stop(start: Start, run_in: str, tmp_path: Path) -> None:
    told = tmp_path / "told"
    ref = start(run_in, told=told)
    ref.stop(timeout=PATIENCE_S)
    assert told.read_text() == "stopped"


@pytest.mark.parametrize("run_in", PLACES)
def test_an_actor_may_stop_itself(start: Start, run_in: str, tmp_path: Path) -> None:
    told = tmp_path / "told"
    ref = start(run_in, told=told)
    end = EndOf(ref)
    assert ref.call("leave", {}) == "bye"
    assert end.reason().kind == "normal"
    assert told.read_text() == "stopped"


@pytest.mark.parametrize("run_in", PLACES)
def test_arguments_have_the_types_of_their_annotations(start: Start, run_in: str, tmp_path: Path) -> None:
    ref = start(run_in, told=tmp_path / "told", key=Secret("hunter2-hunter2"))
    assert ref.call("kinds", {}) == ["PosixPath", "Secret"]
    assert ref.call("reveal", {}) == "15 characters"


@pytest.mark.parametrize("run_in", PLACES)
def test_the_deadline_travels_to_the_handler(start: Start, run_in: str) -> None:
    left_s = start(run_in).call("left_s", {}, timeout=7.0)
    assert 5.0 < left_s <= 7.0


@pytest.mark.parametrize("run_in", PLACES)
def test_a_message_to_itself_arrives_later(start: Start, run_in: str) -> None:
    ref = start(run_in)
    assert ref.call("soon", {}, timeout=PATIENCE_S) == 100


@pytest.mark.parametrize("run_in", PLACES)
def test_a_generator_streams(start: Start, run_in: str) -> None:
    ref = start(run_in)
    assert list(iterate(ref.call("count", {"to": 300}))) == list(range(300))


@pytest.mark.parametrize("run_in", PLACES)
def test_a_stream_closed_early_leaves_the_actor_free(start: Start, run_in: str) -> None:
    ref = start(run_in)
    items = iterate(ref.call("count", {"to": 300}), at_once=3)
    assert next(items) == 0
    items.close()  # type: ignore[attr-defined]
    assert ref.call("add", {"number": 1}) == 1


@pytest.mark.parametrize("run_in", PLACES)
def test_a_failing_start_is_the_starters_error(run_in: str) -> None:
    start: Any = spec(run_in, actor_class=NeverStarts)
    with pytest.raises(Exception, match="no model"):
        start.start.start(**start.kwargs)


@pytest.mark.parametrize("run_in", PLACES)
def test_operators_see_the_status_of_the_class(start: Start, run_in: str) -> None:
    ref = start(run_in, start=4)
    ref.call("add", {"number": 1})
    assert ref.actor.status()["number"] == 5


@pytest.mark.parametrize("run_in", AWAY)
def test_the_hub_is_free_while_a_handler_keeps_a_processor_busy(start: Start, run_in: str) -> None:
    ref = start(run_in)
    promise = Promise(deadline=clock.now() + PATIENCE_S)
    ref.request(Call("busy", {"seconds": 0.3}), promise)
    turns = 0
    while not promise.done:
        gevent.sleep(0.005)
        turns += 1
    assert promise.value == 0
    assert turns > 5


@pytest.mark.parametrize("run_in", AWAY)
def test_a_handler_past_its_limits_is_a_crash_and_the_next_incarnation_serves(
    start: Start, run_in: str, tmp_path: Path, happened: EventLog
) -> None:
    gate = tmp_path / "gate"
    ref = start(run_in, timeout_s=0.3)
    with pytest.raises(RegrowError):
        ref.call("hang", {"path": str(gate)}, timeout=0.2)
    assert restarted(ref).call("add", {"number": 1}, timeout=PATIENCE_S) == 1
    gate.touch()
    if run_in == "thread":
        assert happened.wait("actor.thread_returned", actor="it")[0]["stuck"] == 0


# -- a process --------------------------------------------------------------------------------------------------------


def test_the_kernel_takes_the_process_before_the_daemon_when_memory_is_out(start: Start) -> None:
    pid = start("process").call("where", {})["pid"]
    assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) == OOM_SCORE_ADJUST


def test_the_process_is_another_one_and_goes_with_the_actor(start: Start) -> None:
    ref = start("process")
    process = psutil.Process(ref.call("where", {})["pid"])
    assert process.pid != os.getpid()
    ref.kill()
    assert process.wait(PATIENCE_S) is not None or not process.is_running()


def test_a_process_that_dies_in_a_call_is_a_crash_and_tells_how(start: Start) -> None:
    ref = start("process")
    with pytest.raises(Exception, match="exited with code 9"):
        ref.call("die", {})
    assert restarted(ref).call("add", {"number": 1}) == 1


def test_a_process_that_is_shot_while_idle_is_replaced(start: Start) -> None:
    ref = start("process")
    end = EndOf(ref)
    psutil.Process(ref.call("where", {})["pid"]).kill()
    assert "SIGKILL" in str(end.reason())
    assert restarted(ref).call("add", {"number": 1}) == 1


def test_the_crash_has_the_traceback_of_the_process(start: Start) -> None:
    ref = start("process")
    end = EndOf(ref)
    with pytest.raises(Exception, match="ValueError: this went wrong"):
        ref.call("fail", {})
    assert "in fail" in str(end.reason().detail)
    restarted(ref)


def test_what_cannot_leave_or_enter_the_process_is_an_error_and_the_actor_lives(start: Start) -> None:
    ref = start("process")
    with pytest.raises(ExecutionError, match="the result cannot leave the process"):
        ref.call("unsendable", {})
    with pytest.raises(InvalidArguments, match="cannot be sent"):
        ref.ask(object())
    assert ref.call("add", {"number": 1}) == 1


# -- a thread ---------------------------------------------------------------------------------------------------------


def test_the_thread_is_the_same_for_all_messages_and_not_the_hubs(start: Start) -> None:
    ref = start("thread")
    where = [ref.call("where", {}) for _ in range(3)]
    assert len({place["thread"] for place in where}) == 1
    assert where[0]["thread"] == where[0]["began_in"] != threading.get_ident()
    assert where[0]["pid"] == os.getpid()


def test_a_deferred_answer_may_come_from_any_thread(start: Start) -> None:
    assert start("thread").call("answer_later", {}, timeout=PATIENCE_S) == "late"


def test_a_thread_that_does_not_come_back_is_reported_by_name_and_line(
    start: Start, happened: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "STUCK_S", 0.1)
    gate = tmp_path / "gate"
    ref = start("thread", timeout_s=0.2)
    with pytest.raises(RegrowError):
        ref.call("hang", {"path": str(gate)}, timeout=0.1)
    stuck = happened.wait("actor.stuck")[0]
    assert stuck["actor"] == "it"
    assert "classes.py" in stuck["where"]
    restarted(ref)
    gate.touch()
    happened.wait("actor.thread_returned", actor="it")


def test_an_actor_whose_start_hangs_keeps_only_so_many_threads_and_starts_when_one_comes_back(
    happened: EventLog, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    child = spec("thread", actor_class=HangsAtStart, path=str(gate))
    child.start_timeout_s, child.backoff = 0.05, Backoff(base_s=0.001, max_s=0.001)
    gate.touch()
    supervisor = Supervisor.start([child], max_restarts=1000)
    gate.unlink()
    before = len(sys._current_frames())
    it().kill()
    refusals = happened.wait("actor.crashed", count=3, actor="it", reason="TooManyStuck")
    assert len(sys._current_frames()) == before - 1 + lane.MAX_LEFT_BEHIND
    assert "it has 4 threads that hang, one of them at " in refusals[0]["message"]
    assert "classes.py:" in refusals[0]["message"]
    assert 'run_in = "process"' in refusals[0]["message"]
    gate.touch()
    returned = happened.wait("actor.thread_returned", count=lane.MAX_LEFT_BEHIND, actor="it")
    assert returned[-1]["stuck"] == 0
    happened.wait("child.started", count=2, actor="it")
    supervisor.stop(timeout=PATIENCE_S)
