"""Who restarts whom: OTP's supervision.

Read in this order: `spec` (what a supervisor is told), `strategy` and `intensity` (pure decisions), `child` (starting
and stopping one child), `supervisor` (the mailbox in which all of it happens), `dynamic` (children that come and go),
`partition` (copies of one child, by key) and `task` (a function run once).
"""

from supervisors.backoff import Backoff
from supervisors.dynamic import DynamicSupervisor, start_dynamic
from supervisors.partition import PartitionSupervisor, route
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
from supervisors.task import Task, TaskSupervisor, async_, async_nolink, async_stream

__all__ = [
    "Backoff",
    "ChildSpec",
    "DynamicSupervisor",
    "Flags",
    "PartitionSupervisor",
    "SpecError",
    "Supervisor",
    "Task",
    "TaskSupervisor",
    "async_",
    "async_nolink",
    "async_stream",
    "check_childspecs",
    "count_children",
    "delete_child",
    "get_childspec",
    "restart_child",
    "route",
    "start_child_of",
    "start_dynamic",
    "terminate_child",
    "which_children",
]
