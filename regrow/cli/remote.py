"""The commands that talk to a running daemon: ask, tell, stream, events, describe, ping, tree, why."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

import regrow
from regrow.cli import values
from regrow.protocol.errors import ConnectionFailed, NotFound, RegrowError, error_from_wire
from regrow.protocol.exits import EX_FAILED, EX_OK, EX_UNREACHABLE, EX_USAGE

# A person waits at the terminal: a daemon on this machine answers at once, or is not there.
CONNECT_TIMEOUT_S = 2.0
HTTP_TIMEOUT_S = 10.0
MAX_FACT_CHARS = 120
MAX_TREE_BYTES = 256 << 20
IPC_SOCKET = ("ipc", "gateway.sock")
TOKEN_FILE = "admin.token"
ENDPOINT = re.compile(r"tcp://(?P<host>.+):[0-9]{1,5}|ipc://.+")
ANY_HOST = ("0.0.0.0", "[::]")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
CRASH_ID = re.compile(r"c[0-9a-f]+-[0-9]+")


class Place:
    """Where the daemon is: its endpoint, and its state folder when it is known."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.endpoint = options.endpoint or os.environ.get("REGROW_ENDPOINT")
        self.state_dir: Path | None = None
        file = options.config or os.environ.get("REGROW_CONFIG") or "regrow.toml"
        if Path(file).is_file():
            self._read(Path(file))
        elif options.config:
            raise values.BadArguments(f"there is no file {file}")
        if self.endpoint is not None and not ENDPOINT.fullmatch(self.endpoint):
            raise values.BadArguments(
                f"{self.endpoint!r} is no endpoint, write tcp://127.0.0.1:5757 or ipc:///path/to/gateway.sock"
            )

    def _read(self, file: Path) -> None:
        """Take the state folder and endpoint from a configuration, which need not be good in every other respect."""
        try:
            tables = tomllib.loads(file.read_text())
            daemon = tables.get("daemon", {})
            self.state_dir = (file.absolute().parent / _plain(daemon.get("state_dir", "var"))).resolve()
            bind = [str(e) for e in tables.get("gateway", {}).get("bind", []) if "${" not in str(e)]
        except (OSError, ValueError, AttributeError, TypeError):
            return
        if self.endpoint is None:
            socket = self.state_dir.joinpath(*IPC_SOCKET)
            if socket.is_socket():
                self.endpoint = f"ipc://{socket}"
            elif bind:
                self.endpoint = bind[0].replace("//*:", "//127.0.0.1:")

    def connect(self) -> regrow.Client:
        """Return a client for this daemon."""
        return regrow.connect(self.endpoint, connect_timeout=CONNECT_TIMEOUT_S)

    def token(self, explicit: str | None, variable: str = "REGROW_READ_TOKEN") -> str | None:
        """Return the HTTP token to use: the one given, the environment's, or the daemon's own from its state folder."""
        found = explicit or os.environ.get(variable)
        if found is None and self.state_dir is not None:
            try:
                found = (self.state_dir / TOKEN_FILE).read_text().strip()
            except OSError:
                found = None
        return found or None


def _plain(text: Any) -> str:
    if "${" in str(text):
        raise ValueError("a variable")
    return str(text)


def _guarded(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Turn the typed errors of a command into words on stderr and an exit status."""

    def run(options: argparse.Namespace) -> int:
        try:
            return command(options)
        except values.BadArguments as error:
            print(f"regrow: {error}", file=sys.stderr)
            return EX_USAGE
        except RegrowError as error:
            _print_error(error, options.json)
            gone = isinstance(error, ConnectionFailed) and error.actor is None and error.details.get("endpoint")
            return EX_UNREACHABLE if gone else EX_FAILED

    return run


def _print_error(error: RegrowError, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode({"error": error.to_wire()}).decode())
        return
    print(f"regrow: {error.code}: {error}", file=sys.stderr)
    facts = [f"started: {error.started}"]
    if error.retry_after_s is not None:
        facts.append(f"try again in {error.retry_after_s:.3g} s")
    if error.crash_id:
        facts.append(f"crash {error.crash_id}")
    print(f"  {', '.join(facts)}", file=sys.stderr)
    trace = error.details.get("traceback")
    if isinstance(trace, str):
        print("  " + trace.rstrip().replace("\n", "\n  "), file=sys.stderr)


def _print_value(value: Any, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(value, enc_hook=str).decode())
    elif isinstance(value, str):
        print(value)
    elif isinstance(value, bytes):
        sys.stdout.buffer.write(value)
    else:
        print(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode())


def _split(target: str) -> tuple[str, str]:
    name, dot, method = target.rpartition(".")
    if not dot or not name or not method:
        raise values.BadArguments(f"{target!r} is not TARGET.METHOD, such as greeter.greet")
    return name, method


def _arguments(client: regrow.Client, name: str, method: str, words: list[str]) -> dict[str, Any]:
    """Type the arguments by the method's schema; the daemon is asked for it only when there is something to type."""
    properties: Mapping[str, Any] | None = None
    if any(not word.lstrip().startswith("{") for word in words):
        for found in client.describe(name)["actors"][0]["methods"]:
            if found["name"] == method:
                properties = found["arguments"].get("properties", {})
    return values.parse(words, properties)


@_guarded
def do_ask(options: argparse.Namespace) -> int:
    """Call a method and print its answer."""
    name, method = _split(options.target)
    with Place(options).connect() as client:
        args = _arguments(client, name, method, options.arguments)
        value = client.ask(name, method, args, timeout=options.timeout, idem=options.idem)
    _print_value(value, options.json)
    return EX_OK


@_guarded
def do_tell(options: argparse.Namespace) -> int:
    """Send a message; the receipt says that it is in the mailbox."""
    name, method = _split(options.target)
    with Place(options).connect() as client:
        args = _arguments(client, name, method, options.arguments)
        client.tell(name, method, args, ack=True)
    return EX_OK


@_guarded
def do_stream(options: argparse.Namespace) -> int:
    """Print the parts of an answer, each as it comes; leaving early ends the stream in the daemon."""
    name, method = _split(options.target)
    with Place(options).connect() as client:
        args = _arguments(client, name, method, options.arguments)
        with client.stream(name, method, args, timeout=options.timeout) as parts:
            for part in parts:
                _print_value(part, options.json)
                sys.stdout.flush()
    return EX_OK


@_guarded
def do_events(options: argparse.Namespace) -> int:
    """Print what happens in the daemon, each event as it comes."""
    if options.since is not None and options.since < 0:
        raise values.BadArguments(f"--since {options.since} is not the number of an event")
    with (
        Place(options).connect() as client,
        client.subscribe(options.topics or ["*"], since=options.since) as heard,
    ):
        for number, event in enumerate(heard, start=1):
            if options.json:
                kind = "gap" if isinstance(event, regrow.Gap) else "event"
                print(msgspec.json.encode({"kind": kind, **msgspec.to_builtins(event)}).decode())
            else:
                print(_event_line(event))
            sys.stdout.flush()
            if number == options.count:
                break
    return EX_OK


def _event_line(event: regrow.Event | regrow.Gap) -> str:
    if isinstance(event, regrow.Gap):
        return f"-- {'some' if event.lost is None else f'up to {event.lost}'} events were lost here --"
    at = datetime.fromtimestamp(event.at).astimezone()
    facts = " ".join(f"{key}={_short(value)}" for key, value in event.fields.items() if key != "traceback")
    return f"{at:%H:%M:%S}.{at.microsecond // 1000:03} {event.seq:>6} {event.topic}  {facts}".rstrip()


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    text = " ".join(text.split())
    if len(text) > MAX_FACT_CHARS:
        text = f"{text[:MAX_FACT_CHARS]}..."
    return f'"{text}"' if " " in text or not text else text


@_guarded
def do_describe(options: argparse.Namespace) -> int:
    """List actors, their methods and arguments."""
    with Place(options).connect() as client:
        found = client.describe(options.target)
    if options.json:
        _print_value(found, True)
        return EX_OK
    for actor in found["actors"]:
        print(f"{actor['name']}  {actor.get('state', '')}".rstrip())
        for method in actor["methods"]:
            schema = method["arguments"]
            required = schema.get("required", [])
            keys = [key if key in required else f"[{key}]" for key in schema.get("properties", {})]
            first = method["doc"].strip().partition("\n")[0]
            print(f"  {method['name']}({', '.join(keys)})  {first}".rstrip())
    return EX_OK


@_guarded
def do_ping(options: argparse.Namespace) -> int:
    """Tell whether the daemon answers, and how late its hub is."""
    with Place(options).connect() as client:
        _print_value(dict(client.ping()), options.json)
    return EX_OK


@_guarded
def do_tree(options: argparse.Namespace) -> int:
    """Show the supervision tree, which the daemon serves over HTTP."""
    from regrow.render import render_tree

    tree = _reader(options)("/tree")
    if options.json:
        print(json.dumps(tree))
    else:
        print(render_tree(tree, colour=_colour(), collapse=not options.all))
    return EX_OK


@_guarded
def do_why(options: argparse.Namespace) -> int:
    """Show an actor as it stands, and the crashes of it and of everything below it that the daemon remembers."""
    from regrow.render import render_crash, render_tree

    read = _reader(options)
    if CRASH_ID.fullmatch(options.target):
        report = read(f"/crashes/{options.target}")
        print(json.dumps(report) if options.json else render_crash(report))
        return EX_OK
    node = _find(read("/tree"), options.target)
    crashes = read(f"/crashes?{urllib.parse.urlencode({'actor': options.target})}")["crashes"]
    if node is None and not crashes:
        raise NotFound(f"there is no actor {options.target!r} and none of its crashes is remembered, see `regrow tree`")
    last = read(f"/crashes/{crashes[0]['crash_id']}") if crashes else None
    if options.json:
        print(json.dumps({"actor": node, "last_crash": last, "crashes": crashes}))
        return EX_OK
    if node is not None:
        print(render_tree(node, colour=_colour(), collapse=True))
    print()
    print("no crash of it is remembered" if last is None else render_crash(last))
    for earlier in crashes[1:]:
        print(render_crash(earlier))
    return EX_OK


@_guarded
def do_circuit(options: argparse.Namespace) -> int:
    """Show an integration's circuit and how its calls went; or open, close, disable or reset it by hand."""
    name = urllib.parse.quote(options.target, safe="")
    if options.action is None:
        from regrow.render import render_health

        health = _reader(options)(f"/integrations/{name}/health")
        if options.json:
            _print_value(health, True)
        else:
            print(render_health(health))
        return EX_OK
    body = {} if options.for_s is None else {"for_s": options.for_s}
    found = _admin(options)(f"/integrations/{name}/circuit/{options.action}", body)
    if options.json:
        _print_value(found, True)
    else:
        disabled = f", disabled for {found['disabled_s']:g} s" if "disabled_s" in found else ""
        print(f"{found['name']}: {found['before']} -> {found['circuit_state']}{disabled}")
    return EX_OK


@_guarded
def do_inspect(options: argparse.Namespace) -> int:
    """Show an actor's own state, as far as its class declares it inspectable."""
    found = _admin(options)(f"/sys/state/{urllib.parse.quote(options.target)}")
    if options.json:
        _print_value(found, True)
    else:
        for key, value in found.items():
            print(f"{key} = {value}")
        if not found:
            print(f"{options.target} declares nothing inspectable, `regrow tree --json` shows what it tells of itself")
    return EX_OK


def _find(root: Mapping[str, Any], wanted: str) -> Mapping[str, Any] | None:
    """Return an actor's node; of a configured entry the supervisor, which stands above all of its parts."""
    todo = [root]
    while todo:
        node = todo.pop(0)
        if wanted in (node["name"], node["path"]):
            return node
        todo += node["children"]
    return None


def _reader(options: argparse.Namespace) -> Callable[[str], Any]:
    """Return what reads a path of the daemon's HTTP edge as JSON; the daemon itself tells where that is."""
    place = Place(options)
    base = _http_base(place)
    token = place.token(options.token)
    return lambda path: _http_json(base + path, token)


def _admin(options: argparse.Namespace) -> Callable[..., Any]:
    """Return what calls a path of the daemon's HTTP edge with the admin right: `(path, body)` posts, `(path)` reads."""
    place = Place(options)
    base = _http_base(place)
    token = place.token(options.token, "REGROW_ADMIN_TOKEN")
    return lambda path, body=None: _http_json(base + path, token, body)


def _http_base(place: Place) -> str:
    with place.connect() as client:
        base = client.welcome().http
    if base is None:
        raise ConnectionFailed("the daemon serves no HTTP, which this command needs")
    return reachable(base, place.endpoint)


def reachable(base: str, endpoint: str | None) -> str:
    """Return the HTTP address of a daemon as seen from here, where the daemon only knows where it listens.

    Raises `ConnectionFailed` when that is its own machine alone and we are on another one. Never switches.
    """
    host = urllib.parse.urlsplit(base).hostname or ""
    found = ENDPOINT.fullmatch(endpoint or "")
    other = found["host"] if found is not None else None
    if f"[{host}]" in ANY_HOST or host in ANY_HOST:
        return base.replace("[::]" if host == "::" else host, other or "127.0.0.1", 1)
    if host in LOOPBACK and other is not None and other.strip("[]") not in LOOPBACK:
        raise ConnectionFailed(
            f"the daemon at {endpoint} serves HTTP to its own machine alone ({base}), ask there or set http.bind"
        )
    return base


def _colour() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def _http_json(url: str, token: str | None, body: Any = None) -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method="GET" if body is None else "POST")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=HTTP_TIMEOUT_S) as answer:
            return json.loads(answer.read(MAX_TREE_BYTES))
    except urllib.error.HTTPError as error:
        try:
            raise error_from_wire(json.loads(error.read(65536))) from None
        except (ValueError, AttributeError):
            raise ConnectionFailed(f"{url} answered {error.code}") from None
    except (OSError, ValueError) as error:
        raise ConnectionFailed(f"{url} cannot be read: {error}", started="no", details={"endpoint": url}) from None
