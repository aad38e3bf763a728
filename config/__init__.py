"""The configuration file: its schema, its loader, the default and examples.

Read in this order: `schema` (the tables and the types they are made of) and `secret`; then the way of a file through
`load`: `substitute` (variables), `check` (a parsed table against a Struct), `classes` (the user's actors), `errors` and
`lines` (what is said, and where); last `json_schema` and `starter_project`, for `regrow schema` and `regrow init`.
`default.toml` is what `make run` starts, `starter/` what `regrow init` writes, `examples/` is for reading and copying.
"""
