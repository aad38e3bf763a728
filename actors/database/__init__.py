"""Databases: a pool with one actor for each connection, PostgreSQL and SQLite behind one contract.

Read `sql` (where the parameters are), `values` (what goes in and out), `operation` (what the configuration names),
`engine` (the contract), `postgres` and `sqlite` (its two sides), `connection` (who runs an operation, and what
becomes of a lost connection), `pool` (the front: who gets which connection). `metrics` is what they count.
"""
