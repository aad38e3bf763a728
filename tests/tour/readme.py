"""The README as data: its code blocks, and what they promise to print."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
README = ROOT / "README.md"

STAYS_RUNNING = "<!-- stays running -->"
_BLOCK = re.compile(
    r"^(?P<mark><!-- stays running -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """One code block of a section."""

    language: str
    text: str
    stays_running: bool


def section(title: str) -> str:
    """Return the text of one section, without its heading."""
    text = README.read_text()
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"README.md has no section {title!r}"
    return found[1]


def blocks(text: str) -> Iterator[Block]:
    """Yield the code blocks of a text in order."""
    for found in _BLOCK.finditer(text):
        yield Block(found["language"], found["text"], found["mark"] is not None)


def promised(text: str) -> re.Pattern[str]:
    """Return what matches an output that a block of expected text promises.

    `...` stands for anything within a line, and alone in a line for any lines at all; runs of blanks are alike.
    """
    lines = []
    for line in text.strip("\n").splitlines():
        if line.strip() == "...":
            lines.append(r"(?:[^\n]*\n)*?")
        else:
            words = r"[ ]+".join(re.escape(word) for word in line.split())
            lines.append(r"[ ]*" + words.replace(re.escape("..."), r"[^\n]*") + r"[ ]*\n")
    return re.compile("".join(lines))


def metric_names(text: str) -> set[str]:
    """Return the names in the README's table of metrics, without labels."""
    found = re.search(r"<!-- metrics -->\n(.*?)<!-- /metrics -->", text, re.DOTALL)
    assert found is not None, "README.md has no table of metrics"
    return {name.partition("{")[0] for name in re.findall(r"`([a-z_]+(?:\{[a-z,_]*\})?)`", found[1])}


def default_configuration() -> str:
    """Return config/default.toml with its state in its own folder, and without the ports that a test may not take."""
    text = (ROOT / "config/default.toml").read_text()
    for written, used in (
        ('state_dir = "../var"', 'state_dir = "var"'),
        ("sqlite:///../var", "sqlite:///var"),
        ('"starter', f'"{ROOT}/config/starter'),
        ('bind = ["tcp://127.0.0.1:5757"]', ""),
        ('bind = "127.0.0.1:5758"', ""),
    ):
        assert written in text
        text = text.replace(written, used)
    return text
