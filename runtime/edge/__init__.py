"""The edges: how the outside talks to the tree.

Read `health` (what readiness means), `ports` (who holds a port), `auth` (who may do what), then `http` (server, router,
routes) and `metrics`; `gateway` is the ZeroMQ side.
"""
