"""Several instances of one configured actor in a real daemon, on the hub, in threads and in processes."""

from __future__ import annotations

import re

import pytest

import regrow
from tests.actors.workers.conftest import PATIENCE_S
from tests.support.fixtures import StartDaemon

CODE = """
import os
import regrow

class Cart(regrow.Actor):
    def __init__(self) -> None:
        super().__init__()
        self.items = {}

    @regrow.exported
    def put(self, customer: str, item: int) -> dict:
        self.items.setdefault(customer, []).append(item)
        return {"by": self.ref.name, "items": self.items[customer], "pid": os.getpid()}

    @regrow.exported
    def fail(self, customer: str) -> None:
        raise RuntimeError("told to crash")

    @regrow.exported
    def many(self, customer: str, to: int):
        yield from range(to)

    @regrow.exported
    def size(self) -> int:
        return len(self.items)
"""
TOML = """
[daemon]
path = ["code"]

[actors.carts]
class = "shop:Cart"
run_in = "PLACE"
instances = 3
key = "customer"
backoff = { base = "10ms", max = "10ms" }
max_restarts = 100
"""
FILES = {"code/shop.py": CODE}
CUSTOMERS = [f"c{number}" for number in range(12)]


@pytest.mark.parametrize("place", ["hub", "thread", "process"])
def test_each_customer_has_an_instance_that_a_crash_of_another_one_leaves_alone(
    daemon: StartDaemon, place: str
) -> None:
    running = daemon(TOML.replace("PLACE", place), files=FILES)
    with regrow.connect(running.endpoint, timeout=PATIENCE_S) as client:
        first = {who: client.ask("carts", "put", customer=who, item=1) for who in CUSTOMERS}
        assert {answer["by"] for answer in first.values()} == {"carts/0", "carts/1", "carts/2"}
        if place == "process":
            assert len({answer["pid"] for answer in first.values()}) == 3
        crashing = first[CUSTOMERS[0]]["by"]
        with pytest.raises(regrow.ActorDown) as caught:
            client.ask("carts", "fail", customer=CUSTOMERS[0])
        assert caught.value.started == "yes"
        assert caught.value.actor == crashing
        assert caught.value.crash_id is not None
        assert "told to crash" in running.run("why", caught.value.crash_id).stdout
        running.wait_for_log(f'"event":"actor.restarted","actor":"{crashing}"')
        for who in CUSTOMERS:
            again = client.ask("carts", "put", customer=who, item=2)
            assert again["by"] == first[who]["by"]
            assert again["items"] == ([2] if again["by"] == crashing else [1, 2])
        with client.stream("carts", "many", customer="c1", to=50) as parts:
            assert list(parts) == list(range(50))
        assert client.ask("carts", "size") > 0


def test_operators_see_each_instance_and_clients_one_name(daemon: StartDaemon) -> None:
    running = daemon(TOML.replace("PLACE", "hub"), files=FILES)
    with regrow.connect(running.endpoint, timeout=PATIENCE_S) as client:
        client.ask("carts", "put", customer="c1", item=1)
        (described,) = client.describe()["actors"]
    assert (described["name"], described["state"]) == ("carts", "running")
    assert [method["name"] for method in described["methods"]] == ["fail", "many", "put", "size"]
    tree = running.run("tree").stdout
    assert re.search(r"carts \(one_for_one\) +running\n.* 0 \.\. 2 +running\n.* carts +running +instances=3", tree)
    metrics = running.get("/metrics").text
    for name in ("carts", "carts/0", "carts/1", "carts/2"):
        assert f'regrow_actor_restarts_total{{actor="{name}"' in metrics
    assert running.get("/readyz").status_code == 200


def test_an_entry_whose_instances_cannot_start_is_parked_as_one(daemon: StartDaemon) -> None:
    broken = CODE.replace("self.items = {}", "raise RuntimeError('no disk')")
    running = daemon(
        TOML.replace("PLACE", "hub").replace("max_restarts = 100", "max_restarts = 1"), files={"code/shop.py": broken}
    )
    running.wait_for_log("parked")
    with regrow.connect(running.endpoint, timeout=PATIENCE_S) as client, pytest.raises(regrow.Unavailable) as caught:
        client.ask("carts", "put", customer="c1", item=1)
    assert caught.value.retry_after_s is not None
    assert "no disk" in str(caught.value)
    (failing,) = running.get("/readyz").json()["failing"]
    assert failing["actor"] == "root/actors/carts"
