"""Time by the clock on the wall, and by the processor.

On a machine shared with other programs the wall's clock counts their time too, and a container's limit of processor
time stops everybody at will. All core questions keep one thread busy without a pause, so on a quiet machine both are
the same, and goals are judged by processor time.
"""

from __future__ import annotations

from time import perf_counter, process_time

from bench.question import Goal, Metric


class Watch:
    """Runs from when it is made; may be stopped and resumed."""

    def __init__(self) -> None:
        self._wall_s = self._processor_s = 0.0
        self.resume()

    def resume(self) -> None:
        self._wall_began, self._processor_began = perf_counter(), process_time()

    def stop(self) -> None:
        self._wall_s += perf_counter() - self._wall_began
        self._processor_s += process_time() - self._processor_began

    def per(self, operations: int) -> dict[str, float]:
        """Return the microseconds per operation, both ways."""
        return {"us": self._wall_s / operations * 1e6, "cpu_us": self._processor_s / operations * 1e6}


def both(title: str, *goals: Goal) -> list[Metric]:
    """Return the metrics of an operation's time: by the processor, with the goals, and by the wall."""
    return [
        Metric("cpu_us", f"{title}, processor time", "us", goals=goals),
        Metric("us", f"{title}, by the wall", "us"),
    ]
