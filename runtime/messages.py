"""The messages that the machine itself understands; everything else goes to `on_receive`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Call:
    """A call of an exported method: its name and its arguments by name, already checked by the sender's edge."""

    __slots__ = ("args", "method")

    def __init__(self, method: str, args: Mapping[str, Any]) -> None:
        self.method = method
        self.args = args

    def __repr__(self) -> str:
        return f"<Call {self.method}({', '.join(self.args)})>"


class WithHeader:
    """A result with keys for the REPLY's header; `Ref.call` gives its value alone."""

    __slots__ = ("header", "value")

    def __init__(self, value: Any, header: dict[str, Any]) -> None:
        self.value = value
        self.header = header

    def __repr__(self) -> str:
        return f"<WithHeader {type(self.value).__name__} {sorted(self.header)}>"
