"""`python -m bench [NAME...]`: measure, or render what was measured."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from bench import report
from bench.question import Question
from bench.rounds import run

NAMES = (
    "ask",
    "tell",
    "start",
    "restart",
    "memory",
    "ring",
    "broadcast",
    "monitor",
    "storm",
    "fairness",
    "gateway",
    "rest",
    "worker",
    "database",
    "metrics",
)


def question(name: str) -> Question:
    """Return the question of a bench."""
    found: Question = importlib.import_module(f"bench.{name}").QUESTION
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the benches that are named, or all of them."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure ours against the peers, in alternating rounds."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(NAMES)}; all when none is named")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, a line each")
    parser.add_argument("--quick", action="store_true", help="tiny rounds that prove only that everything runs")
    parser.add_argument("--alone", action="store_true", help="leave the peers out")
    parser.add_argument("--rounds", type=int, help="counted rounds per case")
    parser.add_argument("--save", action="store_true", help="put the results into bench/results and render them")
    parser.add_argument(
        "--render", action="store_true", help="write table and plots of bench/results again, measure nothing"
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(f"no bench is named {', '.join(unknown)}, there are {', '.join(NAMES)}")
    saved = report.RESULTS / "results.json"
    if options.render:
        report.render(saved, report.RESULTS)
        return 0
    lines: list[dict[str, Any]] = [report.machine()]
    for name in options.names or NAMES:
        results = run(question(name), quick=options.quick, rounds=options.rounds, alone=options.alone, say=_aside)
        for result in results:
            lines.append(report.line_of(result))
            print(report.say_result(lines[-1]), flush=True)
            if options.json is not None:
                report.save(options.json, lines)
        if options.save and not options.quick:
            report.save(saved, report.merged(saved, lines, NAMES))
            report.render(saved, report.RESULTS)
    missed = report.unmet(lines[1:])
    print(f"{len(missed)} goals missed" + "".join(f"\n    {line}" for line in missed))
    return 0


def _aside(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
