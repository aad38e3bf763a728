"""The gateway of a real daemon, with a real actor behind it, against a bare ROUTER that knows nothing but to echo."""

from __future__ import annotations

from typing import Any

from bench.load import answers_per_s
from bench.question import Case, Goal, Metric, Peer, Question
from tests.support.daemon import Daemon

_RAW = Goal("raw ROUTER", at_least=0.5)
_ZERORPC = Goal("zerorpc", at_least=5)


def _case(clients: int, size: int, window: int) -> Case:
    return Case(
        f"{clients} client{'s' if clients > 1 else ''}, {size} B, window {window}",
        {"clients": clients, "size": size, "window": window, "seconds": 0.8},
        [Metric("per_s", "echo over tcp", "per second", lower_is_better=False, goals=[_RAW, _ZERORPC])],
        quick={"seconds": 0.1, "clients": min(clients, 2)},
    )


QUESTION = Question(
    name="gateway",
    title="gateway echo",
    cases=[_case(clients, size, window) for clients in (1, 8) for size in (64, 4096) for window in (1, 100)],
    peers=[
        Peer("raw ROUTER", "bench.peers.raw_router", needs="zmq"),
        Peer("zerorpc", "bench.peers.zerorpc_echo", needs="zerorpc"),
    ],
    rounds=4,
    note="Ours is a whole daemon: decoding, rights, argument check, mailbox, deadline, counters, a reply encoded.",
)

_ACTOR = '''
from regrow import Actor, exported


class Echo(Actor):
    @exported
    def echo(self, text: str) -> str:
        """Give back what came."""
        return text
'''
_CONFIG = """
[daemon]
state_dir = "var"
path = ["."]

[actors.echo]
class = "bench_echo:Echo"
"""

_daemon: Any = None


def ours(clients: int, size: int, window: int, seconds: float) -> dict[str, float]:
    """Measure the answers of a daemon."""
    global _daemon
    if _daemon is None:
        _daemon = Daemon(_CONFIG, files={"bench_echo.py": _ACTOR}, measured=False)
        _daemon.start()
    client = ["bench.peers.zmq_load", _daemon.endpoint, str(size), str(window)]
    return {"per_s": answers_per_s(client, clients, seconds)}


def close() -> None:
    if _daemon is not None:
        _daemon.close()
