"""What an exit means: pure decisions by restart type, significance and strategy (OTP, `supervisor:do_restart/3`)."""

from __future__ import annotations

from typing import Literal

from runtime.reasons import ExitReason

Decision = Literal["restart", "forget", "drop"]


def decide(restart: str, reason: ExitReason) -> Decision:
    """Return "restart", "forget" (keep the spec without an actor) or "drop" (remove the child). Never switches."""
    if restart == "permanent" or (restart == "transient" and not reason.is_orderly):
        return "restart"
    return "drop" if restart == "temporary" else "forget"


def is_reported(restart: str, reason: ExitReason) -> bool:
    """Tell whether an exit is worth a report: any of a permanent child, an abnormal one of the others.

    Never switches.
    """
    return restart == "permanent" or not reason.is_orderly


def is_shutdown_error(restart: str, brutal: bool, reason: ExitReason) -> bool:
    """Tell whether the reason with which a child left when it was stopped is worth a report (OTP, `do_terminate/2`)."""
    expected = reason.kind == "killed" if brutal else reason.kind == "shutdown" and reason.detail is None
    return not expected and not (reason.is_orderly and restart != "permanent")
