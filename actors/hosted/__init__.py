"""Actors that do not run on the hub: a front keeps their name, mailbox and place in the tree, the work is elsewhere.

Read `wire` (what front and process exchange), `host` (the program of the process), `process` (the front of
`run_in = "process"`), `lane` (a native thread) and `thread` (the front of `run_in = "thread"`).
"""
