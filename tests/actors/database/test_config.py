"""A database in the configuration file: what it says, and every mistake with its place, none with a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.integrations import INTEGRATIONS
from actors.integrations.database import DatabaseConfig
from config.errors import ConfigErrors
from config.load import load

SECRET = "p@ss/w:rd"


def read(folder: Path, text: str) -> DatabaseConfig:
    file = folder / "regrow.toml"
    file.write_text('[integrations.db]\ntype = "database"\n' + text)
    config = load(file, INTEGRATIONS, environ={"DB_PASSWORD": SECRET})
    found = config.integrations["db"].config
    assert isinstance(found, DatabaseConfig)
    return found


def test_defaults_are_bounded(tmp_path: Path) -> None:
    config = read(tmp_path, 'url = "sqlite:///var/app.db"')

    assert config.url.reveal() == f"sqlite:///{tmp_path}/var/app.db"
    assert (config.size, config.queue, config.max_rows, config.timeout) == (4, 1000, 10_000, 30.0)
    assert read(tmp_path, 'url = "postgresql://localhost/app"').size == 10


def test_an_operation_is_compiled_for_its_engine(tmp_path: Path) -> None:
    text = """
    url = "postgresql://localhost/app"
    [integrations.db.operations.users_by_date]
    sql = "SELECT * FROM users WHERE date = :date AND age > :age::int"
    params = { date = "date", age = { type = "int", default = 18, doc = "how old at least" } }
    timeout = "2s"
    max_bytes = "1MiB"
    """

    operation = read(tmp_path, text).operation("users_by_date")

    assert operation.text == "SELECT * FROM users WHERE date = $1 AND age > $2::int"
    assert operation.order == ("date", "age")
    assert (operation.timeout_s, operation.max_bytes, operation.max_rows) == (2.0, 1 << 20, 10_000)
    assert operation.parameters["age"].required is False


def test_a_password_with_any_characters_has_a_key_of_its_own(tmp_path: Path) -> None:
    config = read(tmp_path, 'url = "postgresql://app@localhost/app"\npassword = "${DB_PASSWORD}"')

    assert config.password is not None
    assert config.password.reveal() == SECRET
    assert SECRET not in repr(config)


def test_a_raw_password_in_the_url_is_an_error_that_does_not_show_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors) as caught:
        read(tmp_path, 'url = "postgresql://app:${DB_PASSWORD}@local host:x/app"')

    assert "percent-encode" in str(caught.value)
    assert "w:rd" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "key", "message"),
    [
        ('url = "mysql://localhost/app"', "url", "postgresql://"),
        ('url = "sqlite:///a.db?mode=ro"', "url", "no options"),
        ('url = "sqlite:///a.db"\npassword = "${DB_PASSWORD}"', "password", "sqlite has no password"),
        ('url = "sqlite:///a.db"\npool_size = 2\nmin_size = 3', "min_size", "larger than pool_size (2)"),
        ('url = "sqlite:///a.db"\npool_size = 0', "pool_size", "1"),
        ('url = "sqlite:///a.db"\nconnect_timeout = "5m"', "connect_timeout", "60 s"),
        ('url = "sqlite:///a.db"\nsetup = ["CREATE TABLE t (a)", "INSERT INTO t VALUES (:a)"]', "setup[1]", "no param"),
        ('url = "sqlite:///a.db"\nteardown = ["SELECT :a"]', "teardown[0]", "a teardown statement takes no param"),
        ('url = "sqlite:///a.db"\nhealth_check = "SELECT \'"', "health_check", "string is not closed"),
        ('url = "sqlite:///a.db"\nlisten = ["orders"]', "listen", "sqlite has no channels"),
        ('url = "sqlite:///a.db"\npassword_file = "p"', "password_file", "sqlite has no password"),
        (
            'url = "postgresql://h/a"\npassword = "${DB_PASSWORD}"\npassword_file = "p"',
            "password_file",
            "not both",
        ),
        ('url = "postgresql://a,b/app?port=1,2,3"', "url", "2 hosts and 3 ports"),
        (
            'url = "sqlite:///a.db"\nallow_sql = "read_only"\noperations.sql.sql = "SELECT 1"',
            "operations.sql",
            "already",
        ),
        (
            'url = "sqlite:///a.db"\nstorage.u = { load = "SELECT :day", store = "VALUES (:a)", delete = "" }',
            "storage.u",
            "load: the only parameter here is :partition, not :day",
        ),
        ('url = "sqlite:///a.db"\nfetch_size = 1', "fetch_size", ""),
    ],
)
def test_a_mistake_is_named_with_its_key(tmp_path: Path, keys: str, key: str, message: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        read(tmp_path, keys)

    assert f"integrations.db.{key}" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('sql = "SELECT \'open"', "line 1 column 8: string is not closed"),
        ('sql = "SELECT ?"', "is SQLite's own placeholder, write :name"),
        ('sql = "SELECT 1; SELECT 2"', "a second statement begins"),
        ('sql = ""', "statement is empty"),
        (
            'sql = "SELECT :day"\nparams = { dya = "date" }',
            "params.dya is no parameter of the statement, did you mean :day",
        ),
        ('sql = "SELECT :day"\nparams = { day = "dat" }', "there is no type 'dat', did you mean 'date'"),
        ('sql = "SELECT :n"\nparams = { n = { type = "int", default = "x" } }', "params.n.default must be an integer"),
        ('sql = "DELETE FROM t"\nkind = "one"', "add RETURNING or use execute"),
        ('sql = "DELETE FROM t"\nkind = "many"', "needs at least one :parameter"),
        ('sql = "SELECT 1"\nisolation = "serializable"', "every transaction of SQLite is serializable"),
        ('sql = "SELECT 1"\nkind = "all"', "query"),
        ('doc = "nothing"', "either sql, one statement, or statements"),
        ('sql = "SELECT 1"\nstatements = ["SELECT 1"]', "either sql, one statement, or statements"),
        ('statements = ["SELECT 1", "SELECT \'"]', "string is not closed"),
        ('statements = ["SELECT 1"]\nkind = "many"', "a transaction has no kind of its own"),
        ('statements = ["SELECT 1"]\nparams = { day = "date" }', "params.day is no parameter"),
        ('sql = "DELETE FROM t RETURNING a"\nkind = "stream"', "write a SELECT that changes nothing"),
        ('sql = "COPY t TO STDOUT"\nkind = "copy_out"', "kind copy_out is for PostgreSQL: use stream"),
        ('sql = "COPY t TO STDOUT"', "COPY needs kind copy_out or copy_in"),
    ],
)
def test_a_mistake_in_an_operation_names_the_operation(tmp_path: Path, keys: str, message: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        read(tmp_path, f'url = "sqlite:///a.db"\n[integrations.db.operations.find]\n{keys}')

    assert "integrations.db.operations.find" in str(caught.value)
    assert message in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors) as caught:
        read(
            tmp_path,
            'url = "sqlite:///a.db"\nmin_size = 9\n'
            '[integrations.db.operations.a]\nsql = "SELECT ?"\n[integrations.db.operations.b]\nsql = "SELECT $x"',
        )

    assert len(caught.value.errors) == 3
