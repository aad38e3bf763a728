"""Python functions in child processes: one actor per process, a front that stays free, nothing that can stall the hub.

Read `child` (the program of a process and the messages it exchanges), `functions` (what may be called), `process` (the
handle of one process, no actor), `worker` (the actor that owns a process) and `pool` (the front).
"""
