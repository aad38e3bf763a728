"""Who runs when: every contestant once per round, in an order that turns, and the figures made of it.

Ratios are made round by round and then their median is taken, so that a machine that is slow for a while is slow for
both sides. Within a round a short question is run several times and the best counts, for every contestant alike. The
first round warms up and is not counted.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from bench.contestant import Contestant, Missing, RoundFailed
from bench.question import Case, Metric, Number, Peer, Question

OURS = "ours"


@dataclass(frozen=True)
class Spread:
    """A median with the middle half of the values around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        if len(values) < 4:
            return cls(statistics.median(values), min(values), max(values))
        low, _, high = statistics.quantiles(values, n=4)
        return cls(statistics.median(values), low, high)


@dataclass
class Result:
    """The figures of one metric of one case."""

    bench: str
    case: str
    metric: Metric
    ours: Spread
    peers: dict[str, Spread] = field(default_factory=dict)
    ratios: dict[str, Spread] = field(default_factory=dict)
    added: dict[str, Spread] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    rounds: int = 0


def run(
    question: Question,
    *,
    quick: bool = False,
    rounds: int | None = None,
    alone: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Result]:
    """Run one question and yield its results, case by case; `alone` leaves all peers out."""
    with contextlib.ExitStack() as stack:
        given = stack.enter_context(question.around()) if question.around is not None else {}
        ours = stack.enter_context(Contestant(Peer(OURS, f"bench.{question.name}", patched=True), given))
        skipped: dict[str, str] = {}
        peers: dict[str, Contestant] = {}
        wanted = {
            name for case in question.cases for name in (case.peers if case.peers is not None else _names(question))
        }
        for peer in question.peers:
            if alone or peer.name not in wanted:
                continue
            try:
                peers[peer.name] = stack.enter_context(Contestant(peer, given))
            except Missing as why:
                skipped[peer.name] = str(why)
                say(f"{question.name}: without {peer.name}, {why}")
        for case in question.cases:
            mine = {OURS: ours} | {
                n: c for n, c in peers.items() if n in (case.peers if case.peers is not None else peers)
            }
            count = rounds or (1 if quick else case.rounds or question.rounds)
            yield from _case(question, case, mine, dict(skipped), quick=quick, rounds=count, say=say)


def _names(question: Question) -> list[str]:
    return [peer.name for peer in question.peers]


def _case(
    question: Question,
    case: Case,
    contestants: dict[str, Contestant],
    skipped: dict[str, str],
    *,
    quick: bool,
    rounds: int,
    say: Callable[[str], None],
) -> Iterator[Result]:
    params = {**case.params, **(case.quick if quick else {})}
    answers: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    uncounted = 1 if case.warm_up and not quick else 0
    for number in range(rounds + uncounted):
        order = list(contestants)
        order = order[number % len(order) :] + order[: number % len(order)]
        for name in order:
            contestant = contestants[name]
            function = OURS if name == OURS else question.name
            tries = 1 if quick else question.best_of
            try:
                runs = [contestant.answer(function, _scaled(params, contestant.peer)) for _ in range(tries)]
            except RoundFailed as error:
                if name == OURS:
                    raise
                del contestants[name]
                skipped[name] = str(error)
                say(f"{question.name}, {case.name}: without {name}, {error}")
                continue
            if number >= uncounted:
                answers[name].append(_best(case, runs))
    for metric in case.metrics:
        yield _result(question, case, metric, {n: answers[n] for n in contestants}, skipped)


def _best(case: Case, runs: list[dict[str, float]]) -> dict[str, float]:
    """Return each figure's best: what disturbs a short run from outside only ever adds to it."""
    lower = {metric.key for metric in case.metrics if metric.lower_is_better}
    return {key: (min if key in lower else max)(run[key] for run in runs) for key in runs[0]}


def _scaled(params: Mapping[str, Number], peer: Peer) -> dict[str, Number]:
    scaled = {**params, **peer.params}
    if "n" in scaled and peer.scale != 1.0:
        scaled["n"] = max(1, int(scaled["n"] * peer.scale))
    return scaled


def _result(
    question: Question, case: Case, metric: Metric, answers: dict[str, list[dict[str, float]]], skipped: dict[str, str]
) -> Result:
    ours = [answer[metric.key] for answer in answers[OURS]]
    result = Result(question.name, case.name, metric, Spread.of(ours), skipped=skipped, rounds=len(ours))
    for name, theirs in answers.items():
        if name == OURS or not all(metric.key in answer for answer in theirs):
            continue
        figures = [answer[metric.key] for answer in theirs]
        result.peers[name] = Spread.of(figures)
        result.added[name] = Spread.of([mine - his for mine, his in zip(ours, figures, strict=True)])
        result.ratios[name] = Spread.of([mine / his for mine, his in zip(ours, figures, strict=True)])
    return result
