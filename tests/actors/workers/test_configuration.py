"""`type = "python"` in a configuration: its keys, their defaults and what is wrong with them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from actors.integrations import python
from actors.seam import Context
from actors.workers.pool import PythonPool
from actors.workers.worker import Worker
from config.schema import DatabaseUrl, Duration, Problem, Size


def config(**fields: Any) -> python.PythonConfig:
    return python.PythonConfig(**({"functions": ["statistics:mean"]} | fields))


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(state_dir=tmp_path, config_dir=tmp_path, redis_url=None, daemon_name="test")


def test_a_pool_is_its_workers_and_then_the_front_under_its_own_name(context: Context) -> None:
    plan = python.plan("ml", config(workers=3), context)
    assert [spec.name for spec in plan.children] == ["ml/worker-1", "ml/worker-2", "ml/worker-3", "ml"]
    assert [spec.start for spec in plan.children] == [Worker, Worker, Worker, PythonPool]


def test_a_call_has_ten_minutes_unless_it_is_said_otherwise(context: Context) -> None:
    assert python.plan("ml", config(), context).timeout_s == 600


def test_the_registration_has_the_word_of_the_configuration() -> None:
    assert (python.INTEGRATION.type, python.INTEGRATION.config) == ("python", python.PythonConfig)


@pytest.mark.parametrize(
    ("fields", "key", "message"),
    [
        ({"functions": ["ok:*", "m:f.g"]}, "functions[1]", "no dot may stand after the colon"),
        ({"functions": ["statistics"]}, "functions[0]", "nothing stands after the module"),
        ({"functions": ["m:_f"]}, "functions[0]", "names with a leading underscore cannot be called"),
        ({"preload": ["a b"]}, "preload[0]", "is no name of a module"),
        ({"env": ["A=1"]}, "env[0]", "is no name of an environment variable"),
        ({"init": "m:*"}, "init", 'is not "module:name"'),
        ({"teardown": "m"}, "teardown", 'is not "module:name"'),
        ({"health_check": "m:f.g"}, "health_check", 'is not "module:name"'),
        ({"teardown": "m:f", "kill_grace": Duration(0)}, "kill_grace", "teardown needs the time"),
        ({"max_memory": Size("1MiB")}, "max_memory", "is smaller than 64MiB"),
        ({"max_message": Size("2GiB"), "queue_size": Size("2GiB")}, "max_message", "is not from 1KiB to 1GiB"),
        ({"queue_size": Size("1MiB")}, "queue_size", "is smaller than max_message"),
    ],
)
def test_a_wrong_value_is_blamed_by_its_key(fields: dict[str, Any], key: str, message: str) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        config(**fields)
    problems = [problem for problem in caught.value.exceptions if isinstance(problem, Problem)]
    assert [problem.key for problem in problems] == [key]
    assert message in str(problems[0])


@pytest.mark.parametrize("key", ["teardown", "health_check"])
def test_processes_on_a_cluster_have_no_teardown_and_no_health_check(key: str) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        config(backend="ray", ray_address="127.0.0.1:6379", python=Path(sys.executable), **{key: "m:f"})
    (problem,) = caught.value.exceptions
    assert isinstance(problem, Problem)
    assert (problem.key, str(problem)) == (key, f"{key} works only in processes of this machine, not on Ray")


def test_health_is_asked_for_as_often_as_that_of_a_databases_connections() -> None:
    from actors.integrations.database import DatabaseConfig

    settings = python.settings_of("ml", config(health_check="m:f"))
    assert settings.check_interval_s == float(DatabaseConfig(url=DatabaseUrl("sqlite:///a.db")).check_interval) == 30
    assert settings.setup.health_check == "m:f"


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        config(functions=["a", "b"], init="c")
    assert len(caught.value.exceptions) == 3


def test_the_interpreter_is_the_daemons_own_unless_it_is_named() -> None:
    assert python.settings_of("ml", config()).command.python == sys.executable


def test_an_interpreter_keeps_its_link_by_which_a_virtual_environment_is_known(tmp_path: Path) -> None:
    (tmp_path / "python").symlink_to(sys.executable)
    settings = python.settings_of("ml", config(python=tmp_path / "python"))
    assert settings.command.python == str(tmp_path / "python")


def test_what_the_machine_does_not_have_is_a_problem_of_its_key(tmp_path: Path) -> None:
    (tmp_path / "python3").touch(mode=0o600)
    with pytest.raises(ExceptionGroup) as caught:
        config(python=tmp_path / "python3", path=[tmp_path, tmp_path / "a"], directory=tmp_path / "b")
    problems = {problem.key: str(problem) for problem in caught.value.exceptions if isinstance(problem, Problem)}
    assert problems.keys() == {"python", "path[1]", "directory"}
    assert problems["path[1]"] == f"there is no folder {tmp_path / 'a'}"
    assert problems["python"].startswith(f"{tmp_path / 'python3'} is no program that can be run; python3 on PATH is /")


def test_the_address_space_follows_the_memory_unless_it_is_turned_off() -> None:
    limited = python.settings_of("ml", config(max_memory=Size("1GiB")))
    assert limited.setup.address_space == limited.max_memory == 1 << 30
    free = python.settings_of("ml", config(max_memory=Size("1GiB"), limit_address_space=False))
    assert (free.setup.address_space, free.max_memory) == (None, 1 << 30)


def test_a_pool_survives_as_many_deaths_as_one_function_can_cause() -> None:
    assert config(workers=8, quarantine_deaths=3).max_restarts == 10
    assert config(workers=8, quarantine_deaths=3, max_restarts=50).max_restarts == 50


def test_the_environment_of_workers_never_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGROW_TEST_TOKEN", "s3cr3t-s3cr3t")
    settings = python.settings_of("ml", config(env=["REGROW_TEST_TOKEN"]))
    assert settings.command.environment["REGROW_TEST_TOKEN"] == os.environ["REGROW_TEST_TOKEN"]
    assert "s3cr3t" not in repr(settings)
