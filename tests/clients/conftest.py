from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.clients.callers import Caller, NodeCaller, PythonCaller, ReqCaller
from tests.support import node
from tests.support.daemon import Daemon

ACTORS = dedent(
    """
    from runtime.actor import Actor, exported
    from regrow.protocol.errors import RateLimited


    class Trouble(Actor):
        @exported
        def refuse(self) -> None:
            '''Refuse as a limiter does.'''
            raise RateLimited("no token within 1 s", retry_after_s=1.5, details={"limit": 5})

        @exported
        def crash(self) -> None:
            '''Crash.'''
            raise ZeroDivisionError("the password is geheim")
    """
)
CONFIG = """
[actors.conform]
class = "regrow.testing.conform:Target"

[actors.trouble]
class = "trouble:Trouble"
max_restarts = 1000
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Daemon]:
    """One daemon for the tests of a file."""
    made = Daemon(CONFIG, files={"trouble.py": ACTORS})
    made.start()
    yield made
    made.close()


@pytest.fixture(scope="session")
def node_works() -> None:
    if why_not := node.why_not():
        pytest.skip(why_not)


@pytest.fixture(params=["python", "req", "node"])
def caller(request: pytest.FixtureRequest, running: Daemon, tmp_path: Path) -> Iterator[Caller]:
    made: Caller
    if request.param == "node":
        request.getfixturevalue("node_works")
        made = NodeCaller(running.endpoint, tmp_path)
    else:
        made = PythonCaller(running.endpoint) if request.param == "python" else ReqCaller(running.endpoint)
    yield made
    made.close()


@pytest.fixture
def node_client(node_works: None, running: Daemon, tmp_path: Path) -> Iterator[NodeCaller]:
    with NodeCaller(running.endpoint, tmp_path) as made:
        yield made
