"""The path of a request: frames, registry, mailbox, limiter, breaker, worker, peer, and back."""

from __future__ import annotations

from collections.abc import Callable

import gevent

from runtime.names import whereis
from tests.edge.gateway.harness import Raw
from tests.flows.conftest import Served
from tests.flows.spies import Spies, functions_of, table
from tests.support.http_peer import HttpPeer

PEER = """
[integrations.github]
type = "rest"
base_url = "{url}"
concurrency = 1
rate_limit = {{ requests = 5, window = "1h" }}
[integrations.github.operations.get_user]
request = "GET /users/{{username}}"
"""


def test_a_request_goes_through_the_rows_of_the_table_in_their_order(
    spies: Spies, serve: Callable[[str], Served], raw: Callable[[str], Raw], http_peer: HttpPeer
) -> None:
    rows = functions_of(table("A request:"))
    for function in rows:
        spies.watch(function)
    http_peer.reply("GET /users/ada", json={"login": "ada"}, close=True)
    served = serve(PEER.format(url=http_peer.url))
    client = raw(served.endpoint)
    client.request("PING")
    client.receive()
    spies.forget()
    client.ask("get_user", {"username": "ada"}, to="github")
    assert client.reply() == {"login": "ada"}
    assert [function for function in spies.first_calls() if function in rows] == rows
    assert http_peer.count("GET /users/ada") == 1
    assert whereis("github") is not None


CALLED = """
[integrations.github]
type = "rest"
base_url = "{url}"
auth = {{ oauth2 = {{ token_url = "{url}/token", client_id = "me", client_secret = "secret-of-the-flow" }} }}
retry = {{ base = "1ms", max = "1ms" }}
cache = "1ms"
fallback = "cache"
[integrations.github.operations.get_user]
request = "GET /users/{{username}}"
"""


def test_a_call_to_an_api_goes_through_the_steps_of_the_reference_in_their_order(
    spies: Spies, serve: Callable[[str], Served], raw: Callable[[str], Raw], http_peer: HttpPeer
) -> None:
    rows = functions_of(table("The order:", "Reference: a call to an API"))
    for function in rows:
        spies.watch(function)
    http_peer.reply("POST /token", json={"access_token": "t", "expires_in": 3600})
    http_peer.reply("GET /users/ada", json={"login": "ada"})
    http_peer.reply("GET /users/ada", status=503, times=1)
    served = serve(CALLED.format(url=http_peer.url))
    client = raw(served.endpoint)
    # The first try fails and the second one is kept; then the peer is gone, and what was kept stands in.
    client.ask("get_user", {"username": "ada"}, to="github")
    assert client.reply() == {"login": "ada"}
    http_peer.stop()
    gevent.sleep(0.01)  # until what is kept is no longer fresh
    client.ask("get_user", {"username": "ada"}, to="github")
    assert client.reply() == {"login": "ada"}
    assert [function for function in spies.first_calls() if function in rows] == rows
