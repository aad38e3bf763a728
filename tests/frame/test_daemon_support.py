from __future__ import annotations

import tomllib

from tests.support.daemon import with_free_ports


def test_listeners_are_added_where_the_configuration_names_none() -> None:
    parsed = tomllib.loads(with_free_ports('[daemon]\nname = "orders"\n'))
    assert parsed["daemon"] == {"name": "orders"}
    assert parsed["gateway"]["bind"][0].startswith("tcp://127.0.0.1:")
    assert parsed["http"]["bind"].startswith("127.0.0.1:")


def test_listeners_are_added_to_tables_that_are_there() -> None:
    parsed = tomllib.loads(with_free_ports('[gateway]  # limits\nmax_clients = 3\n[http]\nread_token = "x"\n'))
    assert set(parsed["gateway"]) == {"bind", "max_clients"}
    assert set(parsed["http"]) == {"bind", "read_token"}


def test_listeners_are_added_beside_sub_tables() -> None:
    parsed = tomllib.loads(with_free_ports('[gateway.curve]\nsecret_key_file = "server.key"\n'))
    assert set(parsed["gateway"]) == {"bind", "curve"}


def test_named_listeners_stay() -> None:
    text = '[gateway]\nbind = ["tcp://127.0.0.1:1"]\n[http]\nbind = "127.0.0.1:2"\n'
    assert with_free_ports(text) == text


def test_text_that_is_no_toml_stays() -> None:
    assert with_free_ports("[gateway") == "[gateway"
