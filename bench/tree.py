"""One integration as the daemon runs it: its table checked by the loader, its plan under a supervisor."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actors.integrations import INTEGRATIONS, Context
from config.load import load_table
from runtime.names import whereis
from runtime.ref import Ref
from supervisors import Supervisor


class Tree:
    """A running integration; its children are measured as in a daemon. Stop it when done."""

    def __init__(self, kind: str, name: str, table: Mapping[str, Any]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-tree-")
        folder = Path(self._folder.name)
        integration = INTEGRATIONS[kind]
        config = load_table(integration.config, table, folder, environ={})
        plan = integration.plan(name, config, Context(folder, folder, None, "bench"))
        for spec in plan.children:
            spec.measured = True
        self._supervisor = Supervisor.start(plan.children, max_restarts=1000, max_seconds=1.0)
        front = whereis(name)
        if front is None:
            raise RuntimeError(f"{name} has no front actor")
        self.front: Ref = front
        gc.collect()
        gc.freeze()  # as the daemon does once its tree is up

    def stop(self) -> None:
        """Stop its actors and what they started."""
        self._supervisor.stop(timeout=30)
        self._folder.cleanup()
