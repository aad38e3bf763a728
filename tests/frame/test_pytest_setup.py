from __future__ import annotations

import socket
import threading
import warnings
from pathlib import Path

import gevent.socket
import pytest

from tests.support.servers.redis import RedisServer

PROJECT = Path(__file__).parents[2]


def test_the_test_process_is_patched() -> None:
    assert socket.socket is gevent.socket.socket
    assert threading.Lock().__class__.__module__.startswith("gevent.")


def test_a_warning_is_an_error() -> None:
    with pytest.raises(UserWarning, match="beware"):
        warnings.warn("beware", stacklevel=1)


def test_a_test_that_needs_a_server_is_marked(request: pytest.FixtureRequest, redis: RedisServer) -> None:
    assert redis.is_running()
    assert request.node.get_closest_marker("redis") is not None
    assert request.node.get_closest_marker("postgres") is None


def test_a_hung_test_fails_by_its_name(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import gevent
        import pytest

        @pytest.mark.timeout(0.2)
        def test_waits_for_nobody():
            gevent.sleep(3600)
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-o", "timeout_method=signal")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Failed: Timeout (>0.2s)*", "FAILED *::test_waits_for_nobody*"])


def test_a_soak_runs_only_when_asked_for(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    pytester.makeconftest((PROJECT / "tests" / "conftest.py").read_text())
    pytester.makeini("[pytest]\nmarkers =\n    soak: long\n    redis: a server\n")
    pytester.makepyfile("import pytest\n\n@pytest.mark.soak\ndef test_long():\n    pass\n")
    arguments = ("-p", "no:cacheprovider")
    pytester.runpytest_subprocess(*arguments).assert_outcomes(skipped=1)
    pytester.runpytest_subprocess(*arguments, "--soak").assert_outcomes(passed=1)


def test_pyproject_is_the_only_tool_configuration() -> None:
    others = ("setup.cfg", "setup.py", "tox.ini", "mypy.ini", ".mypy.ini", "pytest.ini", "ruff.toml", ".ruff.toml")
    more = (".flake8", ".coveragerc", ".importlinter", ".pylintrc")
    assert [name for name in (*others, *more) if (PROJECT / name).exists()] == []
