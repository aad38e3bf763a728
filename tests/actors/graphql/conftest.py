"""A configured GraphQL API as the daemon runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.integrations import graphql
from tests.actors.rest.conftest import ONCE, Api, Start
from tests.support.http_peer import HttpPeer

REPOS = """
query UserRepos($login: String!, $first: Int = 10) {
  user(login: $login) { repositories(first: $first) { nodes { name stargazerCount } } }
}
"""
STAR = "mutation Star($id: ID!) { addStar(input: {starrableId: $id}) { starrable { stargazerCount } } }"
OPERATIONS: dict[str, Any] = {"get_user_repos": {"query": REPOS}, "star": {"query": STAR}}


@pytest.fixture
def graph(http_peer: HttpPeer, tmp_path: Path) -> Iterator[Start]:
    """Starts an API at the test's peer; keywords replace keys of its table."""
    started: list[Api] = []

    def start(name: str = "graph", *, redis_url: str | None = None, **table: Any) -> Api:
        whole = {"base_url": http_peer.url + "/graphql", "operations": OPERATIONS, "retry": ONCE, **table}
        started.append(Api(name, whole, tmp_path, redis_url, graphql.INTEGRATION))
        return started[-1]

    yield start
    for each in reversed(started):
        each.supervisor.stop()
