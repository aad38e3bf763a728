"""A private Redis server: nothing is saved, nothing but a loopback port that it keeps for life."""

from __future__ import annotations

from types import TracebackType

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.ports import free_port
from tests.support.processes import Child, ChildFailed
from tests.support.servers.folders import make_folder, remove_folder
from tests.support.servers.programs import redis_program


class RedisServer:
    """Owns one Redis process. The port stays the same for life; the data is gone with every stop.

    `with RedisServer() as server:` starts it; `start`, `stop`, `restart`, `kill`, `sigstop` and `sigcont` may follow
    in any order.
    """

    def __init__(self, **settings: str) -> None:
        self._program = redis_program()
        self._settings = settings
        self._folder = make_folder("redis", None)
        self.port = free_port()
        self._started_before = False
        self._child: Child | None = None

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<RedisServer port={self.port} {self._child!r}>"

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def log(self) -> str:
        return "" if self._child is None else self._child.log

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def is_running(self) -> bool:
        return self._child is not None and self._child.is_running()

    def start(self) -> None:
        """Start it, empty, and return when it accepts connections; nothing happens when it runs."""
        for attempt in range(5):
            if self.is_running():
                return
            options = {
                "port": str(self.port),
                "bind": "127.0.0.1",
                "save": "",
                "appendonly": "no",
                "dir": str(self._folder),
                "daemonize": "no",
                "logfile": "",
            } | self._settings
            arguments = [argument for name, value in options.items() for argument in (f"--{name}", value)]
            self._child = Child([str(self._program), *arguments], cwd=self._folder)
            try:
                self._child.wait_for_line("[Rr]eady to accept connections", 15.0)
                self._started_before = True
                return
            except ChildFailed:
                taken = "in use" in self._child.log
                self._child.kill()
                # Between the choice and the first start another test run may have taken the port.
                if attempt == 4 or not taken or self._started_before:
                    raise
                self.port = free_port()

    def connect(self, socket_timeout: float = 5.0) -> redis.Redis:
        """Open a client without retries; whoever asks closes it (`with` does)."""
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=socket_timeout, retry=Retry(NoBackoff(), 0))

    def flush(self) -> None:
        """Forget every key."""
        with self.connect() as client:
            client.flushall()

    def stop(self) -> None:
        """Stop it in good order; its clients are disconnected."""
        if self._child is not None:
            if self._child.is_running():
                self._child.thaw()
            self._child.stop()
            self._child = None

    def restart(self) -> None:
        """Stop it and start it empty on the same port."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """SIGKILL it."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def sigstop(self) -> None:
        """Freeze it: connections stay open, nothing is answered."""
        self._running().freeze()

    def sigcont(self) -> None:
        """End `sigstop`."""
        self._running().thaw()

    def close(self) -> None:
        """End it and remove its folder."""
        self.kill()
        remove_folder(self._folder)

    def _running(self) -> Child:
        if self._child is None or not self._child.is_running():
            raise ChildFailed("the private Redis server is stopped: start it first")
        return self._child
