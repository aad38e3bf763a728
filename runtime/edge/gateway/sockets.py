"""The gateway's sockets, owned outside of its actor: they, their connections and asks in flight survive its crash.

The daemon makes one `GatewaySockets`, opens it (which is when a port that is taken shows), hands it to the gateway
actor and closes it after the tree has stopped. While there is no living gateway actor nothing is read, what clients
send waits in ZeroMQ, and answers to what was read before still go out.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from pathlib import Path
from typing import Any, Final

import zmq
from gevent import get_hub

from config.schema import Curve
from config.schema import Gateway as GatewayConfig
from regrow.protocol.errors import DeadlineExceeded
from regrow.protocol.frames import Rejected, Request
from runtime import clock
from runtime.directory import Directory
from runtime.edge.gateway.peer import Ask, Peer
from runtime.edge.gateway.port import Port
from runtime.edge.gateway.service import Identity, Service
from runtime.edge.gateway.zap import DOMAIN, KnownClient, Zap, known_clients
from runtime.promise import Promise
from runtime.ref import Ref

IPC_FOLDER: Final = "ipc"
IPC_FILE: Final = "gateway.sock"
#: what the kernel allows for the path of a unix socket, less the final zero
MAX_IPC_PATH_BYTES: Final = 107
#: connections that the ipc socket takes beyond max_clients
LOCAL_CLIENTS: Final = 16
HOUSEKEEPING_S: Final = 10.0
LINGER_MS: Final = 500

#: a key alone, or the line of it in a ZeroMQ certificate file
_KEY_LINE: Final = re.compile(r"""(?:secret-key\s*=\s*)?"?([0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40})"?""")

_log = logging.getLogger("regrow.gateway")


class BindFailed(Exception):
    """An endpoint could not be bound; `taken` tells whether because another process has it."""

    def __init__(self, endpoint: str, why: str, *, taken: bool = False) -> None:
        super().__init__(f"{endpoint} cannot be bound: {why}")
        self.endpoint = endpoint
        self.taken = taken


def ipc_endpoint(state_dir: Path) -> str:
    """Return the endpoint of the daemon that has this state_dir, for clients on the same machine. Never switches."""
    return f"ipc://{state_dir.absolute() / IPC_FOLDER / IPC_FILE}"


class GatewaySockets:
    """All sockets of one gateway, and the service behind them."""

    def __init__(
        self,
        config: GatewayConfig,
        directory: Directory,
        identity: Identity,
        *,
        state_dir: Path | None = None,
        max_deadline_s: float = 3600.0,
        hub_lag_s: Any = None,
    ) -> None:
        self.config = config
        self.state_dir = state_dir
        self.endpoints: list[str] = []
        self.service = Service(
            directory,
            identity,
            max_message=int(config.max_message),
            max_in_flight=config.max_in_flight_per_client,
            max_subscriptions=config.max_subscriptions_per_client,
            max_deadline_s=max_deadline_s,
            hub_lag_s=hub_lag_s or _no_lag,
        )
        self._context: zmq.Context[Any] | None = None
        self._zap: Zap | None = None
        self._ports: list[Port] = []
        self._reader: Ref | None = None
        self._known: dict[str, KnownClient] = {}
        self._housekeeping: clock.Timer | None = None

    # -- life

    def open(self) -> list[str]:
        """Bind all or nothing (`BindFailed`); return the endpoints with their real ports. Never switches."""
        if self._context is not None:
            return self.endpoints
        self._context = zmq.Context()
        try:
            self._open_ipc()
            self._open_tcp()
        except BaseException:
            self._close_sockets(0)
            self._context.term()
            self._context = None
            raise
        self.service.feed.open()
        self._housekeeping = clock.after(HOUSEKEEPING_S, self._keep_house)
        for endpoint in self.endpoints:
            _log.info("the gateway listens", extra={"event": "gateway.bound", "endpoint": endpoint})
        return self.endpoints

    def _open_ipc(self) -> None:
        if self.state_dir is None:
            return
        endpoint = ipc_endpoint(self.state_dir)
        path = Path(endpoint.removeprefix("ipc://"))
        size = len(os.fsencode(path))
        if size > MAX_IPC_PATH_BYTES:
            why = f"its path has {size} bytes, a unix socket's at most {MAX_IPC_PATH_BYTES}, use a shorter state_dir"
            raise BindFailed(endpoint, why)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.parent.chmod(stat.S_IRWXU)
        except OSError as error:
            raise BindFailed(endpoint, f"its folder cannot be made: {error.strerror}") from error
        self._bind(self._port("ipc"), endpoint)

    def _open_tcp(self) -> None:
        if not self.config.bind:
            return
        curve = self.config.curve
        if curve is None:
            port = self._port("tcp")
        else:
            assert self._context is not None
            secret = _secret_key(curve.secret_key_file)
            self._known = known_clients(curve)
            self._zap = Zap(self._context, self._known)
            port = self._port("curve", server_secret=secret, zap_domain=DOMAIN, client_of=self._client_of)
        for endpoint in self.config.bind:
            if curve is None and not endpoint.is_loopback and not self.config.allow_insecure_bind:
                raise BindFailed(endpoint, "it is open to other machines and there is no [gateway.curve]")
            self._bind(port, str(endpoint))

    def _client_of(self, user_id: str) -> KnownClient | None:
        return self._known.get(user_id)

    def replace_clients(self, curve: Curve) -> list[str]:
        """Know these client keys from now on, with what each may reach; cut the connections of keys that are gone.

        Returns the names of the clients that were cut. Raises ValueError without CURVE. Never switches.
        """
        if self._zap is None:
            raise ValueError("the gateway was opened without curve")
        self._known = self._zap.clients = known_clients(curve)
        cut = []
        for port in self._ports:
            cut += port.know_clients_anew()
        return cut

    def _port(self, name: str, **options: Any) -> Port:
        assert self._context is not None
        port = Port(
            self._context,
            name,
            max_message=self.service.max_message,
            max_outbox=int(self.config.max_outbox_per_client),
            # whoever floods the tcp sockets must not lock out the command line
            max_clients=self.config.max_clients + (LOCAL_CLIENTS if name == "ipc" else 0),
            max_in_flight=self.service.max_in_flight,
            on_message=self._on_message,
            may_read=self._may_read,
            peers_total=self._peers_total,
            **options,
        )
        self._ports.append(port)
        return port

    def _bind(self, port: Port, endpoint: str) -> None:
        try:
            self.endpoints.append(port.bind(endpoint))
        except zmq.ZMQError as error:
            why = "another process listens there" if error.errno == errno.EADDRINUSE else os.strerror(error.errno or 0)
            raise BindFailed(endpoint, why, taken=error.errno == errno.EADDRINUSE) from error

    def close(self) -> None:
        """Send what ZeroMQ still holds for a moment, then be gone. Idempotent. Switches greenlets."""
        context, self._context = self._context, None
        if context is None:
            return
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            self._housekeeping = None
        self.service.feed.close()
        self._close_sockets(LINGER_MS)
        # waits for what lingers, and would hold up the whole hub here
        get_hub().threadpool.apply(context.term)

    def _close_sockets(self, linger_ms: int) -> None:
        self._reader = None
        for port in self._ports:
            port.close(linger_ms)
        self._ports.clear()
        self.endpoints = []
        if self._zap is not None:
            self._zap.close()
            self._zap = None

    # -- reading

    def read_for(self, reader: Ref) -> None:
        """Read as long as this actor, the newest gateway, lives. Never switches."""
        self._reader = reader
        for port in self._ports:
            port.wake()

    def pause(self) -> None:
        """Read no more until `read_for`; what clients send waits in ZeroMQ. Never switches."""
        self._reader = None

    def _may_read(self) -> bool:
        return self._reader is not None and self._reader.is_alive()

    def _peers_total(self) -> int:
        return sum(len(port.peers) for port in self._ports)

    def _on_message(self, peer: Peer, message: Request | Rejected) -> None:
        self.service.handle(peer, message)

    def _keep_house(self) -> None:
        self._housekeeping = clock.after(HOUSEKEEPING_S, self._keep_house)
        self.service.memory.expire()
        for port in self._ports:
            port.forget_idle()
            port.wake()  # a net below the signals of ZeroMQ, which come once

    # -- facts

    def peers(self) -> list[Peer]:
        """Return every client that is known now. Never switches."""
        return [peer for port in self._ports for peer in port.peers.values()]

    def asks(self) -> list[Ask]:
        """Return every ask in flight. Never switches."""
        return [ask for peer in self.peers() for ask in peer.asks.values()]

    def status(self) -> dict[str, Any]:
        """Return what operators see of the gateway. Never switches."""
        peers = self.peers()
        return {
            "endpoints": list(self.endpoints),
            "clients": len(peers),
            "in_flight": sum(len(peer.asks) for peer in peers),
            "told": self.service.told,
            "outbox_bytes": sum(peer.outbox_bytes for peer in peers),
            "subscriptions": len(self.service.feed),
            "remembered": len(self.service.memory),
            "draining": self.service.draining,
            "known_keys": len(self._known),
        }

    # -- the drain

    def begin_drain(self, grace_s: float) -> None:
        """Refuse new work from now on and tell the clients so. Idempotent. Never switches."""
        if self.service.draining:
            return
        self.service.draining = True
        self.service.feed.end_all()
        for peer in self.peers():
            if peer.is_dealer:
                peer.send("BYE", b"", {"grace_ms": round(grace_s * 1000)})

    def wait_for_work(self, limit_s: float) -> int:
        """Wait until no ask is in flight, no told message is queued or worked on, and no idem work goes on.

        At most `limit_s` seconds; returns how much is left. Switches greenlets.
        """
        service = self.service
        if service.work:
            service.all_done = Promise()
            try:
                service.all_done.wait(limit_s)
            except DeadlineExceeded:
                pass
            finally:
                service.all_done = None
        return service.work

    def end_what_is_left(self) -> int:
        """Answer every ask that is left with cancelled; return how much work was left. Never switches."""
        left = self.service.work
        self.service.end_what_is_left(self.asks())
        return left

    def flush(self, limit_s: float) -> bool:
        """Wait until every answer was given to ZeroMQ, at most `limit_s` seconds. Switches greenlets."""
        deadline = clock.now() + limit_s
        while not all(port.is_flushed for port in self._ports):
            if clock.now() >= deadline:
                return False
            clock.sleep(0.02)
        return True

    def __repr__(self) -> str:
        return f"<GatewaySockets {', '.join(self.endpoints) or 'closed'}, {self._peers_total()} clients>"


def _no_lag() -> float:
    return 0.0


def _secret_key(file: Path) -> bytes:
    """Return the server's secret key from its file: the last line that is one, so a certificate works too."""
    try:
        text = file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
        raise BindFailed("curve", f"the secret key cannot be read from {file}: {why}") from None
    for line in reversed(text.splitlines()):
        found = _KEY_LINE.fullmatch(line.strip())
        if found:
            return found[1].encode()
    raise BindFailed("curve", f"{file} holds no secret key: expected a line with 40 characters of Z85")
