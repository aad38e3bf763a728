from __future__ import annotations

from tests.edge.gateway.conftest import state_dir, wire

__all__ = ["state_dir", "wire"]
