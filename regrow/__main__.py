"""`python -m regrow` is the command line."""

from __future__ import annotations

import sys
from pathlib import Path


def leave_current_folder(path: list[str], installed: Path) -> None:
    """Undo that `python -m` puts the current folder first, where a user's config.py or actors/ would hide ours.

    The `regrow` command does not have it either; modules of users are found through `daemon.path`. Never switches.
    """
    if not sys.flags.safe_path and path and Path(path[0]).resolve() != installed:
        del path[0]


if __name__ == "__main__":
    leave_current_folder(sys.path, Path(__file__).resolve().parent.parent)
    from regrow.cli import main

    sys.exit(main())
