"""Private folders of servers, below the temporary folder, removed when their server or its test run is gone."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from pathlib import Path

import psutil

_PREFIX = "regrow-test"


def unprivileged_user() -> pwd.struct_passwd | None:
    """Return the user that servers run as: None (this one) unless this is root, which PostgreSQL refuses to run as."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("running as root and neither a user postgres nor a user nobody exists: run as another user")


def make_folder(kind: str, user: pwd.struct_passwd | None) -> Path:
    """Make a folder (mode 0700) for a server of this process; folders of dead test runs are removed on the way."""
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}-{os.getpid()}-{kind}-"))
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    return folder


def remove_folder(folder: Path) -> None:
    """Remove a folder that `make_folder` made."""
    shutil.rmtree(folder, ignore_errors=True)


def sweep() -> None:
    """Remove the folders of test runs that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}-*-*-*"):
        owner = folder.name.removeprefix(f"{_PREFIX}-").split("-", 1)[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)) and folder.stat().st_uid in _own_users():
            remove_folder(folder)


def _own_users() -> set[int]:
    user = unprivileged_user()
    return {os.geteuid()} | ({user.pw_uid} if user else set())
