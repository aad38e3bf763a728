"""One suite for every storage: what holds for one of them holds for all, so that code need not know which it has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from actors.integrations import database
from actors.storage.actor import ActorStorage
from actors.storage.contract import ListsPartitions, Storage
from actors.storage.memory import MemoryStorage
from actors.storage.registry import Registry
from regrow.protocol.errors import NotFound
from tests.actors.rest.conftest import Api, Start
from tests.actors.storage.conftest import Moto
from tests.support.http_peer import HttpPeer, Reply
from tests.support.http_peer import Request as Arrived
from tests.support.peers import needs_peers
from tests.support.servers.postgres import PostgresDatabase

FIRST, SECOND = [{"name": "ada", "age": 36}, {"name": "bob", "age": 41}], [{"name": "eve", "age": 7}]
ROWS = {
    "load": "SELECT name, age FROM people WHERE day = :partition ORDER BY name",
    "store": "INSERT INTO people VALUES (:name, :age, :partition) "
    "ON CONFLICT (name, day) DO UPDATE SET age = excluded.age",
    "delete": "DELETE FROM people WHERE day = :partition",
    "list_partitions": "SELECT DISTINCT day FROM people ORDER BY day",
}
TABLE = "CREATE TABLE IF NOT EXISTS people (name VARCHAR(20), age INTEGER, day VARCHAR(20), PRIMARY KEY (name, day))"


class Documents:
    """An HTTP API that keeps what is put under a path."""

    def __init__(self, peer: HttpPeer) -> None:
        self.kept: dict[str, bytes] = {}
        peer.reply("*", handler=self.answer)

    def answer(self, request: Arrived) -> Reply:
        if request.method == "POST":
            self.kept[request.path] = request.body
            return Reply(status=201)
        if request.path not in self.kept:
            return Reply(status=404)
        if request.method == "DELETE":
            del self.kept[request.path]
            return Reply(status=204)
        body = b"" if request.method == "HEAD" else self.kept[request.path]
        return Reply(body=body, headers={"Content-Type": "application/json"})


class Contract:
    """The suite; each class below says what it runs on."""

    def test_what_is_stored_is_loaded_exists_and_can_be_deleted_twice(self, made: Storage) -> None:
        with pytest.raises(NotFound):
            made.load("people", "2026-11-21")
        assert made.exists("people", "2026-11-21") is False
        made.store("people", FIRST, "2026-11-21")
        made.store("people", SECOND, "2026-11-22")
        assert made.load("people", "2026-11-21") == FIRST
        assert made.load("people", "2026-11-22") == SECOND
        assert made.exists("people", "2026-11-21") is True
        for _ in range(2):
            made.delete("people", "2026-11-21")
        assert made.exists("people", "2026-11-21") is False
        assert made.load("people", "2026-11-22") == SECOND
        with pytest.raises(NotFound):
            made.load("people", "2026-11-21")
        made.delete("people", "2026-11-22")

    def test_a_date_is_the_same_partition_as_its_text(self, made: Storage) -> None:
        made.store("people", FIRST, date(2025, 1, 15))
        assert made.load("people", "2025-01-15") == made.load("people", date(2025, 1, 15)) == FIRST
        assert made.exists("people", date(2025, 1, 15))
        made.delete("people", date(2025, 1, 15))
        assert not made.exists("people", "2025-01-15")

    def test_a_partition_that_is_stored_again_is_replaced(self, made: Storage) -> None:
        made.store("people", FIRST, "2026-11-21")
        older = [{**person, "age": person["age"] + 1} for person in FIRST]  # type: ignore[operator]
        made.store("people", older, "2026-11-21")
        assert made.load("people", "2026-11-21") == older
        made.delete("people", "2026-11-21")

    def test_partitions_are_listed_in_order_or_that_is_said_to_be_impossible(self, made: Storage) -> None:
        assert isinstance(made, ListsPartitions)
        for partition in ("b", "a"):
            made.store("people", FIRST, partition)
        if isinstance(made, ActorStorage) and made.name == "people-rest":
            with pytest.raises(NotFound, match="list_partitions"):
                made.list_partitions("people")
        else:
            assert made.list_partitions("people") == ["a", "b"]
        for partition in ("b", "a"):
            made.delete("people", partition)

    def test_what_was_loaded_can_be_changed_without_changing_what_is_kept(self, made: Storage) -> None:
        made.store("people", FIRST, "2026-11-21")
        loaded: list[Any] = made.load("people", "2026-11-21")
        loaded[0]["name"] = "mallory"
        assert made.load("people", "2026-11-21") == FIRST
        made.delete("people", "2026-11-21")


class TestMemory(Contract):
    @pytest.fixture
    def made(self) -> Storage:
        return MemoryStorage()


class OnDatabase(Contract):
    @contextmanager
    def running(self, url: str, folder: Path) -> Iterator[Storage]:
        table = {"url": url, "setup": [TABLE], "storage": {"people": ROWS}}
        running = Api("people-db", table, folder, None, database.INTEGRATION)
        yield Registry().resolve("people-db")
        running.supervisor.stop()


class TestSqlite(OnDatabase):
    @pytest.fixture
    def made(self, tmp_path: Path) -> Iterator[Storage]:
        with self.running("sqlite:///people.db", tmp_path) as storage:
            yield storage


class TestPostgresql(OnDatabase):
    @pytest.fixture
    def made(self, tmp_path: Path, postgres_database: PostgresDatabase) -> Iterator[Storage]:
        with self.running(postgres_database.url, tmp_path) as storage:
            yield storage


class TestRest(Contract):
    @pytest.fixture
    def made(self, api: Start, http_peer: HttpPeer) -> Storage:
        Documents(http_peer)
        api("people-rest", operations={}, storage={})
        return Registry().resolve("people-rest")


@needs_peers
@pytest.mark.allow_leaks("process", "greenlet", "socket")  # the server is the module's, and so is its reader
class TestS3(Contract):
    @pytest.fixture
    def made(self, api: Start, moto: Moto) -> Storage:
        keys = {"aws_signature_v4": moto.keys}
        api("people-s3", base_url=moto.url, operations={}, auth=keys, s3={"bucket": "assets", "prefix": "c/"})
        return Registry().resolve("people-s3")
