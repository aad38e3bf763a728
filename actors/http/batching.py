"""How the calls of many callers become one request, and its answer theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from actors.http.body import excerpt
from actors.http.selection import Selection
from actors.http.template import encode_json
from actors.resilience.batcher import Item, Split, alike, each
from regrow.protocol.errors import DecodeError, UpstreamError

# The argument under which the front gives all items to the operation.
ITEMS = "items"


@dataclass(frozen=True, slots=True)
class Batching:
    """When a batch goes, what its body is, and whose the answer is."""

    max_size: int
    max_delay_s: float
    max_bytes: int
    queue: int
    into: str | None
    answers: Literal["each", "all"]
    error: Selection | None

    def item(self, args: Mapping[str, Any]) -> Item:
        """Return what one call puts into a batch; raises InvalidArguments, for this caller alone. Never switches."""
        text = encode_json(args)
        return Item(msgspec.Raw(text), len(text))

    def body(self, items: Sequence[Any]) -> object:
        """Return the body of the one request. Never switches."""
        return items if self.into is None else {self.into: items}

    def split(self, doing: str, host: str) -> Split:
        """Return how its answer is split among the callers. Never switches."""
        if self.answers == "all":
            return alike

        def split(answer: Any, count: int) -> Sequence[Any]:
            try:
                return [self._own(found, doing, host) for found in each(answer, count)]
            except DecodeError as error:
                raise DecodeError(f"{doing}: {error.message}", started="yes") from None

        return split

    def _own(self, found: Any, doing: str, host: str) -> Any:
        if self.error is None:
            return found
        try:
            refused = self.error.of(found, doing)
        except DecodeError:
            return found
        if refused is None:
            return found
        return UpstreamError(
            f"{doing}: {host} refused this item of a batch",
            body=excerpt(encode_json(refused), "application/json"),
            started="yes",
            retryable=False,
        )
