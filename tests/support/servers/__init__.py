"""Real servers as private child processes. Read `programs` (where the binaries are), then `postgres` and `redis`."""
