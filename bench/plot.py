"""Small bar charts as SVG: per case and figure one bar for ours and one for each peer, spread as a line across its end.

Bars are drawn on a logarithmic scale when the figures of a group lie more than a factor of 30 apart, else from zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

WIDTH = 760
LEFT = 170
RIGHT = 130
BAR = 16
GAP = 5
HEAD = 34
OURS = "#1b6e53"
THEIRS = "#9aa7b0"
INK = "#24303a"
PAPER = "#ffffff"


def plot(name: str, lines: Sequence[Mapping[str, Any]]) -> str:
    """Return one question's results as an SVG document."""
    y = 30.0
    parts: list[str] = []
    for line in lines:
        bars = [("ours", line["ours"], line["spread"]["ours"], OURS)]
        bars += [(peer, line["peers"][peer], line["spread"]["peers"][peer], THEIRS) for peer in line["peers"]]
        better = "less" if line["better"] == "lower" else "more"
        parts.append(_text(16, y + 12, f"{line['case']}: {line['title']}", weight="600"))
        parts.append(_text(WIDTH - 16, y + 12, f"{line['unit']}, {better} is better", anchor="end", size=11))
        y += HEAD - 8
        scale = _scale([figure for _, figure, _, _ in bars])
        for label, figure, spread, colour in bars:
            parts.append(_bar(label, figure, spread, colour, y, scale))
            y += BAR + GAP
        y += 14
    height = int(y + 4)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" aria-label="{escape(name)}" font-family="system-ui, sans-serif">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>\n'
        f"{_text(16, 20, name, weight='700', size=15)}\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _scale(figures: Sequence[float]) -> Any:
    positive = [figure for figure in figures if figure > 0] or [1.0]
    most, least = max(positive), min(positive)
    room = WIDTH - LEFT - RIGHT
    if most / least > 30:
        low = math.log10(least) - 0.5
        span = math.log10(most) - low
        return lambda value: room * max(0.0, (math.log10(max(value, least / 3)) - low) / span)
    return lambda value: room * min(1.15, value / most)


def _bar(label: str, figure: float, spread: Sequence[float], colour: str, y: float, scale: Any) -> str:
    middle = y + BAR / 2
    low, high = (LEFT + scale(edge) for edge in spread)
    shown = f"{figure:,.0f}" if figure >= 1000 else f"{figure:.3g}"
    return (
        f"{_text(LEFT - 8, y + 12, label, anchor='end', size=12)}\n"
        f'<rect x="{LEFT}" y="{y:.1f}" width="{scale(figure):.1f}" height="{BAR}" fill="{colour}" rx="2"/>\n'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle:.1f}" y2="{middle:.1f}" stroke="{INK}"/>\n'
        f"{_text(max(high, LEFT + scale(figure)) + 8, y + 12, shown, size=12)}"
    )


def _text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 13, weight: str = "400") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{INK}">'
        f"{escape(words)}</text>"
    )
