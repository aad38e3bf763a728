"""Rights: which targets and methods one client may reach."""

from __future__ import annotations

from collections.abc import Iterable


class Rights:
    """What one client key may reach; nothing unless listed: "*", "github", "github.*" or "github.get_user"."""

    __slots__ = ("_methods", "_seen", "_targets", "are_all")

    def __init__(self, allow: Iterable[str]) -> None:
        self.are_all = False
        self._targets: set[str] = set()
        self._methods: set[tuple[str, str]] = set()
        for pattern in allow:
            target, _, method = pattern.partition(".")
            if target == "*":
                self.are_all = True
            elif method in ("", "*"):
                self._targets.add(target)
            else:
                self._methods.add((target, method))
        self._seen = self._targets | {target for target, _ in self._methods}

    @property
    def are_none(self) -> bool:
        """Whether nothing at all may be reached."""
        return not (self.are_all or self._seen)

    def may(self, target: str, method: str) -> bool:
        """Tell whether this method of this target may be called. Never switches."""
        return self.are_all or target in self._targets or (target, method) in self._methods

    def sees(self, target: str) -> bool:
        """Tell whether any method of this target may be called. Never switches."""
        return self.are_all or target in self._seen

    def __repr__(self) -> str:
        if self.are_all:
            return "<Rights to everything>"
        return f"<Rights to {len(self._targets)} targets and {len(self._methods)} methods>"


EVERYTHING = Rights(["*"])
