"""`python graphql_strawberry.py PORT`: strawberry behind its Flask view; runs in the environment of `make peers`."""

import sys

import flask
import strawberry
from strawberry.flask.views import GraphQLView


@strawberry.type
class Repository:
    name: str
    stargazer_count: int


@strawberry.type
class Repositories:
    nodes: list[Repository]


@strawberry.type
class User:
    login: str

    @strawberry.field
    def email(self) -> str | None:
        raise PermissionError("no access to the email")

    @strawberry.field
    def repositories(self, first: int = 10) -> Repositories:
        return Repositories(nodes=[Repository(name=f"repo-{n}", stargazer_count=n) for n in range(first)])


@strawberry.type
class Query:
    @strawberry.field
    def user(self, login: str) -> User:
        return User(login=login)

    @strawberry.field
    def broken(self) -> str | None:
        raise RuntimeError("a resolver failed")


@strawberry.type
class Mutation:
    @strawberry.mutation
    def star(self, id: strawberry.ID) -> int:
        return len(id)


app = flask.Flask("peer")
app.add_url_rule(
    "/", view_func=GraphQLView.as_view("graphql", schema=strawberry.Schema(query=Query, mutation=Mutation))
)
app.run("127.0.0.1", int(sys.argv[1]), threaded=True)
