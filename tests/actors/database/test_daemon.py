"""The whole way, from the command line through a real daemon to a real server that goes and comes back."""

from __future__ import annotations

import json

from tests.support.daemon import Daemon
from tests.support.fixtures import StartDaemon
from tests.support.servers.postgres import PostgresServer

CONFIG = """
[integrations.db]
type = "database"
url = "postgresql://{user}@127.0.0.1:{port}/postgres"
password = "${{DB_PASSWORD}}"
setup = ["CREATE TABLE IF NOT EXISTS users (name text UNIQUE, date date)"]
[integrations.db.operations.load]
sql = "SELECT * FROM users WHERE date = :date ORDER BY name"
params = {{ date = "date" }}
[integrations.db.operations.store]
sql = "INSERT INTO users VALUES (:name, :date)"
kind = "many"
[integrations.db.operations.numbers]
sql = "SELECT i FROM generate_series(1, :last) i"
kind = "stream"
params = {{ last = "int" }}
"""
ALICE_AND_BOB = [{"name": "Alice", "date": "2026-11-21"}, {"name": "Bob", "date": "2026-11-21"}]


def ask(daemon: Daemon, *words: str) -> tuple[int, str]:
    finished = daemon.run("ask", *words)
    return finished.returncode, finished.stdout + finished.stderr


def test_a_daemon_outlives_its_database(daemon: StartDaemon, postgres_server: PostgresServer) -> None:
    running = daemon(
        CONFIG.format(user=postgres_server.user, port=postgres_server.port),
        env={"DB_PASSWORD": postgres_server.password},
    )
    assert ask(running, "db.store", json.dumps({"rows": ALICE_AND_BOB}))[0] == 0
    status, text = ask(running, "db.load", "date=2026-11-21")
    assert (status, json.loads(text)) == (0, ALICE_AND_BOB)

    streamed = running.run("stream", "--json", "db.numbers", "last=1500")
    assert [json.loads(line)["i"] for line in streamed.stdout.splitlines()] == list(range(1, 1501))
    assert json.loads(running.get("/readyz").text).get("failing") == []

    postgres_server.stop()
    status, text = ask(running, "db.load", "date=2026-11-21")
    assert status == 1
    assert any("db" in str(ailing) for ailing in json.loads(running.get("/readyz").text)["failing"])
    assert 'regrow_database_healthy{actor="db"} 0.0' in running.get("/metrics").text
    assert "connection_error" in text
    assert "started: no" in text

    postgres_server.start()
    status, text = ask(running, "db.load", "date=2026-11-21")
    assert (status, json.loads(text)) == (0, ALICE_AND_BOB)

    status, text = ask(running, "db.load", "date=tomorrow")
    assert status == 1
    assert "invalid_arguments" in text
    tree = running.run("tree", "--json").stdout
    metrics = running.get("/metrics").text
    assert 'regrow_database_connections_lost_total{actor="db"} 1.0' in metrics
    assert postgres_server.password not in tree + metrics + running.log
