"""regrow, the face: what other programs import.

`connect` (blocking) and `aio` (asyncio) talk to a running daemon; the typed errors are what they raise. Everything else
here is for code that runs inside the daemon and is loaded on first use, so that a client program never imports gevent.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from config.secret import Secret as Secret
    from regrow import aio as aio
    from regrow import resilience as resilience
    from regrow import testing as testing
    from regrow.client import Client as Client
    from regrow.client import connect as connect
    from regrow.protocol.errors import ActorDown as ActorDown
    from regrow.protocol.errors import BadRequest as BadRequest
    from regrow.protocol.errors import Cancelled as Cancelled
    from regrow.protocol.errors import CircuitOpen as CircuitOpen
    from regrow.protocol.errors import Conflict as Conflict
    from regrow.protocol.errors import ConnectionFailed as ConnectionFailed
    from regrow.protocol.errors import DatabaseError as DatabaseError
    from regrow.protocol.errors import DeadlineExceeded as DeadlineExceeded
    from regrow.protocol.errors import DecodeError as DecodeError
    from regrow.protocol.errors import Draining as Draining
    from regrow.protocol.errors import ExecutionError as ExecutionError
    from regrow.protocol.errors import Failed as Failed
    from regrow.protocol.errors import Forbidden as Forbidden
    from regrow.protocol.errors import Invalid as Invalid
    from regrow.protocol.errors import InvalidArguments as InvalidArguments
    from regrow.protocol.errors import NotFound as NotFound
    from regrow.protocol.errors import Overloaded as Overloaded
    from regrow.protocol.errors import RateLimited as RateLimited
    from regrow.protocol.errors import Refused as Refused
    from regrow.protocol.errors import RegrowError as RegrowError
    from regrow.protocol.errors import TimedOut as TimedOut
    from regrow.protocol.errors import TooLarge as TooLarge
    from regrow.protocol.errors import Unauthorized as Unauthorized
    from regrow.protocol.errors import Unavailable as Unavailable
    from regrow.protocol.errors import UpstreamError as UpstreamError
    from regrow.protocol.exchange import Event as Event
    from regrow.protocol.exchange import Gap as Gap
    from regrow.protocol.exchange import Reply as Reply
    from runtime.actor import Actor as Actor
    from runtime.exports import exported as exported
    from runtime.registry import Registry as Registry
    from runtime.signals import Down as Down
    from runtime.signals import link as link
    from runtime.signals import monitor as monitor
    from supervisors import ChildSpec as ChildSpec
    from supervisors import DynamicSupervisor as DynamicSupervisor
    from supervisors import PartitionSupervisor as PartitionSupervisor
    from supervisors import Supervisor as Supervisor
    from supervisors import Task as Task
    from supervisors import TaskSupervisor as TaskSupervisor

_ERRORS = [
    "ActorDown",
    "BadRequest",
    "Cancelled",
    "CircuitOpen",
    "Conflict",
    "ConnectionFailed",
    "DatabaseError",
    "DeadlineExceeded",
    "DecodeError",
    "Draining",
    "ExecutionError",
    "Failed",
    "Forbidden",
    "Invalid",
    "InvalidArguments",
    "NotFound",
    "Overloaded",
    "RateLimited",
    "Refused",
    "RegrowError",
    "TimedOut",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "UpstreamError",
]

_HOMES = {
    "connect": "regrow.client",
    "Client": "regrow.client",
    "Event": "regrow.protocol.exchange",
    "Gap": "regrow.protocol.exchange",
    "Reply": "regrow.protocol.exchange",
    **dict.fromkeys(_ERRORS, "regrow.protocol.errors"),
    "Secret": "config.secret",
    "Actor": "runtime.actor",
    "exported": "runtime.exports",
    "monitor": "runtime.signals",
    "link": "runtime.signals",
    "Down": "runtime.signals",
    "ChildSpec": "supervisors",
    "Supervisor": "supervisors",
    "DynamicSupervisor": "supervisors",
    "PartitionSupervisor": "supervisors",
    "Task": "supervisors",
    "TaskSupervisor": "supervisors",
    "Registry": "runtime.registry",
}
_MODULES = {"aio", "resilience", "testing"}

__all__ = sorted([*_HOMES, *_MODULES])  # noqa: PLE0605 - the names are listed once, above


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is not None:
        value = getattr(importlib.import_module(home), name)
    elif name in _MODULES:
        value = importlib.import_module(f"regrow.{name}")
    else:
        raise AttributeError(f"module 'regrow' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
