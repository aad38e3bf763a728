"""The daemon: patches first, then configuration, lock, sockets, tree, ready; and the way back on a signal.

Order of the end (DESIGN "drain"): `/readyz` 503 and BYE to clients, refuse new work, wait for work in flight up to
drain_timeout, answer what is left with cancelled, then stop the tree in reverse; a hard stop bounds the whole. A second
signal ends the process at once.
"""

from __future__ import annotations

import sys

from gevent import monkey

PATCH_SENSITIVE = ("requests", "urllib3", "redis", "psycopg", "zmq", "ssl", "runtime.scheduler")


def patch() -> None:
    """Patch the standard library, or refuse when something was imported that keeps the unpatched one.

    Never switches.
    """
    if monkey.is_module_patched("socket"):
        return
    early = [name for name in PATCH_SENSITIVE if name in sys.modules]
    if early:
        raise SystemExit(
            f"regrow: {', '.join(early)} was imported before gevent could patch the standard library; "
            "start the daemon with `regrow run`, or import regrow.daemon first"
        )
    monkey.patch_all()


patch()

import contextlib
import fcntl
import gc
import io
import os
import secrets
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from gevent.util import print_run_info

from actors.integrations import INTEGRATIONS
from config.errors import ConfigErrors
from config.json_schema import json_schema
from config.load import Config, load
from config.secret import redact
from regrow import systemd
from regrow.protocol.exits import EX_CONFIG, EX_DRAIN, EX_GAVE_UP, EX_OK, EX_TAKEN
from regrow.reload import MAX_TOLD, client_changes, new_clients, taken_over, waiting_for_restart
from regrow.render import render_tree
from regrow.tree import Tree
from regrow.version import VERSION
from runtime import clock, events, log, scheduler
from runtime.actor import Actor
from runtime.edge.auth import Auth, read_admin_token, write_admin_token
from runtime.edge.gateway import BindFailed as GatewayBindFailed
from runtime.edge.gateway import Drain, Gateway, GatewaySockets
from runtime.edge.gateway.service import Identity
from runtime.edge.health import Health
from runtime.edge.http import Http
from runtime.edge.http_integrations import add_integration_routes
from runtime.edge.http_routes import builtin_routes
from runtime.edge.http_sys import add_sys_routes
from runtime.edge.metrics import Metrics
from runtime.edge.ports import BindFailed, PortTaken, holder_of
from runtime.exports import exports_of
from runtime.hub_watch import HubWatch
from runtime.introspect import Node, Pace, snapshot
from runtime.names import whereis
from runtime.promise import AskTimeout
from runtime.reasons import SHUTDOWN
from runtime.ref import Ref
from runtime.signals import when_ended
from supervisors import ChildSpec, count_children
from supervisors.child import FailedToStart

LOCK_FILE = "daemon.lock"
ROOT_PING_S = 5.0
LAST_WORDS_S = 0.5
CUT_STARTS_S = 0.1
STOP_GRACE_S = 5.0


class StartFailed(Exception):
    """The daemon cannot start; `status` is the exit status that says why."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Lock:
    """One daemon at a time for one state folder.

    The lock names its holder, and the kernel frees it with the process.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / LOCK_FILE
        self._file: io.TextIOWrapper | None = None

    def take(self) -> None:
        """Take the lock or raise `StartFailed`. Never switches."""
        file = self.path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read(20).strip() or "unknown"
            file.close()
            raise StartFailed(
                f"{self.path.parent} belongs to a running daemon, pid {holder}: stop it, or choose another state_dir",
                EX_TAKEN,
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Free the lock. Never switches."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Daemon:
    """One run of the daemon, from a checked configuration to an exit status."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.tree = Tree(config, INTEGRATIONS)
        self.health = Health("tree")
        self.watch = HubWatch()
        self.incarnation = secrets.token_hex(6)
        self.lock = Lock(config.daemon.state_dir)
        self.root: Ref | None = None
        self.sockets: GatewaySockets | None = None
        self._logs: log.Log | None = None
        self._signals = 0
        self._closed = False
        self._stop = Event()
        self._watchers: list[Any] = []

    # -- start

    def run(self, announce: Callable[[str], object]) -> int:
        """Start, announce where it listens and the tree, serve until a signal, and return the exit status."""
        self._logs = logs = log.configure()
        try:
            try:
                self.start()
            except StartFailed:
                if self._stop.is_set():  # it was told to stop before it was up, and has
                    return EX_OK
                raise
            gc.collect()
            gc.freeze()  # a full collection that walks all modules and the tree too holds the hub up for some 15 ms
            announce(self.banner())
            return self.serve()
        finally:
            self.lock.release()
            logs.close()

    def start(self) -> None:
        """Bring everything up; raises `StartFailed` with nothing left behind. Switches greenlets."""
        state_dir = self.config.daemon.state_dir
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartFailed(f"state_dir {state_dir} cannot be made: {error.strerror}", EX_CONFIG) from None
        self.lock.take()
        self._take_signals()
        self.watch.start()
        self.sockets = self._open_gateway()
        try:
            self.root = self._start_tree(self.sockets)
        except BaseException:
            self._close()
            raise
        self.health.meet("tree")
        systemd.notify("READY=1", f"STATUS=serving {self.config.gateway.bind}")
        every_s = systemd.watchdog_s()
        if every_s is not None:
            gevent.spawn(self._ping_watchdog, every_s)
        events.publish("daemon.started", name=self.config.daemon.name, incarnation=self.incarnation, pid=os.getpid())

    def _open_gateway(self) -> GatewaySockets:
        http = self.config.http.bind
        identity = Identity(self.config.daemon.name, VERSION, self.incarnation, f"http://{http}")
        sockets = GatewaySockets(
            self.config.gateway,
            self.tree.directory,
            identity,
            state_dir=self.config.daemon.state_dir,
            max_deadline_s=float(self.config.daemon.max_deadline),
            hub_lag_s=self.watch.lag_s,
        )
        try:
            sockets.open()
        except GatewayBindFailed as error:
            raise StartFailed(self._taken(str(error), error.endpoint), EX_TAKEN if error.taken else EX_CONFIG) from None
        return sockets

    def _taken(self, text: str, endpoint: str) -> str:
        port = endpoint.rpartition(":")[2]
        holder = holder_of(int(port)) if port.isdecimal() else None
        return f"{text}; it is held by {holder}" if holder is not None else text

    def _start_tree(self, sockets: GatewaySockets) -> Ref:
        config = self.config
        token = config.http.admin_token or write_admin_token(config.daemon.state_dir)
        metrics = Metrics(self.paced_snapshot, version=VERSION)
        routes = builtin_routes(self.health, metrics, self.paced_snapshot)
        add_sys_routes(routes, lambda: self.root)
        add_integration_routes(routes, self.tree.directory)
        doors = [
            ChildSpec("gateway", Gateway, args=(sockets,), name="gateway", measured=True),
            ChildSpec(
                "http",
                Http,
                args=(config.http.bind.host, config.http.bind.port, routes, Auth(config.http.read_token, token)),
                name="http",
                measured=True,
            ),
        ]
        try:
            return self.tree.start(doors)
        except Exception as error:
            child, cause = _start_cause(error)
            if isinstance(cause, PortTaken):
                raise StartFailed(str(cause), EX_TAKEN) from None
            if isinstance(cause, BindFailed):
                raise StartFailed(str(cause), EX_CONFIG) from None
            what = error if cause is None else f"{child} raised {type(cause).__name__}: {cause}"
            raise StartFailed(redact(f"the tree did not start: {what}"), EX_GAVE_UP) from error

    def snapshot(self) -> Node | None:
        """Return the tree as of now, None before it was started. Never switches."""
        return None if self.root is None else snapshot(self.root)

    def paced_snapshot(self) -> Node | None:
        """Return the tree while others run on, however large it is. Switches greenlets."""
        return None if self.root is None else snapshot(self.root, pace=Pace())

    def banner(self) -> str:
        """Return what a person wants to read when the daemon is ready."""
        node = self.snapshot()
        assert self.sockets is not None
        assert node is not None
        where = [f"  zmq   {endpoint}" for endpoint in self.sockets.endpoints]
        where.append(f"  http  http://{self.config.http.bind}")
        return "\n".join(
            [
                f"regrow {VERSION} is ready: {self.config.daemon.name}, pid {os.getpid()}",
                *where,
                "",
                render_tree(node.to_json(), colour=sys.stdout.isatty()),
            ]
        )

    # -- serving and ending

    def serve(self) -> int:
        """Serve until a signal or until the tree gives up; return the exit status. Switches greenlets."""
        assert self.root is not None
        ended = when_ended(self.root)
        ended.callback = lambda _promise: self._stop.set()
        if ended.done:
            self._stop.set()
        self._stop.wait()
        if ended.done:
            log.line(50, "tree.gave_up", f"the tree gave up: {ended.value}", reason=str(ended.value))
            self._close()
            return EX_GAVE_UP
        return self.drain(ended)

    def drain(self, ended: Any) -> int:
        """Refuse new work, let work in flight finish, stop the tree; return the exit status. Switches greenlets."""
        assert self.root is not None
        daemon = self.config.daemon
        limit_s = float(daemon.drain_timeout)
        self.health.drain()
        extend = int((limit_s + float(daemon.stop_timeout) + 5) * 1e6)
        systemd.notify("STOPPING=1", f"EXTEND_TIMEOUT_USEC={extend}")
        events.publish("daemon.draining", timeout_s=limit_s)
        cut_off = self._drain_gateway(limit_s)
        hard = gevent.spawn_later(float(daemon.stop_timeout), self._hard_stop)
        ended.callback = None
        # No exit signal: the root traps them, and ignores those of a stranger as every supervisor does.
        self.root.stop(block=False, reason=SHUTDOWN)
        with contextlib.suppress(AskTimeout):
            ended.wait(float(daemon.stop_timeout) + STOP_GRACE_S)  # the hard stop comes first
        self._close()
        hard.kill()
        events.publish("daemon.stopped", cut_off=cut_off)
        return EX_DRAIN if cut_off else EX_OK

    def _drain_gateway(self, limit_s: float) -> int:
        gateway = whereis("gateway")
        if gateway is None:
            return 0
        try:
            left: int = gateway.ask(Drain(limit_s), timeout=limit_s + 5)
        except Exception as error:  # noqa: BLE001 - an edge: a gateway that cannot drain must not keep the daemon up
            log.line(40, "daemon.drain_failed", f"the gateway could not drain: {type(error).__name__}: {error}")
            return 1
        return left

    def _close(self) -> None:
        self._closed = True
        if self.sockets is not None:
            self.sockets.close()
        self.watch.stop()
        for watcher in self._watchers:
            watcher.cancel()
        # The process ends within moments: a late signal must not make a kill of an orderly end.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)

    def _hard_stop(self) -> None:
        log.line(50, "daemon.stop_timed_out", "the tree did not stop in time, the process ends now")
        if self._logs is not None:
            self._logs.close(LAST_WORDS_S)
        os._exit(EX_DRAIN)

    # -- signals

    def _take_signals(self) -> None:
        handlers = {
            signal.SIGTERM: self._on_stop_signal,
            signal.SIGINT: self._on_stop_signal,
            signal.SIGHUP: self._on_hup,
            signal.SIGUSR1: self._on_usr1,
        }
        self._watchers = [gevent.signal_handler(number, handler) for number, handler in handlers.items()]

    def _on_stop_signal(self) -> None:
        self._signals += 1
        if self._signals > 1:
            print("regrow: second signal, stopping at once", file=sys.stderr, flush=True)  # noqa: T201
            os._exit(128 + signal.SIGINT)
        self._stop.set()
        if self._signals == 1:
            gevent.spawn(self._cut_starts)

    def _cut_starts(self) -> None:
        """Kill actors that do not come up while the daemon is to stop, since a start holds up its supervisor.

        Only what was starting at the look before is cut, so that healthy starts, the doors among them, may finish.
        """
        seen: set[int] = set()
        while not self._closed:
            starting = [ref for ref in scheduler.starting() if not getattr(ref.actor_class, "supervises", False)]
            for ref in starting:
                if ref.serial in seen:
                    log.line(30, "start.cut", "the daemon stops, so this start is given up", actor=ref.name or ref.path)
                    ref.kill()
            seen = {ref.serial for ref in starting}
            clock.sleep(CUT_STARTS_S)

    def _on_hup(self) -> None:
        systemd.reloading()
        try:
            self.reload()
        finally:
            systemd.notify("READY=1", f"STATUS=serving {self.config.gateway.bind}")

    def reload(self) -> None:
        """Load the file again, take over the client keys, and tell of what has to wait. Switches greenlets."""
        try:
            new = load_config(self.config.file)
        except ConfigErrors as errors:
            for error in errors.errors[:MAX_TOLD]:
                log.line(40, "daemon.reload_failed", f"nothing was changed, the file is wrong: {error.render()}")
            return
        waiting = waiting_for_restart(self.config, new)
        for key in waiting[:MAX_TOLD]:
            log.line(30, "daemon.restart_needed", f"{key} was changed, restart the daemon to apply it", key=key)
        curve = new_clients(self.config, new)
        changed: dict[str, list[str]] = {}
        cut: list[str] = []
        if curve is not None and self.sockets is not None:
            cut = self.sockets.replace_clients(curve)
            changed = client_changes(self.config, new)
            self.config = taken_over(self.config, curve)
        log.line(20, "daemon.reloaded", f"the client keys of {new.file.name} are in effect", connections_cut=len(cut))
        events.publish("daemon.reloaded", **changed, connections_cut=len(cut), restart_needed=waiting[:MAX_TOLD])

    def _on_usr1(self) -> None:
        """Write the tree and every greenlet's stack to stderr."""
        node = self.snapshot()
        if node is not None:
            print(render_tree(node.to_json(), colour=False), file=sys.stderr)  # noqa: T201
        print_run_info(file=sys.stderr)

    def _ping_watchdog(self, every_s: float) -> None:
        """Ping systemd's watchdog as long as the hub runs and the root supervisor answers."""
        while not self._stop.is_set():
            if self.root is not None and self.root.is_alive():
                with contextlib.suppress(Exception):
                    with gevent.Timeout(ROOT_PING_S):
                        count_children(self.root)
                    systemd.notify("WATCHDOG=1")
            clock.sleep(every_s)


def _start_cause(error: BaseException) -> tuple[str, BaseException | None]:
    """Follow the reasons of a failed start down: the child that could not start, and the exception that caused it."""
    child = "a child"
    reason: Any = getattr(error, "reason", None)
    while reason is not None:
        detail = getattr(reason, "detail", None)
        if isinstance(detail, BaseException):
            return child, detail
        if isinstance(detail, FailedToStart):
            child = str(detail.id)
        reason = getattr(detail, "reason", None)
    return child, None


def load_config(path: Path) -> Config:
    """Load and check the configuration; raises `config.errors.ConfigErrors`. Never switches."""
    return load(path, INTEGRATIONS, is_actor=is_actor)


def configuration_schema() -> dict[str, Any]:
    """Return the JSON Schema of the whole configuration file. Never switches."""
    return json_schema(INTEGRATIONS)


def is_actor(found: object) -> bool:
    """Tell whether a configured class is an actor of ours; raises TypeError when its exports cannot be called."""
    if not (isinstance(found, type) and issubclass(found, Actor)):
        return False
    exports_of(found)
    return True


__all__ = ["Daemon", "StartFailed", "load_config", "read_admin_token"]
