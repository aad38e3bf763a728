"""The test kit for programs that run on regrow: `ManualClock` drives every timer, back-off and deadline."""

from __future__ import annotations

from regrow.testing.clock import ManualClock

__all__ = ["ManualClock"]
