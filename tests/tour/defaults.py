"""The README's table of defaults, and the same table as the code has it."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from actors.http.tables import HttpBreaker, Idempotency
from actors.integrations.rest import BatchTable, OperationTable, Rest
from actors.resilience.policy import RatePolicy, RetryPolicy
from config.schema import Duration, Size, Supervised
from tests.tour.readme import section

TITLE = "Reference: a call to an API"

#: the tables whose keys steer a call, by how a key of theirs begins
TABLES: dict[str, type[msgspec.Struct]] = {
    "": Rest,
    "retry.": RetryPolicy,
    "breaker.": HttpBreaker,
    "rate_limit.": RatePolicy,
    "idempotency.": Idempotency,
    "operations.NAME.": OperationTable,
    "operations.NAME.batch.": BatchTable,
}
#: what says where and who the peer is and what is asked of it, and the tables themselves
NOT_OF_THE_PIPELINE = {
    "auth", "base_url", "headers", "idempotency", "operations", "proxy", "reply_headers", "s3", "storage", "tls",
    "breaker", "retry",
    *(f"operations.NAME.{key}" for key in ("body", "content_type", "doc", "headers", "params", "query", "request")),
    *(f"operations.NAME.{key}" for key in ("paginate", "select")),
}  # fmt: skip


def written(default: Any) -> str:
    """A default as it is written in a configuration; a dash where there is none."""
    if default is msgspec.NODEFAULT:
        return "needed"
    if default is None or default == []:
        return "-"
    if isinstance(default, Duration | Size):
        return f"`{default}`"
    return f"`{default!s}`" if not isinstance(default, bool) else f"`{str(default).lower()}`"


def in_code() -> dict[str, str]:
    """Every key of the pipeline with its default."""
    of_the_actor = {field.name for field in msgspec.structs.fields(Supervised)}
    found: dict[str, str] = {}
    for prefix, table in TABLES.items():
        for field in msgspec.structs.fields(table):
            if prefix + field.name in NOT_OF_THE_PIPELINE or (not prefix and field.name in of_the_actor):
                continue
            made = field.default_factory is not msgspec.NODEFAULT
            found[prefix + field.name] = written(field.default_factory() if made else field.default)
    return found


def in_readme() -> dict[str, str]:
    """The rows of the table: key and default."""
    rows = re.search(r"<!-- defaults -->\n(.*?)<!-- /defaults -->", section(TITLE), re.DOTALL)
    assert rows is not None, "README.md has no table of defaults"
    return dict(re.findall(r"^\| `([^`]+)` \| ([^|]+?) \|", rows[1], re.MULTILINE))
