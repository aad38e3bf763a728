"""The README's integration is a whole one: one module and one entry of the registration bring everything else."""

from __future__ import annotations

import importlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gevent.server import StreamServer

from actors.integrations import INTEGRATIONS
from actors.seam import Integration
from config.errors import ConfigErrors
from config.json_schema import json_schema
from config.load import load
from config.reference import reference
from regrow.daemon import is_actor
from regrow.protocol.errors import ConnectionFailed
from regrow.tree import Tree
from runtime.introspect import snapshot
from runtime.messages import Call
from runtime.names import whereis
from tests.support.ports import free_port
from tests.tour.readme import blocks, section


@pytest.fixture
def integrations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Integration]]:
    """The registration with the README's integration in it."""
    text = next(block.text for block in blocks(section("How to add an integration")) if block.language == "py")
    (tmp_path / "whois_of_the_readme.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield {**INTEGRATIONS, "whois": importlib.import_module("whois_of_the_readme").INTEGRATION}
    del sys.modules["whois_of_the_readme"]


@pytest.fixture
def server() -> Iterator[StreamServer]:
    """A whois server that knows one name."""

    def answer(connection: socket.socket, _address: object) -> None:
        with connection, connection.makefile() as lines:
            connection.sendall(b"Ada Lovelace\r\n" if lines.readline() == "ada\n" else b"no match\r\n")

    made = StreamServer(("127.0.0.1", 0), answer)
    made.start()
    yield made
    made.stop()


def write(folder: Path, port: int | None, more: str = "") -> Path:
    file = folder / "regrow.toml"
    file.write_text(f'[integrations.names]\ntype = "whois"\nhost = "127.0.0.1"\nport = {port}\n{more}')
    return file


def test_it_answers_supervised_and_is_seen_in_the_tree(
    tmp_path: Path, integrations: dict[str, Integration], server: StreamServer
) -> None:
    tree = Tree(load(write(tmp_path, server.server_port), integrations, is_actor=is_actor, environ={}), integrations)
    root = tree.start([])
    try:
        front = whereis("names")
        assert front is not None
        assert front.ask(Call("lookup", {"name": "ada"})).strip() == "Ada Lovelace"
        front.kill()
        assert [node.path for node in snapshot(root).walk() if node.name == "names"] == [
            "root/integrations/names/front"
        ]
        entry = tree.directory.find("names")
        assert entry is not None
        assert entry.exports["lookup"].doc.startswith("What the server knows")
    finally:
        root.stop()


def test_its_failures_are_typed(tmp_path: Path, integrations: dict[str, Integration]) -> None:
    root = Tree(load(write(tmp_path, free_port()), integrations, is_actor=is_actor, environ={}), integrations).start([])
    try:
        front = whereis("names")
        assert front is not None
        with pytest.raises(ConnectionFailed, match=r"no answer from 127\.0\.0\.1"):
            front.ask(Call("lookup", {"name": "ada"}))
    finally:
        root.stop()


def test_its_keys_are_checked_and_documented(tmp_path: Path, integrations: dict[str, Integration]) -> None:
    with pytest.raises(ConfigErrors, match="hots"):
        load(write(tmp_path, 43, 'hots = "x"\n'), integrations, is_actor=is_actor, environ={})
    page = reference(json_schema(integrations))
    assert "| `host` | a text | required | The server's name. |" in page
