"""The clients in programs that know nothing of gevent, as fresh interpreters."""

from __future__ import annotations

import gevent
import pytest

from tests.edge.gateway.harness import Wire
from tests.regrow.unpatched import run_unpatched


def test_importing_the_face_and_the_clients_never_imports_gevent() -> None:
    loaded = run_unpatched(
        """
        import json, sys
        import regrow, regrow.client, regrow.aio, regrow.protocol.frames
        regrow.connect, regrow.Refused, regrow.aio.connect
        print(json.dumps([name for name in sys.modules if name.split(".")[0] in ("gevent", "greenlet", "pykka")]))
        """
    )
    assert loaded == []


def test_importing_the_face_alone_imports_no_library_at_all() -> None:
    loaded = run_unpatched(
        """
        import json, sys
        import regrow
        print(json.dumps([name for name in ("zmq", "msgspec", "gevent", "asyncio") if name in sys.modules]))
        """
    )
    assert loaded == []


def test_every_name_of_the_face_loads() -> None:
    missing = run_unpatched(
        """
        import json
        from gevent import monkey
        monkey.patch_all()
        import regrow
        missing = []
        for name in regrow.__all__:
            try:
                getattr(regrow, name)
            except Exception as error:
                missing.append(f"{name}: {error!r}")
        print(json.dumps(missing))
        """
    )
    assert missing == []


def test_a_name_that_the_face_does_not_have_is_an_attribute_error() -> None:
    import regrow

    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        regrow.Nonsense  # noqa: B018


def test_the_blocking_client_serves_many_threads_without_gevent(wire: Wire) -> None:
    sums = run_unpatched(
        """
        import json, sys, threading
        import regrow
        sums = []
        with regrow.connect(sys.argv[1]) as client:
            def work(n):
                for i in range(20):
                    sums.append(client.ask("probe", "add", a=n, b=i))
            threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
        assert "gevent" not in sys.modules
        print(json.dumps(sorted(sums)))
        """,
        wire.tcp,
    )
    assert sums == sorted(n + i for n in range(8) for i in range(20))


def test_a_client_survives_a_fork_on_both_sides(wire: Wire) -> None:
    results = run_unpatched(
        """
        import json, os, sys
        import regrow
        client = regrow.connect(sys.argv[1])
        results = [client.ask("probe", "add", a=1)]
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, str(client.ask("probe", "add", a=2)).encode())
            client.close()
            os._exit(0)
        os.waitpid(child, 0)
        results.append(int(os.read(reading, 10)))
        results.append(client.ask("probe", "add", a=3))
        client.close()
        print(json.dumps(results))
        """,
        wire.tcp,
    )
    assert results == [2, 3, 4]


def test_a_client_that_is_never_closed_lets_the_program_end(wire: Wire) -> None:
    assert (
        run_unpatched(
            """
        import sys
        import regrow
        client = regrow.connect(sys.argv[1])
        print(client.ask("probe", "add", a=1))
        """,
            wire.tcp,
        )
        == 2
    )


def test_a_killed_daemon_is_noticed_while_blocked(wire: Wire) -> None:
    running = gevent.spawn(
        run_unpatched,
        """
        import json, sys
        import regrow
        with regrow.connect(sys.argv[1]) as client:
            try:
                client.ask("probe", "wait", timeout=600)
            except regrow.ConnectionFailed as error:
                print(json.dumps(error.started))
        """,
        wire.tcp,
    )
    wire.actor.entered.wait()
    wire.sockets.close()
    assert running.get() == "unknown"
