"""`python graphql_ariadne.py PORT`: ariadne's own WSGI application; runs in the environment of `make peers`."""

import sys
from wsgiref.simple_server import make_server

from ariadne import MutationType, ObjectType, QueryType, gql, make_executable_schema
from ariadne.wsgi import GraphQL

TYPES = gql("""
type Query { user(login: String!): User, broken: String }
type User { login: String!, email: String, repositories(first: Int = 10): Repositories! }
type Repositories { nodes: [Repository!]! }
type Repository { name: String!, stargazerCount: Int! }
type Mutation { star(id: ID!): Int! }
""")
query, user, mutation = QueryType(), ObjectType("User"), MutationType()


@query.field("user")
def one(_: object, info: object, login: str) -> dict[str, str]:
    return {"login": login}


@query.field("broken")
def broken(*_: object) -> str:
    raise RuntimeError("a resolver failed")


@user.field("email")
def email(*_: object) -> str:
    raise PermissionError("no access to the email")


@user.field("repositories")
def repositories(_: object, info: object, first: int) -> dict[str, object]:
    return {"nodes": [{"name": f"repo-{number}", "stargazerCount": number} for number in range(first)]}


@mutation.field("star")
def star(_: object, info: object, id: str) -> int:
    return len(id)


make_server(
    "127.0.0.1", int(sys.argv[1]), GraphQL(make_executable_schema(TYPES, query, user, mutation))
).serve_forever()
