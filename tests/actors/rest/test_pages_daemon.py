"""Pages and storage calls of an API inside a real daemon, over the wire."""

from __future__ import annotations

import regrow
from tests.support.fixtures import StartDaemon
from tests.support.http_peer import HttpPeer, Reply
from tests.support.http_peer import Request as Arrived


def config(url: str) -> str:
    return f"""
[daemon]
name = "orders"
[integrations.api]
type = "rest"
base_url = "{url}"
storage = {{ path = "/data/{{partition}}" }}
[integrations.api.operations.list]
request = "GET /issues"
paginate = "link"
[integrations.graph]
type = "graphql"
base_url = "{url}/graphql"
[integrations.graph.operations.whoami]
query = "{{ viewer {{ login }} }}"
select = "viewer.login"
"""


def test_a_client_reads_pages_as_a_stream_and_uses_the_storage(daemon: StartDaemon, http_peer: HttpPeer) -> None:
    def pages(request: Arrived) -> Reply:
        page = int(request.query.get("page", "1"))
        link = {"Link": f'</issues?page={page + 1}>; rel="next"'} if page < 3 else {}
        return Reply(json=[page * 10 + item for item in range(5)], headers=link)

    http_peer.reply("GET /issues", handler=pages)
    http_peer.reply("GET /data/2025-01-15", json={"data": [1, 2, 3]})
    http_peer.reply("POST /graphql", json={"data": {"viewer": {"login": "ada"}}})
    running = daemon(config(http_peer.url))
    with regrow.connect(running.endpoint, timeout=10.0) as client:
        assert list(client.stream("api", "list")) == [page * 10 + item for page in (1, 2, 3) for item in range(5)]
        assert client.ask("api", "load", {"asset": "numbers", "partition": "2025-01-15"}) == {"data": [1, 2, 3]}
        assert client.ask("api", "exists", {"asset": "numbers", "partition": "nowhere"}) is False
        assert client.ask("graph", "whoami") == "ada"
    assert http_peer.count("GET /issues") == 3
