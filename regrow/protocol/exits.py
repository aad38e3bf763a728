"""Exit statuses of every command, documented and stable, so that service managers can tell failures apart."""

from __future__ import annotations

EX_OK = 0
EX_FAILED = 1  # the request failed
EX_USAGE = 2
EX_UNREACHABLE = 69  # the daemon cannot be reached
EX_GAVE_UP = 70  # the supervision tree gave up
EX_TAKEN = 71  # a port, socket or state folder is taken
EX_DRAIN = 75  # the drain timed out
EX_CONFIG = 78  # the configuration is wrong
