"""What a worker prints, as bounded lines."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from runtime import clock

LINE_BYTES = 2000
LINES_PER_S = 100.0
LINES_BURST = 200.0
KEPT_LINES = 20
KEPT_LINE_CHARS = 500


class Lines:
    """Cuts a stream of bytes into lines of at most LINE_BYTES and passes on at most LINES_PER_S a second.

    What is over is counted, and the count is passed on as a line of its own. `last` keeps the newest lines whether or
    not they were passed on. Never switches.
    """

    def __init__(self, on_line: Callable[[str], object], clean: Callable[[str], str] = str) -> None:
        self.last: deque[str] = deque(maxlen=KEPT_LINES)
        self._on_line = on_line
        self._clean = clean
        self._rest = b""
        self._cutting = False  # the end of a line that was too long is still to come
        self._left_out = 0
        self._budget = LINES_BURST
        self._counted_at = clock.now()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the stream. Never switches."""
        lines = chunk.split(b"\n")
        lines[0] = self._rest + lines[0]
        self._rest = lines.pop()
        if self._cutting and lines:
            self._cutting = False
            del lines[0]
        if self._cutting:
            self._rest = b""
        elif len(self._rest) > LINE_BYTES:
            lines.append(self._rest)
            self._rest, self._cutting = b"", True
        self._pass_on(lines)

    def end(self) -> None:
        """Pass on what stands without a line's end. Never switches."""
        if self._rest:
            lines, self._rest = [self._rest], b""
            self._pass_on(lines)
        self._tell_left_out()

    def _pass_on(self, lines: list[bytes]) -> None:
        now = clock.now()
        self._budget = min(LINES_BURST, self._budget + (now - self._counted_at) * LINES_PER_S)
        self._counted_at = now
        allowed = min(len(lines), int(self._budget))
        self._budget -= allowed
        if allowed:
            self._tell_left_out()
        for line in lines[:allowed]:
            text = self._text(line)
            self.last.append(text[:KEPT_LINE_CHARS])
            self._on_line(text)
        rest = lines[allowed:]
        self._left_out += len(rest)
        self.last.extend(self._text(line)[:KEPT_LINE_CHARS] for line in rest[-KEPT_LINES:])

    def _tell_left_out(self) -> None:
        if self._left_out:
            count, self._left_out = self._left_out, 0
            self._on_line(f"({count} lines left out, more than {LINES_PER_S:g} lines per second)")

    def _text(self, line: bytes) -> str:
        text = line[:LINE_BYTES].decode("utf-8", "backslashreplace")
        return self._clean(text + " ..." if len(line) > LINE_BYTES else text)
