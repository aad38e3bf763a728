"""What a run leaves behind: a line of JSON per result, a table, plots, and the words on the terminal."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.plot import plot
from bench.question import Goal
from bench.rounds import Result, Spread

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = (
    "gevent",
    "greenlet",
    "pykka",
    "pyzmq",
    "thespian",
    "xoscar",
    "zerorpc",
    "loky",
    "requests",
    "psycopg",
    "psycopg_pool",
)


def line_of(result: Result) -> dict[str, Any]:
    """Return one result as a JSON object."""
    metric = result.metric
    return {
        "bench": result.bench,
        "case": result.case,
        "metric": metric.key,
        "title": metric.title,
        "unit": metric.unit,
        "better": "lower" if metric.lower_is_better else "higher",
        "ours": _digits(result.ours.median),
        "peers": {name: _digits(spread.median) for name, spread in result.peers.items()},
        "ratios": {name: _digits(spread.median) for name, spread in result.ratios.items()},
        "spread": {
            "ours": _pair(result.ours),
            "peers": {name: _pair(spread) for name, spread in result.peers.items()},
            "ratios": {name: _pair(spread) for name, spread in result.ratios.items()},
        },
        "goals": [_goal(goal, result) for goal in metric.goals],
        "skipped": result.skipped,
        "rounds": result.rounds,
    }


def _goal(goal: Goal, result: Result) -> dict[str, Any]:
    if goal.added_at_most is not None:
        spread = result.added.get(goal.peer or "")
        bound = {"added_at_most": goal.added_at_most}
        if spread is not None:
            bound["added"] = _digits(spread.median)
    else:
        spread = result.ours if goal.peer is None else result.ratios.get(goal.peer)
        bound = {"at_most": goal.at_most} if goal.at_most is not None else {"at_least": goal.at_least or 0.0}
    return {"of": goal.peer or "ours", **bound, "met": None if spread is None else goal.met(spread.median)}


def _pair(spread: Spread) -> list[float]:
    return [_digits(spread.low), _digits(spread.high)]


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def machine() -> dict[str, Any]:
    """Return where and with what a run was made."""
    return {
        "machine": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "otp": _otp(),
        "packages": dict(_versions()),
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _otp() -> str | None:
    if shutil.which("erl") is None:
        return None
    ask = "io:put_chars(erlang:system_info(otp_release)), halt()."
    return subprocess.run(["erl", "-noshell", "-eval", ask], capture_output=True, text=True, check=False).stdout.strip()


def _versions() -> Iterable[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue


def say_result(line: Mapping[str, Any]) -> str:
    """Return one result as lines for a terminal, ratios first."""
    unit, spread = line["unit"], line["spread"]
    out = [f"{line['bench']:<10} {line['case']}: {line['title']}"]
    for name, ratio in line["ratios"].items():
        low, high = spread["ratios"][name]
        theirs = f"{name}'s {_shown(line['peers'][name], unit)}, {low:.3g} to {high:.3g}"
        out.append(f"    {_in_words(line, ratio) + ' ' + name:<36} {theirs} {_judged(line, name)}")
    low, high = spread["ours"]
    out.append(f"    ours {_shown(line['ours'], unit)}, {low:.3g} to {high:.3g} {_judged(line, 'ours')}")
    return "\n".join(out)


def _in_words(line: Mapping[str, Any], ratio: float) -> str:
    if line["better"] == "lower" and ratio < 1 / 3:
        return f"{1 / ratio:.1f} times {'faster' if line['unit'] == 'us' else 'less'} than"
    return f"{ratio:.2f} x"


def _judged(line: Mapping[str, Any], of: str) -> str:
    words = []
    for goal in line["goals"]:
        if goal["of"] != of:
            continue
        verdict = {True: "met", False: "MISSED", None: "not measured"}[goal["met"]]
        words.append(f"(goal {_bound(line, goal)}: {verdict})")
    return " ".join(words)


def _bound(line: Mapping[str, Any], goal: Mapping[str, Any]) -> str:
    at_most, at_least = goal.get("at_most"), goal.get("at_least")
    if "added_at_most" in goal:
        added = f", is {goal['added']:g}" if "added" in goal else ""
        return f"at most {goal['added_at_most']:g} {line['unit']} more{added}"
    if goal["of"] == "ours":
        return f"at most {at_most:g} {line['unit']}" if at_most is not None else f"at least {at_least:g} {line['unit']}"
    if at_most is not None and at_most < 0.34:
        return f"at least {1 / at_most:.3g} times faster"
    return f"at most {at_most:g} x" if at_most is not None else f"at least {at_least:g} x"


def _shown(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}"


def save(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines: the machine first, then one line per result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def merged(path: Path, lines: list[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the lines of `path` with those benches replaced that `lines` measured again, in the order of `names`."""
    head, new = lines[0], lines[1:]
    again = {line["bench"] for line in new}
    old = [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
    kept = [line for line in old if "bench" in line and line["bench"] not in again]
    return [head, *sorted([*kept, *new], key=lambda line: names.index(line["bench"]))]


def render(source: Path, folder: Path) -> None:
    """Write the table and the plots of a saved run into `folder`."""
    lines = [json.loads(text) for text in source.read_text().splitlines()]
    head = next(line for line in lines if "machine" in line)
    results = [line for line in lines if "bench" in line]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(table(head, results))
    (folder / "section.md").write_text(section(head, results))
    for name, group in groupby(results, key=lambda line: str(line["bench"])):
        (folder / f"{name}.svg").write_text(plot(name, list(group)))


def section(head: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> str:
    """Return the README's section: how it is measured, the figures that have goals, and the plots."""
    judged = [line for line in results if line["goals"]]
    goals = [goal for line in judged for goal in line["goals"] if goal["met"] is not None]
    met = sum(goal["met"] for goal in goals)
    plots = [f"![{name}](bench/results/{name}.svg)" for name in dict.fromkeys(line["bench"] for line in results)]
    return "\n".join(
        [
            *_origin(head),
            "",
            "`make bench` measures all of it again, `python -m bench ask tell` some. Every contestant has a process of",
            "its own, they take turns within each round, and all guarantees are on: bounded mailboxes, deadlines,",
            "counters, crash handling. The core is judged by processor time, to which other programs on the machine do",
            "not add; times by the wall are in [the full table](bench/results/table.md).",
            f"{met} of {len(goals)} goals are met.",
            "",
            *_HEADING,
            *(row for line in judged for row in _rows(line, only_goals=True)),
            "",
            *plots,
            "",
        ]
    )


def _origin(head: Mapping[str, Any]) -> list[str]:
    packages = ", ".join(f"{name} {number}" for name, number in head["packages"].items())
    otp = f", OTP {head['otp']} with one scheduler" if head["otp"] else ""
    where = f"{head['machine']}, {head['cores']} cores, {head['system']}, Python {head['python']}{otp}"
    return [
        f"Measured on {head['at'][:10]}: {where}; {packages}.",
        "",
        "A ratio is our figure divided by the peer's: the median of alternating rounds, in brackets their middle half.",
    ]


_HEADING = [
    "| bench | what | against | ratio | goal | | ours | theirs |",
    "| --- | --- | --- | --- | --- | --- | --- | --- |",
]


def table(head: Mapping[str, Any], results: Iterable[Mapping[str, Any]]) -> str:
    """Return the results as Markdown, ratios first, with the machine they come from."""
    return "\n".join([*_origin(head), "", *_HEADING, *(row for line in results for row in _rows(line)), ""])


def _rows(line: Mapping[str, Any], *, only_goals: bool = False) -> Iterable[str]:
    what = f"{line['title']}, {line['case']}"
    ours = _shown(line["ours"], line["unit"])
    for name, ratio in line["ratios"].items():
        low, high = line["spread"]["ratios"][name]
        words = f"{_in_words(line, ratio).removesuffix(' than')} [{low:.3g} to {high:.3g}]"
        goal, mark = _cells(line, name)
        if only_goals and not goal:
            continue
        theirs = _shown(line["peers"][name], line["unit"])
        yield f"| {line['bench']} | {what} | {name} | {words} | {goal} | {mark} | {ours} | {theirs} |"
    if not line["ratios"] or any(goal["of"] == "ours" for goal in line["goals"]):
        goal, mark = _cells(line, "ours")
        yield f"| {line['bench']} | {what} | | | {goal} | {mark} | {ours} | |"


def _cells(line: Mapping[str, Any], of: str) -> tuple[str, str]:
    goals = [goal for goal in line["goals"] if goal["of"] == of]
    words = ", ".join(_bound(line, goal) for goal in goals)
    marks = ", ".join({True: "met", False: "**missed**", None: ""}[goal["met"]] for goal in goals)
    return words, marks


def unmet(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return one line per goal that was missed."""
    return [
        f"{line['bench']}, {line['case']}: {line['title']} {_bound(line, goal)} of {goal['of']}"
        for line in results
        for goal in line["goals"]
        if goal["met"] is False
    ]
