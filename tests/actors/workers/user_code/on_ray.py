"""What a function on a Ray cluster can tell of its place."""

from __future__ import annotations

import time
from typing import Any


def node() -> str:
    import ray  # type: ignore[import-not-found]

    return str(ray.get_runtime_context().get_node_id())


def nodes() -> list[dict[str, Any]]:
    import ray

    return [
        {"id": each["NodeID"], "alive": each["Alive"], "cpus": each["Resources"].get("CPU")} for each in ray.nodes()
    ]


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds
