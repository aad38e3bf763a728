"""The default configuration, the starter and every example pass the daemon's own check, with the real integrations."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import jsonschema
import pytest

import config
from actors.integrations import INTEGRATIONS
from config.json_schema import json_schema
from config.load import Config, load
from config.secret import redact
from config.starter_project import write_starter
from runtime.actor import Actor

FOLDER = Path(config.__file__).parent
EXAMPLES = sorted((FOLDER / "examples").glob("*.toml"))
ENVIRON = {
    "GITHUB_TOKEN": "github-token-of-the-test",
    "DB_PASSWORD": "db-password-of-the-test",
    "REDIS_URL": "redis://:redis-password-of-the-test@localhost/0",
    "WEATHER_KEY": "weather-key-of-the-test",
    "OPENWEATHER_API_KEY": "openweather-key-of-the-test",
    "STRIPE_SECRET_KEY": "stripe-key-of-the-test",
    "AWS_ACCESS_KEY_ID": "access-key-of-the-test",
    "AWS_SECRET_ACCESS_KEY": "aws-secret-of-the-test",
    "S3_ENDPOINT_URL": "http://127.0.0.1:9000",
    "NODE": "a",
    "REGROW_READ_TOKEN": "read-token-of-the-test",
    "REGROW_ADMIN_TOKEN": "admin-token-of-the-test",
}


def is_actor(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Actor)


def check(file: Path, environ: dict[str, str] | None = None) -> Config:
    return load(file, INTEGRATIONS, is_actor=is_actor, environ=environ or {})


def test_the_default_needs_no_server_and_no_variable() -> None:
    loaded = check(FOLDER / "default.toml")
    assert set(loaded.actors) == {"greeter"}
    types = {name: entry.type for name, entry in loaded.integrations.items()}
    assert types == {"ml": "python", "db": "database", "catalog": "rest"}
    assert loaded.daemon.redis is None
    assert loaded.integrations["db"].config.url.reveal().startswith("sqlite:////")


def test_the_default_listens_on_this_machine_only() -> None:
    loaded = check(FOLDER / "default.toml")
    assert all(endpoint.is_loopback for endpoint in loaded.gateway.bind)
    assert loaded.http.bind.is_loopback


def test_a_fresh_starter_passes_as_it_is(tmp_path: Path) -> None:
    write_starter(tmp_path)
    loaded = check(tmp_path / "regrow.toml")
    assert loaded.daemon.state_dir == tmp_path / "var"
    assert loaded.classes["greeter"].__module__ == "my_app.greeting"


@pytest.fixture
def example_folder(tmp_path: Path) -> Path:
    """A copy beside which the files of other people's making (keys) can be put."""
    shutil.copytree(FOLDER, tmp_path / "config")
    (tmp_path / "var" / "models").mkdir(parents=True)
    (tmp_path / "var" / "models" / "server.key").touch()
    return tmp_path / "config" / "examples"


@pytest.mark.parametrize("name", [example.name for example in EXAMPLES])
def test_every_example_passes(example_folder: Path, name: str) -> None:
    loaded = check(example_folder / name, ENVIRON)
    assert loaded.integrations
    shown = str(loaded.dump())
    assert "of-the-test" not in shown
    text = (example_folder / name).read_text()
    used = [value for variable, value in ENVIRON.items() if f"${{{variable}}}" in text and len(value) > 1]
    assert "of-the-test" not in redact(" ".join(used))


def test_there_are_examples_of_each_integration() -> None:
    types = {entry["type"] for file in EXAMPLES for entry in tomllib.loads(file.read_text())["integrations"].values()}
    assert types == set(INTEGRATIONS)


@pytest.mark.parametrize("file", [FOLDER / "default.toml", FOLDER / "starter/regrow.toml", *EXAMPLES], ids=str)
def test_every_shipped_file_fits_the_schema_for_editors(file: Path) -> None:
    jsonschema.Draft202012Validator(json_schema(INTEGRATIONS)).validate(tomllib.loads(file.read_text()))
