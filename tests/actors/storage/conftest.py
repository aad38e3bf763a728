"""Storages over HTTP, configured as the daemon does."""

from __future__ import annotations

from tests.actors.rest.conftest import api

__all__ = ["api"]
