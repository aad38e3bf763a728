"""Storages: whatever data can be loaded from and stored in by the name of an asset and a partition of it.

Read `contract` (the five calls, and the exports of an integration that offers them), then `memory` (the reference),
`actor` (a storage that is an actor of the tree, such as a database) and `registry` (which name is which storage).
"""
