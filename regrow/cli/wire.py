"""The commands about the wire itself: keys makes CURVE key pairs, conform tests any server of the protocol."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import zmq

from regrow import conform, keys
from regrow.protocol.exits import EX_FAILED, EX_OK, EX_UNREACHABLE, EX_USAGE

_NAME = re.compile(r"[a-z][a-z0-9_-]*")


def do_keys(options: argparse.Namespace) -> int:
    """Make a key pair, keep a file that is there, and print the public key with what to write where."""
    if not _NAME.fullmatch(options.whose):
        print(f"regrow: {options.whose!r} is no name: small letters, digits, - and _", file=sys.stderr)
        return EX_USAGE
    path: Path = options.file or Path(f"{options.whose}.key")
    try:
        pair = keys.ensure(path)
    except keys.KeyFileWrong as error:
        print(f"regrow: {error}", file=sys.stderr)
        return EX_FAILED
    if not keys.is_private(path):
        print(f"regrow: others may read {path}, say: chmod 600 {path}", file=sys.stderr)
    if options.json:
        print(json.dumps({"file": str(path), "public_key": pair.public, "made": pair.made}))
        return EX_OK
    said = "its secret key was written to" if pair.made else "its secret key is, and was before, in"
    print(f"# {options.whose}: {said} {path}; keep that file secret")
    if options.whose == "server":
        print(f"# its public key, which clients need as server_key: {pair.public}")
        print(f"[gateway.curve]\nsecret_key_file = {json.dumps(str(path))}")
    else:
        print("# into the configuration of the daemon, with what this client may reach:")
        print(f'[[gateway.curve.clients]]\nname = "{options.whose}"\npublic_key = "{pair.public}"\nallow = []')
    return EX_OK


def do_conform(options: argparse.Namespace) -> int:
    """Make the checks; 0 when none failed, 1 when one did, 69 when nobody answers."""
    if options.list:
        for name, (rule, _check) in conform.CHECKS.items():
            print(f"{name:<16}{rule}")
        return EX_OK
    try:
        targets = dict(_role(text, conform.ROLES) for text in options.target)
        if unknown := set(options.check) - conform.CHECKS.keys():
            raise ValueError(f"there is no check {min(unknown)!r}, see regrow conform --list {options.endpoint}")
        curve = _curve(options)
        server = conform.Server(options.endpoint, targets=targets, keys=curve, patience_s=options.patience)
    except (ValueError, keys.KeyFileWrong) as error:
        print(f"regrow: {error}", file=sys.stderr)
        return EX_USAGE
    counts = {"ok": 0, "FAIL": 0, "skipped": 0}
    try:
        for result in conform.run(server, options.check):
            counts[result.outcome] += 1
            facts = {"check": result.name, "rule": result.rule, "outcome": result.outcome.lower(), "why": result.why}
            print(json.dumps(facts) if options.json else result, flush=True)
    except (conform.Unreachable, zmq.ZMQError) as error:
        print(f"regrow: cannot reach a server at {options.endpoint}: {error}", file=sys.stderr)
        return EX_UNREACHABLE
    finally:
        server.close()
    if not options.json:
        print(f"{counts['ok']} ok, {counts['FAIL']} failed, {counts['skipped']} skipped")
    return EX_FAILED if counts["FAIL"] or not counts["ok"] else EX_OK


def _role(text: str, roles: tuple[str, ...]) -> tuple[str, str]:
    role, equals, target = text.partition("=")
    if not equals:
        role, target = text.rpartition(".")[2], text
    actor, _dot, method = target.rpartition(".")
    if role not in roles or not actor or not method:
        raise ValueError(f"{text!r} is not [ROLE=]NAME.METHOD with a role of {', '.join(roles)}")
    return role, target


def _curve(options: argparse.Namespace) -> tuple[bytes, bytes, bytes] | None:
    if (options.server_key is None) != (options.key_file is None):
        raise ValueError("CURVE needs both --server-key (the server's public key) and --key-file (our own secret key)")
    if options.key_file is None:
        return None
    if not keys.KEY.fullmatch(options.server_key):
        raise ValueError("the server's key has 40 characters of Z85")
    own = keys.read(options.key_file)
    return options.server_key.encode(), own.public.encode(), keys.read_secret(options.key_file).encode()
