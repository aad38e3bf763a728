"""The program that a worker process runs, and the messages that it exchanges with the daemon.

The daemon starts it as a fresh interpreter (`python -P -s child.py FD PARENT_PID [PAGE_FD]`), so this file imports
nothing of ours: only the standard library and msgspec. FD is one end of a socket pair, PAGE_FD a page of memory that is
shared with the daemon, where the system has such pages. A message is a 4-byte length (big endian) and that many bytes
of msgpack. The daemon sends one Setup, then Calls; the process answers the Setup with Ready or SetupFailed and each
Call, in order, with Returned, Raised or Declined. Nothing is ever unpickled.

The daemon may send a Call before the last one is answered. The process takes the next message when the answer to the
last one is written, and not earlier; it says so on the page (BEGUN: the number of the message it has taken last), and
then looks there up to which message the daemon has taken its Calls back (TAKEN_BACK): those it leaves alone, and tells
of the last of them with LeftAlone. It also tells there how long it has worked (BUSY_NS).

A Call that wants a stream and whose function gives a generator is answered with Streaming; then each Pull is answered
with Items, and nothing is made that was not pulled. A Close, or the end of the generator, ends it. At any time during a
Call a function may tell how far it is: `import regrow_worker; regrow_worker.progress(done, total, note)`.

Where the Setup names a health check, the daemon may send CheckHealth, answered with Checked, when no Call is open.

The process ends when its socket does, after the teardown that the Setup may name, of which it tells with TornDown; and
the kernel kills it when the daemon's hub thread is gone.
"""

from __future__ import annotations

import importlib
import mmap
import os
import socket
import sys
import time
import traceback
from _thread import allocate_lock
from collections import deque
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence, Set, ValuesView
from types import AsyncGeneratorType, CoroutineType, FunctionType, GeneratorType, ModuleType
from typing import Any, Literal, cast

try:
    import msgspec
except ModuleNotFoundError:
    sys.stderr.write(f"{sys.executable} has no msgspec, which a worker needs: install msgspec there\n")
    sys.exit(78)

HEADER_BYTES = 4
#: so much is read at once; several messages may come with it
READ_BYTES = 1 << 16
#: the buffer of a larger message is not kept for the next one
MAX_KEPT_BYTES = 1 << 23
#: the words of the shared page: the process writes the first two, the daemon the third
BEGUN, BUSY_NS, TAKEN_BACK = 0, 1, 2
PAGE_BYTES = 24
#: The number of msgpack's extension type for a numpy array; its payload is a file in numpy's own .npy format.
ARRAY_EXT = 1
#: The same for a frame (pandas, pyarrow, polars); its payload is an Arrow IPC stream.
FRAME_EXT = 2
#: older ones unpickle what an Arrow stream tells them to (CVE-2023-47248), or lack the C stream interface
MIN_PYARROW = 18
MAX_MESSAGE_CHARS = 2000
MAX_TRACEBACK_CHARS = 8000
MAX_TRACEBACK_FRAMES = 25
MAX_NAMES_LISTED = 50
MAX_NPY_HEADER_BYTES = 70_000
#: The kernel's out-of-memory killer takes a worker before it takes the daemon.
OOM_SCORE_ADJUST = 500
MAX_DESCRIPTORS = 1 << 16
#: a batch of a stream's items is sent when it has taken so long, or holds so much
MAX_BATCH_S = 0.02
MAX_BATCH_BYTES = 1 << 20
#: reports of progress that come sooner than this after the last one are dropped, but not the one that says all is done
PROGRESS_EVERY_S = 0.1
MAX_NOTE_CHARS = 200
MAX_VALUES_LOOKED_AT = 1000
PR_SET_PDEATHSIG = 1
SIGKILL = 9


class Setup(msgspec.Struct, tag="setup", array_like=True):
    """The first message: limits, where modules are found, what may be called, what to load before the first call."""

    directory: str | None
    path: list[str]
    functions: list[str]
    preload: list[str]
    init: str | None
    max_message: int
    address_space: int | None
    nice: int
    teardown: str | None = None
    health_check: str | None = None


class Call(msgspec.Struct, tag="call", array_like=True):
    """Call `function` ("module:name"); `arrays` says how numpy arrays and frames of the result travel.

    With `stream` the items of a generator wait to be pulled, without it they come back as a list.
    """

    id: int
    function: str
    args: list[Any]
    kwargs: dict[str, Any]
    arrays: Literal["list", "ext"]
    stream: bool = False


class Pull(msgspec.Struct, tag="pull", array_like=True):
    """Make 1 to `most` further items of the stream of this call."""

    id: int
    most: int


class Close(msgspec.Struct, tag="close", array_like=True):
    """Close the generator of this call; answered with Returned."""

    id: int


class CheckHealth(msgspec.Struct, tag="check_health", array_like=True):
    """Call the health check."""


class Ready(msgspec.Struct, tag="ready", array_like=True):
    """Everything is loaded; calls are welcome."""

    python: str


class SetupFailed(msgspec.Struct, tag="setup_failed", array_like=True):
    """A preloaded module or the init function raised; the process ends by itself."""

    doing: str
    error: str
    message: str
    traceback: str


class Checked(msgspec.Struct, tag="checked", array_like=True):
    """The health check is over; `problem` is None when the process is healthy."""

    problem: str | None


class TornDown(msgspec.Struct, tag="torn_down", array_like=True):
    """The teardown is over; `problem` is None when it went well. The last message of a process."""

    problem: str | None


class Returned(msgspec.Struct, tag="returned", array_like=True):
    """The function's result."""

    id: int
    value: Any


class Raised(msgspec.Struct, tag="raised", array_like=True):
    """The function raised, or its result cannot be sent; the process lives."""

    id: int
    error: str
    message: str
    traceback: str


class Declined(msgspec.Struct, tag="declined", array_like=True):
    """The call was not made, or (too_large) its result was not sent; the process lives."""

    id: int
    code: Literal["not_found", "forbidden", "invalid_arguments", "too_large"]
    message: str
    started: bool


class Streaming(msgspec.Struct, tag="streaming", array_like=True):
    """The function gave a generator, whose items may be pulled."""

    id: int


class Items(msgspec.Struct, tag="items", array_like=True):
    """What a Pull has made; `done` ends the call."""

    id: int
    values: list[Any]
    done: bool


class Progress(msgspec.Struct, tag="progress", array_like=True):
    """How far the call in hand is, as its function says."""

    id: int
    done: float
    total: float
    note: str


class LeftAlone(msgspec.Struct, tag="left_alone", array_like=True):
    """The message of this number and those before it have been taken; the last ones of them had been taken back."""

    number: int


ToChild = Setup | Call | Pull | Close | CheckHealth
FromChild = (
    Ready | SetupFailed | Checked | TornDown | Returned | Raised | Declined | Streaming | Items | Progress | LeftAlone
)
Answer = Returned | Raised | Declined
AboutItself = Ready | SetupFailed | Checked | TornDown


class Decline(Exception):
    """Raised inside to answer with Declined."""

    def __init__(self, code: Literal["not_found", "forbidden", "invalid_arguments", "too_large"], message: str) -> None:
        super().__init__(message)
        self.code = code


def describe(error: BaseException, skip_frames: int = 0) -> tuple[str, str, str]:
    """Return an exception's type, message and traceback as bounded text, whatever its own methods do."""
    kind = type(error)
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    trace = error.__traceback__
    for _ in range(skip_frames):
        trace = trace.tb_next if trace is not None else None
    try:
        message = str(error)
    except Exception as second:  # noqa: BLE001 - foreign __str__
        message = f"(its __str__ raised {type(second).__name__})"
    try:
        lines = traceback.format_exception(kind, error, trace, limit=-MAX_TRACEBACK_FRAMES)
        text = "".join(lines)
    except Exception as second:  # noqa: BLE001 - foreign attributes, or no memory left
        text = f"(no traceback: {type(second).__name__})"
    if len(text) > MAX_TRACEBACK_CHARS:
        half = MAX_TRACEBACK_CHARS // 2
        text = f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
    return name, message[:MAX_MESSAGE_CHARS], text


def is_public_function(value: object, module: str) -> bool:
    """Tell whether `module:*` covers this value: a function, defined in that very module."""
    import inspect

    return inspect.isroutine(value) and getattr(value, "__module__", None) == module


class Functions:
    """Finds what a call names, importing its module at the first call of one of its functions."""

    def __init__(self, patterns: list[str]) -> None:
        self._patterns = frozenset(patterns)
        self._found: dict[str, tuple[Any, Any]] = {}

    def find(self, function: str) -> tuple[Any, Any]:
        """Return the function, and the signature to check arguments with first, or None.

        Raises Decline, or what the import raises.
        """
        found = self._found.get(function)
        if found is None:
            found = self._found[function] = self._load(function)
        return found

    def _load(self, function: str) -> tuple[Any, Any]:
        module_name, _, name = function.partition(":")
        exact, any_of_module = function in self._patterns, f"{module_name}:*" in self._patterns
        if name.startswith("_") or not (exact or any_of_module):
            raise Decline(
                "forbidden", f"function {function} is not allowed; allowed: {', '.join(sorted(self._patterns))}"
            )
        importlib.invalidate_caches()
        module = importlib.import_module(module_name)
        value: Any = getattr(module, name, None)
        # Naming one function is a decision of whoever wrote the configuration, so it may come from elsewhere (a
        # built-in, a re-export); the star covers only what the module itself defines.
        if not (callable(value) if exact else is_public_function(value, module_name)):
            raise Decline("not_found", self._missing(module, module_name, name, exact))
        if isinstance(value, FunctionType) and not vars(value).keys() & {"__wrapped__", "__signature__"}:
            return value, None  # calling it checks the arguments, before anything of it runs
        return value, signature_of(value)

    @staticmethod
    def _missing(module: ModuleType, module_name: str, name: str, exact: bool) -> str:
        if exact:
            return f"module {module_name} has no function {name}"
        public = sorted(
            key
            for key, value in vars(module).items()
            if not key.startswith("_") and is_public_function(value, module_name)
        )
        listed = ", ".join(public[:MAX_NAMES_LISTED]) or "none"
        return f"module {module_name} defines no public function {name}; it defines: {listed}"


_NOT_PANDAS = object()


def signature_of(function: Any) -> Any:
    """Return the signature of a function, or None where it has none."""
    import inspect

    try:
        return inspect.signature(function)
    except (ValueError, TypeError):
        return None


def misfit(signature: Any, request: Call) -> str | None:
    """Return what is wrong with a call's arguments, or None."""
    if signature is None:
        return None
    try:
        signature.bind(*request.args, **request.kwargs)
    except TypeError as error:
        return f"function {request.function}{signature}: {error}"
    return None


class Codec:
    """Encodes what functions return and decodes what they are given; knows numpy and frames without importing them."""

    def __init__(self) -> None:
        self._arrays = "list"
        self._encoder = msgspec.msgpack.Encoder(enc_hook=self._plain, decimal_format="string")
        self._decoder = msgspec.msgpack.Decoder(ToChild, ext_hook=self._from_ext)

    def encode(self, message: FromChild, arrays: str = "list") -> bytearray:
        """Return the whole frame, length included."""
        self._arrays = arrays
        frame = bytearray(HEADER_BYTES)
        self._encoder.encode_into(message, frame, HEADER_BYTES)
        frame[:HEADER_BYTES] = (len(frame) - HEADER_BYTES).to_bytes(HEADER_BYTES, "big")
        return frame

    def encode_item(self, value: Any, arrays: str) -> msgspec.Raw:
        """Return one item as it will stand in a frame."""
        self._arrays = arrays
        return msgspec.Raw(self._encoder.encode(value))

    def decode(self, payload: bytearray | memoryview) -> ToChild:
        """Return the message; arrays are views of `payload`, which must not be used again."""
        message: ToChild = self._decoder.decode(payload)
        return message

    def _plain(self, value: Any) -> Any:
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.ndarray):
            if self._arrays == "ext":
                return msgspec.msgpack.Ext(ARRAY_EXT, array_to_npy(value))
            return (value.astype(str) if value.dtype.kind == "M" else value).tolist()
        if numpy is not None and isinstance(value, numpy.generic):
            item = str(value) if value.dtype.kind == "M" else value.item()
            # Long doubles have no Python type of their own and come back as they were.
            return float(value) if isinstance(item, numpy.generic) else item
        pandas = sys.modules.get("pandas")
        # Half imported, by another thread, it has no DataFrame yet.
        if pandas is not None and hasattr(pandas, "DataFrame"):
            found = self._of_pandas(value, pandas)
            if found is not _NOT_PANDAS:
                return found
        if is_arrow(value):
            return self._of_frame(value)
        for plain in (str, int, float):
            if isinstance(value, plain):
                return plain(value)
        if isinstance(value, Mapping):
            return dict(value)
        if isinstance(value, Sequence | Set | ValuesView | deque):
            return list(value)
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        raise TypeError(f"a value of type {type(value).__module__}.{type(value).__qualname__} cannot be sent")

    def _of_pandas(self, value: Any, pandas: ModuleType) -> Any:
        if value is pandas.NaT or value is pandas.NA:
            return None
        if isinstance(value, pandas.Timestamp):
            return value.to_pydatetime(warn=False)
        if isinstance(value, pandas.Timedelta):
            return value.to_pytimedelta()
        if isinstance(value, pandas.Index | pandas.api.extensions.ExtensionArray):
            return list(value)
        if isinstance(value, pandas.Series):
            if self._arrays == "ext":
                return self._of_frame(value.to_frame())
            return [row["values"] for row in self._of_frame(value.to_frame("values").reset_index(drop=True))]
        return _NOT_PANDAS

    def _of_frame(self, value: Any) -> Any:
        if hasattr(value, "as_py"):
            return value.as_py()
        pyarrow = arrow_module(f"a {type(value).__module__}.{type(value).__qualname__}")
        table = table_of(value, pyarrow)
        if self._arrays == "ext" and isinstance(table, pyarrow.Table):
            return msgspec.msgpack.Ext(FRAME_EXT, table_to_ipc(table, pyarrow))
        return table.to_pylist()

    @staticmethod
    def _from_ext(code: int, data: memoryview) -> Any:
        if code == ARRAY_EXT:
            return array_from_npy(data)
        if code == FRAME_EXT:
            return frame_from_ipc(data)
        raise ValueError(
            f"msgpack extension type {code} is not known, only {ARRAY_EXT}, a numpy array, and {FRAME_EXT}, an Arrow "
            "stream"
        )


def array_to_npy(array: Any) -> bytes:
    """Return a numpy array in the .npy format, with one copy; raises ValueError for arrays of objects."""
    import io

    import numpy as np
    from numpy.lib import format as npy

    if array.dtype.hasobject:
        raise ValueError("an array of Python objects cannot be sent, it would need pickle")
    head = io.BytesIO()
    facts = npy.header_data_from_array_1_0(array)
    npy.write_array_header_1_0(head, facts)
    flat = array.T if facts["fortran_order"] else np.ascontiguousarray(array)
    return b"".join((head.getvalue(), flat.reshape(-1).view(np.uint8).data))


def array_from_npy(data: memoryview) -> Any:
    """Return the numpy array of a .npy payload as a view of `data`, without a copy; never unpickles."""
    import io

    import numpy as np
    from numpy.lib import format as npy

    head = io.BytesIO(data[:MAX_NPY_HEADER_BYTES])
    version = npy.read_magic(head)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f".npy version {version[0]}.{version[1]} is not known; send 1.0 or 2.0")
    shape, fortran_order, dtype = readers[version](head)
    if dtype.hasobject:
        raise ValueError("an array of Python objects cannot be sent")
    flat = np.frombuffer(data[head.tell() :], dtype=dtype, count=-1)
    return flat.reshape(shape, order="F" if fortran_order else "C")


def is_arrow(value: Any) -> bool:
    """Tell whether this is Arrow's data, whoever holds it: pyarrow, polars and others offer it in the same way."""
    kind = type(value)
    return (
        is_pandas_frame(value)
        or hasattr(kind, "__arrow_c_stream__")
        or hasattr(kind, "__arrow_c_array__")
        or (hasattr(kind, "as_py") and kind.__module__.partition(".")[0] == "pyarrow")
    )


def is_pandas_frame(value: Any) -> bool:
    """Tell whether this is a pandas DataFrame, without importing pandas."""
    frame = getattr(sys.modules.get("pandas"), "DataFrame", None)
    return frame is not None and isinstance(value, frame)


def arrow_module(what: str) -> Any:
    """Return pyarrow, imported now; raises ValueError when this interpreter lacks it."""
    hint = f"pip install 'pyarrow>={MIN_PYARROW}' there, or pass plain values"
    try:
        pyarrow = importlib.import_module("pyarrow")
        importlib.import_module("pyarrow.ipc")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pyarrow":
            raise
        raise ValueError(f"{what} needs pyarrow, which {sys.executable} does not have: {hint}") from None
    if int(pyarrow.__version__.partition(".")[0]) < MIN_PYARROW:
        raise ValueError(f"{what} needs pyarrow {MIN_PYARROW}, {sys.executable} has {pyarrow.__version__}: {hint}")
    return pyarrow


def table_of(value: Any, pyarrow: Any) -> Any:
    """Return a frame as an Arrow table, and one column alone as an Arrow array; copies only what is laid out otherwise.

    Raises TypeError, naming the column, for what Arrow has no type for: pickling it is not done.
    """
    if is_pandas_frame(value):
        try:
            return pyarrow.Table.from_pandas(value)
        except (pyarrow.ArrowException, TypeError) as error:
            raise TypeError(_column_at_fault(value, pyarrow) or f"the frame fits no Arrow table: {error}") from None
    if isinstance(value, pyarrow.RecordBatch):
        return pyarrow.Table.from_batches([value])
    if isinstance(value, pyarrow.Array | pyarrow.ChunkedArray):
        return value
    try:
        return pyarrow.table(value)
    except (pyarrow.ArrowException, TypeError, ValueError):
        return pyarrow.chunked_array(value)


def _column_at_fault(frame: Any, pyarrow: Any) -> str | None:
    for place, name in enumerate(frame.columns):
        column = frame.iloc[:, place]
        try:
            pyarrow.Array.from_pandas(column)
        except (pyarrow.ArrowException, TypeError):
            found = sorted({type(value).__qualname__ for value in column.head(MAX_VALUES_LOOKED_AT)})
            return (
                f"column {str(name)[:MAX_NOTE_CHARS]!r} of the frame, of dtype {column.dtype}, fits no Arrow type; its "
                f"values are of type {', '.join(found[:MAX_NAMES_LISTED])}: give it one type that Arrow knows"
            )
    return None


def table_to_ipc(table: Any, pyarrow: Any) -> bytearray:
    """Return an Arrow table as an IPC stream, with one copy."""
    measured = pyarrow.MockOutputStream()
    with pyarrow.ipc.new_stream(measured, table.schema) as stream:
        stream.write_table(table)
    # Made in its final size, since one that grows is copied again and again, and not of Arrow's own memory, which keeps
    # what it once had.
    buffer = bytearray(measured.size())
    with pyarrow.ipc.new_stream(pyarrow.FixedSizeBufferWriter(pyarrow.py_buffer(buffer)), table.schema) as stream:
        stream.write_table(table)
    return buffer


def frame_from_ipc(data: memoryview) -> Any:
    """Return the pyarrow Table of an IPC stream, a view of `data`, or the pandas DataFrame that it says it was, a copy.

    Checks all that could lead a reader out of the buffer, and never unpickles.
    """
    pyarrow = arrow_module("an Arrow argument")
    with pyarrow.ipc.open_stream(pyarrow.py_buffer(data)) as stream:
        table = stream.read_all()
    # Arrow believes the offsets of a stream until they are checked.
    table.validate(full=True)
    if b"pandas" not in (table.schema.metadata or {}):
        return table
    try:
        importlib.import_module("pandas")
    except ModuleNotFoundError:
        return table
    # A copy, because a DataFrame that is a view refuses to be changed.
    return table.to_pandas()


class Connection:
    """The process's end of the socket pair, and its side of the shared page where it has one."""

    def __init__(self, fd: int, page_fd: int | None = None) -> None:
        self._socket = socket.socket(fileno=fd)
        # The pair was made by a cooperative parent and so is non-blocking; this side waits in the kernel.
        self._socket.setblocking(True)
        self._socket.set_inheritable(False)
        self._owner = os.getpid()
        # Progress may be reported by any thread.
        self._sending = allocate_lock()
        self._fence = allocate_lock()
        self._buffer = bytearray(READ_BYTES)
        self._view = memoryview(self._buffer)
        self._at = self._end = 0
        self.taken = self._took_at = 0
        self._large_buffer = bytearray()
        self._page = _words(page_fd)

    def receive(self) -> bytearray | memoryview | None:
        """Return the next message's bytes, which the caller may keep, or None when the daemon has closed its end."""
        while self._end - self._at < HEADER_BYTES:
            if not self._fill():
                return None
        begin = self._at + HEADER_BYTES
        size = int.from_bytes(self._buffer[self._at : begin], "big")
        # Before the rest is read: it may be this very message that the process does not survive.
        self.taken = taken = self.taken + 1
        self._page[BEGUN] = taken
        self._took_at = time.perf_counter_ns()
        if begin + size <= self._end:
            self._at = begin + size
            return self._buffer[begin : self._at]
        return self._large(begin, size)

    def discard(self) -> None:
        """Take no more messages; wait until the daemon has closed its end."""
        while self._fill():
            self._at = self._end = 0

    def note_time(self) -> None:
        """Add the time since the last message was taken to what the daemon can read; to be done before answering."""
        if self.is_owner():  # a fork shares the page
            self._page[BUSY_NS] += time.perf_counter_ns() - self._took_at

    def was_taken_back(self) -> bool:
        """Tell whether the daemon no longer wants the message that came last."""
        # The lock is a fence: what is on the page is written before what the daemon has written there is read. Nothing
        # moves behind the first release, nothing before the second acquire, and these two keep their order.
        with self._fence:
            pass
        with self._fence:
            return self._page[TAKEN_BACK] >= self.taken

    def is_last_taken_back(self) -> bool:
        """Tell whether the message that came last is also the last that the daemon has taken back so far."""
        return self._page[TAKEN_BACK] == self.taken

    def _fill(self) -> bool:
        rest = self._end - self._at
        if self._at:
            self._buffer[:rest] = self._buffer[self._at : self._end]
            self._at, self._end = 0, rest
        count = self._socket.recv_into(self._view[rest:])
        self._end += count
        return count > 0

    def _large(self, begin: int, size: int) -> memoryview | None:
        """Read the rest of a message straight to where it will stay."""
        message = memoryview(self._room_for(size))[:size]
        got = self._end - begin
        message[:got] = self._view[begin : self._end]
        self._at = self._end = 0
        while got < size:
            count = self._socket.recv_into(message[got:])
            if count == 0:
                return None
            got += count
        return message

    def _room_for(self, size: int) -> bytearray:
        """Return the last large buffer if nobody uses it any more: each page of a fresh one costs 2 us to get."""
        buffer = self._large_buffer
        try:
            buffer.append(0)  # raises when an array of an earlier call is still a view of it
            buffer.pop()
        except BufferError:
            buffer = bytearray()
        if len(buffer) < size:
            buffer = bytearray(size)
        if size <= MAX_KEPT_BYTES:
            self._large_buffer = buffer
        return buffer

    def send(self, frame: bytearray) -> None:
        """Send one whole frame."""
        # A function that forked and let both processes return must not answer twice.
        if not self.is_owner():
            os._exit(0)
        with self._sending:
            self._socket.sendall(frame)

    def is_owner(self) -> bool:
        """Tell whether this is the process that the daemon started, and no fork of it."""
        return os.getpid() == self._owner


def _words(fd: int | None) -> memoryview:
    """Return the shared page as words; where there is none, words that nobody else sees."""
    return memoryview(bytearray(PAGE_BYTES) if fd is None else mmap.mmap(fd, PAGE_BYTES)).cast("Q")


class Reporter:
    """Sends reports of progress for the call in hand; offered to functions as `regrow_worker.progress`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # Its own: any thread may report, also while the result is encoded.
        self._encoder = msgspec.msgpack.Encoder()
        self._sent_at = 0.0
        self._sent = (-1.0, -1.0)
        self.call_id: int | None = None

    def begin(self, call_id: int) -> None:
        """Report for this call from now on."""
        self.call_id, self._sent_at, self._sent = call_id, 0.0, (-1.0, -1.0)

    def progress(self, done: float, total: float = 1.0, note: str = "") -> None:
        """Tell how far the work is: `done` of `total`, and a short note. Cheap: a busy loop's reports are thinned out.

        Raises ValueError for what is no share of a total. Does nothing outside of a call and in forked processes.
        """
        if not (total > 0 and 0 <= done <= total):
            raise ValueError(f"progress is {done} of {total}, expected 0 <= done <= total")
        now, state = time.monotonic(), (float(done), float(total))
        call_id = self.call_id  # once: in a thread, the call may be over at any moment
        if call_id is None or not self._connection.is_owner():
            return
        if now - self._sent_at < PROGRESS_EVERY_S and (done < total or state == self._sent):
            return
        self._sent_at, self._sent = now, state
        frame = bytearray(HEADER_BYTES)
        self._encoder.encode_into(Progress(call_id, *state, str(note)[:MAX_NOTE_CHARS]), frame, HEADER_BYTES)
        frame[:HEADER_BYTES] = (len(frame) - HEADER_BYTES).to_bytes(HEADER_BYTES, "big")
        self._connection.send(frame)

    def offer(self) -> None:
        """Let functions import `regrow_worker`."""
        module = ModuleType("regrow_worker", "What a function that runs in a worker process may tell its daemon.")
        module.progress = self.progress  # type: ignore[attr-defined]
        sys.modules[module.__name__] = module


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends; end at once when it has ended."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def limit(setup: Setup) -> None:
    """Apply the limits that a process can set for itself; the daemon watches the rest from outside."""
    import resource

    # A core file of a killed worker would hold its arguments, and writing it takes seconds.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if setup.address_space is not None:
        resource.setrlimit(resource.RLIMIT_AS, (setup.address_space, setup.address_space))
    if setup.nice:
        os.nice(setup.nice)
    stand_before_the_daemon()


def stand_before_the_daemon() -> None:
    """Have the kernel's out-of-memory killer take this process before it takes the daemon."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:  # noqa: PTH123 - pathlib is slow to import
            file.write(str(OOM_SCORE_ADJUST))
    except OSError:
        pass


def prepare(setup: Setup) -> SetupFailed | Ready:
    """Load what is to be loaded before the first call."""
    limit(setup)
    sys.path[:0] = setup.path
    doing = f"change to folder {setup.directory}"
    try:
        if setup.directory is not None:
            os.chdir(setup.directory)
        for module in setup.preload:
            doing = f"import {module}"
            importlib.import_module(module)
        if setup.init is not None:
            doing = f"init function {setup.init}"
            function_of(setup.init)()
        # Now, for nobody would be told of a wrong name at the end of the process.
        for key, named in (("teardown", setup.teardown), ("health check", setup.health_check)):
            if named is not None:
                doing = f"finding {key} {named}"
                function_of(named)
    except BaseException as error:  # noqa: BLE001 - this is the worker's own loop; SystemExit from foreign code as well
        return SetupFailed(doing, *describe(error, skip_frames=1))
    return Ready(".".join(map(str, sys.version_info[:3])))


def function_of(name: str) -> Any:
    """Return the function "module:name", importing its module; raises what that raises."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def check_health(name: str) -> Checked:
    """Call the health check and tell what is wrong; what it returns is None, true, false, or a text that says why."""
    problem: str | None = None
    try:
        result = awaited(function_of(name)())
        if isinstance(result, str):
            problem = result or None
        elif result is not None and not is_bool(result):
            problem = f"it returned a {type(result).__qualname__}, expected None, true, false or a text"
        elif result is not None and not result:
            problem = "it returned false"
    except BaseException as error:  # noqa: BLE001 - this is the worker's own loop; SystemExit from foreign code as well
        problem = raised(error)
    flush()
    return Checked(None if problem is None else problem[:MAX_MESSAGE_CHARS])


def tear_down(name: str) -> TornDown:
    """Call the teardown and tell how it went."""
    problem = None
    try:
        awaited(function_of(name)())
    except BaseException as error:  # noqa: BLE001 - this is the worker's own loop; SystemExit from foreign code as well
        problem = raised(error)[:MAX_MESSAGE_CHARS]
    flush()
    return TornDown(problem)


def raised(error: BaseException) -> str:
    """Return an exception's type and message on one line."""
    name, message, _ = describe(error)
    return f"it raised {name}: {message}" if message else f"it raised {name}"


def is_bool(value: Any) -> bool:
    """Tell whether this is true or false, numpy's included."""
    numpy = sys.modules.get("numpy")
    return isinstance(value, bool) or (numpy is not None and isinstance(value, numpy.bool_))


def call(functions: Functions, request: Call) -> Answer | Generator[Any, Any, Any]:
    """Make one call; every exception of the function, SystemExit included, becomes an answer.

    Returns a generator, of which nothing has run, when the call wants a stream and the function gives one.
    """
    started = False
    try:
        function, signature = functions.find(request.function)
        if signature is not None and (wrong := misfit(signature, request)) is not None:
            raise Decline("invalid_arguments", wrong)
        started = True
        try:
            result = function(*request.args, **request.kwargs)
        except TypeError as error:
            # Without a frame of its own the function was never entered.
            if signature is None and error.__traceback__ is not None and error.__traceback__.tb_next is None:
                wrong = misfit(signature_of(function), request)
                if wrong is not None:
                    raise Decline("invalid_arguments", wrong) from None
            raise
        if isinstance(result, AsyncGeneratorType):
            result = drawn_from(result)
        if request.stream and isinstance(result, GeneratorType):
            return result
        return Returned(request.id, awaited(result))
    except Decline as error:
        return Declined(request.id, error.code, str(error)[:MAX_MESSAGE_CHARS], False)
    except BaseException as error:  # noqa: BLE001 - this is the worker's own loop; SystemExit from foreign code as well
        return Raised(request.id, *describe(error, skip_frames=1 if started else 0))


def awaited(result: Any) -> Any:
    """Return what a coroutine returns, a generator's items as a list, and anything else as it is."""
    if isinstance(result, GeneratorType):
        return list(result)
    if isinstance(result, CoroutineType):
        import asyncio

        return asyncio.run(result)
    return result


def drawn_from(source: AsyncGenerator[Any, Any]) -> Generator[Any, None, None]:
    """Yield what an asynchronous generator yields, on an event loop of its own."""
    import asyncio

    with asyncio.Runner() as runner:
        try:
            while True:
                try:
                    item = runner.run(_next_of(source))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            runner.run(_close(source))


async def _next_of(source: AsyncGenerator[Any, Any]) -> Any:
    return await anext(source)


async def _close(source: AsyncGenerator[Any, Any]) -> None:
    await source.aclose()


class ItemStream:
    """Makes the items of a generator as they are pulled, each batch bounded in number, time and bytes."""

    def __init__(self, generator: Generator[Any, Any, Any], codec: Codec, request: Call, max_message: int) -> None:
        self._generator = generator
        self._codec = codec
        self._id = request.id
        self._arrays = request.arrays
        self._max_message = max_message
        self._left: msgspec.Raw | None = None  # made, but it found no room in the last batch
        self._last: Items | Answer | None = None  # how it ended, when items of the last batch had to be sent first

    def batch(self, most: int) -> Items | Answer:
        """Return the next items, or the answer that ends the call."""
        if self._last is not None:
            return self._last
        values: list[Any] = []
        size, until = 0, time.monotonic() + MAX_BATCH_S
        while len(values) < most:
            end: Items | Answer
            try:
                item, self._left = self._left or self._next(), None
            except StopIteration:
                return Items(self._id, values, True)
            except Decline as error:
                end = Declined(self._id, error.code, str(error), True)
            except BaseException as error:  # noqa: BLE001 - this is the worker's own loop; SystemExit as well
                end = Raised(self._id, *describe(error, skip_frames=2))
            else:
                if values and size + len(item) > min(self._max_message, MAX_BATCH_BYTES):
                    self._left = item
                    break
                values.append(item)
                size += len(item)
                if time.monotonic() > until:
                    break
                continue
            if not values:
                return end
            self._last = end
            break
        return Items(self._id, values, False)

    def _next(self) -> msgspec.Raw:
        value = next(self._generator)
        try:
            item = self._codec.encode_item(value, self._arrays)
        except Exception as error:
            self._generator.close()
            raise TypeError(f"the item cannot be sent: {error}") from error
        if len(item) > self._max_message:
            self._generator.close()
            raise Decline("too_large", f"an item is {len(item)} bytes, the limit is {self._max_message} bytes")
        return item

    def close(self) -> Answer:
        """Close the generator, whose clean-up may still raise."""
        try:
            self._generator.close()
        except BaseException as error:  # noqa: BLE001 - foreign code's clean-up
            return Raised(self._id, *describe(error))
        return Returned(self._id, None)


def serve_stream(connection: Connection, codec: Codec, items: ItemStream, call_id: int) -> Answer | Items | None:
    """Serve pulls until the stream is over and return its last answer; None when the daemon has closed its end."""
    connection.send(codec.encode(Streaming(call_id)))
    while (payload := connection.receive()) is not None:
        message = codec.decode(payload)
        if isinstance(message, Close):
            return items.close()
        if isinstance(message, Pull):
            batch = items.batch(message.most)
            flush()
            if not isinstance(batch, Items) or batch.done:
                return batch
            connection.send(codec.encode(batch))
    items.close()
    return None


def encode(codec: Codec, answer: Answer, arrays: str, max_message: int) -> tuple[bytearray, bool]:
    """Return the frame of an answer, or of the error that says why it cannot be sent; and whether memory was out."""
    try:
        frame = codec.encode(answer, arrays)
        size = len(frame) - HEADER_BYTES
        if size <= max_message:
            return frame, is_out_of_memory(answer)
        del frame
        message = f"the result is {size} bytes, the limit is {max_message} bytes; return less, or raise max_message"
        answer = Declined(answer.id, "too_large", message, True)
    except Exception as error:  # noqa: BLE001 - foreign values: whatever their encoding raises, their owner must hear of it
        name, message, text = describe(error)
        answer = Raised(answer.id, name, f"the result cannot be sent: {message}"[:MAX_MESSAGE_CHARS], text)
    return codec.encode(answer), is_out_of_memory(answer)


def flush() -> None:
    """Let what the function printed reach the log before its result reaches the caller."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass


def is_out_of_memory(answer: Answer | Items) -> bool:
    """Tell whether this answer has the daemon replace the process, which then must not begin another call."""
    return isinstance(answer, Raised) and answer.error == "MemoryError"


def serve(connection: Connection) -> None:
    """Set up, serve calls, one at a time, until the daemon closes its end, and tear down."""
    codec = Codec()
    payload = connection.receive()
    if payload is None:
        return
    setup = cast(Setup, codec.decode(payload))
    reporter = Reporter(connection)
    reporter.offer()
    outcome = prepare(setup)
    flush()
    connection.send(codec.encode(outcome))
    if isinstance(outcome, SetupFailed):
        return
    serve_calls(connection, codec, reporter, setup)
    if setup.teardown is not None and connection.is_owner():
        reporter.call_id = None
        connection.send(codec.encode(tear_down(setup.teardown)))


def serve_calls(connection: Connection, codec: Codec, reporter: Reporter, setup: Setup) -> None:
    """Serve calls until the daemon closes its end."""
    functions = Functions(setup.functions)
    while (payload := connection.receive()) is not None:
        if connection.was_taken_back():
            if connection.is_last_taken_back():
                connection.send(codec.encode(LeftAlone(connection.taken)))
            continue
        try:
            request = codec.decode(payload)
        except Exception as error:  # noqa: BLE001 - an array that does not decode; the caller must hear of it
            message = f"an argument cannot be decoded: {error}"[:MAX_MESSAGE_CHARS]
            request_id = msgspec.msgpack.decode(payload, type=CallHead).id
            connection.send(codec.encode(Declined(request_id, "invalid_arguments", message, False)))
            continue
        if isinstance(request, CheckHealth) and setup.health_check is not None:
            connection.send(codec.encode(check_health(setup.health_check)))
            continue
        if not isinstance(request, Call):
            continue  # it crossed the end of its stream
        arrays, request_id = request.arrays, request.id
        reporter.begin(request_id)
        answer = call(functions, request)
        frame: bytearray
        if isinstance(answer, Generator):
            items = ItemStream(answer, codec, request, setup.max_message)
            del answer, payload, request
            last = serve_stream(connection, codec, items, request_id)
            del items
            if last is None:
                return
            frame = codec.encode(last)
            is_full = is_out_of_memory(last)
            del last
        else:
            del payload, request
            flush()
            frame, is_full = encode(codec, answer, arrays, setup.max_message)
            # Neither a result nor the frames of a traceback may live until the next call.
            del answer
        reporter.call_id = None
        connection.note_time()
        connection.send(frame)
        del frame
        if is_full:
            connection.discard()
            return


class CallHead(msgspec.Struct, tag="call", array_like=True):
    """The part of a Call that can always be decoded; longer arrays are accepted."""

    id: int


def main() -> None:
    """Run the process: FD, PARENT_PID and perhaps PAGE_FD, the number after FD, are its arguments."""
    die_with_parent(int(sys.argv[2]))
    fd = int(sys.argv[1])
    page_fd = int(sys.argv[3]) if len(sys.argv) > 3 else None
    # What the daemon itself was started with may be inheritable, and is no business of users' functions. Before the
    # page is mapped: the map keeps a descriptor of its own, and closes that number at the end, whoever has it then.
    os.closerange((page_fd or fd) + 1, min(os.sysconf("SC_OPEN_MAX"), MAX_DESCRIPTORS))
    connection = Connection(fd, page_fd)
    if page_fd is not None:
        os.close(page_fd)
    sys.argv[1:] = []
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    serve(connection)


if __name__ == "__main__":
    main()
