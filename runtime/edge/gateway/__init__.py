"""The ZeroMQ gateway: how programs in any language reach the actors.

Read: `rights` (who may reach what), `outcome` (answers, and errors as the wire sees them), `peer` (one connection: its
asks and its outbox), `service` (what each op does), `memory` (answers of idempotent asks), `zap` (client keys), `port`
(one ROUTER socket), `sockets` (all of them, owned outside of the actor), `actor` (the gateway in the tree).
"""

from __future__ import annotations

from runtime.edge.gateway.actor import Drain, Gateway
from runtime.edge.gateway.service import Identity
from runtime.edge.gateway.sockets import BindFailed, GatewaySockets, ipc_endpoint

__all__ = ["BindFailed", "Drain", "Gateway", "GatewaySockets", "Identity", "ipc_endpoint"]
