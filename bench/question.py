"""What a bench asks: cases, metrics, the peers it is asked of, and the goals their ratios must reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

Number = int | float


@dataclass(frozen=True)
class Peer:
    """One contestant: how it is started, and how much of the work it gets, so that slow ones do not hold up the rest.

    A Python peer is a `module` of ours with one function per question (`function` where it has another name), `needs`
    is what must be importable for it. The module "otp" is the Erlang side. `scale` multiplies the `n` of a case:
    figures are per operation, so they compare.
    """

    name: str
    module: str
    needs: str = ""
    patched: bool = False
    scale: float = 1.0
    function: str = ""
    params: Mapping[str, Number] = field(default_factory=dict)


@dataclass(frozen=True)
class Goal:
    """What must be reached: `at_most` or `at_least` of our figure in multiples of the peer's, or in its unit."""

    peer: str | None = None
    at_most: float | None = None
    at_least: float | None = None
    added_at_most: float | None = None  # our figure minus the peer's

    def met(self, value: float) -> bool:
        """Tell whether a ratio, a figure or a difference reaches the goal."""
        if self.added_at_most is not None:
            return value <= self.added_at_most
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)


@dataclass(frozen=True)
class Metric:
    """One figure of a case: its key in the answers, its unit, whether less of it is better, and its goals."""

    key: str
    title: str
    unit: str
    lower_is_better: bool = True
    goals: Sequence[Goal] = ()


@dataclass(frozen=True)
class Case:
    """One way to ask: parameters for every contestant, the small ones of a quick run, and who takes part."""

    name: str
    params: Mapping[str, Number]
    metrics: Sequence[Metric]
    peers: Sequence[str] | None = None  # None: all of the question's
    quick: Mapping[str, Number] = field(default_factory=dict)
    rounds: int | None = None
    warm_up: bool = True  # a first round that is not counted


@dataclass(frozen=True)
class Question:
    """One bench: the function `ours` of its file is compared with each of the peers."""

    name: str
    title: str
    cases: Sequence[Case]
    peers: Sequence[Peer] = ()
    rounds: int = 7
    best_of: int = 1
    note: str = ""
    around: Callable[[], AbstractContextManager[Mapping[str, str]]] | None = None  # servers for all; gives environment


def times_faster(peer: str, factor: float) -> Goal:
    """The goal "at least `factor` times faster than the peer", for a metric that is a time."""
    return Goal(peer, at_most=1 / factor)
