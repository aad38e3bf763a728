"""Every kind of mistake: one error each, with its line, key, what was found and what was expected."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from config.errors import ConfigErrors
from tests.config.conftest import Loads, Refuses

SERVICE = '[integrations.api]\ntype = "service"\nbase_url = "http://localhost"\n'
ACTOR = '[actors.a]\nclass = "my_actors:Plain"\n'
KEYED = '[actors.a]\nclass = "my_actors:Keyed"\ninstances = 2\n'
PLAIN = {
    "my_actors.py": "class Plain:\n    pass\n\n\nclass Keyed:\n    def add(self, customer, amount):\n        pass\n"
}
API = "integrations.api"
NO_LIMIT = "configuration has no waits without limit: write a long duration"
DURATION = 'a duration above zero such as "100ms", "30s", "5m", "1h30m" or "7d"'

# (text before the mistake, the line of the mistake, what its error says)
MISTAKES: list[tuple[str, str, dict[str, Any]]] = [
    # unknown keys
    ("[daemon]\n", 'nme = "x"', {"key": "daemon.nme", "kind": "unknown_key", "nearest": "name"}),
    ("[http]\n", "port = 80", {"key": "http.port", "expected": "one of bind, read_token, admin_token"}),
    (SERVICE, "retries = 5", {"key": "integrations.api.retries", "hint": "it belongs into retry = { retries = ... }"}),
    (SERVICE, "retry = { base = '1s', maximum = '2s' }", {"key": "integrations.api.retry.maximum", "nearest": "max"}),
    (SERVICE, "fallback = { defalt = 1, default = 2 }", {"key": f"{API}.fallback.defalt", "nearest": "default"}),
    ("", "[gatway]", {"key": "gatway", "kind": "unknown_key", "nearest": "gateway"}),
    ("", 'api = { type = "service" }', {"key": "api", "hint": "an integration is written [integrations.api]"}),
    ("", 'a = { class = "x:Y" }', {"key": "a", "hint": "an actor is written [actors.a]"}),
    # keys of later versions
    ("[daemon]\n", 'store = "x"', {"key": "daemon.store", "kind": "later"}),
    (ACTOR, 'store = "x"', {"key": "actors.a.store", "kind": "later"}),
    ("", "[jobs]", {"key": "jobs", "kind": "later"}),
    # wrong types and values
    ("[daemon]\n", "name = 5", {"key": "daemon.name", "found": "5 (a number)", "hint": "write it in quotes"}),
    ("[daemon]\n", 'name = "My Daemon"', {"key": "daemon.name", "found": '"My Daemon" (a text)'}),
    ("[daemon]\n", 'path = "."', {"key": "daemon.path", "hint": "put it into a list: [...]"}),
    ("[daemon]\n", "path = [1]", {"key": "daemon.path[0]", "found": "1 (a number)"}),
    ("[daemon]\n", "state_dir = ''", {"key": "daemon.state_dir"}),
    ("[daemon]\n", 'max_deadline = "5 minutes"', {"found": '"5 minutes" (a text)', "expected": DURATION}),
    ("[daemon]\n", "max_deadline = 30", {"hint": 'a number without a unit is no duration: write "30s" or "30ms"'}),
    ("[daemon]\n", 'max_deadline = "infinity"', {"hint": NO_LIMIT}),
    ("[daemon]\n", 'max_deadline = "0s"', {"hint": "must be longer than zero"}),
    ("[daemon]\n", "drain_timeout = inf", {"key": "daemon.drain_timeout", "found": "inf (a number)"}),
    ("[daemon]\n", 'redis = "localhost:6379"', {"key": "daemon.redis", "kind": "rule"}),
    ("", "daemon = 5", {"key": "daemon", "found": "a number, not shown"}),
    ("", "http = ['x']", {"key": "http", "found": "a list of 1 item"}),
    ("[gateway]\n", 'max_clients = "10"', {"hint": "write it without quotes: 10"}),
    ("[gateway]\n", "max_clients = 0", {"found": "0 (a number)", "expected": "a whole number from 1 to 1000000"}),
    ("[gateway]\n", "max_clients = 1.5", {"found": "1.5 (a number)"}),
    ("[gateway]\n", "max_clients = true", {"found": "true (a boolean)"}),
    ("[gateway]\n", "max_clients = 2024-01-01", {"found": "2024-01-01 (a date or time)"}),
    ("[gateway]\n", 'max_message = "8mib"', {"hint": 'write "8MiB"'}),
    ("[gateway]\n", 'max_message = "1KB"', {"key": "gateway.max_message", "kind": "rule"}),
    ("[gateway]\n", 'allow_insecure_bind = "yes"', {"expected": "true or false"}),
    ("[gateway]\n", 'bind = ["127.0.0.1:5757"]', {"key": "gateway.bind[0]"}),
    ("[gateway]\n", 'bind = ["tcp://127.0.0.1:1", "tcp://127.0.0.1:1"]', {"key": "gateway.bind[1]", "kind": "rule"}),
    ("[http]\n", 'bind = "5758"', {"key": "http.bind"}),
    (SERVICE, "ratio = 2", {"expected": "a number from 0.0 to 1.0"}),
    (SERVICE, "ratio = nan", {"hint": "configuration has no infinity and no nan"}),
    (SERVICE, 'enabled = "true"', {"hint": "write it without quotes: true"}),
    (SERVICE, 'fallback = "cach"', {"expected": '"cache", or a table with the key default', "nearest": '"cache"'}),
    (SERVICE, "fallback = 5", {"expected": '"cache", or a table with the key default', "found": "5 (a number)"}),
    (SERVICE, "fallback = {}", {"key": "integrations.api.fallback.default", "kind": "missing_key"}),
    (SERVICE, "headers = { a = 1 }", {"key": "integrations.api.headers.a", "hint": "write it in quotes"}),
    (SERVICE, "tags = ['a', 'b', 'c', 'd']", {"problem": "4 items, at most 3 are allowed"}),
    (SERVICE, "retry = { base = '2s', max = '1s' }", {"key": "integrations.api.retry.max", "kind": "rule"}),
    (SERVICE, "operations.get = { cache = '1s' }", {"key": f"{API}.operations.get.request", "kind": "missing_key"}),
    (SERVICE, "operations.get = 'GET /'", {"expected": "a table with the keys request, cache"}),
    (SERVICE, "store = 'mysql://localhost'", {"key": "integrations.api.store"}),
    (ACTOR, "instances = 0", {"key": "actors.a.instances", "expected": "a whole number from 1 to 256"}),
    (ACTOR, 'key = "x"', {"problem": "key = 'x' chooses among instances, but there is one: say instances = 2"}),
    (KEYED, 'key = "custmer"', {"key": "actors.a.key", "nearest": "customer", "expected": "the name of an argument"}),
    (ACTOR, 'restart = "always"', {"expected": 'one of "permanent", "transient", "temporary"'}),
    (ACTOR, 'restart = "permanant"', {"nearest": '"permanent"'}),
    (ACTOR, 'shutdown = "infinity"', {"hint": NO_LIMIT}),
    (ACTOR, 'shutdown = "brutal-kill"', {"nearest": '"brutal_kill"'}),
    (ACTOR, "mailbox = 0", {"expected": "a whole number from 1 to 10000000"}),
    (ACTOR, "backoff = { base = '1m' }", {"key": "actors.a.backoff.max", "kind": "rule"}),
    (ACTOR, "backoff = { jitter = 1.5 }", {"key": "actors.a.backoff.jitter"}),
    (ACTOR, "on_give_up = 'stop'", {"expected": 'one of "park", "escalate"'}),
    # missing keys and variables
    ("", "[integrations.api]", {"key": "integrations.api.type", "kind": "missing_key", "expected": 'one of "service"'}),
    ('', "integrations.api = { type = 'service' }", {"key": "integrations.api.base_url", "kind": "missing_key"}),
    ("", "[actors.a]", {"key": "actors.a.class", "expected": '"package.module:Class"'}),
    (SERVICE, 'tags = ["${ABSENT}"]', {"key": "integrations.api.tags[0]", "kind": "variable", "found": "${ABSENT}"}),
    (SERVICE, 'tags = ["${EMPTY}"]', {"problem": "variable EMPTY is empty"}),
    (SERVICE, 'tags = ["${a b}"]', {"kind": "substitution"}),
    (SERVICE, 'tags = "${WORD}"', {"hint": 'a variable gives one text: put it into the list, ["${NAME}"]'}),
    (SERVICE, 'workers = "${WORD}"', {"found": '"${WORD}", whose value is not shown'}),
    (SERVICE, 'workers = "${BIG}"', {"expected": "a whole number from 1 to 64"}),
    ("", "integrations.api = { type = '${ABSENT}', base_url = 'x' }", {"kind": "variable"}),
    ("", "actors.a = { class = '${ABSENT}' }", {"kind": "variable"}),
    ("", "actors = '${ABSENT}'", {"kind": "variable"}),
    # names
    ("", "[actors.Greeter]\nclass = 'my_actors:Plain'", {"key": "actors.Greeter", "nearest": "greeter"}),
    ("", "[actors.'my app']\nclass = 'my_actors:Plain'", {"key": 'actors."my app"', "nearest": "my_app"}),
    ("", "[actors.1st]\nclass = 'my_actors:Plain'", {"nearest": "st"}),
    ("", f"[actors.{'a' * 65}]\nclass = 'my_actors:Plain'", {"kind": "name"}),
    ("", "[actors.store]\nclass = 'my_actors:Plain'", {"problem": "this name is reserved for a part of the daemon"}),
    ("", "[integrations.gateway]\ntype = 'service'\nbase_url = 'x'", {"key": "integrations.gateway", "kind": "name"}),
    (ACTOR, "[integrations.a]\ntype = 'service'\nbase_url = 'x'", {"key": "integrations.a", "kind": "name_twice"}),
    ("", "actors = 5", {"expected": "tables [actors.NAME]"}),
    ("", "actors.a = 5", {"expected": "a table [actors.a]"}),
    ("", "integrations.a = 'x'", {"expected": "a table [integrations.a]"}),
    # integrations
    ("", "integrations.api = { type = 'servce' }", {"kind": "unknown_type", "nearest": '"service"'}),
    ("", "integrations.api = { type = 5 }", {"kind": "unknown_type", "found": "5 (a number)"}),
    # listening to other machines
    ("[http]\n", "bind = '0.0.0.0:5758'", {"key": "http.bind", "kind": "rule"}),
    ("[http]\nbind = 'example.org:80'\n", "admin_token = 'x'", {"key": "http.bind", "line": 2}),
    ("[http]\nread_token = 'same-token'\n", "admin_token = 'same-token'", {"key": "http.admin_token", "kind": "rule"}),
    ("[http]\n", "read_token = ''", {"key": "http.read_token", "kind": "rule"}),
    ("[http]\n", "read_token = 'a b'", {"key": "http.read_token", "kind": "rule"}),
    ("[gateway]\n", "bind = ['tcp://127.0.0.1:1', 'tcp://*:2']", {"key": "gateway.bind[1]", "kind": "rule"}),
    # files and folders
    ("[daemon]\n", "path = ['absent']", {"key": "daemon.path[0]", "kind": "missing_file"}),
    ("", "gateway.curve = { secret_key_file = 'absent' }", {"kind": "missing_file"}),
    ("", "gateway.curve = {}", {"key": "gateway.curve.secret_key_file", "kind": "missing_key"}),
    # classes
    ("[actors.a]\n", "class = 'my_actors.Plain'", {"expected": '"package.module:Class"'}),
    ("[actors.a]\n", "class = 'absent_module:Plain'", {"key": "actors.a.class", "kind": "import"}),
    ("[actors.a]\n", "class = 'my_actors:Plan'", {"key": "actors.a.class", "kind": "class", "nearest": "Plain"}),
    (ACTOR, "args = { x = 1 }", {"key": "actors.a.args.x", "kind": "unknown_key", "expected": "no key at all"}),
]  # fmt: skip


@pytest.mark.parametrize(("before", "mistake", "says"), MISTAKES, ids=[mistake for _, mistake, _ in MISTAKES])
def test_each_mistake_is_one_error_that_says(refuses: Refuses, before: str, mistake: str, says: dict[str, Any]) -> None:
    errors = refuses(before + mistake, {"EMPTY": "", "WORD": "word", "BIG": "65"}, files=PLAIN)
    assert len(errors) == 1, "\n".join(error.render() for error in errors)
    said = msgspec.to_builtins(errors[0])
    assert said["line"] == says.get("line", before.count("\n") + 1)
    assert said["file"].endswith("/regrow.toml")
    assert {key: said.get(key) for key in says} == says


def test_all_mistakes_of_a_file_are_reported_at_once_in_its_order(refuses: Refuses) -> None:
    text = """
[daemon]
nme = "x"
max_deadline = 5
[actors.a]
class = "absent_module:Plain"
restart = "always"
[actors.b]
class = "my_actors:Plan"
[integrations.a]
type = "service"
base_url = "${ABSENT}"
workers = "two"
retry = { retries = 99, base = "x" }
[integrations.c]
type = "servce"
[nothing]
"""
    errors = refuses(text, files=PLAIN)
    assert [(error.line, error.key) for error in errors] == [
        (3, "daemon.nme"),
        (4, "daemon.max_deadline"),
        (6, "actors.a.class"),
        (7, "actors.a.restart"),
        (9, "actors.b.class"),
        (10, "integrations.a"),
        (12, "integrations.a.base_url"),
        (13, "integrations.a.workers"),
        (14, "integrations.a.retry.retries"),
        (14, "integrations.a.retry.base"),
        (16, "integrations.c.type"),
        (17, "nothing"),
    ]


def test_the_text_for_people_has_a_block_for_each_error(loads: Loads) -> None:
    with pytest.raises(ConfigErrors) as caught:
        loads('[daemon]\nnme = "x"\nmax_deadline = 5')
    text = re.sub(r"/\S+/regrow", "regrow", caught.value.render())
    assert text == (
        "regrow.toml:2: daemon.nme: there is no such key\n"
        "  found:    nme\n"
        "  expected: one of name, state_dir, path, drain_timeout, stop_timeout, max_deadline, redis\n"
        "  nearest:  name\n"
        "\n"
        "regrow.toml:3: daemon.max_deadline: this value does not fit\n"
        "  found:    5 (a number)\n"
        f"  expected: {DURATION}\n"
        '  hint:     a number without a unit is no duration: write "5s" or "5ms"\n'
        "\n"
        "2 configuration problems, nothing was started"
    )
    assert str(caught.value) == caught.value.render()


def test_the_json_has_an_object_for_each_error(loads: Loads) -> None:
    with pytest.raises(ConfigErrors) as caught:
        loads('[daemon]\nnme = "x"')
    [error] = caught.value.to_json()
    assert error.pop("file", None)
    assert error == {
        "line": 2,
        "key": "daemon.nme",
        "kind": "unknown_key",
        "problem": "there is no such key",
        "found": "nme",
        "expected": "one of name, state_dir, path, drain_timeout, stop_timeout, max_deadline, redis",
        "nearest": "name",
    }


def test_a_long_value_is_cut(refuses: Refuses) -> None:
    [error] = refuses('[daemon]\nmax_deadline = "' + "x" * 500 + '"')
    assert error.found is not None
    assert len(error.found) < 80


@pytest.mark.parametrize(
    "text",
    [
        "[http]\nbind = '0.0.0.0:5758'\nread_token = 'read-token'",
        "[http]\nbind = '0.0.0.0:5758'\nread_token = 'read-token'\nadmin_token = 'admin-token'",
        "[gateway]\nbind = ['tcp://*:5757']\nallow_insecure_bind = true",
        "[gateway]\nbind = ['tcp://*:5757']\n[gateway.curve]\nsecret_key_file = 'server.key'",
        "[gateway]\nbind = []",
        "[gateway]\nbind = ['tcp://127.0.0.1:0', 'tcp://127.0.0.1:0']",
        "[http]\nbind = '[::1]:0'",
    ],
)
def test_listening_with_the_needed_protection_is_no_mistake(loads: Loads, text: str) -> None:
    loads(text, files={"server.key": ""})


class TestCurve:
    KEY = ">l1]F6tSxKzsdlpLS<TNk(NLceziNm0e:M)VY]zm"
    TEXT = "[gateway.curve]\nsecret_key_file = 'server.key'\n"

    def client(self, name: str, key: str, allow: str = "[]") -> str:
        return f"[[gateway.curve.clients]]\nname = '{name}'\npublic_key = '{key}'\nallow = {allow}\n"

    def test_clients_are_read(self, loads: Loads) -> None:
        text = self.TEXT + self.client("billing", self.KEY, "['github.*', 'ml.call', 'db', '*']")
        curve = loads(text, files={"server.key": ""}).gateway.curve
        assert curve is not None
        assert curve.clients[0].allow == ["github.*", "ml.call", "db", "*"]

    def test_without_a_list_nothing_is_allowed(self, loads: Loads) -> None:
        text = self.TEXT + f"[[gateway.curve.clients]]\nname = 'a'\npublic_key = '{self.KEY}'"
        curve = loads(text, files={"server.key": ""}).gateway.curve
        assert curve is not None
        assert curve.clients[0].allow == []

    @pytest.mark.parametrize(
        ("second", "key"),
        [
            (("billing", "x" * 40), "clients[1].name"),
            (("other", KEY), "clients[1].public_key"),
            (("other", "x" * 39), "clients[1].public_key"),
            (("other", "x" * 39 + "_"), "clients[1].public_key"),
            (("Other", "x" * 40), "clients[1].name"),
            (("other", "x" * 40, "['*.x']"), "clients[1].allow[0]"),
            (("other", "x" * 40, "['github.get user']"), "clients[1].allow[0]"),
            (("other", "x" * 40, "'github.*'"), "clients[1].allow"),
        ],
    )
    def test_a_wrong_client_is_one_error(self, refuses: Refuses, second: tuple[str, ...], key: str) -> None:
        errors = refuses(self.TEXT + self.client("billing", self.KEY) + self.client(*second), files={"server.key": ""})
        assert [error.key for error in errors] == [f"gateway.curve.{key}"]
