"""Patches before anything else, then loads the test kit: every fixture is told in `tests/support/__init__.py`."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import pytest

from tests.support.processes import adopt_orphans

pytest_plugins = ["pytester", "tests.support.leaks", "tests.support.machine", "tests.support.fixtures"]

_MARKS_OF_FIXTURES = {
    "postgres": "postgres",
    "postgres_database": "postgres",
    "postgres_server": "postgres",
    "redis": "redis",
    "redis_server": "redis",
    "daemon": "process",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="also run the tests marked soak")


def pytest_configure(config: pytest.Config) -> None:
    adopt_orphans()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if mark := _MARKS_OF_FIXTURES.get(fixture):
                item.add_marker(mark)
        if item.get_closest_marker("soak") and not config.getoption("--soak"):
            item.add_marker(pytest.mark.skip(reason="a soak: run with --soak"))
