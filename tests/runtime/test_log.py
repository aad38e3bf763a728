"""Logs: one JSON object per line, redacted, bounded, and never a wait."""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import pty
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import gevent
import gevent.select
import pytest
from gevent.monkey import get_original

from config.secret import Secret, forget_all
from runtime import clock, events, log
from runtime.log import Limiter, Log

Lines = Callable[[], list[dict[str, Any]]]
SECRET = 's3cr"et-\u00fcber\nvalue-0123456789'


class Pipe:
    """A real pipe with its two ends: the log writes to `stream`, the test reads whole lines."""

    def __init__(self, capacity_bytes: int | None = None) -> None:
        self.read_fd, write_fd = os.pipe()
        # a file of its own: the patched os.close may close later, when gevent has ever watched this number
        self.reader = os.fdopen(self.read_fd, "rb", buffering=0)
        if capacity_bytes is not None:
            fcntl.fcntl(write_fd, 1031, capacity_bytes)  # F_SETPIPE_SZ
        self.stream: TextIO = os.fdopen(write_fd, "w")

    def read(self) -> str:
        os.set_blocking(self.read_fd, False)
        parts = []
        while True:
            try:
                part = os.read(self.read_fd, 1 << 20)
            except BlockingIOError:
                break
            if not part:
                break
            parts.append(part)
        return b"".join(parts).decode()

    def close(self) -> None:
        self.reader.close()
        self.stream.close()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


@pytest.fixture
def opened() -> Iterator[list[Log]]:
    logs: list[Log] = []
    yield logs
    for each in reversed(logs):
        each.close()
    forget_all()


@pytest.fixture
def json_log(pipe: Pipe, opened: list[Log]) -> Lines:
    made = log.configure(pipe.stream, format="json", level="debug")
    opened.append(made)

    def lines() -> list[dict[str, Any]]:
        assert made.flush(5.0)
        return [json.loads(text) for text in pipe.read().splitlines()]

    return lines


def human_text(pipe: Pipe, opened: list[Log], say: Callable[[], object]) -> str:
    made = log.configure(pipe.stream, format="human")
    opened.append(made)
    say()
    assert made.flush(5.0)
    return pipe.read()


def test_a_plain_log_call_becomes_one_json_object_with_its_text_and_logger(json_log: Lines) -> None:
    logging.getLogger("urllib3").warning("lost %d of %s", 3, "five")
    (line,) = json_log()
    assert line.pop("ts").endswith("Z")
    assert line == {"level": "warning", "event": "log", "message": "lost 3 of five", "logger": "urllib3"}


def test_extra_fields_become_keys_of_the_line(json_log: Lines) -> None:
    logging.getLogger("regrow.gateway").info(
        "bound", extra={"event": "gateway.bound", "actor": "gateway", "incarnation": "i7", "ports": [5757, 5758]}
    )
    (line,) = json_log()
    assert {key: line[key] for key in ("event", "actor", "incarnation", "ports", "message")} == {
        "event": "gateway.bound",
        "actor": "gateway",
        "incarnation": "i7",
        "ports": [5757, 5758],
        "message": "bound",
    }


def test_the_time_is_utc_with_milliseconds(json_log: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "wall", lambda: 1_700_000_000.25)
    log.line(logging.INFO, "daemon.started")
    assert json_log()[0]["ts"] == "2023-11-14T22:13:20.250Z"


def test_an_exception_carries_its_text_and_traceback(json_log: Lines) -> None:
    try:
        raise ValueError("seven is not five")
    except ValueError:
        logging.getLogger("regrow.x").exception("no luck")
    (line,) = json_log()
    assert line["error"] == "ValueError: seven is not five"
    assert "test_log.py" in line["traceback"]


def test_a_line_below_the_level_is_not_written(pipe: Pipe, opened: list[Log]) -> None:
    made = log.configure(pipe.stream, format="json", level="warning")
    opened.append(made)
    logging.getLogger("regrow.x").info("quiet")
    log.line(logging.INFO, "quiet.too")
    events.publish("actor.started", actor="a")
    assert made.flush(5.0)
    assert not pipe.read()


def test_an_event_of_the_bus_becomes_a_line_at_its_own_time_and_level(json_log: Lines) -> None:
    events.publish("breaker.opened", actor="github/breaker", failures=5)
    (line,) = json_log()
    assert (line["event"], line["actor"], line["failures"]) == ("breaker.opened", "github/breaker", 5)
    assert line["level"] == "warning"


@pytest.mark.parametrize(
    ("topic", "fields", "level"),
    [
        ("actor.crashed", {}, "error"),
        ("actor.restarted", {}, "warning"),
        ("child.started", {}, "debug"),
        ("supervisor.reported", {"context": "child_terminated"}, "warning"),
        ("supervisor.reported", {"context": "shutdown"}, "error"),
    ],
)
def test_the_level_of_an_event_says_how_grave_it_is(
    json_log: Lines, topic: str, fields: dict[str, Any], level: str
) -> None:
    events.publish(topic, **fields)
    assert json_log()[0]["level"] == level


def test_a_crash_line_has_what_an_operator_needs_and_nothing_private(json_log: Lines) -> None:
    crash = {"actor": "greeter", "crash_id": "c1-2", "incarnation": 7, "reason": "ValueError", "message": "no"}
    events.publish("actor.crashed", **crash, traceback="Traceback ...", state={"x": "int"}, _source=object())
    (line,) = json_log()
    assert {key: line[key] for key in crash} == crash
    assert line["traceback"] == "Traceback ..."
    assert not {"state", "_source"} & set(line)


def test_an_event_without_a_level_of_its_own_is_info(json_log: Lines) -> None:
    events.publish("pool.grown", actor="ml", workers=3)
    assert json_log()[0]["level"] == "info"


@pytest.mark.parametrize("where", ["message", "argument", "field", "key", "nested", "exception", "event"])
def test_a_secret_is_redacted_wherever_it_stands(json_log: Lines, where: str) -> None:
    Secret(SECRET)
    logger = logging.getLogger("regrow.x")
    match where:
        case "message":
            logger.info("a " + SECRET)  # noqa: G003 - the text itself is the subject
        case "argument":
            logger.info("a %s", SECRET)
        case "field":
            logger.info("a", extra={"header": SECRET})
        case "key":
            logger.info("a", extra={SECRET: 1})
        case "nested":
            logger.info("a", extra={"request": {"headers": [("x", SECRET), {SECRET: SECRET}]}})
        case "exception":
            try:
                raise ValueError(SECRET)
            except ValueError:
                logger.exception("a")
        case "event":
            events.publish("rest.failed", actor="a", error=SECRET)
    (line,) = json_log()
    text = json.dumps(line, ensure_ascii=False)
    assert "***" in text
    assert 'cr\\"et' not in text
    assert "0123456789" not in text


def test_a_greenlet_that_fails_is_logged_redacted_instead_of_printed(
    json_log: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    Secret(SECRET)

    def fail() -> None:
        raise ValueError(SECRET)

    gevent.spawn(fail).join()
    (line,) = json_log()
    assert line["event"] == "greenlet.failed"
    assert line["error"] == "ValueError: ***"
    assert "0123456789" not in capsys.readouterr().err


def test_a_warning_of_a_library_is_logged(json_log: Lines) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert json_log()[0]["logger"] == "py.warnings"


def test_a_long_text_is_cut_and_says_how_long_it_was(json_log: Lines) -> None:
    logging.getLogger("regrow.x").info("%s", "x" * 100_000)
    message = json_log()[0]["message"]
    assert len(message) < log.MAX_TEXT_CHARS + 50
    assert "(100000 characters)" in message


def test_a_deep_or_wide_field_is_bounded(json_log: Lines) -> None:
    deep: list[Any] = []
    for _ in range(1000):
        deep = [deep]
    logging.getLogger("regrow.x").info("a", extra={"deep": deep, "wide": list(range(10_000))})
    (line,) = json_log()
    assert len(line["wide"]) == log.MAX_ITEMS
    assert len(json.dumps(line)) < 10_000


def test_a_field_that_json_does_not_know_becomes_text(json_log: Lines) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no")

    extra = {"path": b"\xff", "error": ValueError("no"), "nan": float("nan"), "broken": Broken()}
    logging.getLogger("regrow.x").info("a", extra=extra)
    (line,) = json_log()
    assert line["broken"] == "<Broken that cannot be shown>"
    assert line["error"] == "ValueError: no"
    assert line["nan"] is None


def test_a_record_that_cannot_be_formatted_is_named_and_harms_nobody(json_log: Lines) -> None:
    (handler,) = (each for each in logging.getLogger().handlers if isinstance(each, log._Handler))
    handler.handle(logging.LogRecord("regrow.x", logging.INFO, __file__, 1, "%d apples", ("no number",), None))
    (line,) = json_log()
    assert line["event"] == "log.failed"
    assert "regrow.x" in line["message"]


def test_human_lines_are_one_line_with_event_actor_text_and_fields(pipe: Pipe, opened: list[Log]) -> None:
    text = human_text(
        pipe,
        opened,
        lambda: logging.getLogger("regrow.x").warning(
            "trips", extra={"event": "breaker.opened", "actor": "github", "failures": 5, "why": "two words"}
        ),
    )
    assert text.endswith('WARNING  breaker.opened  github  trips  failures=5  why="two words"\n')


def test_foreign_text_can_neither_forge_a_line_nor_command_the_terminal(pipe: Pipe, opened: list[Log]) -> None:
    text = human_text(pipe, opened, lambda: logging.getLogger("regrow.x").info("a\nERROR \x1b[2J\u202e"))
    assert text.count("\n") == 1
    assert "\x1b" not in text
    assert "\\x0a" in text


def test_a_human_traceback_is_indented_below_its_line(pipe: Pipe, opened: list[Log]) -> None:
    def say() -> None:
        try:
            raise ValueError("no")
        except ValueError:
            logging.getLogger("regrow.x").exception("failed")

    first, *rest = human_text(pipe, opened, say).splitlines()
    assert "failed" in first
    assert "Traceback" not in first
    assert all(part.startswith("    ") for part in rest)
    assert rest


def test_auto_means_json_for_a_pipe_and_colours_for_a_terminal(pipe: Pipe, opened: list[Log]) -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        on_terminal = log.configure(terminal)
        assert (on_terminal.human, on_terminal.colour) == (True, True)
        log.line(logging.ERROR, "actor.crashed", actor="a")
        assert on_terminal.close(5.0)
        assert os.read(leader, 1000).startswith(b"\x1b[31m")
    os.close(leader)
    on_pipe = log.configure(pipe.stream)
    opened.append(on_pipe)
    assert on_pipe.human is False


def test_equal_lines_beyond_the_rate_become_one_line_with_their_number(pipe: Pipe, opened: list[Log]) -> None:
    before = log.LOST.value("suppressed")
    made = log.configure(pipe.stream, format="json", burst=3, window_s=60)
    for _ in range(10):
        events.publish("actor.crashed", actor="greeter")
    events.publish("actor.crashed", actor="other")
    assert made.close(5.0)
    lines = [json.loads(text) for text in pipe.read().splitlines()]
    assert [line.get("actor") for line in lines[:4]] == ["greeter"] * 3 + ["other"]
    assert [(line["event"], line["of"], line["about"], line["suppressed"]) for line in lines[4:]] == [
        ("log.suppressed", "actor.crashed", "greeter", 7)
    ]
    assert log.LOST.value("suppressed") - before == 7


def test_what_was_suppressed_is_told_when_its_window_ends_though_nothing_more_comes(
    pipe: Pipe, opened: list[Log]
) -> None:
    opened.append(log.configure(pipe.stream, format="json", burst=1, window_s=0.02))
    for _ in range(5):
        log.line(logging.INFO, "same")
    seen = ""
    while "log.suppressed" not in seen:
        gevent.select.select([pipe.read_fd], [], [])
        seen += pipe.read()
    assert json.loads(seen.splitlines()[-1])["suppressed"] == 4


def test_equal_plain_calls_are_told_apart_by_their_template_not_their_text(json_log: Lines) -> None:
    for n in range(log.BURST + 5):
        logging.getLogger("regrow.x").info("number %d", n)
    logging.getLogger("regrow.x").info("another")
    assert [line["message"] for line in json_log()][-2:] == [f"number {log.BURST - 1}", "another"]


def test_the_limiter_forgets_the_oldest_fingerprint_but_not_its_count() -> None:
    limiter = Limiter(burst=1, window_s=10, max_keys=2)
    assert [limiter.admit(("a", ""), 0.0), limiter.admit(("a", ""), 0.0)] == [True, False]
    assert limiter.admit(("b", ""), 1.0)
    assert limiter.admit(("c", ""), 1.0)
    assert limiter.take(1.0) == [(("a", ""), 1)]
    assert limiter.holding == 0


def test_a_limiter_window_that_is_over_admits_again() -> None:
    limiter = Limiter(burst=1, window_s=10)
    assert [limiter.admit(("a", ""), now) for now in (0.0, 9.9, 10.0, 10.1)] == [True, False, True, False]
    assert limiter.take(20.0) == [(("a", ""), 2)]
    assert limiter.take(30.0) == []


def test_a_stuck_reader_never_blocks_who_logs_and_is_told_what_was_dropped(
    opened: list[Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "MAX_LINES", 200)
    stuck = Pipe(capacity_bytes=4096)
    before = log.LOST.value("queue_full")
    made = log.configure(stuck.stream, format="json", burst=100_000)
    began = time.monotonic()
    for n in range(2000):
        log.line(logging.INFO, "flood", n=n)
    assert time.monotonic() - began < 1.0
    lost = log.LOST.value("queue_full") - before
    assert lost >= 2000 - 200 - 4096 / 60
    assert not made.flush(0.05)
    done = gevent.spawn(made.close, 10.0)
    text = ""
    while not done.ready():
        text += stuck.read()
        gevent.sleep(0)
    text += stuck.read()
    lines = [json.loads(each) for each in text.splitlines()]
    assert sum(line["dropped"] for line in lines if line["event"] == "log.dropped") == lost
    assert sum(line["event"] == "flood" for line in lines) == 2000 - lost
    stuck.close()


def test_close_gives_up_on_a_stuck_reader_after_its_limit() -> None:
    stuck = Pipe(capacity_bytes=4096)
    made = log.configure(stuck.stream, format="json", burst=100_000)
    for n in range(200):
        log.line(logging.INFO, "flood", n=n)
    assert made.close(0.05) is False
    while not made.close(0.01):
        stuck.read()
    stuck.close()


def test_a_reader_that_went_away_is_counted_and_harms_nobody(opened: list[Log]) -> None:
    gone = Pipe()
    gone.reader.close()
    made = log.configure(gone.stream, format="json")
    opened.append(made)
    before = log.LOST.value("write_failed")
    log.line(logging.INFO, "one")
    assert made.flush(5.0)
    log.line(logging.INFO, "two")
    assert log.LOST.value("write_failed") - before == 1
    assert made.flush(5.0)
    gone.stream.close()


def test_native_threads_may_log_while_the_hub_is_blocked(json_log: Lines) -> None:
    lock = get_original("_thread", "allocate_lock")()
    lock.acquire()

    def from_thread() -> None:
        log.line(logging.WARNING, "hub.stalled", seconds=3)
        lock.release()

    get_original("_thread", "start_new_thread")(from_thread, ())
    assert lock.acquire(True, 5.0)
    assert json_log()[0]["event"] == "hub.stalled"


def test_a_stream_without_a_file_is_written_too(opened: list[Log]) -> None:
    stream = io.StringIO()
    made = log.configure(stream, format="json")
    log.line(logging.INFO, "one")
    assert made.close(5.0)
    assert json.loads(stream.getvalue())["event"] == "one"


def test_close_puts_back_handlers_levels_and_the_hub(pipe: Pipe) -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level, dict(vars(gevent.get_hub())).get("print_exception"))
    made = log.configure(pipe.stream)
    assert root.handlers != before[0]
    assert made.close(5.0)
    assert (list(root.handlers), root.level, dict(vars(gevent.get_hub())).get("print_exception")) == before
    log.line(logging.ERROR, "after")
    assert "after" not in pipe.read()
