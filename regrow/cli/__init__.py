"""The command line: `regrow run|check|init|schema` on this machine, `regrow ask|tell|stream|events|tree|why` with one.

Read `__init__` (the arguments), `local` (commands on files), `remote` (commands that talk to a daemon), `wire` (key
pairs, and the test of the protocol), `values` (how `key=value` becomes an argument). Results go to stdout, everything
said about them to stderr; exit statuses are in `regrow.protocol.exits`. Commands other than `run` and `check` never
import gevent, so they answer quickly.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from regrow.protocol.exits import EX_OK, EX_USAGE
from regrow.version import VERSION

EPILOG = """\
exit status: 0 ok, 1 the request failed, 2 usage, 69 the daemon cannot be reached, 70 the tree gave up,
71 a port, socket or state folder is taken, 75 the drain timed out, 78 the configuration is wrong
environment: REGROW_CONFIG (the configuration file), REGROW_ENDPOINT (where the daemon listens)
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line. Never switches."""
    main = argparse.ArgumentParser(
        prog="regrow",
        description="A supervised actor runtime: run the daemon, ask its actors, look at its tree.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    main.add_argument("--version", action="version", version=f"regrow {VERSION}")
    commands = main.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_local(commands)
    _add_remote(commands)
    _add_wire(commands)
    return main


def _add_local(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    file = argparse.ArgumentParser(add_help=False)
    file.add_argument("--config", metavar="FILE", help="the configuration (else REGROW_CONFIG, else ./regrow.toml)")
    commands.add_parser("run", parents=[file], help="run the daemon in the foreground")
    check = commands.add_parser("check", parents=[file], help="check a configuration and report every mistake at once")
    check.add_argument(
        "--dump", action="store_true", help="print everything in effect, defaults included, secrets hidden"
    )
    check.add_argument("--json", action="store_true", help="print JSON")
    migrate = commands.add_parser("migrate", parents=[file], help="apply the migrations of the configured databases")
    migrate.add_argument("database", metavar="NAME", nargs="?", help="only this database")
    migrate.add_argument("--dry-run", action="store_true", help="list what is pending and change nothing")
    migrate.add_argument("--json", action="store_true", help="print one line of JSON for each migration")
    init = commands.add_parser("init", help="write a small working project to begin with")
    init.add_argument("folder", metavar="FOLDER", nargs="?", default=".", help="where (default: the current folder)")
    schema = commands.add_parser("schema", help="print the JSON Schema of the configuration, for editors")
    schema.add_argument("--markdown", action="store_true", help="print the reference page made from it instead")


def _add_remote(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "--endpoint", metavar="URL", help="where the daemon listens (else REGROW_ENDPOINT, else from the configuration)"
    )
    where.add_argument("--config", metavar="FILE", help="find the daemon through its configuration")
    where.add_argument("--json", action="store_true", help="print one line of JSON")
    request = argparse.ArgumentParser(add_help=False)
    request.add_argument(
        "target", metavar="TARGET.METHOD", help="an actor's name and one of its methods: greeter.greet"
    )
    request.add_argument(
        "arguments", metavar="JSON | key=value", nargs="*", help="the arguments: one JSON object, or key=value each"
    )
    ask = commands.add_parser("ask", parents=[where, request], help="call a method and print its answer")
    ask.add_argument("--timeout", metavar="SECONDS", type=_seconds, help="the deadline (default: the target's own)")
    ask.add_argument("--idem", metavar="KEY", help="an idempotency key: repeating the ask returns the stored answer")
    commands.add_parser("tell", parents=[where, request], help="send a message without waiting for its work")
    stream = commands.add_parser("stream", parents=[where, request], help="print the parts of an answer as they come")
    stream.add_argument("--timeout", metavar="SECONDS", type=_seconds, help="the deadline of the whole stream")
    heard = commands.add_parser("events", parents=[where], help="print what happens in the daemon until interrupted")
    heard.add_argument("topics", metavar="TOPIC", nargs="*", help="breaker.opened, breaker.* (default: everything)")
    heard.add_argument("--since", metavar="NUMBER", type=int, help="begin after this event; 0: all that are kept")
    heard.add_argument("--count", metavar="N", type=_count, help="end after so many")
    describe = commands.add_parser("describe", parents=[where], help="list actors, their methods and arguments")
    describe.add_argument("target", metavar="TARGET", nargs="?", help="only this actor")
    commands.add_parser("ping", parents=[where], help="tell whether the daemon answers, and its hub's lag")
    reading = argparse.ArgumentParser(add_help=False)
    reading.add_argument(
        "--token", metavar="TOKEN", help="the HTTP read token (else REGROW_READ_TOKEN, else the daemon's own file)"
    )
    tree = commands.add_parser("tree", parents=[where, reading], help="show the supervision tree")
    tree.add_argument("--all", action="store_true", help="a line for each actor, also where many are alike")
    changing = argparse.ArgumentParser(add_help=False)
    changing.add_argument(
        "--token", metavar="TOKEN", help="the HTTP admin token (else REGROW_ADMIN_TOKEN, else the daemon's own file)"
    )
    circuit = commands.add_parser(
        "circuit", parents=[where, changing], help="show an integration's circuit, or turn it by hand"
    )
    circuit.add_argument("target", metavar="NAME", help="an integration with a breaker")
    circuit.add_argument(
        "action",
        nargs="?",
        choices=("open", "close", "disable", "reset"),
        help="none: only show it; open: refuse calls; close: let them go until they fail; disable: let them go though "
        "they fail; reset: close it as if it were new",
    )
    circuit.add_argument(
        "--for", dest="for_s", metavar="TIME", type=_seconds, help="open or disable it so long: 5m (default: an hour)"
    )
    inspect = commands.add_parser("inspect", parents=[where, changing], help="show what an actor's class lets be seen")
    inspect.add_argument("target", metavar="NAME", help="an actor's name or path")
    why = commands.add_parser("why", parents=[where, reading], help="show what ails an actor, and how it crashed")
    why.add_argument("target", metavar="NAME | CRASH", help="an actor's name or path, or the id of a crash")


def _add_wire(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    pair = commands.add_parser("keys", help="make the CURVE key pair of a server or a client")
    pair.add_argument("whose", metavar="server | CLIENT", help="`server`, or the name of a client program")
    pair.add_argument(
        "--file", metavar="FILE", type=Path, help="where the secret key goes (default: server.key, CLIENT.key)"
    )
    pair.add_argument("--json", action="store_true", help="print one line of JSON")
    conform = commands.add_parser("conform", help="test whether a server keeps the rules of the wire protocol")
    conform.add_argument("endpoint", metavar="ENDPOINT", help="where it listens: tcp://127.0.0.1:5757")
    conform.add_argument(
        "--target",
        metavar="[ROLE=]NAME.METHOD",
        action="append",
        default=[],
        help="a method that the checks may call as echo, wait, tick or count (default: from DESCRIBE)",
    )
    conform.add_argument("--check", metavar="NAME", action="append", default=[], help="only this check; repeatable")
    conform.add_argument("--list", action="store_true", help="list the checks and make none")
    conform.add_argument(
        "--patience", metavar="SECONDS", type=_seconds, default=5.0, help="how long to wait for an answer (default: 5)"
    )
    conform.add_argument("--server-key", metavar="KEY", help="the server's public key, for CURVE")
    conform.add_argument("--key-file", metavar="FILE", type=Path, help="our own secret key, for CURVE")
    conform.add_argument("--json", action="store_true", help="print one line of JSON for each check")


def _with_keys(words: Sequence[str]) -> list[str]:
    """Tie a key to its option: one key of 85 begins with a dash, and would be taken for an option itself."""
    tied: list[str] = []
    for word in words:
        if tied and tied[-1] == "--server-key":
            tied[-1] += f"={word}"
        else:
            tied.append(word)
    return tied


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        from config.schema import Duration

        try:
            seconds = float(Duration(text))
        except ValueError:
            seconds = math.nan
    if not 0 < seconds < 1e7:
        raise argparse.ArgumentTypeError(f"{text!r} is no time above 0, such as 90, 1.5s or 5m")
    return seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. Switches greenlets when it runs the daemon."""
    try:
        options = parser().parse_args(_with_keys(sys.argv[1:] if arguments is None else arguments))
    except SystemExit as end:
        return int(end.code or 0)
    try:
        if options.command in ("run", "check", "init", "schema"):
            from regrow.cli import local as commands
        elif options.command in ("keys", "conform"):
            from regrow.cli import wire as commands  # type: ignore[no-redef]
        elif options.command == "migrate":
            from regrow.cli import migrate as commands  # type: ignore[no-redef]
        else:
            from regrow.cli import remote as commands  # type: ignore[no-redef]
        status: int = getattr(commands, f"do_{options.command}")(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, a pager or head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EX_OK
    except KeyboardInterrupt:
        print("regrow: interrupted", file=sys.stderr)
        return 130
    return status


__all__ = ["EX_USAGE", "main", "parser"]
