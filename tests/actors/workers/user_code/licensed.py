"""A resource with a setup, a teardown and a health check, which files in the folder of RESOURCE steer and remember."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["RESOURCE"])
STATE: dict[str, bool] = {}


def note(what: str) -> None:
    with (FOLDER / "notes").open("a") as notes:
        notes.write(f"{what} {os.getpid()}\n")


def set_up() -> None:
    note("setup")


def tear_down() -> None:
    note("teardown")
    print("torn down")  # noqa: T201 - what is tested


def tear_down_and_raise() -> None:
    raise ValueError("the licence was not given back: hunter2-hunter2")


def tear_down_for_ever() -> None:
    time.sleep(60)


def tear_down_and_die() -> None:
    os._exit(3)


async def tear_down_on_a_loop() -> None:
    note("teardown")


def healthy() -> None:
    note("check")


def marked() -> Any:
    """Wait while there is a file `hold`; say what stands in the file `sick`, which `raise` and `spin` make worse."""
    note("check")
    while (FOLDER / "hold").exists():
        time.sleep(0.01)
    sick = FOLDER / "sick"
    if not sick.exists():
        return None
    text = sick.read_text()
    if text == "once":
        sick.unlink()
        return False
    if text == "raise":
        raise RuntimeError("the device is gone")
    if text == "spin":
        time.sleep(60)
    return text


async def sick_in_a_coroutine() -> str:
    return "the loop says no"


def a_number() -> int:
    return 5


def numpy_says_no() -> Any:
    import numpy as np

    return np.isfinite(np.array([1.0, np.inf])).all()


def pid() -> int:
    return os.getpid()


def wait(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()
