"""The configuration file: its schema, its loader, the default and examples."""
