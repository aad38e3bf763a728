"""What of a decoded response an operation returns: the part that a dotted path names."""

from __future__ import annotations

from collections.abc import Mapping

from regrow.protocol.errors import DecodeError


class Selection:
    """`data.items` or `results.0.name`: keys of objects and positions in lists; raises ValueError for an empty step."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._steps = path.split(".")
        if not all(self._steps):
            raise ValueError(f"{path!r} has an empty step: write keys and positions with single dots between them")

    def __repr__(self) -> str:
        return f"<Selection {self.path}>"

    def of(self, value: object, doing: str) -> object:
        """Return the part of the value; raises DecodeError naming the step that is not there. Never switches."""
        found = value
        for number, step in enumerate(self._steps):
            if isinstance(found, Mapping) and step in found:
                found = found[step]
            elif isinstance(found, list) and step.isdecimal() and len(step) < 10 and int(step) < len(found):
                found = found[int(step)]
            else:
                at = ".".join(self._steps[: number + 1])
                raise DecodeError(
                    f"{doing}: the answer has no {at!r}, it is {_kind(found)} there",
                    details={"select": self.path, "missing": at},
                )
        return found


def _kind(value: object) -> str:
    if isinstance(value, Mapping):
        return f"an object of {len(value)} keys"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "null" if value is None else f"a value of type {type(value).__name__}"
