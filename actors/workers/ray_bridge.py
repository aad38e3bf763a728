"""The program of a worker whose function runs on a Ray cluster: it stands between the daemon and one Ray actor.

Ray lives in this process, never in the daemon, which is patched. To the daemon it is a worker process like any other:
it takes the messages of `child` and passes them on to an actor on the cluster that does what a worker process does.
Its end takes the actor along: SIGTERM kills the actor by force, and Ray does the same when this process is killed.

Started as `python -P -s ray_bridge.py FD PARENT_PID` with the cluster's address in RAY_ADDRESS.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

MODULE = "regrow_worker_child"
#: a head that does not answer within so long is told as that; Ray itself would try for minutes
CONNECT_S = 5.0


def module_of(source: str) -> ModuleType:
    """Make the module of a worker's program from its text; the nodes of the cluster do not have it as a file."""
    module = ModuleType(MODULE)
    sys.modules[MODULE] = module
    exec(compile(source, "child.py", "exec"), module.__dict__)  # noqa: S102 - our own program
    return module


def remote_class() -> type:
    """Return the class of the Ray actor; made in a function, so that Ray sends it whole."""

    class Remote:
        def __init__(self, source: str, setup: bytes) -> None:
            import sys
            from types import ModuleType

            self._child: Any = ModuleType("regrow_worker_child")
            sys.modules["regrow_worker_child"] = self._child
            exec(compile(source, "child.py", "exec"), self._child.__dict__)  # noqa: S102 - our own program
            self._codec = self._child.Codec()
            self._setup = self._codec.decode(bytearray(setup))
            # Reports of progress go nowhere from here; a function that makes them must work all the same.
            self._child.Reporter(None).offer()
            self._outcome = self._child.prepare(self._setup)
            self._functions = self._child.Functions(self._setup.functions)
            self._items: Any = None
            self._call_id = 0

        def begun(self) -> bytes:
            return bytes(self._codec.encode(self._outcome))

        def handle(self, payload: bytes) -> bytes | None:
            child, codec = self._child, self._codec
            try:
                message = codec.decode(bytearray(payload))
            except Exception as error:  # noqa: BLE001 - an array that does not decode; the caller must hear of it
                call_id = child.msgspec.msgpack.decode(payload, type=child.CallHead).id
                text = f"an argument cannot be decoded: {error}"[: child.MAX_MESSAGE_CHARS]
                return bytes(codec.encode(child.Declined(call_id, "invalid_arguments", text, False)))
            if isinstance(message, child.Call):
                answer = child.call(self._functions, message)
                if isinstance(answer, child.Generator):
                    self._items = child.ItemStream(answer, codec, message, self._setup.max_message)
                    return bytes(codec.encode(child.Streaming(message.id)))
                return bytes(child.encode(codec, answer, message.arrays, self._setup.max_message)[0])
            if self._items is None:
                return None  # it crossed the end of its stream
            said = self._items.close() if isinstance(message, child.Close) else self._items.batch(message.most)
            if not isinstance(said, child.Items) or said.done:
                self._items = None
            return bytes(codec.encode(said))

    return Remote


def leave_unless_reachable(address: str) -> None:
    """End the process, telling why, when nobody listens where the cluster's head should be."""
    host, _, port = address.rpartition(":")
    try:
        # An address of IPv6 stands in brackets, which are no part of it.
        socket.create_connection((host.removeprefix("[").removesuffix("]"), int(port)), CONNECT_S).close()
    except (OSError, ValueError) as error:
        sys.stderr.write(f"the head of the cluster does not answer at {address}: {error}\n")
        sys.stderr.flush()
        os._exit(1)


def main() -> None:
    """Run the process: FD and PARENT_PID are its arguments."""
    source = Path(__file__).with_name("child.py").read_text(encoding="utf-8")
    child: Any = module_of(source)
    child.die_with_parent(int(sys.argv[2]))
    fd = int(sys.argv[1])
    os.closerange(fd + 1, min(os.sysconf("SC_OPEN_MAX"), child.MAX_DESCRIPTORS))
    sys.argv[1:] = []
    connection = child.Connection(fd)
    setup = connection.receive()
    if setup is None:
        return
    import ray  # type: ignore[import-not-found]  # an extra, in an interpreter of its own perhaps

    leave_unless_reachable(os.environ["RAY_ADDRESS"])
    # Ended by Ray itself too when this process is killed; by hand it is at once.
    ray.init(address=os.environ["RAY_ADDRESS"], logging_level="error")
    actor = ray.remote(num_cpus=1, max_restarts=0)(remote_class()).remote(source, bytes(setup))

    def end(*_: object) -> None:
        ray.kill(actor, no_restart=True)
        os._exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    try:
        connection.send(bytearray(ray.get(actor.begun.remote())))
        while (payload := connection.receive()) is not None:
            answer = ray.get(actor.handle.remote(bytes(payload)))
            if answer is not None:
                connection.send(bytearray(answer))
    except ray.exceptions.RayActorError as error:
        first = str(error).strip().splitlines()
        sys.stderr.write(f"the worker on the cluster is gone: {' '.join(first[:1])}\n")
        sys.stderr.flush()
        os._exit(1)
    ray.kill(actor, no_restart=True)


if __name__ == "__main__":
    main()
