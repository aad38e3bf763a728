"""The asyncio client, in programs that nobody has patched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gevent
import pytest

from tests.edge.gateway.harness import INCARNATION, PATIENCE_S, Wire, wire_on
from tests.edge.gateway.test_abuse import eventually
from tests.regrow.relay import Relay
from tests.regrow.unpatched import run_unpatched
from tests.support.ports import free_port

PROGRAM = """
import asyncio, json, sys
import regrow, regrow.aio
from regrow.protocol import exchange

async def error_of(awaitable):
    try:
        await awaitable
    except regrow.RegrowError as error:
        return [type(error).__name__, error.started]
    return None

async def main():
    # debug mode also reports slow steps of the loop, which a busy machine has
    asyncio.get_running_loop().slow_callback_duration = 60
    async with regrow.aio.connect(sys.argv[1], connect_timeout=float(sys.argv[2])) as client:
{body}

result = asyncio.run(main(), debug=True)
assert "gevent" not in sys.modules
print(json.dumps(result))
"""


def run(endpoint: str, body: str, connect_timeout_s: float = 5.0) -> Any:
    indented = "\n".join(f"        {line}" for line in body.strip().splitlines())
    return run_unpatched(PROGRAM.format(body=indented), endpoint, str(connect_timeout_s))


def test_asks_tells_pings_and_descriptions(wire: Wire) -> None:
    found = run(
        wire.tcp,
        """
await client.tell("probe", "add", a=1)
await client.tell("probe", "add", a=1, ack=False)
reply = await client.request("probe", "with_header")
return {
    "ask": await client.ask("probe", "add", {"a": 1}, b=4),
    "reply": [reply.value, dict(reply.header)],
    "ping": (await client.ping())["incarnation"],
    "actors": [actor["name"] for actor in (await client.describe())["actors"]],
    "welcome": (await client.welcome()).server,
    "calls": await client.ask("probe", "count"),
}
""",
    )
    assert found == {
        "ask": 5,
        "reply": [{"login": "ada"}, {"status": 200}],
        "ping": INCARNATION,
        "actors": ["probe", "absent"],
        "welcome": "orders",
        "calls": 3,
    }


def test_many_tasks_share_one_connection(wire: Wire) -> None:
    found = run(
        wire.tcp,
        """
return await asyncio.gather(*(client.ask("probe", "add", a=n) for n in range(500)))
""",
    )
    assert found == [n + 1 for n in range(500)]
    assert len(wire.sockets.peers()) <= 1


def test_errors_are_typed(wire: Wire) -> None:
    found = run(
        wire.tcp,
        """
return [
    await error_of(client.ask("nobody", "add")),
    await error_of(client.ask("probe", "add", a="x")),
    await error_of(client.ask("probe", "refuse")),
    await error_of(client.ask("probe", "wait", timeout=0.03)),
    await error_of(client.tell("probe", "nope")),
]
""",
    )
    assert found == [
        ["NotFound", "no"],
        ["InvalidArguments", "no"],
        ["RateLimited", "no"],
        ["DeadlineExceeded", "yes"],
        ["NotFound", "no"],
    ]


def test_cancelling_the_task_cancels_the_request(wire: Wire) -> None:
    found = run(
        wire.tcp,
        """
task = asyncio.create_task(client.ask("probe", "wait"))
while not client._link or not client._link.pending:
    await asyncio.sleep(0)
await client.ping()
task.cancel()
try:
    await task
except asyncio.CancelledError:
    pass
await client.ping()
return len(client._link.pending)
""",
    )
    assert found == 0
    assert wire.actor.calls == 1
    assert wire.sockets.service.in_flight == 0


def test_nobody_there_is_said_in_time_and_never_started() -> None:
    found = run(f"tcp://127.0.0.1:{free_port()}", 'return await error_of(client.ask("probe", "count"))', 0.1)
    assert found == ["ConnectionFailed", "no"]


def test_a_daemon_that_goes_away_ends_every_request_with_started_unknown(wire: Wire) -> None:
    running = gevent.spawn(
        run,
        wire.tcp,
        """
asks = [error_of(client.ask("probe", method, timeout=600)) for method in ("wait", "count", "count")]
return await asyncio.gather(*asks)
""",
    )
    eventually(lambda: wire.sockets.service.in_flight == 3)
    wire.sockets.close()
    assert running.get(timeout=PATIENCE_S * 2) == [["ConnectionFailed", "unknown"]] * 3


def test_a_broken_connection_is_made_anew_for_the_next_request_and_for_idem_keys(wire: Wire) -> None:
    with Relay(wire.tcp) as relay:
        running = gevent.spawn(
            run,
            relay.endpoint,
            """
first = await asyncio.gather(client.ask("probe", "wait", idem="k"), error_of(client.ask("probe", "count")))
return [first, await client.ask("probe", "add", a=1)]
""",
        )
        eventually(lambda: wire.sockets.service.in_flight == 2)
        relay.cut()
        wire.actor.gate.set()
        found, after = running.get(timeout=30)
    assert after == 2
    assert found[0] == "waited"
    assert found[1] == ["ConnectionFailed", "unknown"]


def test_requests_under_way_are_bounded(wire: Wire) -> None:
    found = run(
        wire.tcp,
        """
client.max_in_flight = 1
waiting = asyncio.create_task(error_of(client.ask("probe", "wait", timeout=0.2)))
while not client._link or not client._link.pending:
    await asyncio.sleep(0)
return [await error_of(client.ask("probe", "count")), await waiting]
""",
    )
    assert found == [["Overloaded", "no"], ["DeadlineExceeded", "yes"]]


def test_a_closed_client_says_so(wire: Wire) -> None:
    found = run(
        wire.tcp,
        """
waiting = asyncio.create_task(error_of(client.ask("probe", "wait")))
while not client._link or not client._link.pending:
    await asyncio.sleep(0)
await client.close()
return [await waiting, await error_of(client.ping())]
""",
    )
    assert found == [["ConnectionFailed", "unknown"], ["ConnectionFailed", "no"]]


def test_too_large_a_message_is_refused_before_it_is_sent(state_dir: Path) -> None:
    with wire_on(state_dir, max_message=2048) as wire:
        found = run(wire.tcp, 'return await error_of(client.ask("probe", "echo", value="x" * 5000))')
    assert found == ["TooLarge", "no"]


def test_a_daemon_that_does_not_answer_is_given_up(wire: Wire) -> None:
    wire.sockets.pause()
    found = run(wire.tcp, 'return await error_of(client.ask("probe", "count"))', 0.2)
    assert found == ["ConnectionFailed", "no"]


@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_bodies_of_all_sizes_come_over(wire: Wire, size: int) -> None:
    assert run(wire.tcp, f'return len(await client.ask("probe", "echo", value="x" * {size}))') == size


def test_streams_are_async_iterators_beside_other_requests(wire: Wire) -> None:
    found = run(
        wire.tcp,
        """
async def collect(to):
    return sum([part async for part in client.stream("probe", "numbers", to=to, credit=7)])
return await asyncio.gather(collect(300), collect(0), client.ask("probe", "add", a=1), collect(50))
""",
    )
    assert found == [sum(range(300)), 0, 2, sum(range(50))]


def test_leaving_a_stream_early_closes_it_there(wire: Wire) -> None:
    found = run(
        wire.tcp,
        """
import contextlib
async with contextlib.aclosing(client.stream("probe", "numbers", to=10000, credit=4)) as parts:
    async for part in parts:
        break
return [part, await client.ask("probe", "add", a=1), len(client._link.streams)]
""",
    )
    assert found == [0, 2, 0]
    assert wire.actor.closed.wait(PATIENCE_S)
    assert wire.actor.made <= 4


def test_what_came_before_the_connection_ended_is_still_read(wire: Wire) -> None:
    running = gevent.spawn(
        run,
        wire.tcp,
        """
import time
asked = asyncio.create_task(client.ask("probe", "wait"))
while not client._link or not client._link.pending:
    await asyncio.sleep(0.01)
await asyncio.sleep(0.1)
time.sleep(1.5)
return await asked
""",
    )
    wire.actor.entered.wait(PATIENCE_S)
    gevent.sleep(0.3)  # the program's loop stands still now, so it reads nothing
    wire.actor.gate.set()
    wire.drain(PATIENCE_S)
    wire.sockets.close()

    assert running.get(timeout=PATIENCE_S * 2) == "waited"


def test_what_ends_a_stream_early_is_raised(wire: Wire) -> None:
    running = gevent.spawn(
        run,
        wire.tcp,
        """
async def read(method, **arguments):
    async for part in client.stream("probe", method, arguments, timeout=60, credit=1):
        pass
first = await error_of(read("broken", after=3, how="refuse"))
return [first, await error_of(read("broken", after=1, how="wait"))]
""",
    )
    eventually(lambda: wire.sockets.service.in_flight == 1)
    eventually(lambda: wire.actor.waiting)
    wire.sockets.close()
    assert running.get(timeout=PATIENCE_S * 2) == [["RateLimited", "no"], ["ConnectionFailed", "unknown"]]


def test_in_a_process_that_gevent_patched_it_works_and_stays_cooperative(wire: Wire) -> None:
    found = run_unpatched(
        """
        from gevent import monkey
        monkey.patch_all()
        import asyncio, json, sys, gevent
        import regrow.aio

        ticks = 0
        def tick():
            global ticks
            while True:
                ticks += 1
                gevent.sleep(0.001)

        async def main():
            async with regrow.aio.connect(sys.argv[1]) as client:
                sums = await asyncio.gather(*(client.ask("probe", "add", a=n) for n in range(20)))
                parts = [part async for part in client.stream("probe", "numbers", to=20, credit=3)]
                before = ticks
                try:
                    await client.ask("probe", "wait", timeout=0.2)
                except regrow.DeadlineExceeded:
                    pass
                return [sums, parts, ticks > before]

        ticker = gevent.spawn(tick)
        print(json.dumps(gevent.spawn(asyncio.run, main()).get()))
        ticker.kill()
        """,
        wire.tcp,
    )
    assert found == [[n + 1 for n in range(20)], list(range(20)), True]
