"""`regrow migrate`: apply the migrations of the configured databases, or say which would be."""

from __future__ import annotations

import argparse
import json
import sys

from regrow.protocol.exits import EX_CONFIG, EX_FAILED, EX_OK, EX_USAGE


def do_migrate(options: argparse.Namespace) -> int:
    """Migrate each database that has a folder, or the one that is named; stop at the first that fails.

    Switches greenlets.
    """
    from config.errors import ConfigErrors
    from config.load import find
    from regrow import daemon  # patches first, before anything that would keep an unpatched socket

    from actors.database.migrations import Migration, MigrationError  # isort: skip
    from actors.integrations.database import DatabaseConfig, migrate  # isort: skip
    from actors.seam import Context  # isort: skip

    try:
        config = daemon.load_config(find(options.config))
    except ConfigErrors as errors:
        print(errors.render(), file=sys.stderr)
        return EX_CONFIG
    databases = {
        name: entry.config
        for name, entry in config.integrations.items()
        if isinstance(entry.config, DatabaseConfig) and entry.config.migrations is not None
    }
    if options.database is not None and options.database not in databases:
        known = ", ".join(databases) or "none"
        print(
            f"regrow: no database {options.database!r} has a key migrations, those that have: {known}", file=sys.stderr
        )
        return EX_USAGE
    if not databases:
        print("regrow: no database has a key migrations, which names the folder of the .sql files", file=sys.stderr)
        return EX_USAGE
    context = Context(config.daemon.state_dir, config.folder, config.daemon.redis, config.daemon.name)
    word = "pending" if options.dry_run else "applied"
    for name, found in databases.items():
        if options.database not in (None, name):
            continue

        def tell(migration: Migration, name: str = name) -> None:
            line = {"database": name, "migration": migration.name, "state": word}
            print(json.dumps(line) if options.json else f"{name}: {word} {migration.name}", flush=True)

        try:
            count = migrate(name, found, context, dry_run=options.dry_run, tell=tell)
        except MigrationError as error:
            print(f"regrow: {name}: {error}", file=sys.stderr)
            return EX_FAILED
        if not count and not options.json:
            print(f"{name}: nothing to apply")
    return EX_OK
