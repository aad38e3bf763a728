"""The commands that work on files of this machine: run, check, init, schema."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from regrow.protocol.exits import EX_CONFIG, EX_FAILED, EX_OK


def do_run(options: argparse.Namespace) -> int:
    """Run the daemon in the foreground and return its exit status. Switches greenlets."""
    from config.errors import ConfigErrors
    from config.load import find
    from regrow import daemon  # patches first, before anything that would keep an unpatched socket

    try:
        config = daemon.load_config(find(options.config))
    except ConfigErrors as errors:
        print(errors.render(), file=sys.stderr)
        return EX_CONFIG
    try:
        return daemon.Daemon(config).run(lambda text: print(text, flush=True))
    except daemon.StartFailed as error:
        print(f"regrow: {error}", file=sys.stderr)
        return error.status


def do_check(options: argparse.Namespace) -> int:
    """Check a configuration, import the user's classes, and report everything that is wrong."""
    from config.errors import ConfigErrors
    from config.load import find
    from regrow import daemon

    try:
        config = daemon.load_config(find(options.config))
    except ConfigErrors as errors:
        if options.json:
            print(json.dumps({"ok": False, "errors": errors.to_json()}))
        else:
            print(errors.render(), file=sys.stderr)
        return EX_CONFIG
    if options.dump or options.json:
        tables = config.dump() if options.dump else {"ok": True, "file": str(config.file)}
        print(json.dumps(tables, indent=None if options.json else 2))
    else:
        actors, integrations = _counted(len(config.actors), "actor"), _counted(len(config.integrations), "integration")
        print(f"{config.file} is good: {actors}, {integrations}")
    return EX_OK


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def do_init(options: argparse.Namespace) -> int:
    """Write a small working project."""
    from config.starter_project import write_starter

    folder = Path(options.folder)
    try:
        written = write_starter(folder)
    except OSError as error:
        print(f"regrow: {error}", file=sys.stderr)
        return EX_FAILED
    for path in written:
        print(path)
    print(f"next: cd {folder} && regrow run", file=sys.stderr)
    return EX_OK


def do_schema(options: argparse.Namespace) -> int:
    """Print the JSON Schema of the configuration, or the reference page made from it."""
    from config.reference import reference
    from regrow import daemon

    schema = daemon.configuration_schema()
    print(reference(schema) if options.markdown else json.dumps(schema, indent=2) + "\n", end="")
    return EX_OK
