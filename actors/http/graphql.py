"""GraphQL over HTTP: what a text asks for, what is sent, and what an answer means.

A text is parsed, and with a schema checked, by graphql-core. An answer of the type application/graphql-response+json is
judged by its body whatever its status; one of application/json by its body when its status is 2xx.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import msgspec

from actors.http import fields
from actors.http.body import EXCERPT_BYTES, decode
from actors.http.client import Response
from actors.http.operation import Verdict
from actors.http.selection import Selection
from actors.http.template import encode_json
from actors.resilience.normaliser import of_graphql
from config.secret import redact
from regrow.protocol.errors import DecodeError

ACCEPT = "application/graphql-response+json, application/json;q=0.9"
NEEDS_GRAPHQL_CORE = "needs the package graphql-core: install regrow[graphql]"
MAX_ERRORS = 20
MAX_ERROR_CHARS = 500
MAX_DEPTH = 200

_SCALARS: dict[str, tuple[Any, frozenset[str]]] = {
    "String": (str, frozenset({"string"})),
    "ID": (str | int, frozenset({"string", "integer"})),
    "Int": (int, frozenset({"integer"})),
    "Float": (float, frozenset({"number", "integer"})),
    "Boolean": (bool, frozenset({"boolean"})),
}


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable of a text."""

    written: str
    python: Any
    types: frozenset[str] | None
    """The configuration's words for its type; None when any will do (enums and input objects)."""
    non_null: bool
    required: bool


@dataclass(frozen=True, slots=True)
class Document:
    """What a text asks for."""

    kind: str
    name: str | None
    variables: Mapping[str, Variable]

    @property
    def is_mutation(self) -> bool:
        """True when it changes something. Never switches."""
        return self.kind == "mutation"


def has_graphql_core() -> bool:
    """Tell whether the parser is installed. Never switches."""
    try:
        import graphql  # noqa: F401
    except ImportError:
        return False
    return True


@lru_cache(maxsize=8)
def _schema(text: str) -> Any:
    import graphql

    try:
        return graphql.build_schema(text)
    except (graphql.GraphQLError, TypeError) as error:
        raise ValueError(f"the schema is not valid: {_line(error)}") from None


@lru_cache(maxsize=1024)
def parse(text: str, schema: str | None) -> Document:
    """Return what a text asks for; raises ValueError naming what is wrong, and where. Never switches."""
    import graphql

    try:
        tree = graphql.parse(text, no_location=False, max_tokens=100_000)
    except graphql.GraphQLError as error:
        raise ValueError(f"is no valid GraphQL: {_line(error)}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    found = [each for each in tree.definitions if isinstance(each, graphql.OperationDefinitionNode)]
    if len(found) != 1:
        raise ValueError(f"holds {len(found)} operations: write one query or mutation for each operation")
    (node,) = found
    kind = node.operation.value
    if kind == "subscription":
        raise ValueError("is a subscription, which takes more than a request and an answer")
    if schema is not None:
        errors = graphql.validate(_schema(schema), tree, max_errors=3)
    else:
        errors = graphql.validate(graphql.GraphQLSchema(assume_valid=True), tree, _rules_without_schema())
    if errors:
        raise ValueError("; ".join(_line(error) for error in errors))
    variables = {each.variable.name.value: _variable(each) for each in node.variable_definitions or ()}
    return Document(kind, None if node.name is None else node.name.value, variables)


def _rules_without_schema() -> list[Any]:
    """The rules of the specification that need no schema."""
    import graphql

    return [
        graphql.LoneAnonymousOperationRule,
        graphql.KnownFragmentNamesRule,
        graphql.NoFragmentCyclesRule,
        graphql.NoUndefinedVariablesRule,
        graphql.NoUnusedFragmentsRule,
        graphql.NoUnusedVariablesRule,
        graphql.UniqueArgumentNamesRule,
        graphql.UniqueFragmentNamesRule,
        graphql.UniqueInputFieldNamesRule,
        graphql.UniqueOperationNamesRule,
        graphql.UniqueVariableNamesRule,
    ]


def _line(error: Any) -> str:
    places = getattr(error, "locations", None) or ()
    where = f" (line {places[0].line}, column {places[0].column})" if places else ""
    return f"{getattr(error, 'message', str(error)).rstrip('.')}{where}"


def _variable(node: Any) -> Variable:
    import graphql

    non_null = isinstance(node.type, graphql.NonNullTypeNode)
    inner = node.type.type if non_null else node.type
    written = graphql.print_ast(node.type)
    python: Any
    types: frozenset[str] | None
    if isinstance(inner, graphql.ListTypeNode):
        python, types = list[Any], frozenset({"array"})
    else:
        # What is no built-in scalar is an enum, an input object or a scalar of the API's own.
        python, types = _SCALARS.get(inner.name.value, (Any, None))
    return Variable(written, python, types, non_null, non_null and node.default_value is None)


def body_of(text: str, document: Document, variables: Mapping[str, Any]) -> tuple[bytes, str]:
    """Return what is sent; raises InvalidArguments. Never switches."""
    body: dict[str, Any] = {"query": text, "variables": dict(variables)}
    if document.name is not None:
        body["operationName"] = document.name
    return encode_json(body), "application/json"


def judge(
    partial: Literal["return", "fail"], select: Selection | None
) -> Callable[[Response, fields.Limits, str], Verdict | None]:
    """Return what says what an answer means; it raises UpstreamError, RateLimited and DecodeError. Never switches."""

    def judged(response: Response, limits: fields.Limits, doing: str) -> Verdict | None:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/graphql-response+json" and not 200 <= response.status < 300:
            # Only the status counts here; the body goes with the error.
            return None
        if response.status == 429 or response.status >= 500:
            return None
        body = decode(response.body, "application/json", 200, doing=doing, expected="json")
        if not isinstance(body, Mapping) or not ("data" in body or "errors" in body):
            raise DecodeError(
                f"{doing}: the answer has neither data nor errors, so it is not one of GraphQL",
                details={"status": response.status},
            )
        data, errors = body.get("data"), body.get("errors")
        if not errors:
            if data is None:
                raise DecodeError(
                    f"{doing}: the answer has neither data nor errors", details={"status": response.status}
                )
            return Verdict(data if select is None else select.of(data, doing), {}, complete=True)
        told = _told(errors)
        if data is None or partial == "fail":
            wait_s = limits.retry_after_s if limits.retry_after_s is not None else limits.reset_s
            raise of_graphql(told, response.status, doing=doing, wait_s=wait_s)
        return Verdict(data if select is None else select.of(data, doing), {"errors": told}, complete=False)

    return judged


def _told(errors: Any) -> list[Any]:
    """Errors as callers see them: so many, so long, and without secrets."""
    found: list[Any] = []
    for error in errors if isinstance(errors, list) else [errors]:
        if not isinstance(error, Mapping):
            found.append({"message": redact(str(error))[:MAX_ERROR_CHARS]})
        else:
            found.append(_one(error))
        if len(found) >= MAX_ERRORS:
            break
    return found


def _one(error: Mapping[str, Any]) -> dict[str, Any]:
    extensions = error.get("extensions")
    told: dict[str, Any] = {"message": redact(str(error.get("message", "")))[:MAX_ERROR_CHARS]}
    path = error.get("path")
    if isinstance(path, list):
        told["path"] = [step for step in path[:MAX_DEPTH] if isinstance(step, str | int)]
    for key, value in (
        ("code", extensions.get("code") if isinstance(extensions, Mapping) else None),
        ("type", error.get("type")),
    ):
        if isinstance(value, str):
            told[key] = redact(value)[:100]
    if len(msgspec.json.encode(told)) > EXCERPT_BYTES:
        told.pop("path", None)
    return told
