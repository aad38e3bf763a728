"""A sequencer: brings concurrent code into one order, so that a race is tested the same way every time."""

from __future__ import annotations

from types import TracebackType

from runtime.promise import AskTimeout, Promise

DEFAULT_WAIT_S = 5.0


class Sequencer:
    """Steps numbered from 0, each taken once and in order: `with sequencer(2): ...` waits until step 1 is over.

    A step that is asked for and whose turn does not come within `timeout_s` seconds raises AssertionError there, and
    breaks the sequence for everybody who waits.
    """

    def __init__(self, timeout_s: float = DEFAULT_WAIT_S) -> None:
        self._timeout_s = timeout_s
        self._next = 0
        self._waiting: dict[int, Promise] = {}
        self._taken: set[int] = set()

    def __call__(self, step: int) -> _Step:
        if step in self._taken:
            raise ValueError(f"step {step} is taken twice")
        self._taken.add(step)
        return _Step(self, step)

    @property
    def done(self) -> int:
        """How many steps are over."""
        return self._next

    def _begin(self, step: int) -> None:
        if step == self._next:
            return
        turn = self._waiting[step] = Promise()
        try:
            turn.wait(self._timeout_s)
        except AskTimeout:
            error = AssertionError(f"step {step} waited {self._timeout_s:g} s for step {self._next}, which never ended")
            for other in self._waiting.values():
                other.reject(error)
            raise error from None
        finally:
            self._waiting.pop(step, None)

    def _end(self) -> None:
        self._next += 1
        turn = self._waiting.get(self._next)
        if turn is not None:
            turn.resolve(None)


class _Step:
    def __init__(self, sequencer: Sequencer, step: int) -> None:
        self._sequencer = sequencer
        self._step = step

    def __enter__(self) -> None:
        self._sequencer._begin(self._step)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._sequencer._end()
