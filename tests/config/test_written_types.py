from __future__ import annotations

from pathlib import Path

import pytest

from config.schema import DatabaseUrl, HostPort, TcpEndpoint
from config.secret import redact


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///var/app.db", "sqlite:////etc/shop/var/app.db"),
        ("sqlite:///../app.db?mode=ro", "sqlite:////etc/shop/../app.db?mode=ro"),
        ("sqlite:////srv/app.db", "sqlite:////srv/app.db"),
    ],
)
def test_a_relative_sqlite_file_is_put_under_the_folder_of_the_configuration(url: str, path: str) -> None:
    assert DatabaseUrl.parse(url, Path("/etc/shop")).reveal() == path


def test_a_database_url_is_shown_without_its_credentials_and_options() -> None:
    url = DatabaseUrl.parse("postgresql://app:pa@ss-word@db.example:5432/shop?sslpassword=x")
    assert str(url) == "postgresql://db.example:5432/shop"
    assert "pa@ss" not in repr(url)


def test_a_database_url_is_known_to_redact() -> None:
    DatabaseUrl.parse("postgresql://app:password-in-url@db.example/shop")
    assert redact("cannot reach postgresql://app:password-in-url@db.example/shop") == "cannot reach ***"


@pytest.mark.parametrize("url", ["", "app.db", "mysql://x", "postgresql:/x", "sqlite://app.db", "sqlite:///", 5, None])
def test_what_is_no_database_url_is_refused(url: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - an empty message is the loader's own wording
        DatabaseUrl.parse(url)


def test_sqlite_in_memory_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="empty for each connection"):
        DatabaseUrl.parse("sqlite:///:memory:")


@pytest.mark.parametrize(
    ("text", "host", "port", "is_loopback"),
    [
        ("127.0.0.1:5758", "127.0.0.1", 5758, True),
        ("127.9.9.9:1", "127.9.9.9", 1, True),
        ("localhost:0", "localhost", 0, True),
        ("[::1]:80", "::1", 80, True),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("[::]:80", "::", 80, False),
        ("10.0.0.1:80", "10.0.0.1", 80, False),
        ("example.org:80", "example.org", 80, False),
        ("localhost.example.org:80", "localhost.example.org", 80, False),
    ],
)
def test_a_place_to_listen_is_taken_apart(text: str, host: str, port: int, is_loopback: bool) -> None:
    place = HostPort.parse(text)
    assert (place.host, place.port, place.is_loopback) == (host, port, is_loopback)
    endpoint = TcpEndpoint.parse(f"tcp://{text}")
    assert (endpoint.host, endpoint.port, endpoint.is_loopback) == (host, port, is_loopback)
    assert endpoint == f"tcp://{text}"


@pytest.mark.parametrize(
    "text",
    [
        *("", ":80", "80", "host", "host:", "host:x", "host:65536", "host:-1", "host:\u0663"),
        *("::1:80", "[::1:80", "a b:80", "a/b:1", 5758, None),
    ],
)
def test_what_is_no_place_to_listen_is_refused(text: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - an empty message is the loader's own wording
        HostPort.parse(text)


@pytest.mark.parametrize("text", ["127.0.0.1:80", "ipc:///tmp/x", "http://127.0.0.1:80", "tcp://", "tcp://host"])
def test_what_is_no_tcp_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - an empty message is the loader's own wording
        TcpEndpoint.parse(text)


def test_every_interface_of_zeromq_is_not_loopback() -> None:
    assert not TcpEndpoint.parse("tcp://*:5757").is_loopback
