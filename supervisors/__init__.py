"""Who restarts whom: OTP's supervision.

Read in this order: `spec` (what a supervisor is told), `strategy` and `intensity` (pure decisions), `child` (starting
and stopping one child), `supervisor` (the mailbox in which all of it happens), `dynamic` (children that come and go).
"""

from supervisors.backoff import Backoff
from supervisors.dynamic import DynamicSupervisor, start_dynamic
from supervisors.spec import ChildSpec, Flags, SpecError, check_childspecs
from supervisors.supervisor import (
    Supervisor,
    count_children,
    delete_child,
    get_childspec,
    restart_child,
    start_child_of,
    terminate_child,
    which_children,
)

__all__ = [
    "Backoff",
    "ChildSpec",
    "DynamicSupervisor",
    "Flags",
    "SpecError",
    "Supervisor",
    "check_childspecs",
    "count_children",
    "delete_child",
    "get_childspec",
    "restart_child",
    "start_child_of",
    "start_dynamic",
    "terminate_child",
    "which_children",
]
