from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest

from config.errors import ConfigErrors
from config.load import MAX_FILE_BYTES, find, load, load_table
from config.schema import ActorEntry, Backoff, Duration, PositiveDuration, Size
from config.secret import Secret, redact
from tests.config.conftest import TYPES, Loads, Refuses, Retry, ServiceConfig

SERVICE = '[integrations.api]\ntype = "service"\nbase_url = "http://localhost"\n'
GREETER = {
    "my_actors.py": """
from config.schema import Duration
from config.secret import Secret

class Greeter:
    def __init__(
        self, greeting: str, times: int = 1, pause: Duration = Duration(0), token: Secret | None = None
    ) -> None:
        pass
"""
}


def test_an_empty_file_is_the_defaults(loads: Loads, tmp_path: Path) -> None:
    config = loads("")
    assert config.daemon.name == "regrow"
    assert config.daemon.state_dir == tmp_path / "var"
    assert config.daemon.path == [tmp_path]
    assert config.daemon.drain_timeout == 30.0
    assert config.gateway.bind == ["tcp://127.0.0.1:5757"]
    assert config.gateway.max_message == 8 << 20
    assert (config.gateway.max_clients, config.gateway.max_in_flight_per_client) == (1000, 1000)
    assert config.gateway.curve is None
    assert (config.http.bind.host, config.http.bind.port) == ("127.0.0.1", 5758)
    assert config.http.read_token is None
    assert not config.actors
    assert not config.integrations
    assert not config.classes


def test_an_actor_has_the_documented_defaults(loads: Loads) -> None:
    text = '[actors.greeter]\nclass = "my_actors:Greeter"\nargs = { greeting = "hello" }'
    assert loads(text, files=GREETER).actors["greeter"] == ActorEntry(
        class_="my_actors:Greeter",
        args={"greeting": "hello"},
        restart="permanent",
        shutdown=Duration("5s"),
        timeout=None,
        mailbox=None,
        max_restarts=3,
        max_seconds=PositiveDuration("5s"),
        backoff=Backoff(
            base=PositiveDuration("100ms"),
            max=PositiveDuration("30s"),
            jitter=0.25,
            reset_after=PositiveDuration("1m"),
        ),
        on_give_up="park",
    )


def test_values_are_converted_to_the_types_of_their_keys(loads: Loads, tmp_path: Path) -> None:
    config = loads(
        SERVICE
        + """
limit = "2KiB"
ratio = 1
retry = { base = "1s", retries = 0 }
fallback = { default = { items = [] } }
folders = ["a", "/b"]
store = "sqlite:///c.db"
auth = { bearer = "token-in-the-file" }
operations.get = { request = "GET /x", cache = "5m" }
"""
    ).integrations["api"]
    service = config.config
    assert config.type == "service"
    assert (service.limit, type(service.limit)) == (2048, Size)
    assert service.ratio == 1.0
    assert (service.retry.base, service.retry.retries) == (1.0, 0)
    assert service.fallback.default == {"items": []}
    assert service.folders == [tmp_path / "a", Path("/b")]
    assert service.store.reveal() == f"sqlite:///{tmp_path}/c.db"
    assert service.auth.bearer == Secret("token-in-the-file")
    assert service.operations["get"].cache == 300.0


def test_a_union_takes_each_of_its_forms(loads: Loads) -> None:
    assert loads(SERVICE + 'fallback = "cache"').integrations["api"].config.fallback == "cache"
    text = '[actors.a]\nclass = "my_actors:Greeter"\nargs.greeting = "x"\nshutdown = '
    assert loads(text + '"brutal_kill"', files=GREETER).actors["a"].shutdown == "brutal_kill"
    assert loads(text + '"250ms"', files=GREETER).actors["a"].shutdown == 0.25


def test_a_variable_is_coerced_to_the_type_of_its_key(loads: Loads) -> None:
    environ = {"N": "5", "R": "0.25", "E": "false", "D": "2s", "S": "4096", "KIND": "service", "CACHE": "cache"}
    text = """
[integrations.api]
type = "${KIND}"
base_url = "http://${N}"
workers = "${N}"
ratio = "${R}"
enabled = "${E}"
limit = "${S}"
retry = { base = "${D}" }
fallback = "${CACHE}"
tags = ["${N}"]
"""
    service = loads(text, environ).integrations["api"].config
    assert (service.workers, service.ratio, service.enabled, service.limit) == (5, 0.25, False, 4096)
    assert (service.base_url, service.retry.base, service.fallback, service.tags) == ("http://5", 2.0, "cache", ["5"])
    assert type(service.base_url) is str


def test_arguments_of_actors_are_coerced_to_their_annotations(loads: Loads) -> None:
    text = """
[actors.greeter]
class = "my_actors:Greeter"
args = { greeting = "${G}", times = "${N}", pause = "5s", token = "${T}" }
"""
    args = loads(text, {"G": "hi", "N": "3", "T": "token-of-args"}, files=GREETER).actors["greeter"].args
    assert args == {"greeting": "hi", "times": 3, "pause": 5.0, "token": Secret("token-of-args")}
    assert type(args["greeting"]) is str


def test_paths_start_from_the_folder_of_the_file_and_may_begin_at_home(
    loads: Loads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert loads('[daemon]\nstate_dir = "~/state"').daemon.state_dir == Path("/home/ada/state")
    assert loads('[daemon]\nstate_dir = "../state"').daemon.state_dir == tmp_path.resolve().parent / "state"


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "regrow.toml"
    file.write_bytes(b'\xef\xbb\xbf[daemon]\nname = "x"')
    assert load(file, TYPES).daemon.name == "x"


def test_loading_twice_gives_equal_tables(loads: Loads) -> None:
    assert loads(SERVICE).integrations == loads(SERVICE).integrations


def test_a_table_can_be_checked_by_itself(tmp_path: Path) -> None:
    service = load_table(ServiceConfig, {"base_url": "${U}", "folders": ["x"]}, tmp_path, environ={"U": "http://u"})
    assert (service.base_url, service.folders) == ("http://u", [tmp_path / "x"])
    with pytest.raises(ConfigErrors, match="nothing was started"):
        load_table(Retry, {"retries": 99}, tmp_path)


class TestSecrets:
    ENVIRON: ClassVar = {"TOKEN": "tk-from-the-environment", "PASSWORD": "pw-from-the-environment", "N": "7"}
    TEXT = """
[daemon]
redis = "redis://:${PASSWORD}@localhost/0"
[http]
admin_token = "admin-token-in-the-file"
[actors.greeter]
class = "my_actors:Greeter"
args = { greeting = "hello ${TOKEN}", times = "${N}" }
[integrations.api]
type = "service"
base_url = "http://localhost/${TOKEN}"
workers = "${N}"
headers = { "X-Token" = "${TOKEN}", "X-Default" = "${UNSET:-default-in-the-file}" }
auth = { bearer = "${TOKEN}" }
store = "postgresql://app:${PASSWORD}@db/app"
"""

    def test_a_dump_shows_no_value_of_a_variable_and_no_secret(self, loads: Loads) -> None:
        text = json.dumps(loads(self.TEXT, self.ENVIRON, files=GREETER).dump())
        assert "from-the-environment" not in text
        assert "in-the-file" not in text

    def test_a_dump_shows_the_reference_instead(self, loads: Loads) -> None:
        dump = loads(self.TEXT, self.ENVIRON, files=GREETER).dump()
        service = dump["integrations"]["api"]
        assert service["base_url"] == "http://localhost/${TOKEN}"
        assert service["workers"] == "${N}"
        assert service["headers"] == {"X-Token": "${TOKEN}", "X-Default": "${UNSET:-***}"}
        assert dump["actors"]["greeter"]["args"] == {"greeting": "hello ${TOKEN}", "times": "${N}"}
        assert dump["http"]["admin_token"] == "***"
        assert dump["daemon"]["redis"] == "redis://:${PASSWORD}@localhost/0"

    def test_a_dump_shows_everything_else_with_defaults(self, loads: Loads) -> None:
        dump = loads(self.TEXT, self.ENVIRON, files=GREETER).dump()
        assert dump["integrations"]["api"]["type"] == "service"
        assert dump["integrations"]["api"]["retry"] == {"retries": 3, "base": "100ms", "max": "10s"}
        assert dump["gateway"]["max_message"] == "8MiB"
        assert dump["actors"]["greeter"]["class"] == "my_actors:Greeter"

    def test_every_value_is_redacted_from_any_text(self, loads: Loads) -> None:
        loads(self.TEXT, self.ENVIRON, files=GREETER)
        text = "tk-from-the-environment pw-from-the-environment admin-token-in-the-file default-in-the-file 7"
        assert redact(text) == "*** *** *** *** 7"

    def test_the_password_of_a_literal_url_is_redacted_by_itself(self, loads: Loads) -> None:
        loads('[daemon]\nredis = "redis://:literal-password@localhost"')
        assert redact("AUTH literal-password failed") == "AUTH *** failed"

    def test_repr_shows_no_value_of_a_variable(self, loads: Loads) -> None:
        config = loads(self.TEXT, self.ENVIRON, files=GREETER)
        text = repr(config) + repr(config.integrations) + repr(config.actors) + repr(config.daemon)
        assert "from-the-environment" not in text

    def test_settings_that_are_no_texts_are_not_searched_for_in_texts(self, loads: Loads) -> None:
        environ = {"D": "1500ms", "S": "64KiB", "B": "127.0.0.1:15758", "P": "state-folder", "R": "permanent"}
        text = """
[daemon]
drain_timeout = "${D}"
state_dir = "${P}"
[gateway]
max_message = "${S}"
[http]
bind = "${B}"
"""
        config = loads(text, environ)
        assert redact("1500ms 64KiB 127.0.0.1:15758 state-folder") == "1500ms 64KiB 127.0.0.1:15758 state-folder"
        assert config.dump()["http"]["bind"] == "${B}"

    def test_errors_show_no_value_of_a_variable(self, refuses: Refuses) -> None:
        text = self.TEXT.replace('"${N}"', '"${TOKEN}"').replace('auth = { bearer = "${TOKEN}" }', 'auth = "${TOKEN}"')
        errors = refuses(text + 'ratio = "${PASSWORD}"\nheaders_ = "${TOKEN}"', self.ENVIRON, files=GREETER)
        assert len(errors) == 5
        assert "from-the-environment" not in "".join(error.render() for error in errors)

    def test_a_literal_where_a_secret_belongs_is_not_shown(self, refuses: Refuses) -> None:
        errors = refuses(SERVICE + 'auth = "Bearer literal-token"\nstore = "literal-password"')
        assert [error.found for error in errors] == [
            "a text of 20 characters, not shown",
            "a text of 16 characters, not shown",
        ]


class TestFinding:
    def test_the_given_file_comes_first(self, tmp_path: Path) -> None:
        given, other = tmp_path / "given.toml", tmp_path / "other.toml"
        given.touch()
        other.touch()
        assert find(given, {"REGROW_CONFIG": str(other)}) == given

    def test_then_the_variable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "regrow.toml").touch()
        (tmp_path / "other.toml").touch()
        assert find(None, {"REGROW_CONFIG": "other.toml"}) == tmp_path / "other.toml"

    @pytest.mark.parametrize("environ", [{}, {"REGROW_CONFIG": ""}])
    def test_then_the_current_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "regrow.toml").touch()
        assert find(None, environ) == tmp_path / "regrow.toml"

    def test_nothing_found_names_the_way_to_begin(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ConfigErrors) as caught:
            find(None, {})
        assert caught.value.EXIT_STATUS == 78
        assert "regrow init" in caught.value.render()
        assert str(tmp_path / "regrow.toml") in caught.value.render()

    def test_a_missing_file_of_the_variable_is_an_error_even_beside_a_good_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "regrow.toml").touch()
        with pytest.raises(ConfigErrors, match="because of REGROW_CONFIG"):
            find(None, {"REGROW_CONFIG": "absent.toml"})

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigErrors, match="this is a folder"):
            find(tmp_path, {})


class TestUnreadable:
    def test_a_file_that_vanished(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigErrors, match="cannot be read: No such file"):
            load(tmp_path / "absent.toml", TYPES)

    def test_a_file_that_is_not_utf8_names_the_line(self, tmp_path: Path) -> None:
        file = tmp_path / "regrow.toml"
        file.write_bytes(b'[daemon]\nname = "\xff"')
        with pytest.raises(ConfigErrors) as caught:
            load(file, TYPES)
        assert (caught.value.errors[0].line, caught.value.errors[0].found) == (2, "byte 0xff")

    def test_a_file_without_bound(self, tmp_path: Path) -> None:
        file = tmp_path / "regrow.toml"
        file.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
        with pytest.raises(ConfigErrors, match="larger than 4 MiB"):
            load(file, TYPES)

    @pytest.mark.parametrize(
        ("text", "line", "kind"),
        [
            ("[daemon]\nname = ", 2, "syntax"),
            ("[daemon\n", 1, "syntax"),
            ('[daemon]\nname = "a\n', 2, "syntax"),
            ("a = " + "[" * 5000, None, "syntax"),
            ("a = " + "9" * 5000, None, "syntax"),
            ("[actors.a]\n[actors.b]\n[actors.a]\n", 3, "name_twice"),
            ('[daemon]\nname = "a"\nname = "b"\n', 3, "name_twice"),
        ],
    )
    def test_what_is_no_toml_is_one_error_with_its_line(
        self, refuses: Refuses, text: str, line: int | None, kind: str
    ) -> None:
        [error] = refuses(text)
        assert (error.kind, error.line) == (kind, line)
