"""A whole tree in the test's process: configuration, gateway on a real socket, a real HTTP peer; and spies."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.integrations import INTEGRATIONS
from config.load import load
from regrow.daemon import is_actor
from regrow.tree import Tree
from runtime.edge.gateway import Gateway, GatewaySockets, Identity
from runtime.edge.metrics import Metrics
from runtime.introspect import snapshot
from runtime.ref import Ref
from supervisors import ChildSpec
from tests.edge.gateway.harness import Raw
from tests.flows.spies import Spies
from tests.support.ports import free_port

INCARNATION = "flow-1"


class Served:
    """One tree and what is around it in the daemon."""

    def __init__(self, toml: str, folder: Path) -> None:
        self.endpoint = f"tcp://127.0.0.1:{free_port()}"
        file = folder / "regrow.toml"
        file.write_text(f'[gateway]\nbind = ["{self.endpoint}"]\n{toml}')
        (folder / "var").mkdir()
        config = load(file, INTEGRATIONS, is_actor=is_actor, environ={})
        tree = Tree(config, INTEGRATIONS)
        self.sockets = GatewaySockets(
            config.gateway,
            tree.directory,
            Identity("flow", "0", INCARNATION),
            state_dir=config.daemon.state_dir,
            max_deadline_s=60.0,
            hub_lag_s=lambda: 0.0,
        )
        self.sockets.open()
        door = ChildSpec("gateway", Gateway, args=(self.sockets,), name="gateway", measured=True)
        self.root: Ref = tree.start([door])
        self.metrics = Metrics(lambda: snapshot(self.root), version="0")

    def scrape(self) -> str:
        return self.metrics.render().body.decode()

    def close(self) -> None:
        self.metrics.close()
        self.root.stop()
        self.sockets.close()


@pytest.fixture
def spies(monkeypatch: pytest.MonkeyPatch) -> Spies:
    return Spies(monkeypatch)


@pytest.fixture
def serve() -> Iterator[Callable[[str], Served]]:
    made: list[Served] = []
    # A short name: the path of a unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="rg") as folder:

        def start(toml: str) -> Served:
            made.append(Served(toml, Path(folder)))
            return made[-1]

        yield start
        for each in made:
            each.close()


@pytest.fixture
def raw() -> Iterator[Callable[[str], Raw]]:
    made: list[Any] = []

    def connect(endpoint: str) -> Raw:
        made.append(Raw(endpoint))
        return made[-1]  # type: ignore[no-any-return]

    yield connect
    for each in made:
        each.close()
