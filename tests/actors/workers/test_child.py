"""The child's program, as a real process: what may be called, which values travel, what an exception becomes."""

from __future__ import annotations

import datetime as dt
import io
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from actors.workers import child
from actors.workers.process import Exit
from tests.actors.workers.conftest import MAX_MESSAGE, Conversation


def test_a_function_gets_its_arguments_and_its_result_comes_back(conversation: Conversation) -> None:
    assert conversation.result("faulty:add", 2, b=3) == 5


def test_a_nested_value_passes_both_ways_unchanged(conversation: Conversation) -> None:
    value = {"a": [1, 2.5, None, True, {"b": ["x", []]}], "é": "ü", "bytes": b"\x00\xff"}
    assert conversation.result("faulty:echo", value) == value


def test_values_without_a_type_of_their_own_on_the_wire_become_what_json_can_say(conversation: Conversation) -> None:
    assert conversation.result("faulty:many_types") == {
        "bytes": b"\x00\xff",
        "datetime": dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
        "date": "2026-01-02",
        "decimal": "1.50",
        "uuid": "00000000-0000-0000-0000-000000000001",
        "set": [1],
        "tuple": [1, 2],
        "deque": [1, 2],
        "range": [0, 1, 2],
        "path": "/tmp/x",
        "none": None,
        "int_keys": {1: "a"},
    }


def test_numpy_values_become_plain_numbers_and_lists(conversation: Conversation) -> None:
    assert conversation.result("faulty:numpy_values") == {
        "float": 1.5,
        "int": 7,
        "bool": True,
        "text": "a",
        "time": "2026-01-02",
        "long": 2.0,
        "array": [[0, 1], [2, 3]],
    }


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="<f4").reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=">i8").reshape(2, 3)),
        np.zeros((0, 3)),
        np.array(2.5),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])["a"],
    ],
    ids=["c", "fortran-big-endian", "empty", "scalar", "strided"],
)
def test_an_array_travels_both_ways_without_loss_as_an_extension(conversation: Conversation, array: Any) -> None:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    back = conversation.result(
        "faulty:double_array", msgspec.msgpack.Ext(child.ARRAY_EXT, file.getvalue()), arrays="ext"
    )
    assert back.code == child.ARRAY_EXT
    doubled = np.load(io.BytesIO(back.data), allow_pickle=False)
    assert doubled.dtype == array.dtype
    np.testing.assert_array_equal(doubled, array * 2)


def test_an_array_that_would_need_unpickling_is_refused(conversation: Conversation) -> None:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    said = conversation.call("faulty:echo", msgspec.msgpack.Ext(child.ARRAY_EXT, file.getvalue()))
    assert isinstance(said, child.Declined)
    assert (said.code, said.started) == ("invalid_arguments", False)
    assert conversation.result("faulty:add", 1, 1) == 2


@pytest.mark.parametrize("payload", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{", b"\x93NUMPY\x03\x00"])
def test_an_array_that_is_none_is_refused(conversation: Conversation, payload: bytes) -> None:
    said = conversation.call("faulty:echo", msgspec.msgpack.Ext(child.ARRAY_EXT, payload))
    assert isinstance(said, child.Declined)
    assert conversation.result("faulty:add", 1, 1) == 2


def test_an_array_of_objects_is_no_result(conversation: Conversation) -> None:
    said = conversation.call("faulty:object_array", arrays="ext")
    assert isinstance(said, child.Raised)
    assert "cannot be sent" in said.message


def test_the_items_of_a_generator_come_back_as_a_list(conversation: Conversation) -> None:
    assert conversation.result("faulty:count_to", 3) == [0, 1, 2]


def test_a_generator_that_raises_is_an_exception_of_the_function(conversation: Conversation) -> None:
    said = conversation.call("faulty:fail_while_counting")
    assert isinstance(said, child.Raised)
    assert (said.error, said.message) == ("ValueError", "enough")


def test_a_coroutine_is_run_to_its_end(conversation: Conversation) -> None:
    assert conversation.result("faulty:add_later", 1, 2) == 3


def test_an_exception_comes_back_with_type_message_and_the_functions_own_frames(conversation: Conversation) -> None:
    said = conversation.call("faulty:raise_error", "bad \N{SNOWMAN}")
    assert isinstance(said, child.Raised)
    assert (said.error, said.message) == ("ValueError", "bad \N{SNOWMAN}")
    assert "in raise_error" in said.traceback
    assert "child.py" not in said.traceback


def test_a_process_lives_through_exceptions(conversation: Conversation) -> None:
    pid = conversation.result("faulty:pid")
    conversation.call("faulty:raise_error")
    assert conversation.result("faulty:pid") == pid


def test_an_exception_that_cannot_be_printed_is_still_an_answer(conversation: Conversation) -> None:
    said = conversation.call("faulty:raise_rude")
    assert isinstance(said, child.Raised)
    assert (said.error, said.message) == ("faulty.Rude", "(its __str__ raised RuntimeError)")


def test_a_long_message_and_a_deep_traceback_are_bounded(conversation: Conversation) -> None:
    said = conversation.call("faulty:raise_error", "m" * 100_000)
    assert isinstance(said, child.Raised)
    assert len(said.message) == child.MAX_MESSAGE_CHARS
    assert len(said.traceback) < child.MAX_TRACEBACK_CHARS + 100
    said = conversation.call("faulty:recurse")
    assert isinstance(said, child.Raised)
    assert said.error == "RecursionError"
    assert len(said.traceback) < child.MAX_TRACEBACK_CHARS + 100


def test_sys_exit_in_a_function_is_an_exception_like_others(conversation: Conversation) -> None:
    said = conversation.call("faulty:leave", 3)
    assert isinstance(said, child.Raised)
    assert (said.error, said.message) == ("SystemExit", "3")
    assert conversation.result("faulty:add", 1, 1) == 2


@pytest.mark.parametrize("function", ["faulty:unsendable", "faulty:nested_unsendable", "faulty:endless_nesting"])
def test_a_result_that_cannot_be_sent_is_an_error_and_the_process_lives(
    conversation: Conversation, function: str
) -> None:
    said = conversation.call(function)
    assert isinstance(said, child.Raised)
    assert said.message.startswith("the result cannot be sent:")
    assert conversation.result("faulty:add", 1, 1) == 2


def test_a_result_over_the_limit_is_refused_by_the_process_itself(conversation: Conversation) -> None:
    said = conversation.call("faulty:big", 50_000_000)
    assert isinstance(said, child.Declined)
    assert (said.code, said.started) == ("too_large", True)
    assert f"the limit is {MAX_MESSAGE} bytes" in said.message
    assert len(conversation.result("faulty:big", MAX_MESSAGE - 100)) == MAX_MESSAGE - 100


def test_arguments_that_do_not_fit_are_told_before_the_function_runs(conversation: Conversation) -> None:
    said = conversation.call("faulty:add", 1)
    assert isinstance(said, child.Declined)
    assert (said.code, said.started) == ("invalid_arguments", False)
    assert "missing a required argument: 'b'" in said.message


@pytest.mark.parametrize("name", ["nothing", "imported", "Rude", "LEAKED", "sys"])
def test_a_star_covers_only_public_functions_of_the_module_itself(conversation: Conversation, name: str) -> None:
    said = conversation.call(f"faulty:{name}")
    assert isinstance(said, child.Declined)
    assert said.code == "not_found"
    assert "it defines: add, " in said.message
    assert "_hidden" not in said.message


def test_a_function_named_in_full_may_come_from_elsewhere(converse: Any) -> None:
    conversation = converse(functions=["faulty:imported", "math:sqrt"])
    conversation.next()
    assert conversation.result("math:sqrt", 16) == 4
    assert isinstance(conversation.result("faulty:imported"), str)


@pytest.mark.parametrize("function", ["faulty:_hidden", "os:getcwd", "statistics:median", "builtins:eval"])
def test_the_process_itself_refuses_what_is_not_allowed(conversation: Conversation, function: str) -> None:
    said = conversation.call(function)
    assert isinstance(said, child.Declined)
    assert said.code == "forbidden"


def test_a_module_that_is_missing_is_an_error_and_the_process_lives(converse: Any) -> None:
    conversation = converse(functions=["not_there:*", "faulty:add"])
    conversation.next()
    said = conversation.call("not_there:f")
    assert isinstance(said, child.Raised)
    assert said.error == "ModuleNotFoundError"
    assert conversation.result("faulty:add", 1, 1) == 2


def test_a_module_that_fails_to_import_is_an_error_at_each_call(converse: Any) -> None:
    conversation = converse(functions=["broken_module:*"])
    conversation.next()
    for _ in range(2):
        said = conversation.call("broken_module:f")
        assert isinstance(said, child.Raised)
        assert (said.error, said.message) == ("RuntimeError", "this module is broken")


def test_a_failing_preload_is_told_and_ends_the_process(converse: Any) -> None:
    conversation = converse(preload=["faulty", "broken_module"])
    said = conversation.next()
    assert isinstance(said, child.SetupFailed)
    assert (said.doing, said.error) == ("import broken_module", "RuntimeError")
    assert conversation.next().code == 0


def test_a_failing_init_function_is_told(converse: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLOW_MODULE_GATE", "/")
    said = converse(init="slow_module:init_that_fails", inherited=("SLOW_MODULE_GATE",)).next()
    assert isinstance(said, child.SetupFailed)
    assert (said.doing, said.message) == ("init function slow_module:init_that_fails", "no model here")


def test_more_memory_than_the_address_space_is_a_memory_error_and_the_last_answer(conversation: Conversation) -> None:
    said = conversation.call("faulty:hog", 2048)
    assert isinstance(said, child.Raised)
    assert said.error == "MemoryError"
    conversation.send("faulty:add", 1, 1)
    conversation.process.close()
    ended = conversation.next()
    assert isinstance(ended, Exit)
    assert ended.code == 0


def test_a_report_that_is_made_while_the_result_is_encoded_does_not_change_it(conversation: Conversation) -> None:
    conversation.send("faulty:arrays_around_a_report", arrays="ext")
    assert conversation.next() == child.Progress(1, 1.0, 1.0, "")
    said = conversation.next()
    assert isinstance(said, child.Returned)
    assert [type(value) for value in said.value] == [msgspec.msgpack.Ext, str, msgspec.msgpack.Ext]


class Ending:
    """A connection that finds the call over, as a thread may between any two steps of its report."""

    def __init__(self) -> None:
        self.reporter = child.Reporter(cast(child.Connection, self))
        self.sent: list[bytes] = []

    def is_owner(self) -> bool:
        self.reporter.call_id = None
        return True

    def send(self, frame: bytes) -> None:
        self.sent.append(frame)


def test_a_report_that_the_end_of_its_call_overtakes_is_still_one_of_that_call() -> None:
    ending = Ending()
    ending.reporter.begin(7)
    ending.reporter.progress(1, 2)
    decoded = [msgspec.msgpack.decode(frame[child.HEADER_BYTES :], type=child.FromChild) for frame in ending.sent]
    assert decoded == [child.Progress(7, 1.0, 2.0, "")]


def test_a_process_whose_memory_ran_out_over_a_result_begins_no_other_call(conversation: Conversation) -> None:
    conversation.send("faulty:huge")
    conversation.send("faulty:add", 1, 1)
    said = conversation.next()
    assert isinstance(said, child.Raised)
    assert said.error == "MemoryError"
    conversation.process.close()
    assert isinstance(conversation.next(), Exit)
