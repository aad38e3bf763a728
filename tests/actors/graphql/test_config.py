"""What is checked when the configuration is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.integrations.graphql import GraphQL
from config.errors import ConfigErrors
from config.load import load_table
from tests.actors.graphql.conftest import OPERATIONS, REPOS, STAR

SCHEMA = """
type Query { user(login: String!): User }
type User { repositories(first: Int): Repositories }
type Repositories { nodes: [Repository] }
type Repository { name: String, stargazerCount: Int }
"""


def load(folder: Path, operation: dict[str, Any], **keys: Any) -> GraphQL:
    whole = {"base_url": "https://api.github.com/graphql", "operations": {"x": operation}, **keys}
    return load_table(GraphQL, whole, folder, environ={})


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        ({"query": "{ user "}, "is no valid GraphQL"),
        ({"query": "query A { a } query B { b }"}, "holds 2 operations"),
        ({"query": "fragment F on User { a }"}, "holds 0 operations"),
        ({"query": "subscription { a }"}, "is a subscription"),
        ({"query": "query($a: Int) { b }"}, "'$a' is never used"),
        ({"query": "{ b(x: $a) }"}, "'$a' is not defined"),
        ({"query": "{ ...F }"}, "Unknown fragment"),
        ({"query": REPOS, "variables": {"logn": "string"}}, "the query has no $logn, it has: first, login"),
        ({"query": REPOS, "variables": {"login": "integer"}}, "is integer, and the query says String!"),
        ({"query": STAR, "cache": "5m"}, "only answers of queries are kept"),
        ({"query": REPOS, "stale_while_revalidate": "5m"}, "are not kept"),
        ({"query": STAR, "fallback": "cache"}, "only answers of queries are kept"),
        ({"query": REPOS, "repeatable": True}, "may be repeated anyway"),
        ({"query": REPOS, "select": "a."}, "empty step"),
    ],
)
def test_a_mistake_in_an_operation_is_named(tmp_path: Path, operation: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(tmp_path, operation)
    assert said in "\n".join(str(error) for error in caught.value.errors)


def test_with_a_schema_every_field_is_checked(tmp_path: Path) -> None:
    (tmp_path / "schema.graphql").write_text(SCHEMA)
    assert load(tmp_path, OPERATIONS["get_user_repos"], schema="schema.graphql").schema is not None
    with pytest.raises(ConfigErrors) as caught:
        load(tmp_path, {"query": '{ user(login: "a") { nme } }'}, schema="schema.graphql")
    assert "Cannot query field 'nme' on type 'User'" in str(caught.value.errors[0])


@pytest.mark.parametrize(("text", "said"), [(None, "cannot be read"), ("type {", "the schema is not valid")])
def test_a_schema_that_is_none_is_named(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "schema.graphql").write_text(text)
    with pytest.raises(ConfigErrors) as caught:
        load(tmp_path, OPERATIONS["star"], schema="schema.graphql")
    assert said in "\n".join(str(error) for error in caught.value.errors)
