"""`regrow init`: writes the small project of `config/starter` into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

STARTER: Final = Path(__file__).parent / "starter"
_LEFT_OUT: Final = frozenset({"__pycache__", "var"})


def write_starter(folder: Path) -> list[Path]:
    """Writes the starter's files into a folder, which is made when it is missing, and returns them.

    Never overwrites: when any of the files exists, FileExistsError names all that do and nothing is written. Raises
    OSError when the folder cannot be written.
    """
    sources = [
        source
        for source in sorted(STARTER.rglob("*"))
        if source.is_file() and not _LEFT_OUT & set(source.relative_to(STARTER).parts)
    ]
    targets = [folder / source.relative_to(STARTER) for source in sources]
    existing = [str(target) for target in targets if target.exists() or target.is_symlink()]
    if existing:
        raise FileExistsError(
            f"{', '.join(existing)} exist{'s' if len(existing) == 1 else ''} already, nothing was written: "
            "name another folder, or move them away"
        )
    for source, target in zip(sources, targets, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as stream:  # "x": a file that appeared meanwhile is not overwritten either
            stream.write(source.read_bytes())
    return targets
