"""Your own actors: one class each, named in regrow.toml."""
