"""Streams of items and reports of progress: from real processes, pulled as the gateway pulls them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest

from config.schema import Size
from regrow.protocol.errors import (
    ActorDown,
    Cancelled,
    Conflict,
    DeadlineExceeded,
    ExecutionError,
    Forbidden,
    NotFound,
    TooLarge,
)
from runtime import clock
from runtime.messages import Call
from runtime.promise import Promise
from runtime.streams import Batch, Source, iterate
from tests.actors.workers.conftest import PATIENCE_S, EventLog, RunningPool

StartPool = Callable[..., RunningPool]


def opened(running: RunningPool, function: str, *args: Any, timeout: float = PATIENCE_S, **options: Any) -> Source:
    """Ask for a stream as the wire would, and return it or raise the error."""
    body = running.plan.exports["stream"].check({"function": function, "args": list(args), **options})
    promise = Promise(deadline=clock.now() + timeout)
    running.front.request(Call("stream", body), promise)
    source: Source = promise.wait(timeout)
    return source


def pulled(source: Source, most: int, timeout: float = PATIENCE_S) -> Batch:
    promise = Promise(deadline=clock.now() + timeout)
    source.pull(most, promise)
    promise.expire_at_deadline()
    batch: Batch = promise.wait()
    return batch


def said(happened: EventLog) -> list[str]:
    return [event["line"] for event in happened.of("worker.output")]


def test_the_items_of_a_generator_come_in_order(pool: StartPool) -> None:
    assert list(iterate(opened(pool(), "faulty:count_to", 2500))) == list(range(2500))


def test_an_asynchronous_generator_streams_too(pool: StartPool) -> None:
    assert list(iterate(opened(pool(), "faulty:count_later", 5))) == [0, 1, 2, 3, 4]


def test_a_function_that_is_no_generator_gives_its_result_as_the_one_item(pool: StartPool) -> None:
    assert list(iterate(opened(pool(), "faulty:add", 2, 3))) == [5]


def test_an_empty_generator_is_an_empty_stream(pool: StartPool) -> None:
    assert list(iterate(opened(pool(), "faulty:count_to", 0))) == []


def test_nothing_is_made_that_was_not_pulled(pool: StartPool, happened: EventLog) -> None:
    source = opened(pool(), "faulty:count_aloud", 1000)
    assert pulled(source, 2).items == [0, 1]
    assert pulled(source, 3).items == [2, 3, 4]
    happened.wait("worker.output", line="made 4")
    assert said(happened) == [f"made {n}" for n in range(5)]
    source.close()


def test_an_early_close_runs_the_generators_clean_up_and_keeps_the_process(pool: StartPool, happened: EventLog) -> None:
    running = pool()
    pid = running.call("faulty:pid")
    source = opened(running, "faulty:count_aloud", 1000)
    pulled(source, 1)
    source.close()
    happened.wait("worker.output", line="closed")
    assert running.call("faulty:pid") == pid


def test_a_clean_up_that_hangs_costs_the_process(pool: StartPool, happened: EventLog) -> None:
    running = pool()
    pid = running.call("faulty:pid")
    source = opened(running, "faulty:stay_open")
    pulled(source, 1)
    source.close()
    happened.wait("worker.killed", reason="cancelled")
    assert running.call("faulty:pid") != pid


def test_a_closed_stream_frees_its_worker_though_nothing_was_pulled(pool: StartPool) -> None:
    running = pool()
    opened(running, "faulty:count_to", 10).close()
    assert running.call("faulty:add", 1, 1) == 2


def test_a_pull_past_its_deadline_ends_the_process(pool: StartPool, happened: EventLog) -> None:
    running = pool()
    source = opened(running, "faulty:stall_while_counting")
    assert pulled(source, 1).items == [1]
    with pytest.raises(DeadlineExceeded):
        pulled(source, 1, timeout=0.2)
    happened.wait("worker.killed", reason="deadline")
    assert running.call("faulty:add", 1, 1) == 2


def test_items_made_before_an_exception_come_first(pool: StartPool) -> None:
    running = pool()
    items = iterate(opened(running, "faulty:fail_while_counting"))
    assert next(items) == 1
    with pytest.raises(ExecutionError, match="raised ValueError: enough"):
        next(items)
    assert running.call("faulty:add", 1, 1) == 2


def test_a_process_that_dies_between_two_items_is_actor_down(pool: StartPool) -> None:
    source = opened(pool(), "faulty:die_while_counting")
    assert pulled(source, 1).items == [1]
    with pytest.raises(ActorDown, match="exited with code 5"):
        pulled(source, 1)


def test_an_item_that_cannot_be_sent_ends_the_stream(pool: StartPool) -> None:
    items = iterate(opened(pool(), "faulty:unsendable_item"))
    assert next(items) == 1
    with pytest.raises(ExecutionError, match="the item cannot be sent: a value of type builtins.object"):
        next(items)


def test_an_item_over_the_limit_is_too_large(pool: StartPool) -> None:
    running = pool(max_message=Size("2KiB"))
    with pytest.raises(TooLarge, match="an item is 3003 bytes, the limit is 2048 bytes"):
        pulled(opened(running, "faulty:blocks", 2, 3000), 10)


def test_a_stream_may_be_larger_than_any_message(pool: StartPool) -> None:
    running = pool(max_message=Size("64KiB"))
    items = list(iterate(opened(running, "faulty:blocks", 100, 30_000)))
    assert items == [b"b" * 30_000] * 100


def test_one_pull_at_a_time(pool: StartPool) -> None:
    source = opened(pool(), "faulty:stall_while_counting")
    pulled(source, 1)
    first = Promise(deadline=clock.now() + PATIENCE_S)
    source.pull(1, first)
    with pytest.raises(Conflict):
        pulled(source, 1)
    first.cancel()


@pytest.mark.parametrize(("function", "error"), [("os:system", Forbidden), ("faulty:nothing", NotFound)])
def test_what_cannot_be_called_is_told_instead_of_a_stream(
    pool: StartPool, function: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        opened(pool(), function)


def test_who_gives_up_before_the_stream_opens_frees_the_worker(pool: StartPool) -> None:
    running = pool()
    with pytest.raises(DeadlineExceeded):
        opened(running, "faulty:spin", timeout=0.5)
    assert running.call("faulty:add", 1, 1) == 2


def test_a_stream_lives_through_a_crash_of_the_front(pool: StartPool, happened: EventLog) -> None:
    running = pool()
    source = opened(running, "faulty:count_to", 10)
    assert pulled(source, 3).items == [0, 1, 2]
    running.front.kill()
    assert list(iterate(source)) == [3, 4, 5, 6, 7, 8, 9]


def test_a_call_without_stream_still_gets_the_list(pool: StartPool) -> None:
    assert pool().call("faulty:count_to", 3) == [0, 1, 2]


# -- progress ---------------------------------------------------------------------------------------------------------


def test_progress_reaches_the_reader_before_the_result(pool: StartPool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    source = opened(pool(), "faulty:report", str(gate), progress=True)
    first = pulled(source, 1).items
    assert first == [{"progress": {"percent": 25.0, "done": 1, "total": 4, "note": "loading"}}]
    gate.touch()
    rest = list(iterate(source))
    assert rest[-1] == {"item": "done"}
    assert all(part["progress"]["percent"] == 100 for part in rest[:-1])


def test_progress_of_an_ordinary_call_is_in_the_tree(pool: StartPool, tmp_path: Path) -> None:
    running = pool()
    gate = tmp_path / "gate"
    asked = running.request("faulty:report", str(gate))
    with gevent.Timeout(PATIENCE_S):
        while running.worker().actor.status()["progress"] is None:
            gevent.sleep(0.01)
    assert running.worker().actor.status()["progress"] == {"percent": 25.0, "done": 1, "total": 4, "note": "loading"}
    gate.touch()
    assert asked.wait(PATIENCE_S) == "done"
    assert running.worker().actor.status()["progress"] is None


def test_a_report_that_comes_with_the_answer_and_after_it_holds_up_nothing(pool: StartPool) -> None:
    running = pool()
    assert running.request("faulty:answer_and_report", 1).wait(PATIENCE_S) == "first"
    assert running.worker().actor.status()["state"] == "idle"


def test_progress_that_is_no_share_of_a_total_raises_in_the_function(pool: StartPool) -> None:
    with pytest.raises(ExecutionError, match="progress is 5 of 4, expected 0 <= done <= total"):
        pool().call("faulty:report_wrongly")


def test_a_busy_loop_of_reports_sends_few_of_them(pool: StartPool) -> None:
    parts = list(iterate(opened(pool(), "faulty:report_a_million_times", progress=True)))
    assert parts[-1] == {"item": "done"}
    assert len(parts) < 50


def test_a_reader_that_cancels_a_running_function_ends_it(pool: StartPool, happened: EventLog, tmp_path: Path) -> None:
    running = pool()
    source = opened(running, "faulty:report", str(tmp_path / "never"), progress=True)
    promise = Promise(deadline=clock.now() + PATIENCE_S)
    source.pull(1, promise)
    promise.wait()
    source.close()
    happened.wait("worker.killed", reason="cancelled")
    with pytest.raises(Cancelled):
        pulled(source, 1)
