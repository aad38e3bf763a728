"""One value through a cache actor: found, waited for, or made and kept; runs in the actor that wants it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import msgspec

from actors.resilience.cache import Keep, LetGo, Lookup
from actors.resilience.classify import means_unavailable
from actors.resilience.guarded import ask_part, tell_part
from actors.resilience.shared_shelf import LEASE_S
from actors.resilience.shelf import Kept
from regrow.protocol.errors import RegrowError, Unavailable
from runtime import clock

T = TypeVar("T")


def cached(
    cache: str,
    key: str,
    make: Callable[[], T],
    *,
    fresh_s: float,
    deadline: float,
    stale_s: float = 0.0,
    group: str = "",
) -> T:
    """Return what the cache actor of that name has for `key`, else what `make` returns, kept for `fresh_s` seconds.

    Of all who want it at once, in all daemons that share the cache, one makes it and the others wait for that. While it
    cannot be had (`classify.means_unavailable`), an older one stands in for `stale_s` seconds more; any other error of
    `make` passes through. Values are those of msgpack; one that was kept has lists for tuples. A cache that is not
    there is as good as an empty one. `deadline` is on the scale of `clock.now()`. Switches greenlets.
    """
    kept = _look_up(cache, key, deadline)
    if kept is not None and kept.fresh(clock.now()):
        return cast(T, _value(kept))
    asked_at = clock.now()
    try:
        value = make()
        content = msgspec.msgpack.encode(value)
    except BaseException as error:
        tell_part(cache, LetGo(key))
        stands_in = kept is not None and clock.now() < kept.stale_until
        if stands_in and kept is not None and isinstance(error, RegrowError) and means_unavailable(error):
            return cast(T, _value(kept))
        raise
    tell_part(cache, Keep(key, content, fresh_s, stale_s, group=group, took_s=clock.now() - asked_at))
    return value


def _look_up(cache: str, key: str, deadline: float) -> Kept | None:
    # Half of the time is left for making it.
    wait_s = min(LEASE_S, max(0.0, deadline - clock.now()) / 2)
    try:
        found: Kept | None = ask_part(cache, Lookup(key, wait_s, among="callers"), deadline)
    except Unavailable:
        return None
    return found


def _value(kept: Kept) -> Any:
    return msgspec.msgpack.decode(kept.content)
