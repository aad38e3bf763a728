"""Logs: one JSON object per line, or readable lines on a terminal, and never a wait for whoever reads them.

Read: `configure`, then `Limiter`, then `Log`: the queue, the writer, how a line is made, and how records, events and
failed greenlets become lines. Everything goes through the standard `logging`, so foreign libraries are included; fields
are given by `extra={"event": "gateway.bound", "actor": "gateway", ...}`.

Decisions. A line is made and redacted where it is logged and written by one native thread: a stuck pipe holds up that
thread, and what no longer fits into the bounded queue is dropped and counted. Equal lines beyond a rate are counted
instead of written. The stock logging locks are not used: they would make a native thread wait for a greenlet.
"""

from __future__ import annotations

import errno
import itertools
import logging
import sys
import time
import traceback
from _queue import Empty, SimpleQueue
from collections.abc import Callable, Iterable, Mapping
from os import write as write_fd
from types import TracebackType
from typing import Any, Final, Literal, TextIO

import gevent.event
import msgspec
from gevent import get_hub
from gevent.monkey import get_original

from config.secret import redact
from runtime import clock, events
from runtime.measure import Counter

Format = Literal["auto", "json", "human"]
Level = Literal["debug", "info", "warning", "error", "critical"]
#: what makes lines equal: the event, and the actor or (of plain log calls) the template
Fingerprint = tuple[str, str]

LEVELS: Final[dict[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}

MAX_LINES = 10_000
MAX_QUEUED_BYTES = 8 * 1024 * 1024
MAX_TEXT_CHARS = 4000
MAX_TRACEBACK_CHARS = 12_000
MAX_ITEMS = 50
MAX_DEPTH = 4
BURST = 20
WINDOW_S = 10.0
MAX_FINGERPRINTS = 1000

LINES = Counter("log_lines_total", "log lines handed to the writer", ("level",))
LOST = Counter("log_lines_lost_total", "log lines that nobody will read", ("reason",))
for _level in LEVELS:
    LINES.declare(_level)
for _reason in ("suppressed", "queue_full", "write_failed"):
    LOST.declare(_reason)

# The levels of events; what is not listed is info.
EVENT_LEVELS: dict[str, int] = {
    "actor.crashed": logging.ERROR,
    "actor.parked": logging.ERROR,
    "actor.restarted": logging.WARNING,
    "actor.stuck": logging.ERROR,
    "actor.traced": logging.DEBUG,
    "admin.changed": logging.WARNING,
    "breaker.opened": logging.WARNING,
    "child.started": logging.DEBUG,
    "database.connection_lost": logging.WARNING,
    "hub.stalled": logging.WARNING,
    "messages.lost": logging.WARNING,
    "redis.lost": logging.WARNING,
    "supervisor.reported": logging.WARNING,
    "worker.function_quarantined": logging.WARNING,
    "worker.killed": logging.WARNING,
    "worker.teardown_failed": logging.WARNING,
    "worker.unhealthy": logging.WARNING,
}
# a supervisor that gave up, and a child that cannot be started
GRAVE_REPORTS = ("shutdown", "start_error")
# for programs, or told elsewhere in the line; the whole record is kept for whoever asks why an actor ended
UNWRITTEN = frozenset({"at", "ancestors", "fingerprint", "state"})

_start_thread = get_original("_thread", "start_new_thread")
_new_lock = get_original("_thread", "allocate_lock")
_native_sleep = get_original("time", "sleep")

_LEVEL_NAMES = {number: name for name, number in LEVELS.items()}
_PLAIN_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_TTY_COLOURS = {"debug": "2", "info": "0", "warning": "33", "error": "31", "critical": "1;31"}


def configure(
    stream: TextIO | None = None,
    *,
    format: Format = "auto",
    level: Level = "info",
    burst: int = BURST,
    window_s: float = WINDOW_S,
) -> Log:
    """Send everything that the standard logging, the event bus and failed greenlets say to `stream` (default stderr).

    `auto` is human on a terminal and JSON elsewhere. Returns the `Log`; its `close` puts back what was there before.
    Never switches.
    """
    stream = sys.stderr if stream is None else stream
    human = format == "human" or (format == "auto" and stream.isatty())
    return Log(stream, human=human, level=LEVELS[level], burst=burst, window_s=window_s).open()


def line(level: int, event: str, message: str = "", **fields: Any) -> None:
    """Log one line from any thread, native ones included; without a configured log it goes nowhere. Never switches."""
    if _current is not None:
        _current.line(level, event, message, fields)


class Limiter:
    """Admits `burst` equal lines per `window_s` seconds and counts the others; for any thread.

    It knows a bounded number of fingerprints; the one that was seen first makes room.
    """

    def __init__(self, burst: int, window_s: float, max_keys: int = MAX_FINGERPRINTS) -> None:
        self.burst = burst
        self.window_s = window_s
        self.max_keys = max_keys
        self._lock = _new_lock()
        self._windows: dict[Fingerprint, list[float]] = {}  # began, admitted, suppressed
        self._over: dict[Fingerprint, int] = {}
        self.holding = 0  # windows with something suppressed, and counts not taken yet

    def admit(self, key: Fingerprint, now: float) -> bool:
        """Tell whether a line may be written. Never switches."""
        with self._lock:
            window = self._windows.get(key)
            if window is None or now >= window[0] + self.window_s:
                if window is not None:
                    self._close(key, window)
                elif len(self._windows) >= self.max_keys:
                    oldest = next(iter(self._windows))
                    self._close(oldest, self._windows[oldest])
                self._windows[key] = [now, 1, 0]
                return True
            if window[1] < self.burst:
                window[1] += 1
                return True
            if not window[2]:
                self.holding += 1
            window[2] += 1
            return False

    def _close(self, key: Fingerprint, window: list[float]) -> None:
        del self._windows[key]
        if window[2]:
            if key in self._over:
                self.holding -= 1
            self._over[key] = self._over.get(key, 0) + int(window[2])

    def take(self, now: float) -> list[tuple[Fingerprint, int]]:
        """Return what was suppressed in windows that are over, once. Never switches."""
        with self._lock:
            for key, window in [item for item in self._windows.items() if now >= item[1][0] + self.window_s]:
                self._close(key, window)
            over, self._over = self._over, {}
            self.holding -= len(over)
            return list(over.items())


class Log:
    """Owns the queue, the thread that writes, and the hooks into logging, events and the hub."""

    def __init__(self, stream: TextIO, *, human: bool, level: int, burst: int, window_s: float) -> None:
        self.human = human
        self.level = level
        self.colour = human and stream.isatty()
        self.limiter = Limiter(burst, window_s)
        self.lost_in_writer = 0
        self._stream = stream
        self._fd = _fd_of(stream)
        self._queue: SimpleQueue[bytes | Callable[[], object] | None] = SimpleQueue()
        self._lock = _new_lock()
        self._queued_bytes = 0
        self._queued = 0
        self._dropped = 0
        self._closing = False
        self._ended = gevent.event.Event()
        self._undo: list[Callable[[], object]] = []

    def open(self) -> Log:
        """Start the writer and hook in. Never switches."""
        global _current
        hub, root, handler, previous = get_hub(), logging.getLogger(), _Handler(self), _current
        level, handlers = root.level, list(root.handlers)
        for other in handlers:
            root.removeHandler(other)
        root.addHandler(handler)
        root.setLevel(self.level)
        logging.captureWarnings(True)
        printed_before = vars(hub).get("print_exception")
        vars(hub)["print_exception"] = self._greenlet_failed
        unsubscribe = events.subscribe(self._on_event)
        _current = self
        on_end = hub.loop.run_callback_threadsafe
        _start_thread(self._write_for_ever, (lambda: on_end(self._ended.set),))

        def put_back() -> None:
            global _current
            if _current is self:
                _current = previous
            unsubscribe()
            if vars(hub).get("print_exception") == self._greenlet_failed:
                del vars(hub)["print_exception"]
                if printed_before is not None:
                    vars(hub)["print_exception"] = printed_before
            logging.captureWarnings(False)
            root.removeHandler(handler)
            root.setLevel(level)
            for other in handlers:
                root.addHandler(other)

        self._undo.append(put_back)
        return self

    def close(self, timeout_s: float = 1.0) -> bool:
        """Put back what was there and write what is queued, at most `timeout_s` seconds; tell whether all was written.

        Switches greenlets.
        """
        while self._undo:
            self._undo.pop()()
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        return self._ended.wait(timeout_s)

    def flush(self, timeout_s: float = 1.0) -> bool:
        """Wait until every line logged so far is written, at most `timeout_s` seconds. Switches greenlets."""
        written, threadsafe = gevent.event.Event(), get_hub().loop.run_callback_threadsafe
        self._queue.put(lambda: threadsafe(written.set))
        return written.wait(timeout_s)

    def line(self, level: int, event: str, message: str, fields: Mapping[str, Any], at: float | None = None) -> None:
        """Queue one line, unless it is below the level, over its rate, or the queue is full. Never switches."""
        if level < self.level:
            return
        if self._admit(event, str(fields.get("actor", ""))):
            self._put(level, self._encode(level, event, message, fields, at))

    def _admit(self, event: str, subject: str) -> bool:
        held = self.limiter.holding
        if self.limiter.admit((event, subject), time.monotonic()):
            return True
        with self._lock:
            LOST.inc("suppressed")
        if not held:
            self._queue.put(_nothing)  # the writer may be asleep without a limit; now it must look at the time
        return False

    def _put(self, level: int, text: bytes) -> None:
        with self._lock:  # also for the counters: the hub's watchdog logs from a thread of its own
            failed, self.lost_in_writer = self.lost_in_writer, 0
            if failed:
                LOST.inc("write_failed", by=failed)
            if self._queued >= MAX_LINES or self._queued_bytes + len(text) > MAX_QUEUED_BYTES:
                self._dropped += 1
                LOST.inc("queue_full")
                return
            self._queued += 1
            self._queued_bytes += len(text)
            LINES.inc(_level_name(level))
        self._queue.put(text)

    # ------- the native thread

    def _write_for_ever(self, on_end: Callable[[], object]) -> None:
        while True:
            try:
                # the longer limit only covers a line suppressed in the instant in which the last count was taken
                item = self._queue.get(True, min(0.5, self.limiter.window_s) if self.limiter.holding else 5.0)
            except Empty:
                item = _nothing
            if item is None:
                for text in self._afterthoughts(float("inf")):
                    self._write(text)
                break
            if isinstance(item, bytes):
                with self._lock:
                    self._queued -= 1
                    self._queued_bytes -= len(item)
                self._write(item)
            for text in self._afterthoughts(time.monotonic()):
                self._write(text)
            if not isinstance(item, bytes):
                item()
        on_end()

    def _afterthoughts(self, now: float) -> Iterable[bytes]:
        if self.limiter.holding:
            for (event, subject), n in self.limiter.take(now):
                fields = {"of": event, "about": subject, "suppressed": n}
                yield self._encode(logging.WARNING, "log.suppressed", f"suppressed {n} equal lines", fields)
        if self._dropped:
            with self._lock:
                n, self._dropped = self._dropped, 0
            text = f"dropped {n} lines because their reader is slow"
            yield self._encode(logging.WARNING, "log.dropped", text, {"dropped": n})

    def _write(self, text: bytes) -> None:
        try:
            if self._fd is None:
                self._stream.write(text.decode())
                return
            rest = memoryview(text)
            while rest:
                try:
                    rest = rest[write_fd(self._fd, rest) :]
                except OSError as error:
                    if error.errno != errno.EAGAIN:
                        raise
                    _native_sleep(0.01)
        except Exception:  # noqa: BLE001 - an edge: the writer must outlive every stream, and has nowhere to complain
            with self._lock:
                self.lost_in_writer += 1

    # ------- making a line

    def _encode(
        self, level: int, event: str, message: str, fields: Mapping[str, Any], at: float | None = None
    ) -> bytes:
        name = _level_name(level)
        made: dict[str, Any] = {"ts": _timestamp(clock.wall() if at is None else at), "level": name, "event": event}
        if message:
            made["message"] = _text(message)
        for key, value in itertools.islice(fields.items(), MAX_ITEMS):
            if key not in made:
                made[_text(str(key))] = _safe(value)
        if self.human:
            return self._human(made).encode("utf-8", "replace")
        return msgspec.json.encode(made) + b"\n"

    def _human(self, made: dict[str, Any]) -> str:
        head = f"{made.pop('ts')[11:23]} {made['level'].upper():<8} "
        level, trace, actor = made.pop("level"), made.pop("traceback", None), made.pop("actor", None)
        event, message = made.pop("event"), made.pop("message", "")
        words = [event, *([str(actor)] if actor else []), *([message] if message else [])]
        words += [f"{key}={_human_value(value)}" for key, value in made.items() if value is not None]
        text = head + _one_line("  ".join(words))
        if trace:
            text += "".join(f"\n    {_one_line(part)}" for part in str(trace).splitlines())
        colour = _TTY_COLOURS[level]
        return f"\x1b[{colour}m{text}\x1b[0m\n" if self.colour and colour != "0" else text + "\n"

    # ------- where lines come from

    def record(self, record: logging.LogRecord) -> None:
        """Make a line of a record of the standard logging. Never switches."""
        fields = {key: value for key, value in vars(record).items() if key not in _PLAIN_RECORD}
        event = str(fields.pop("event", "log"))
        # of a plain call the template, not the text, tells equal lines from others
        subject = f"{record.name} {str(record.msg)[:200]}" if event == "log" else str(fields.get("actor", ""))
        if record.levelno < self.level or not self._admit(event, subject):
            return
        if event == "log" or not record.name.startswith("regrow"):
            fields["logger"] = record.name
        if record.exc_info and record.exc_info[1] is not None:
            fields["error"] = _error(record.exc_info[1])
            fields["traceback"] = _traceback(record.exc_info[1])
        self._put(record.levelno, self._encode(record.levelno, event, record.getMessage(), fields, record.created))

    def _on_event(self, event: events.Event) -> None:
        level = EVENT_LEVELS.get(event.topic, logging.INFO)
        if event.topic == "supervisor.reported" and event.fields.get("context") in GRAVE_REPORTS:
            level = logging.ERROR
        if level < self.level:
            return
        fields = {key: value for key, value in event.fields.items() if key not in UNWRITTEN and key[0] != "_"}
        self.line(level, event.topic, "", fields, event.at)

    def _greenlet_failed(
        self, context: object, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # gevent prints the exception of a greenlet that nobody waits for; a log line is redacted, a print is not
        fields: dict[str, Any] = {"greenlet": _name_of(context), "error": kind.__name__}
        if isinstance(error, BaseException):
            fields["error"] = _error(error)
            fields["traceback"] = _traceback(error if error.__traceback__ else error.with_traceback(trace))
        self.line(logging.ERROR, "greenlet.failed", "", fields)


class _Handler(logging.Handler):
    """Passes records on; without the lock of the stock handlers, which is a greenlet's in a patched process."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def createLock(self) -> None:  # noqa: N802 - the name is logging's
        self.lock = _NO_LOCK

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._log.record(record)
        except Exception:  # noqa: BLE001 - an edge: a record that cannot be formatted must not harm who logged it
            self._log.line(logging.ERROR, "log.failed", f"a record of {record.name} cannot be formatted", {})


class _NoLock:
    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: object) -> None:
        pass


_NO_LOCK: Any = _NoLock()
_current: Log | None = None


def _nothing() -> None:
    pass


def _fd_of(stream: TextIO) -> int | None:
    try:
        stream.flush()
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _level_name(level: int) -> str:
    return _LEVEL_NAMES.get(level) or _LEVEL_NAMES[min(50, max(10, level // 10 * 10))]


def _timestamp(at: float) -> str:
    whole = int(at)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int((at - whole) * 1000):03d}Z"


def _text(text: str, limit: int = MAX_TEXT_CHARS) -> str:
    # redacted before it is cut: half a secret would not be recognised
    text = redact(text)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def _safe(value: object, depth: int = MAX_DEPTH) -> Any:
    """A JSON-safe, redacted, bounded copy of a field."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _text(value, MAX_TRACEBACK_CHARS)
    if isinstance(value, BaseException):
        return _error(value)
    if isinstance(value, Mapping | list | tuple | set | frozenset) and not depth:
        return f"<{type(value).__name__} of {len(value)}>"
    if isinstance(value, Mapping):
        return {_text(str(key)): _safe(item, depth - 1) for key, item in itertools.islice(value.items(), MAX_ITEMS)}
    if isinstance(value, list | tuple | set | frozenset):
        return [_safe(item, depth - 1) for item in itertools.islice(value, MAX_ITEMS)]
    try:
        return _text(str(value))
    except Exception:  # noqa: BLE001 - an edge: one field that cannot be shown must not cost the whole line
        return f"<{type(value).__name__} that cannot be shown>"


def _error(error: BaseException) -> str:
    return _text(f"{type(error).__name__}: {error}")


def _traceback(error: BaseException) -> str:
    text = redact("".join(traceback.format_exception(error)))
    # the end of a traceback tells most
    return text if len(text) <= MAX_TRACEBACK_CHARS else "... " + text[-MAX_TRACEBACK_CHARS:]


def _name_of(context: object) -> str:
    return _text(context if isinstance(context, str) else repr(context), 300)


def _human_value(value: object) -> str:
    if isinstance(value, str) and value and not any(mark in value for mark in ' "='):
        return value
    return msgspec.json.encode(value).decode()


def _one_line(text: str) -> str:
    """Without control characters: foreign text must not forge a line or command the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}" for c in text)
