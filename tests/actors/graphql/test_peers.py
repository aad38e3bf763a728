"""Two servers that nobody here wrote: statuses and content types differ between them, what an answer means does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from regrow.protocol.errors import UpstreamError
from tests.actors.graphql.conftest import REPOS
from tests.actors.rest.conftest import Api, Start
from tests.support.peers import Foreign, needs_peers, program

pytestmark = [
    needs_peers,
    # The server is the module's, and so are its process and the reader of its output.
    pytest.mark.allow_leaks("process", "greenlet", "socket"),
]

OPERATIONS = {
    "repos": {"query": REPOS, "select": "user.repositories.nodes"},
    "email": {"query": "query($login: String!) { user(login: $login) { login email } }"},
    "broken": {"query": "{ broken }", "partial": "fail"},
    "unknown": {"query": "{ nobodyKnowsThis }"},
    "star": {"query": "mutation($id: ID!) { star(id: $id) }", "select": "star"},
}


@pytest.fixture(scope="module", params=["ariadne", "strawberry"])
def server(request: pytest.FixtureRequest) -> Iterator[Foreign]:
    with Foreign(program(f"graphql_{request.param}.py"), "{port}") as running:
        yield running


@pytest.fixture
def made(graph: Start, server: Foreign) -> Api:
    return graph(base_url=server.url + "/", operations=OPERATIONS)


def test_variables_arrive_and_data_comes_back(made: Api) -> None:
    assert made.call("repos", login="ada", first=2) == [
        {"name": "repo-0", "stargazerCount": 0},
        {"name": "repo-1", "stargazerCount": 1},
    ]
    assert len(made.call("repos", login="ada")) == 10


def test_a_mutation_is_a_call_like_any_other(made: Api) -> None:
    assert made.call("star", id="abc") == 3


def test_a_field_that_failed_leaves_the_rest_of_the_data(made: Api) -> None:
    answer = made.full("email", login="ada")
    assert answer.value == {"user": {"login": "ada", "email": None}}
    assert answer.header["errors"][0]["path"] == ["user", "email"]


def test_a_failed_resolver_can_be_a_failure(made: Api) -> None:
    with pytest.raises(UpstreamError, match="a resolver failed"):
        made.call("broken")


def test_a_query_that_the_schema_does_not_know_is_refused_whatever_the_status(made: Api) -> None:
    with pytest.raises(UpstreamError) as caught:
        made.call("unknown")
    assert (caught.value.retryable, caught.value.started) == (False, "yes")
    assert "nobodyKnowsThis" in str(caught.value.body)
