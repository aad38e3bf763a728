"""The commands that talk to a daemon, each as a process of its own against one that runs."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator

import pytest

from regrow.cli.remote import reachable
from regrow.protocol.errors import ConnectionFailed
from tests.support.daemon import Daemon
from tests.support.ports import free_port

CONFIG = """
[daemon]
path = ["."]
[http]
read_token = "${CLI_READ_TOKEN}"
[actors.greeter]
class = "greeting:Greeter"
[integrations.shop]
type = "rest"
base_url = "http://127.0.0.1:1"
[integrations.shop.operations.list]
request = "GET /"
"""
FILES = {
    "greeting.py": '''
from regrow import Actor, exported


class Greeter(Actor):
    inspectable = ("greeted",)

    def __init__(self) -> None:
        super().__init__()
        self.greeted = 7
        self.hidden = "not shown"

    @exported
    def greet(self, name: str, times: int = 1) -> str:
        """Greets somebody."""
        return " ".join([f"Hello, {name}!"] * times)

    @exported
    def sums(self, numbers: list[int]) -> dict[str, int]:
        return {"sum": sum(numbers)}

    @exported
    def crash(self) -> None:
        raise RuntimeError("on purpose")
''',
}
TOKEN = "read-token-of-the-command-line-test"


@pytest.fixture(scope="module")
def served() -> Iterator[Daemon]:
    made = Daemon(CONFIG, files=FILES, env={"CLI_READ_TOKEN": TOKEN})
    try:
        made.start()
        yield made
    finally:
        made.close()


def run(served: Daemon, *arguments: str) -> tuple[int, str, str]:
    done: subprocess.CompletedProcess[str] = served.run(*arguments)
    return done.returncode, done.stdout, done.stderr


def test_ask_prints_the_answer(served: Daemon) -> None:
    assert run(served, "ask", "greeter.greet", "name=Ada", "times=2") == (0, "Hello, Ada! Hello, Ada!\n", "")
    assert run(served, "ask", "greeter.greet", '{"name": "Ada"}') == (0, "Hello, Ada!\n", "")


def test_values_are_typed_by_the_methods_schema(served: Daemon) -> None:
    assert run(served, "ask", "greeter.greet", "name=5")[1] == "Hello, 5!\n"
    assert json.loads(run(served, "ask", "greeter.sums", "numbers=[1, 2]")[1]) == {"sum": 3}


def test_json_is_one_line(served: Daemon) -> None:
    assert run(served, "ask", "--json", "greeter.sums", "numbers=[1, 2]") == (0, '{"sum":3}\n', "")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("ask", "greeter"), 2, "TARGET.METHOD"),
        (("ask", "greeter.greet", "Ada"), 2, "neither a JSON object nor key=value"),
        (("ask", "greeter.greet", "name=Ada", "times=x"), 2, "times takes integer"),
        (("ask", "greeter.greet"), 1, "invalid_arguments: greet: missing required field 'name'"),
        (("ask", "greeter.gret", "name=Ada"), 1, "not_found"),
        (("ask", "gretter.greet", "name=Ada"), 1, "not_found"),
        (("describe", "nobody"), 1, "not_found"),
        (("why", "nobody"), 1, "see `regrow tree`"),
        (("why", "c123-4"), 1, "no crash 'c123-4' is remembered"),
        (("ping", "--endpoint", "nonsense"), 2, "'nonsense' is no endpoint"),
        (("tree", "--config", "nowhere.toml"), 2, "there is no file nowhere.toml"),
        (("tree", "--token", "wrong"), 1, "unauthorized"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_fails_is_said_on_stderr_with_its_status(
    served: Daemon, arguments: tuple[str, ...], status: int, says: str
) -> None:
    found, out, err = run(served, *arguments)
    assert (found, out) == (status, "")
    assert says in err


def test_an_error_as_json_goes_to_stdout(served: Daemon) -> None:
    status, out, err = run(served, "ask", "--json", "greeter.nope")
    assert (status, err) == (1, "")
    assert json.loads(out)["error"]["code"] == "not_found"


def test_tell_returns_when_the_message_is_in_the_mailbox(served: Daemon) -> None:
    assert run(served, "tell", "greeter.greet", "name=Ada") == (0, "", "")
    assert run(served, "tell", "greeter.nope")[0] == 1


def test_describe_lists_methods_with_their_arguments(served: Daemon) -> None:
    status, out, _ = run(served, "describe", "greeter")
    assert status == 0
    assert "  greet(name, [times])  Greets somebody." in out.splitlines()
    actors = json.loads(run(served, "describe", "--json")[1])["actors"]
    assert {actor["name"] for actor in actors} == {"greeter", "shop"}


def test_ping_tells_the_incarnation(served: Daemon) -> None:
    assert json.loads(run(served, "ping", "--json")[1])["incarnation"]


def test_the_tree_is_read_with_the_token_of_the_daemons_own_folder(served: Daemon) -> None:
    assert served.get("/tree").status_code == 401
    status, out, _ = run(served, "tree")
    assert status == 0
    assert out.splitlines()[0].split() == ["root", "(one_for_one)", "running"]
    assert json.loads(run(served, "tree", "--json", "--token", TOKEN)[1])["path"] == "root"
    assert TOKEN not in out


def test_why_shows_the_actor_and_its_crash(served: Daemon) -> None:
    status, _, err = run(served, "ask", "greeter.crash")
    assert status == 1
    crash = err.split("`regrow why ")[1].partition("`")[0]
    status, out, _ = run(served, "why", crash)
    assert status == 0
    assert f"crash {crash} of greeter (Greeter, incarnation" in out
    assert "while it handled: call crash()" in out
    assert 'raise RuntimeError("on purpose")' in out
    status, out, _ = run(served, "why", "greeter")
    assert (status, f"crash {crash} of" in out) == (0, True)
    shown = json.loads(run(served, "why", "--json", "greeter")[1])
    assert shown["last_crash"]["crash_id"] == crash


def test_crashes_are_listed_without_their_tracebacks_to_readers_only(served: Daemon) -> None:
    assert served.get("/crashes").status_code == 401
    headers = {"Authorization": f"Bearer {TOKEN}"}
    run(served, "ask", "greeter.crash")
    listed = served.get("/crashes?actor=greeter", headers=headers).json()
    assert listed["crashes"][0]["actor"] == "greeter"
    assert "traceback" not in listed["crashes"][0]
    assert served.get("/crashes?actor=gree", headers=headers).json()["crashes"] == []
    assert served.get("/crashes/c0-0", headers=headers).status_code == 404


def test_a_daemon_that_is_not_there_is_69_soon(served: Daemon) -> None:
    began = time.monotonic()
    status, out, err = run(served, "ask", "greeter.greet", "name=Ada", "--endpoint", f"tcp://127.0.0.1:{free_port()}")
    assert (status, out) == (69, "")
    assert "is it running there" in err
    assert time.monotonic() - began < 8.0


def test_where_a_daemon_serves_http_is_seen_from_here() -> None:
    here = "http://127.0.0.1:5758"
    assert reachable(here, "tcp://127.0.0.1:5757") == here
    assert reachable(here, "ipc:///var/gateway.sock") == here
    assert reachable(here, None) == here
    assert reachable("http://0.0.0.0:5758", "tcp://10.0.0.5:5757") == "http://10.0.0.5:5758"
    assert reachable("http://0.0.0.0:5758", "ipc:///var/gateway.sock") == here
    assert reachable("http://[::]:5758", "tcp://[fe80::1]:5757") == "http://[fe80::1]:5758"
    assert reachable("http://10.0.0.5:5758", "tcp://10.0.0.5:5757") == "http://10.0.0.5:5758"
    with pytest.raises(ConnectionFailed, match=r"set http\.bind"):
        reachable(here, "tcp://10.0.0.5:5757")


def test_a_circuit_is_turned_by_hand_with_the_daemons_own_admin_token(served: Daemon) -> None:
    assert run(served, "circuit", "shop", "open", "--for", "60") == (0, "shop: closed -> open\n", "")
    status, _, said = run(served, "ask", "shop.list")
    assert status == 1
    assert said.startswith("regrow: circuit_open: ")
    status, out, _ = run(served, "circuit", "shop", "reset", "--json")
    assert (status, json.loads(out)["circuit_state"]) == (0, "closed")
    status, out, _ = run(served, "circuit", "shop", "disable", "--for", "5m")
    assert re.fullmatch(r"shop: closed -> closed, disabled for (300|299\.\d+) s\n", out), out
    assert run(served, "circuit", "shop", "close")[1] == "shop: closed -> closed\n"
    assert run(served, "circuit", "shop", "open", "--for", "a while")[0] == 2


def test_a_circuit_is_shown_with_how_the_calls_went(served: Daemon) -> None:
    status, out, _ = run(served, "circuit", "shop")
    assert status == 0
    assert out.startswith("shop: closed\n  failures    0 of 5 in 60 s\n  calls       ")
    assert run(served, "circuit", "shop", "open", "--for", "60")[0] == 0
    assert re.match(r"shop: open, held by hand for (60\.0|59\.\d) s\n", run(served, "circuit", "shop")[1])
    status, out, _ = run(served, "circuit", "shop", "--json")
    shown = json.loads(out)
    assert (shown["circuit_state"], shown["circuit"]["held"]) == ("open", True)
    assert run(served, "circuit", "shop", "reset")[0] == 0


def test_a_circuit_that_is_not_there_is_told(served: Daemon) -> None:
    status, _, said = run(served, "circuit", "greeter", "reset")
    assert status == 1
    assert said.startswith("regrow: not_found: ")


def test_inspect_shows_what_the_class_declares_and_nothing_else(served: Daemon) -> None:
    assert run(served, "inspect", "greeter") == (0, "greeted = 7\n", "")
    status, out, _ = run(served, "inspect", "gateway")
    assert (status, out.partition(",")[0]) == (0, "gateway declares nothing inspectable")
