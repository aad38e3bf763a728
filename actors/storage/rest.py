"""A storage behind an HTTP API: each call of the contract is one request to a path made of asset and partition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from msgspec import Meta

from actors.http.body import Format
from actors.http.operation import Operation
from actors.http.template import Filled, Template
from config.schema import Problem, Table
from runtime.exports import Exported

PLACES = frozenset({"asset", "partition"})
LOADED, STORED = frozenset({200, 203, 204}), frozenset({200, 201, 204})
EXISTING, DELETED = frozenset({200, 203, 204}), frozenset({200, 202, 204})


class RestStorage(Table, frozen=True, kw_only=True):
    """Where the data of an asset's partition is: GET loads it, HEAD tells whether it is there, DELETE removes it."""

    path: Annotated[str, Meta(min_length=1, pattern="^/")] = "/{asset}/{partition}"
    """The path with places for {asset} and {partition}."""
    store_path: Annotated[str, Meta(min_length=1, pattern="^/")] | None = None
    """The path that store sends to; absent: the same one."""
    store_method: Literal["POST", "PUT"] = "POST"
    """How store sends: PUT may be retried, POST only with an idempotency key."""
    exists_method: Literal["HEAD", "GET"] = "HEAD"
    """How exists asks: GET for APIs that know no HEAD."""
    format: Format = "auto"
    """What a loaded body is: json, text or bytes whatever the peer says; auto believes its Content-Type."""

    def __post_init__(self) -> None:
        for key in ("path", "store_path"):
            path = getattr(self, key)
            if path is None:
                continue
            try:
                template = Template(f"GET {path}")
            except ValueError as error:
                raise Problem(str(error), key=key) from None
            strangers = sorted(set(template.places) - PLACES)
            if strangers:
                raise Problem(f"{{{strangers[0]}}} is no place here: asset and partition are", key=key)


def operations(table: RestStorage, exports: Mapping[str, Exported], timeout_s: float) -> dict[str, Operation]:
    """Return the operations that the contract's calls are. Never switches."""

    def made(name: str, method: str, path: str, accepts: frozenset[int], **more: object) -> Operation:
        template = Template(f"{method} {path}")

        def fill(args: dict[str, Any]) -> Filled:
            # What no place takes is not sent: an API without assets has no word for them.
            filled = template.fill({place: args[place] for place in template.places})
            return replace(filled, rest={"data": args["data"]} if "data" in args else {})

        return Operation(
            name=name,
            template=template,
            fill_with=fill,
            exported=exports[name],
            query_also=frozenset(),
            fresh_s=0.0,
            stale_s=0.0,
            timeout_s=timeout_s,
            format=table.format,
            fallback=None,
            repeatable=method != "POST",
            keyed=method == "POST",
            reads=method in {"GET", "HEAD"},
            accepts=accepts,
            **more,  # type: ignore[arg-type]
        )

    store_path = table.store_path or table.path
    return {
        "load": made("load", "GET", table.path, LOADED, missing="not_found"),
        "store": made("store", table.store_method, store_path, STORED, whole_body="data", returns="nothing"),
        "exists": made("exists", table.exists_method, table.path, EXISTING, missing="false", returns="true"),
        "delete": made("delete", "DELETE", table.path, DELETED, missing="nothing", returns="nothing"),
    }
