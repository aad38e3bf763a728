"""Streams: answers in parts, pulled by their consumer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from regrow.protocol.errors import InvalidArguments, NotFound
from regrow.testing import ManualClock, crash
from runtime import clock as runtime_clock
from runtime.actor import Actor
from runtime.exports import exported, exports_of
from runtime.promise import Promise
from runtime.streams import IDLE_S, Batch, Stream


class Counter(Actor):
    def __init__(self) -> None:
        super().__init__()
        self.made = 0
        self.closed = 0

    @exported
    def count(self, to: int) -> Iterator[int]:
        """Count up."""
        try:
            for n in range(to):
                self.made += 1
                yield n
        finally:
            self.closed += 1

    @exported
    def refuse(self, after: int) -> Iterator[int]:
        """Count, then refuse."""
        yield from range(after)
        raise InvalidArguments("no more")

    @exported
    def facts(self) -> tuple[int, int]:
        """How many items were made, and how many streams ended."""
        return self.made, self.closed


def pull(stream: Stream, most: int) -> Batch:
    promise = Promise()
    stream.pull(most, promise)
    batch: Batch = promise.wait(5)
    return batch


def test_a_generator_method_answers_with_a_stream_that_is_described_as_one() -> None:
    ref = Counter.start()
    assert list(ref.call("count", {"to": 250})) == list(range(250))
    assert exports_of(Counter)["count"].describe()["streams"] is True
    assert "streams" not in exports_of(Counter)["facts"].describe()
    ref.stop()


def test_nothing_is_made_beyond_what_was_pulled_and_the_actor_serves_others_in_between() -> None:
    ref = Counter.start()
    stream = ref.call("count", {"to": 10})
    assert ref.call("facts") == (0, 0)
    batch = pull(stream, 3)
    assert (batch.items, batch.done) == ([0, 1, 2], False)
    assert ref.call("facts") == (3, 0)
    last = pull(stream, 100)
    assert (last.items, last.done) == (list(range(3, 10)), True)
    ref.stop()


def test_two_streams_of_one_actor_do_not_disturb_each_other() -> None:
    ref = Counter.start()
    first, second = ref.call("count", {"to": 4}), ref.call("count", {"to": 2})
    assert pull(first, 2).items == [0, 1]
    assert pull(second, 5).items == [0, 1]
    assert pull(first, 5).items == [2, 3]
    ref.stop()


def test_leaving_the_iteration_closes_the_generator_in_its_actor() -> None:
    ref = Counter.start()
    for item in ref.call("count", {"to": 1_000_000}):
        if item == 5:
            break
    assert ref.call("facts")[1] == 1
    ref.stop()


def test_a_stream_that_nobody_reads_is_closed_after_its_idle_limit() -> None:
    with ManualClock() as clock:
        ref = Counter.start()
        stream = ref.call("count", {"to": 10})
        pull(stream, 1)
        clock.advance(IDLE_S - 1)
        pull(stream, 1)
        clock.advance(IDLE_S - 1)
        assert ref.call("facts") == (2, 0)
        clock.advance(2)
        assert ref.call("facts") == (2, 1)
        with pytest.raises(NotFound, match="not read for too long"):
            pull(stream, 1)
        ref.stop()


def test_a_typed_error_in_a_generator_ends_the_stream_and_the_actor_lives() -> None:
    ref = Counter.start()
    got: list[int] = []
    with pytest.raises(InvalidArguments):
        got.extend(ref.call("refuse", {"after": 3}))
    assert ref.is_alive()
    ref.stop()


def test_the_consumer_hears_of_its_actors_death_and_no_timer_is_left() -> None:
    ref = Counter.start()
    timers = len(runtime_clock.pending_timers())
    stream = ref.call("count", {"to": 10})
    promise = Promise()
    crash(ref)
    stream.pull(1, promise)
    with pytest.raises(Exception, match="not running|ended"):
        promise.wait(5)
    assert len(runtime_clock.pending_timers()) == timers
    stream.close()
